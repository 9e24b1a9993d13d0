# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a SASRec and evaluates it on the test items.

python -m rfrec.launch.sasrec --config=configs/sasrec.py --workdir=runs/sasrec
"""

from rfrec.launch import cli
from rfrec.pipelines.sasrec import run as main

if __name__ == "__main__":
    cli.config_main(main, "sasrec", page=True)
