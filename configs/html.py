# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run as one page, report.html in its folder, that needs no network.

python -m rfrec.launch.html --workdir=runs/ml100k

Needs `pip install 'rfrec[plots]'`. A few seconds; titles come from NAME.items.tsv in
the folder of the data, pictures from the column or folder that is named here.
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant, optional
from rfrec.rf import settings as rf_settings


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there is one variant."""
    config = ConfigDict()
    # Of the curves.
    config.dpi = 100
    # Published results, shown beside those of the run.
    config.reference_numbers = "third_party/reference_numbers.json"

    config.examples = ConfigDict()
    # Users whose lists are shown; 0 shows none.
    config.examples.users = 6
    # Of these users.
    config.examples.seed = 0
    # Items of a list that are shown.
    config.examples.top_k = 8
    # Table of the items, .tsv or .jsonl; none takes NAME.items.tsv in the folder of
    # the data.
    config.examples.table = optional(str)
    # Column with the titles.
    config.examples.title = "title"
    # Column with the pictures' files; none looks for ROW.jpg, ROW.png in the folder.
    config.examples.image = optional(str)
    # Of the pictures; none takes the table's folder if a column is named, else shows
    # no picture.
    config.examples.folder = optional(str)
    # Longer side of a picture, in pixels.
    config.examples.pixels = 96

    config.rf = rf_settings.section()
    choose_variant(variant, {"": lambda config: None})(config)
    return config.lock()
