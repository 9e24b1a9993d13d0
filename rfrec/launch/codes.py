# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exports the codes of a trained tokenizer again, with another repair or checkpoint.

python -m rfrec.launch.codes --workdir=runs/ml100k --config.repair=suffix
"""

from rfrec.launch import cli
from rfrec.pipelines.tokenizer import export as main

if __name__ == "__main__":
    cli.config_main(main, "codes")
