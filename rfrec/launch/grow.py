# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds a catalogue of a tokenizer's items, adds new items to it and removes others.

python -m rfrec.launch.grow --config=configs/grow.py --config.run=runs/toys \
  --config.data.path=NEW_DATA --config.removed=removed.txt --workdir=catalogues/toys

New items are rows behind the known ones. The tokenizer is not changed: new items get
free codes, and no assigned code changes.
"""

from rfrec.launch import cli
from rfrec.pipelines.catalogue import run as main

if __name__ == "__main__":
    cli.config_main(main, "grow")
