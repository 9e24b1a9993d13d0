# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a finished or running tokenizer or graph recommender.

PNG files in the run's `plots/`.

python -m rfrec.launch.plots --workdir=runs/ml100k

Needs `pip install 'rfrec[plots]'`. About a minute on 2 CPU cores for 3 levels, nearly
all of it t-SNE; `--config=configs/plots.py:quick` takes 500 items instead of 3,000.
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.rf import settings as rf_settings


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = ConfigDict()
    config.dpi = 150

    config.tsne = ConfigDict()
    # Items that are drawn, sampled where a run has more.
    config.tsne.max_items = 3000
    config.tsne.perplexity = 30.0
    config.tsne.seed = 0

    # Of sampling, for a graph recommender with the rectified flow.
    config.steps = (1, 2, 5, 10, 20, 50, 100)

    config.rf = rf_settings.section()
    choose_variant(variant, VARIANTS)(config)
    return config.lock()


def _default(config: ConfigDict) -> None:
    del config


def _quick(config: ConfigDict) -> None:
    config.tsne.max_items = 500
    config.steps = (1, 2, 10)


VARIANTS = {"": _default, "quick": _quick}
