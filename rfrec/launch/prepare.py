# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Prepares a data set from raw interactions and an item table.

python -m rfrec.launch.prepare --config=configs/prepare.py:movielens \
  --config.log.path=ratings.csv --config.table.path=movies.csv --workdir=data/ml
"""

from rfrec.launch import cli
from rfrec.pipelines.prepare import prepare

if __name__ == "__main__":
    cli.config_main(prepare, "prepare")
