# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""SASRec with cross-entropy over the whole catalogue, the baseline of every table.

python -m rfrec.launch.sasrec --config=configs/sasrec.py:instruments --workdir=runs/s

Variants, as in `--config=configs/sasrec.py:smoke`; data in the folder RFREC_DATA, as
`NAME.inter.json` with the items of each user in order of time:
  (default)    MovieLens-100K, fetched once
  smoke        400 synthetic users, a few seconds
  instruments  Amazon 2018 Musical Instruments of MQL4GRec, 17,112 users; 23 minutes on
               2 busy CPU cores, test HR@10 .1216, NDCG@10 .0856 (seed 0)
  beauty       Amazon 2014 Beauty, 22,363 users
  ml1m         MovieLens-1M, 6,040 users
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant, optional
from rfrec.rf import settings as rf_settings


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = ConfigDict()
    config.seed = 0

    config.data = ConfigDict()
    # movielens-100k, movielens, folder, mmrec, synthetic
    config.data.source = "movielens-100k"
    # Folder of the data; none takes the environment variable RFREC_DATA.
    config.data.path = optional(str)
    # Data set of a folder; none if it holds one.
    config.data.name = optional(str)
    config.data.num_items = 10_000  # synthetic
    config.data.num_users = 10_000  # synthetic

    config.model = ConfigDict()
    # Items of a history, the latest.
    config.model.history = 50
    config.model.width = 64
    config.model.hidden = 64
    config.model.heads = 2
    config.model.layers = 2
    config.model.dropout = 0.2
    config.model.dtype = "float32"  # or bfloat16

    config.optim = ConfigDict()
    config.optim.name = "adamw"  # adam, adagrad, sgd
    config.optim.lr = 1e-3
    config.optim.schedule = "constant"  # cosine
    config.optim.min_lr = 0.0
    config.optim.warmup_steps = 0
    config.optim.weight_decay = 0.0
    config.optim.momentum = 0.0
    config.optim.clip_norm = optional(float)

    config.train = ConfigDict()
    config.train.epochs = 100
    # Rows of model.history items; a row holds several short histories.
    config.train.batch_size = 32
    config.train.eval_every = 2
    # Evaluations without a better ndcg@10 of the validation items; none never stops.
    config.train.patience = optional(int, 5)
    config.train.engine = "jit"  # pmap
    config.train.steps_per_call = 256

    config.eval = ConfigDict()
    # Length of the lists; mrr counts nothing beyond.
    config.eval.top_k = 20
    # MQL4GRec and TIGER rank the items of the history too, and so do we by default;
    # leaving them out helps wherever nobody has an item twice.
    config.eval.filter_seen = False
    # Share of the catalogue whose items are cold, and popular, targets.
    config.eval.cold_share = 0.2
    # Items that training saw fewer times than this are cold; none goes by the share.
    config.eval.cold_below = optional(int)
    # Of the bootstrap intervals.
    config.eval.resamples = 1000

    config.rf = rf_settings.section()
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
