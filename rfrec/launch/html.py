# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the page of a run, report.html, with the options of configs/html.py.

python -m rfrec.launch.html --workdir=runs/ml100k
"""

from rfrec.launch import cli
from rfrec.reports import page

if __name__ == "__main__":
    cli.config_main(page.main, "html")
