# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Speed and memory of the tokenizer's parts, on synthetic data of these sizes.

python -m rfrec.launch.bench --only=rqvae,sinkhorn,kmeans,repair --out=FILE --torch

A few minutes on 2 CPU cores; `--config=configs/bench.py:smoke` takes tiny sizes.
"""

from ml_collections import ConfigDict

from rfrec.config import choose_variant, rf_section


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
    config.repair.num_items = (1_000_000,)
    config.repair.width = 32
    config.repair.sizes = (256, 256, 256, 256)
    # Share of conflict items.
    config.repair.conflicts = 0.03
    config.repair.repetitions = 1

    config.rf = rf_section()
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
    config.repair.width = 4
    config.repair.sizes = (16, 16, 16)


VARIANTS = {"": _default, "smoke": _smoke}
