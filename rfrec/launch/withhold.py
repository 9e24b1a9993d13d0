# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes a data set in which certain items are new: nothing can be learned about them.

python -m rfrec.launch.withhold --config=configs/withhold.py \
  --config.data.name=ml1m --workdir=runs/cold/data

It writes `NAME.inter.json`, copies the other files of the data set to the same folder,
and lists the withheld items in `NAME.withheld.txt`.
"""

from rfrec.launch import cli
from rfrec.pipelines.cold_data import run as main

if __name__ == "__main__":
    cli.config_main(main, "withhold")
