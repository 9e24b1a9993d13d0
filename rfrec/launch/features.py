# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Encodes the texts and images of items to a folder of data for the tokenizer.

python -m rfrec.launch.features --config=configs/features.py --workdir=runs/vectors \
  --config.table.path=items.tsv \
  --config.text.encoder=FOLDER --config.image.encoder=FOLDER

Requires torch, transformers and pillow: `pip install 'rfrec[encoders]'`. Encoders are
read from folders on disk; nothing is downloaded.
"""

import jax

from rfrec.launch import cli
from rfrec.pipelines.features import run as main

if __name__ == "__main__":
    # JAX computes nothing here, but would reserve the GPU memory that torch needs.
    jax.config.update("jax_platforms", "cpu")
    cli.config_main(main, "features")
