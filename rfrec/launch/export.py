# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exports the search of a trained T5: programs, weights and catalogue in one folder.

python -m rfrec.launch.export --config=configs/export.py \
  --config.run=runs/instruments --workdir=artefacts/instruments
"""

from rfrec.launch import cli
from rfrec.pipelines.export import export_run as main

if __name__ == "__main__":
    cli.config_main(main, "export")
