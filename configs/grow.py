# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A catalogue of a tokenizer's items, which can grow and shrink.

python -m rfrec.launch.grow --config=configs/grow.py --config.run=runs/toys \
  --config.data.path=NEW_DATA --config.removed=removed.txt --workdir=catalogues/toys

It writes the next version of the catalogue, in a few seconds on 2 CPU cores: new items
have free codes, and no assigned code changes. There is one variant.
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.pipelines.catalogue import Options
from rfrec.pipelines.options import make_config

OPTIONS = Options


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there is one variant."""
    config = make_config(OPTIONS)
    choose_variant(variant, {"": lambda config: None})(config)
    return config.lock()
