# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a T5 that generates the codes of the next item of a history.

python -m rfrec.launch.t5 --config=configs/t5.py --workdir=runs/instruments
"""

from rfrec.launch import cli
from rfrec.pipelines.retriever import run as main

if __name__ == "__main__":
    cli.config_main(main, "t5", page=True)
