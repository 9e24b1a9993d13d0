# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Speed and memory of the parts, on data of these sizes.

python -m rfrec.launch.bench --only=rqvae,sinkhorn,kmeans,repair --out=FILE --torch
python -m rfrec.launch.bench --only=beam,t5,trie --out=FILE --torch
python -m rfrec.launch.bench --only=gume,spmm,knn,flow --out=FILE --torch
python -m rfrec.launch.bench --only=scale,repair,trie/build,trie/search --out=FILE

On 2 CPU cores a few minutes, and a quarter of an hour for the second and the third;
`--config=configs/bench.py:smoke` takes tiny sizes.
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant
from rfrec.rf import settings as rf_settings


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = ConfigDict()
    config.seed = 0
    # Timed blocks of each side, in turns; the median counts.
    config.repetitions = 5

    # Training steps, each shape without Sinkhorn and with it on the last level. These
    # are the shapes of the variants ml1m_plain and mql4grec in configs/rqvae.py.
    config.rqvae = ConfigDict()
    config.rqvae.ml1m = ConfigDict(
        {
            "num_items": 3883,
            "width": 384,
            "hidden": (256, 128),
            "latent_width": 32,
            "sizes": (64, 64, 64),
            "batch_size": 512,
            "steps": 64,  # of one block, which is one call on the device
        }
    )
    config.rqvae.mql4grec = ConfigDict(
        {
            "num_items": 6250,
            "width": 768,
            "hidden": (2048, 1024, 512, 256, 128, 64),
            "latent_width": 32,
            "sizes": (256, 256, 256, 256),
            "batch_size": 2048,
            "steps": 4,
        }
    )

    # Assignments of a batch: rows x codes.
    config.sinkhorn = ConfigDict()
    config.sinkhorn.shapes = ((512, 64), (2048, 256))
    config.sinkhorn.epsilon = 0.003
    config.sinkhorn.calls = 20

    # k-means: vectors x width x clusters.
    config.kmeans = ConfigDict()
    config.kmeans.shapes = ((20_000, 32, 256),)
    config.kmeans.iterations = 25

    config.repair = ConfigDict()
    config.repair.num_items = (10_000, 100_000, 1_000_000)
    config.repair.width = 32
    config.repair.sizes = (256, 256, 256, 256)
    # Share of conflict items.
    config.repair.conflicts = 0.03
    config.repair.repetitions = 1

    # Items in a file, which stream through a tokenizer: an epoch, the codes of all.
    config.scale = ConfigDict()
    config.scale.num_items = (10_000, 100_000, 1_000_000)
    config.scale.width = 768
    config.scale.hidden = (512, 256, 128)
    config.scale.latent_width = 32
    config.scale.sizes = (256, 256, 256, 256)
    config.scale.batch_size = 1024
    config.scale.repetitions = 1

    # Histories and codes of `beam` and `t5`: those of Amazon Instruments, where
    # RFREC_DATA holds them, else synthetic ones of these sizes and the same lengths.
    config.histories = ConfigDict()
    config.histories.num_users = 17_112
    config.histories.num_items = 6250
    config.histories.levels = 4
    config.histories.codes = 256
    config.histories.max_history = 20

    # MQL4GRec's.
    config.model = ConfigDict()
    config.model.d_model = 128
    config.model.d_ff = 1024
    config.model.d_kv = 64
    config.model.num_heads = 6
    config.model.num_layers = 4
    config.model.num_decoder_layers = 4

    # Searches for users of the test split: a block of ours answers all of them, one of
    # theirs a batch. With as many repetitions as it has batches, they do the same.
    config.beam = ConfigDict()
    config.beam.users = 256
    config.beam.beams = 20
    config.beam.batch_size = 64
    # Lengths of history that programs are compiled for; the longest is added.
    config.beam.buckets = (4, 5, 6, 8, 10, 14)
    config.beam.torch_batch_size = 64  # MQL4GRec's
    config.beam.repetitions = 4

    # Training steps.
    config.t5 = ConfigDict()
    # Of a block of ours, at least: enough that batches have the padding of an epoch.
    config.t5.examples = 12_288
    config.t5.batch_size = 256
    config.t5.buckets = (1, 2, 4, 6, 9, 13)
    config.t5.run = 16
    config.t5.dropout = 0.1
    config.t5.torch_steps = 1  # of a block of theirs
    config.t5.repetitions = 2

    config.trie = ConfigDict()
    config.trie.num_items = (10_000, 100_000, 1_000_000, 10_000_000)
    config.trie.levels = (4, 8)
    config.trie.codes = 256
    # Of the power law of the first level's codes.
    config.trie.exponent = 1.5
    # A search, with and without the trie.
    config.trie.users = 32
    config.trie.history = 8
    config.trie.beams = 20
    config.trie.repetitions = 5

    # GUME at the size of Amazon Baby in MMRec's split, on synthetic purchases.
    config.gume = ConfigDict()
    config.gume.num_users = 19_445
    config.gume.num_items = 7050
    config.gume.train_pairs = 118_551
    config.gume.valid_pairs = 20_559
    config.gume.test_pairs = 21_682
    config.gume.feature_widths = (4096, 384)
    config.gume.width = 64
    config.gume.ui_layers = 3
    config.gume.item_layers = 2
    config.gume.neighbours = 10
    config.gume.batch_size = 2048
    config.gume.steps = 8  # of a block of ours
    config.gume.torch_steps = 2  # of a block of theirs
    config.gume.torch_users = 4096  # of a batch of their evaluation, as in MMRec
    config.gume.repetitions = 3

    # Products with the graph of the same users and items, and their gradients.
    config.spmm = ConfigDict()
    config.spmm.widths = (64, 128)
    config.spmm.calls = 10
    config.spmm.repetitions = 5

    # Nearest neighbours among items of Amazon Electronics, whose vectors are in a file.
    config.knn = ConfigDict()
    config.knn.shapes = ((63_001, 4096),)
    config.knn.neighbours = 10
    config.knn.repetitions = 1

    # What the flow adds to an epoch of `gume`, evaluation included; what diffrax adds
    # to a scan by Euler's method, for the rows of three batches.
    config.flow = ConfigDict()
    config.flow.repetitions = 3
    config.flow.rows = 6144
    config.flow.sampling_steps = 10
    config.flow.calls = 3

    config.rf = rf_settings.section()
    choose_variant(variant, VARIANTS)(config)
    return config.lock()


