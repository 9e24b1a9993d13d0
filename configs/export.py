# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The search of a trained T5 as a folder that rfrec.launch.serve answers from.

python -m rfrec.launch.export --config=configs/export.py \
  --config.run=runs/instruments --workdir=artefacts/instruments

Result: one program for each length bucket, and the weights; 1.2 MB for the T5 of
rfrec.launch.t5 on MovieLens-100K. Time: a few seconds for each program.

Variants: none.
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.pipelines.export import Options
from rfrec.pipelines.options import make_config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = make_config(Options)
    choose_variant(variant, VARIANTS)(config)
    return config.lock()


VARIANTS = {"": lambda config: None}
