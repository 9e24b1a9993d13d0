# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Speed and memory of the parts of rfrec, on data of the given sizes.

python -m rfrec.launch.bench --only=rqvae,sinkhorn,kmeans,repair --out=FILE --torch
python -m rfrec.launch.bench --only=beam,t5,trie --out=FILE --torch
python -m rfrec.launch.bench --only=gume,spmm,knn,flow --out=FILE --torch
python -m rfrec.launch.bench --only=scale,repair,trie/build,trie/search --out=FILE

Expected result: one row for each case; README.md and results/ have the figures of one
machine. On 2 CPU cores the first takes a few minutes, the second and the third a
quarter of an hour.

Variants, as in `--config=configs/bench.py:smoke`:
  (default)  the sizes of published data sets
  smoke      tiny sizes, for tests
"""

from ml_collections import ConfigDict

from rfrec.benchmarks.options import SMOKE, Options
from rfrec.config import choose_variant
from rfrec.pipelines.options import make_config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = make_config(SMOKE if variant == "smoke" else Options)
    choose_variant(variant, VARIANTS)(config)
    return config.lock()


VARIANTS = {"": lambda config: None, "smoke": lambda config: None}
