# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Ranks what a retriever retrieved by a graph recommender, and merges their lists.

python -m rfrec.launch.fuse --config=configs/fuse.py --workdir=runs/ml1m_fused \
  --config.lists.valid=runs/ml1m_valid --config.lists.test=runs/ml1m_test \
  --config.graph=runs/ml1m_gume
"""

from rfrec.launch import cli
from rfrec.pipelines.hybrid import run as main

if __name__ == "__main__":
    cli.config_main(main, "fuse")
