# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws the figures of a run: losses, collisions, code usage, t-SNE.

python -m rfrec.launch.plots --workdir=runs/ml100k
"""

from rfrec.launch import cli
from rfrec.reports import run_figures

if __name__ == "__main__":
    cli.config_main(run_figures.main, "plots")