def _default(config: ConfigDict) -> None:
    del config


def _smoke(config: ConfigDict) -> None:
    config.repetitions = 2
    config.rqvae = ConfigDict(
        {
            "tiny": {
                "num_items": 100,
                "width": 12,
                "hidden": (8,),
                "latent_width": 4,
                "sizes": (8, 8),
                "batch_size": 32,
                "steps": 4,
            }
        }
    )
    config.sinkhorn.shapes = ((16, 8),)
    config.sinkhorn.calls = 2
    config.kmeans.shapes = ((60, 3, 4),)
    config.kmeans.iterations = 3
    config.repair.num_items = (2000,)
    config.scale.num_items = (300,)
    config.scale.width = 12
    config.scale.hidden = (8,)
    config.scale.latent_width = 4
    config.scale.sizes = (8, 8)
    config.scale.batch_size = 64
    config.repair.width = 4
    config.repair.sizes = (16, 16, 16)
    config.histories.num_users = 60
    config.histories.num_items = 80
    config.histories.levels = 3
    config.histories.codes = 8
    config.model.d_model = 16
    config.model.d_ff = 24
    config.model.d_kv = 8
    config.model.num_heads = 2
    config.model.num_layers = 1
    config.model.num_decoder_layers = 1
    config.beam.users = 11
    config.beam.beams = 5
    config.beam.batch_size = 4
    config.beam.buckets = (8,)
    config.beam.torch_batch_size = 4
    config.t5.examples = 30
    config.t5.batch_size = 16
    config.t5.buckets = (8,)
    config.trie.num_items = (1000, 2000)
    config.trie.levels = (3, 4)
    config.trie.codes = 16
    config.trie.users = 3
    config.trie.history = 2
    config.trie.beams = 5
    config.trie.repetitions = 2
    config.gume.num_users = 60
    config.gume.num_items = 40
    config.gume.train_pairs = 300
    config.gume.valid_pairs = 64
    config.gume.test_pairs = 66
    config.gume.feature_widths = (24, 12)
    config.gume.width = 8
    config.gume.neighbours = 5
    config.gume.batch_size = 64
    config.gume.steps = 3
    config.gume.torch_users = 32
    config.gume.repetitions = 2
    config.spmm.widths = (8,)
    config.spmm.calls = 2
    config.knn.shapes = ((50, 12),)
    config.knn.neighbours = 5
    config.flow.repetitions = 2
    config.flow.rows = 48
    config.flow.calls = 2


VARIANTS = {"": _default, "smoke": _smoke}
