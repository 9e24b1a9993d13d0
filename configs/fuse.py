# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Two systems on one list: a graph recommender ranks what a retriever found.

python -m rfrec.launch.fuse --config=configs/fuse.py --workdir=runs/ml1m_fused \
  --config.lists.valid=runs/ml1m_valid --config.lists.test=runs/ml1m_test \
  --config.graph=runs/ml1m_gume

Both trained on the same data, leave-one-out (`--config.data.split=leave_one_out`).
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant, optional
from rfrec.rf import settings as rf_settings


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there is one variant."""
    config = ConfigDict()
    # Of the bootstrap.
    config.seed = 0

    config.lists = ConfigDict()
    # Folder of rfrec.launch.recommend with which=valid, or a file of predictions in its
    # format, by which weights are chosen.
    config.lists.valid = optional(str)
    # The same of the test items.
    config.lists.test = optional(str)

    # Folder of a run of rfrec.launch.gume.
    config.graph = optional(str)
    # Folders of further runs whose test lists are told beside: sasrec, gume, recommend.
    config.beside = ()

    # Length of the lists.
    config.top_k = 20
    # Items of the graph recommender that late fusion looks at.
    config.candidates = 50

    config.eval = ConfigDict()
    # Share of the catalogue whose items are cold, and popular, targets.
    config.eval.cold_share = 0.2
    # Items that training saw fewer times than this are cold; none goes by the share.
    config.eval.cold_below = optional(int)
    # Of the bootstrap intervals.
    config.eval.resamples = 1000

    config.rf = rf_settings.section()
    choose_variant(variant, {"": lambda config: None})(config)
    return config.lock()
