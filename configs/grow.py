# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A catalogue of a tokenizer's items, made once and grown from then on.

python -m rfrec.launch.grow --config=configs/grow.py --config.run=runs/toys \
  --config.data.path=NEW_DATA --config.removed=removed.txt --workdir=catalogues/toys
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant, optional
from rfrec.rf import settings as rf_settings


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there is one variant."""
    config = ConfigDict()
    # Folder of the run of rfrec.launch.rqvae whose tokenizer encodes new items.
    config.run = optional(str)
    # The checkpoint that made its codes: collision_rate, loss, last; none takes what
    # the run's config says.
    config.checkpoint = optional(str)
    # A file of items to take out, one row number a line.
    config.removed = optional(str)
    # Name of what made the vectors, noted and held against later ones.
    config.encoder = optional(str)
    # Folder of the run of rfrec.launch.t5 that is to name these items.
    config.t5 = optional(str)
    config.t5_checkpoint = "ndcg@10"  # loss, last

    config.data = ConfigDict()
    # Folder of NAME.<feature>.npy, all known rows and new items behind them; none adds
    # no item.
    config.data.path = optional(str)
    # One of the run's data sets, if it has several.
    config.data.name = optional(str)

    config.rf = rf_settings.section()
    choose_variant(variant, {"": lambda config: None})(config)
    return config.lock()
