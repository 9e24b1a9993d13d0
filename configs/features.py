# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Vectors of raw items: texts and images through encoders on disk.

python -m rfrec.launch.features --config=configs/features.py --workdir=runs/vectors \
  --config.table.path=items.tsv \
  --config.text.encoder=FOLDER --config.image.encoder=FOLDER

Expected result: NAME.text.npy and NAME.image.npy with one row for each item. The time
depends on the encoders; vectors are cached, and an interrupted run is resumed.

Variants, as in `--config=configs/features.py:mql4grec`:
  (default)  one text of title, brand, categories and description
  mql4grec   as MQL4GRec: the mean of the vectors of title and description (LLaMA-7B),
             and CLIP ViT-L/14 for the image; texts end at 2,048 tokens, our choice
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.pipelines.features import Options
from rfrec.pipelines.options import make_config

OPTIONS = Options


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = make_config(OPTIONS)
    choose_variant(variant, VARIANTS)(config)
    return config.lock()


def _default(config: ConfigDict) -> None:
    del config


def _mql4grec(config: ConfigDict) -> None:
    config.text.pieces = ("{title}", "{description}")
    config.text.join = "mean"
    config.text.max_tokens = 2048


VARIANTS = {"": _default, "mql4grec": _mql4grec}
