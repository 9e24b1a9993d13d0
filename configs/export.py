# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The search of a trained T5 as one folder that rfrec.launch.serve answers from.

python -m rfrec.launch.export --config=configs/export.py \
  --config.run=runs/instruments --workdir=artefacts/instruments

Variants: none.
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant, optional
from rfrec.rf import settings as rf_settings


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = ConfigDict()
    # Folder of a run of rfrec.launch.t5.
    config.run = optional(str)
    config.checkpoint = "ndcg@10"  # loss, last
    # One of the run's tasks; none takes the one that it watched. TASK:image picks the
    # direction of a task that has two.
    config.task = optional(str)
    # That the programs can run on: cpu, cuda, rocm, tpu.
    config.platforms = ("cpu", "cuda", "tpu")
    # Further items, as a share of those there are, that a grown catalogue may have
    # without another export.
    config.room = 0.25

    config.data = ConfigDict()
    # None takes what the run's config says.
    config.data.path = optional(str)
    config.data.name = optional(str)
    config.data.text = optional(str)
    config.data.image = optional(str)

    config.search = ConfigDict()
    # Of the search, and the longest list that can be asked for.
    config.search.beams = 20
    # Length of a list where none is asked for.
    config.search.top_k = 10
    # full: as Hugging Face scores; level: renormalised over the legal codes.
    config.search.score = "full"
    # Lengths of history with a program of their own; () takes the run's. The longest
    # is added.
    config.search.buckets = ()

    config.rf = rf_settings.section()
    choose_variant(variant, VARIANTS)(config)
    return config.lock()


def _default(config: ConfigDict) -> None:
    del config


VARIANTS = {"": _default}
