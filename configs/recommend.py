# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Ranked items of a trained T5: evaluation of all users, or answers to histories.

python -m rfrec.launch.recommend --config=configs/recommend.py \
  --config.run=runs/instruments --workdir=runs/instruments_test

The test of a run on MovieLens-100K takes about a minute on 2 CPU cores.

Variants, as in `--config=configs/recommend.py:ensemble`:
  (default)  lists of the task that was evaluated in training
  ensemble   text and image lists merged by MQL4GRec's rule, next to each of them
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.pipelines.options import make_config
from rfrec.pipelines.recommend import Options


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = make_config(Options)
    choose_variant(variant, VARIANTS)(config)
    return config.lock()


def _default(config: ConfigDict) -> None:
    del config


def _ensemble(config: ConfigDict) -> None:
    config.ensemble.method = "mql4grec"


VARIANTS = {"": _default, "ensemble": _ensemble}
