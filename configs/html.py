# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a run, report.html in its folder, which needs no network.

python -m rfrec.launch.html --workdir=runs/ml100k

Needs `pip install 'rfrec[plots]'`; takes a few seconds. Titles of the items come from
NAME.items.tsv in the folder of the data, images from a column or a folder that is set
here.
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.pipelines.options import make_config
from rfrec.reports.page import Options


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there is one variant."""
    config = make_config(Options)
    choose_variant(variant, {"": lambda config: None})(config)
    return config.lock()
