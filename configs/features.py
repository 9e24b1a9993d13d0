# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Vectors of raw items: texts and pictures through encoders on disk.

python -m rfrec.launch.features --config=configs/features.py --workdir=runs/vectors \
  --config.table.path=items.tsv \
  --config.text.encoder=FOLDER --config.image.encoder=FOLDER

Variants, as in `--config=configs/features.py:mql4grec`:
  (default)  one text of title, brand, categories and description
  mql4grec   MQL4GRec's: the mean of the vectors of title and description (LLaMA-7B),
             and CLIP ViT-L/14 for the picture; texts end at 2,048 tokens, our choice
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant, optional
from rfrec.rf import settings as rf_settings


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = ConfigDict()
    config.table = ConfigDict()
    # Table of the items: .tsv, or .jsonl with an object a line.
    config.table.path = optional(str)
    # NAME of the files that are made; none takes the table's, up to its first dot.
    config.table.name = optional(str)
    # Column that names the items; none names them by their row.
    config.table.id = optional(str)

    config.text = ConfigDict()
    # Folder of a Hugging Face checkpoint; none makes no text vectors.
    config.text.encoder = optional(str)
    # In order, each with one column in braces; without the empty ones.
    config.text.pieces = (
        "{title}.",
        "Brand: {brand}.",
        "Categories: {categories}.",
        "{description}",
    )
    # text: pieces make one text; mean: each is encoded, the vectors are averaged.
    config.text.join = "text"
    # auto: as the checkpoint says, else mean; cls, last
    config.text.pooling = "auto"
    # To length 1; none does as the checkpoint says.
    config.text.normalise = optional(bool)
    # Longest input; none takes the checkpoint's.
    config.text.max_tokens = optional(int)
    config.text.dtype = "float32"  # bfloat16, float16
    config.text.batch_size = 32

    config.image = ConfigDict()
    # Folder of a Hugging Face checkpoint; none makes no image vectors.
    config.image.encoder = optional(str)
    # Column with the picture's file; of a list the first is taken.
    config.image.column = "image"
    # Where they are; none takes the table's folder.
    config.image.folder = optional(str)
    config.image.normalise = False
    config.image.dtype = "float32"  # bfloat16, float16
    config.image.batch_size = 32
    # Threads that decode pictures.
    config.image.workers = 4

    config.out = ConfigDict()
    config.out.dtype = "float32"  # float16

    config.device = "auto"  # cpu, cuda
    config.cache = ConfigDict()
    # Folder of the vectors already made, which runs may share; none is in the workdir.
    config.cache.path = optional(str)
    # The most that a kill loses.
    config.cache.seconds = 30.0

    config.rf = rf_settings.section()
    choose_variant(variant, VARIANTS)(config)
    return config.lock()


def _default(config: ConfigDict) -> None:
    del config


def _mql4grec(config: ConfigDict) -> None:
    config.text.pieces = ("{title}", "{description}")
    config.text.join = "mean"
    config.text.max_tokens = 2048


VARIANTS = {"": _default, "mql4grec": _mql4grec}
