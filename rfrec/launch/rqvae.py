# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a tokenizer and exports unique codes.

python -m rfrec.launch.rqvae --config=configs/rqvae.py --workdir=runs/ml100k
"""

from rfrec.launch import cli
from rfrec.pipelines.tokenizer import run as main

if __name__ == "__main__":
    cli.config_main(main, "rqvae", page=True, flow=True)
