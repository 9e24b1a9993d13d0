# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A data set in which some items are new, to measure how cold items are ranked.

python -m rfrec.launch.withhold --config=configs/withhold.py \
  --config.data.name=ml1m --workdir=runs/cold/data

Every other command reads the new folder as data, for example with
`--config.data.path=runs/cold/data`. Leave-one-out never trains or validates on the
withheld items there, and tests on them. It takes a few seconds. There is one variant.
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.pipelines.cold_data import Options
from rfrec.pipelines.options import make_config

OPTIONS = Options


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there is one variant."""
    config = make_config(OPTIONS)
    choose_variant(variant, {"": lambda config: None})(config)
    return config.lock()
