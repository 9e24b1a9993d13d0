# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A data set as if some of its items were new, to measure how cold items fare.

python -m rfrec.launch.withhold --config=configs/withhold.py \
  --config.data.name=ml1m --workdir=runs/cold/data

The folder it makes is read as data by every other main, as in
`--config.data.path=runs/cold/data`: leave-one-out never trains or validates on the
withheld items there, and tests on them.
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant, optional
from rfrec.rf import settings as rf_settings


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there is one variant."""
    config = ConfigDict()
    # Of the draw.
    config.seed = 0

    config.data = ConfigDict()
    # Folder with NAME.inter.json; none takes the environment variable RFREC_DATA.
    config.data.path = optional(str)
    # Data set of the folder; none if it holds one.
    config.data.name = optional(str)

    # Share of the items that somebody used.
    config.share = 0.1
    # File of the items' rows, one a line, in place of a draw.
    config.withheld = optional(str)

    config.rf = rf_settings.section()
    choose_variant(variant, {"": lambda config: None})(config)
    return config.lock()
