# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Codes of a trained tokenizer's items, repaired and exported again.

python -m rfrec.launch.codes --workdir=runs/ml100k --config.repair=suffix

It rewrites `codes.json` and the report of the run, in a few seconds on 2 CPU cores.
There is one variant.
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.pipelines.options import make_config
from rfrec.pipelines.tokenizer import Export

OPTIONS = Export


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there is one variant."""
    config = make_config(OPTIONS)
    choose_variant(variant, {"": lambda config: None})(config)
    return config.lock()
