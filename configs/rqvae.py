# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""RQ-VAE tokenizer: item vectors to unique semantic codes.

python -m rfrec.launch.rqvae --config=configs/rqvae.py --workdir=runs/ml100k

Variants, as in `--config=configs/rqvae.py:smoke`; times on 2 CPU cores:
  (default)  MovieLens-100K, genres and titles, fetched once
  smoke      a synthetic catalogue of 500 items, a few seconds
  ml1m       3,883 movies, text vectors, 3 x 64 codes, see the README's table
  ml1m_plain the same with the settings of the document that ml1m starts from
  mql4grec   the settings of MQL4GRec: 4 x 256 codes, layers 2048..64, 500 epochs
  tiger      the settings of TIGER as in RQ-VAE-Recommender: 3 x 256 codes
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
    # Data sets of a folder, stacked for one quantizer; () if it holds one.
    config.data.names = ()
    # Features side by side; () takes those the source has. `rf`: item vectors of the
    # graph recommender in data.graph.
    config.data.features = ()
    # Folder of a run of rfrec.launch.gume on the same items; the section rf says how
    # its flow generates vectors of items that nobody has used.
    config.data.graph = optional(str)
    config.data.scale = "mean_square"  # or none
    config.data.text_width = 64
    config.data.num_items = 10_000  # synthetic
    config.data.val_ratio = 0.0

    config.model = ConfigDict()
    config.model.method = "rqvae"  # or rkmeans
    config.model.hidden = (256, 256)
    config.model.latent_width = 32
    config.model.dropout = 0.0
    config.model.batch_norm = False
    config.model.normalize_input = False
    config.model.initializer = "xavier"  # or normal
    config.model.dtype = "float32"  # or bfloat16

    config.codebook = ConfigDict()
    config.codebook.sizes = (64, 64, 64, 64)
    config.codebook.estimator = "ste"  # rotation, gumbel
    config.codebook.distance = "l2"  # cosine
    config.codebook.residual_grad = "stop"  # flow
    config.codebook.learned_by = "gradient"  # ema
    config.codebook.ema_decay = 0.99
    config.codebook.revive_below = 0.0
    config.codebook.projection = False
    config.codebook.l2_normalize = False
    config.codebook.init = "kmeans"  # uniform
    config.codebook.init_epoch = 30
    # Until k-means the decoder gets the latents themselves.
    config.codebook.bypass = True
    config.codebook.init_on = "all"  # batch
    # Most items that `all` takes, a sample of more; none takes all.
    config.codebook.kmeans_rows = optional(int, 65_536)
    config.codebook.kmeans_iterations = 100
    # Of so many seedings the one with the fewest conflicts is kept.
    config.codebook.kmeans_restarts = 8
    # After k-means only the decoder learns.
    config.codebook.freeze = True
    # One for each level, or one for all; 0 takes the nearest code.
    config.codebook.sk_epsilons = (0.0,)
    config.codebook.sk_iterations = 50
    config.codebook.temperature = (1.0, 0.2)  # gumbel: first, last
    config.codebook.temperature_epochs = 50.0

    config.loss = ConfigDict()
    config.loss.recon = "mse"  # l1
    config.loss.multi_hot = "bce"  # dense
    config.loss.recon_reduce = "mean"  # sum
    config.loss.level_reduce = "mean"  # sum
    config.loss.recon_weight = 1.0
    config.loss.quant_weight = 1.0
    config.loss.codebook_weight = 1.0
    config.loss.beta = 0.25
    config.loss.beta_warmup_epochs = 0.0

    config.optim = ConfigDict()
    config.optim.name = "adamw"  # adam, adagrad, sgd
    config.optim.lr = 3e-3
    config.optim.schedule = "cosine"  # constant
    config.optim.min_lr = 1e-4
    config.optim.warmup_steps = 0
    config.optim.weight_decay = 0.0
    config.optim.momentum = 0.0
    config.optim.clip_norm = optional(float)

    config.train = ConfigDict()
    config.train.epochs = 200
    config.train.batch_size = 128
    config.train.eval_every = 20
    config.train.engine = "pmap"  # jit
    config.train.steps_per_call = 256
    # auto keeps the items on the devices while they are below 2 GiB.
    config.train.resident = "auto"  # always, never

    config.codes = ConfigDict()
    config.codes.checkpoint = "collision_rate"  # loss, last
    config.codes.repair = "assign"  # reassign, suffix, none
    config.codes.modality = "text"  # image

    config.rf = rf_settings.section()
    choose_variant(variant, VARIANTS)(config)
    return config.lock()


