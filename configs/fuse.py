# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Two systems on one list: a graph recommender ranks what a retriever retrieved.

python -m rfrec.launch.fuse --config=configs/fuse.py --workdir=runs/ml1m_fused \
  --config.lists.valid=runs/ml1m_valid --config.lists.test=runs/ml1m_test \
  --config.graph=runs/ml1m_gume

Both are trained on the same data, leave-one-out (`--config.data.split=leave_one_out`).
There is one variant, which takes a few minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.pipelines.hybrid import Options
from rfrec.pipelines.options import make_config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there is one variant."""
    config = make_config(Options)
    choose_variant(variant, {"": lambda config: None})(config)
    return config.lock()
