# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""SASRec with cross-entropy over the whole catalogue, the baseline of every table.

python -m rfrec.launch.sasrec --config=configs/sasrec.py:instruments --workdir=runs/s

Expected result of `instruments` (seed 0): test HR@10 0.1216, NDCG@10 0.0856, in 23
minutes on 2 CPU cores.

Variants, as in `--config=configs/sasrec.py:smoke`; data in the folder RFREC_DATA, as
`NAME.inter.json` with the items of each user in order of time:
  (default)    MovieLens-100K, downloaded once
  smoke        400 synthetic users, a few seconds
  instruments  Amazon 2018 Musical Instruments of MQL4GRec, 17,112 users
  beauty       Amazon 2014 Beauty, 22,363 users
  ml1m         MovieLens-1M, 6,040 users
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.pipelines.options import make_config
from rfrec.pipelines.sasrec import Options


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = make_config(Options)
    choose_variant(variant, VARIANTS)(config)
    return config.lock()


def _default(config: ConfigDict) -> None:
    del config


def _smoke(config: ConfigDict) -> None:
    config.data.source = "synthetic"
    config.data.num_items = 200
    config.data.num_users = 400
    config.model.history = 16
    config.model.width = 32
    config.model.hidden = 32
    config.model.dropout = 0.1
    config.optim.lr = 5e-3
    config.train.epochs = 20
    config.train.batch_size = 16
    config.train.eval_every = 5
    config.eval.top_k = 10
    config.eval.resamples = 200


def _folder(config: ConfigDict, name: str) -> None:
    config.data.source = "folder"
    config.data.name = name


def _instruments(config: ConfigDict) -> None:
    _folder(config, "Instruments")


def _beauty(config: ConfigDict) -> None:
    _folder(config, "Beauty")


def _ml1m(config: ConfigDict) -> None:
    _folder(config, "ml1m")


VARIANTS = {
    "": _default,
    "smoke": _smoke,
    "instruments": _instruments,
    "beauty": _beauty,
    "ml1m": _ml1m,
}
