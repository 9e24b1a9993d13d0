# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Ranked items of a trained T5: evaluation of all users, or answers to histories.

python -m rfrec.launch.recommend --config=configs/recommend.py \
  --config.run=runs/instruments --workdir=runs/instruments_test

Variants, as in `--config=configs/recommend.py:ensemble`:
  (default)  the lists of the run's first task
  ensemble   text and image lists merged by MQL4GRec's rule, beside each of them
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant, optional
from rfrec.rf import settings as rf_settings


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = ConfigDict()
    # Of sampling and of the bootstrap.
    config.seed = 0
    # Folder of a run of rfrec.launch.t5.
    config.run = optional(str)
    config.checkpoint = "ndcg@10"  # loss, last
    # One of the run's tasks; none takes the one that it watched. TASK:image picks the
    # direction of a task that has two.
    config.task = optional(str)
    # Whose last items are to be found: valid, test.
    config.which = "test"

    config.data = ConfigDict()
    # None takes what the run's config says. What is set may be other data than those
    # it was trained on; text and image may be a grown catalogue's catalogue.json.
    config.data.path = optional(str)
    config.data.name = optional(str)
    config.data.text = optional(str)
    config.data.image = optional(str)

    config.search = ConfigDict()
    config.search.method = "beam"  # sample
    config.search.beams = 20
    # Length of the lists.
    config.search.top_k = 20
    # full: as Hugging Face scores; level: renormalised over the legal codes.
    config.search.score = "full"
    config.search.batch_size = 128
    # Lengths of history with a program of their own; () takes the run's.
    config.search.buckets = ()
    config.search.temperature = 1.0  # sample
    config.search.top_p = 1.0  # sample

    config.filter = ConfigDict()
    # MQL4GRec and TIGER list items of the history too, and so do we by default.
    config.filter.seen = False
    # Files of items, one a line, that alone may be listed, or that must not be.
    config.filter.allow = optional(str)
    config.filter.deny = optional(str)

    config.ensemble = ConfigDict()
    # none, mql4grec, weighted, reciprocal
    config.ensemble.method = "none"
    # The second list; none takes the run's task like the first in the other modality.
    config.ensemble.task = optional(str)
    # Run of the second list, and its checkpoint; none takes the first's.
    config.ensemble.run = optional(str)
    config.ensemble.checkpoint = optional(str)
    # Weight of the first list; none chooses it on validation lists.
    config.ensemble.alpha = optional(float)
    # Users of these, drawn once; 0 takes all.
    config.ensemble.users = 2000

    config.eval = ConfigDict()
    # A .npy file of item vectors, for the diversity within a list; none takes codes.
    config.eval.vectors = optional(str)
    # Share of the catalogue whose items are cold, and popular, targets.
    config.eval.cold_share = 0.2
    # Items that training saw fewer times than this are cold; none goes by the share.
    config.eval.cold_below = optional(int)
    # Of the bootstrap intervals.
    config.eval.resamples = 1000

    config.rf = rf_settings.section()
    choose_variant(variant, VARIANTS)(config)
    return config.lock()


def _default(config: ConfigDict) -> None:
    del config


def _ensemble(config: ConfigDict) -> None:
    config.ensemble.method = "mql4grec"


VARIANTS = {"": _default, "ensemble": _ensemble}