def _default(config: ConfigDict) -> None:
    del config


def _smoke(config: ConfigDict) -> None:
    config.data.source = "synthetic"
    config.data.num_items = 500
    config.data.text_width = 16
    config.model.hidden = (32,)
    config.model.latent_width = 8
    config.codebook.sizes = (16, 16, 16)
    config.codebook.init_epoch = 2
    config.train.epochs = 6
    config.train.batch_size = 64
    config.train.eval_every = 2


def _ml1m_items(config: ConfigDict) -> None:
    config.data.source = "folder"
    config.data.names = ("ml1m_catalog",)
    config.data.features = ("text",)
    config.data.val_ratio = 0.1
    config.codebook.sizes = (64, 64, 64)


def _ml1m(config: ConfigDict) -> None:
    _ml1m_items(config)
    config.codebook.init_epoch = 3


def _one_phase(config: ConfigDict) -> None:
    """Trains encoder, codebooks and decoder together, as the references do."""
    config.codebook.bypass = False
    config.codebook.freeze = False
    config.codebook.kmeans_restarts = 1
    config.codebook.init_on = "batch"
    config.optim.lr = 1e-3


def _ml1m_plain(config: ConfigDict) -> None:
    _ml1m_items(config)
    _one_phase(config)
    config.model.hidden = (256, 128)
    config.model.initializer = "normal"
    config.codebook.init_epoch = 1
    config.codebook.kmeans_iterations = 50
    config.loss.beta_warmup_epochs = 50.0
    config.optim.name = "adam"
    config.train.batch_size = 512
    config.train.eval_every = 10


def _mql4grec(config: ConfigDict) -> None:
    _one_phase(config)
    config.data.source = "folder"
    config.data.scale = "none"
    config.model.hidden = (2048, 1024, 512, 256, 128, 64)
    config.codebook.sizes = (256, 256, 256, 256)
    config.codebook.init_epoch = 0
    config.codebook.sk_epsilons = (0.0, 0.0, 0.0, 0.003)
    config.optim.schedule = "constant"
    config.optim.weight_decay = 1e-4
    config.train.epochs = 500
    config.train.batch_size = 2048
    config.train.eval_every = 2
    config.codes.repair = "reassign"


def _tiger(config: ConfigDict) -> None:
    _one_phase(config)
    config.data.source = "folder"
    config.data.scale = "none"
    config.data.val_ratio = 0.05
    config.model.hidden = (512, 256, 128)
    config.codebook.sizes = (256, 256, 256)
    config.codebook.init_epoch = 0
    config.codebook.init_on = "all"
    config.loss.recon_reduce = "sum"
    config.loss.level_reduce = "sum"
    # The reference sums over the width where we average.
    config.loss.quant_weight = 32.0
    config.optim.schedule = "constant"
    config.optim.weight_decay = 1e-4
    config.train.batch_size = 640
    config.train.epochs = 3000
    config.train.eval_every = 50
    config.codes.repair = "suffix"


VARIANTS = {
    "": _default,
    "smoke": _smoke,
    "ml1m": _ml1m,
    "ml1m_plain": _ml1m_plain,
    "mql4grec": _mql4grec,
    "tiger": _tiger,
}
