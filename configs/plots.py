# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Figures of a finished or running tokenizer or graph recommender.

python -m rfrec.launch.plots --workdir=runs/ml100k

Writes PNG files to the folder `plots` of the run. Needs `pip install 'rfrec[plots]'`.

Variants, as in `--config=configs/plots.py:quick`; times on 2 CPU cores, 3 levels:
  (default)  3,000 items, about a minute, nearly all of it t-SNE
  quick      500 items, and 3 numbers of sampling steps; a few seconds
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.pipelines.options import make_config
from rfrec.reports.run_figures import Options


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = make_config(Options)
    choose_variant(variant, VARIANTS)(config)
    return config.lock()


def _quick(config: ConfigDict) -> None:
    config.tsne.max_items = 500
    config.steps = (1, 2, 10)


VARIANTS = {"": lambda config: None, "quick": _quick}
