# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Mean and interval over the seeds of finished runs, as a table.

Command:
  python -m rfrec.launch.summary --runs=FOLDER
Result: one row for each FOLDER/NAME, for example `results/gume_ml100k.json`. Time: a
second. There is one variant.
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.pipelines.options import make_config
from rfrec.reports.seed_table import Options


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there is one variant."""
    config = make_config(Options)
    choose_variant(variant, {"": lambda config: None})(config)
    return config.lock()
