# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Generative retrieval: histories of codes to a T5 that names the next item.

python -m rfrec.launch.t5 --config=configs/t5.py --workdir=runs/instruments

Variants, as in `--config=configs/t5.py:smoke`:
  (default)  Amazon Instruments with MQL4GRec's published codes, the task seqrec
  pretrain   MQL4GRec's first stage: text and image codes of six data sets
  finetune   its second stage: five tasks; set config.init.workdir to the first run
  tiger      separate heads for each level, a separator and a user token
  ml100k     MovieLens-100K with the codes of the README's first command, a small model
             for some minutes on 2 CPU cores
  smoke      synthetic histories and codes, well under a minute on 2 CPU cores
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant, optional
from rfrec.rf import settings as rf_settings


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = ConfigDict()
    config.seed = 0

    config.data = ConfigDict()
    # folder, mmrec, movielens-100k, movielens, synthetic
    config.data.source = "folder"
    # Folder of the data; none takes the environment variable RFREC_DATA.
    config.data.path = optional(str)
    # Data sets; several share the tokens and are trained on together.
    config.data.names = ("Instruments",)
    # NAME.index_<kind>.json beside the histories, or a path that ends in .json, of such
    # a file or of a catalogue's catalogue.json; none leaves the modality out.
    config.data.text = optional(str, "lemb")
    config.data.image = optional(str, "vitemb")
    # Whether items that share all codes are refused, rather than told.
    config.data.unique = False
    config.data.max_history = 20
    # MQL4GRec's train_data_mode: 0 all prefixes .. 4 random windows.
    config.data.mode = 0
    config.data.num_items = 400  # synthetic
    config.data.num_users = 600  # synthetic

    config.task = ConfigDict()
    # seqrec, seqimage, item2image, image2item, seqitem2image, seqimage2item,
    # fusionseqrec, fgfusionseqrec
    config.task.names = ("seqrec",)
    # One for each task; () weighs all alike.
    config.task.weights = ()
    config.task.prompt_tokens = 4
    config.task.separator = False
    config.task.user_buckets = 0

    config.vocab = ConfigDict()
    config.vocab.layout = "compact"  # t5: 32,100 pieces first
    # Codes of every level; 0 takes as many as the data have.
    config.vocab.codes = 0

    config.init = ConfigDict()
    # A run whose weights are the start; its vocabulary is grown.
    config.init.workdir = optional(str)
    config.init.checkpoint = "ndcg@10"  # loss, last

    config.model = ConfigDict()
    config.model.d_model = 128
    config.model.d_ff = 1024
    config.model.d_kv = 64
    config.model.num_heads = 6
    config.model.num_layers = 4
    config.model.num_decoder_layers = 4
    config.model.feed_forward = "relu"  # gated-gelu
    config.model.dropout = 0.1
    config.model.tied = True
    # A head of its own for each level, instead of one over the vocabulary.
    config.model.level_heads = False
    config.model.remat = False
    config.model.dtype = "float32"  # bfloat16

    config.optim = ConfigDict()
    config.optim.name = "adamw"  # adam, adagrad, sgd
    config.optim.lr = 5e-4
    config.optim.schedule = "cosine"  # constant
    config.optim.min_lr = 0.0
    # Warm-up as a share of all updates.
    config.optim.warmup_share = 0.01
    config.optim.weight_decay = 0.01
    config.optim.decay = "matrices"  # all
    config.optim.clip_norm = optional(float, 1.0)
    # Batches whose mean gradient makes one update.
    config.optim.accumulate = 1

    config.train = ConfigDict()
    config.train.epochs = 200
    config.train.batch_size = 256
    config.train.eval_every = 1
    # Evaluations without a better value of the criterion that end the run.
    config.train.patience = optional(int, 10)
    config.train.criterion = "ndcg@10"  # loss
    config.train.engine = "jit"  # pmap
    # Devices that split one copy of the parameters (jit only).
    config.train.tensor = 1
    # Lengths of history that programs are compiled for; the longest is added.
    config.train.buckets = (2, 4, 8, 12)
    # Most steps of one length that follow each other, one dispatch.
    config.train.run = 16
    config.train.steps_per_call = 256

    config.eval = ConfigDict()
    # Whose loss and search are watched; none takes the first task.
    config.eval.task = optional(str)
    # Users of the search, drawn once; 0 takes all.
    config.eval.users = 1000
    config.eval.beams = 20
    config.eval.batch_size = 256

    config.rf = rf_settings.section()
    choose_variant(variant, VARIANTS)(config)
    return config.lock()


def _default(config: ConfigDict) -> None:
    del config


def _mql4grec(config: ConfigDict) -> None:
    """The vocabulary both stages share: 4 levels of 256 codes, text and image."""
    config.vocab.codes = 256


def _pretrain(config: ConfigDict) -> None:
    _mql4grec(config)
    config.data.names = ("Pet", "Cell", "Automotive", "Tools", "Toys", "Sports")
    config.task.names = ("seqrec", "seqimage")
    config.optim.lr = 1e-3
    config.optim.schedule = "constant"
    config.optim.warmup_share = 1 / 30  # one epoch
    config.optim.accumulate = 2
    config.train.epochs = 30
    config.train.batch_size = 4096
    config.train.patience = None
    config.train.criterion = "loss"
    config.init.checkpoint = "loss"


def _finetune(config: ConfigDict) -> None:
    _mql4grec(config)
    config.task.names = (
        "seqrec",
        "seqimage",
        "item2image",
        "image2item",
        "fusionseqrec",
    )
    config.init.checkpoint = "loss"
    config.train.batch_size = 512


def _tiger(config: ConfigDict) -> None:
    config.data.image = None
    config.task.separator = True
    config.task.user_buckets = 2000
    config.task.prompt_tokens = 0
    config.model.d_model = 384
    config.model.level_heads = True
    config.optim.lr = 1e-3
    config.optim.schedule = "constant"
    config.optim.warmup_share = 0.0
    config.train.batch_size = 640
    config.train.epochs = 75  # 10,000 steps on Instruments


def _ml100k(config: ConfigDict) -> None:
    config.data.source = "movielens-100k"
    config.data.names = ()
    config.data.text = "runs/ml100k/codes.json"
    config.data.image = None
    config.data.max_history = 10
    config.model.d_model = 64
    config.model.d_ff = 256
    config.model.d_kv = 16
    config.model.num_heads = 4
    config.model.num_layers = 2
    config.model.num_decoder_layers = 2
    # With .1 the validation loss ends at 1.46 instead of 1.29.
    config.model.dropout = 0.0
    config.optim.lr = 2e-3
    config.train.epochs = 4
    config.train.batch_size = 128
    config.train.buckets = ()
    config.eval.users = 0


def _smoke(config: ConfigDict) -> None:
    config.data.source = "synthetic"
    config.data.names = ()
    config.data.num_items = 100
    config.task.names = ("seqrec", "fusionseqrec")
    config.model.d_model = 32
    config.model.d_ff = 64
    config.model.d_kv = 8
    config.model.num_heads = 4
    config.model.num_layers = 1
    config.model.num_decoder_layers = 1
    config.optim.lr = 5e-3
    config.train.epochs = 8
    config.train.batch_size = 64
    config.train.eval_every = 2
    config.train.buckets = (8,)
    config.eval.users = 100
    config.eval.beams = 10
    config.eval.batch_size = 64


VARIANTS = {
    "": _default,
    "pretrain": _pretrain,
    "finetune": _finetune,
    "tiger": _tiger,
    "ml100k": _ml100k,
    "smoke": _smoke,
}
