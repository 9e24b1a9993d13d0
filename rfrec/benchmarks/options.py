# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sizes of all cases of the benchmark: the defaults, and the tiny ones of `SMOKE`."""

import dataclasses

from rfrec import config as cfg
from rfrec.config import UserError

_COUNT = cfg.whole(1)
_COUNTS = cfg.each(_COUNT, least=1)


def _numbers(length: int) -> cfg.Rule:
    return cfg.Rule(
        lambda v: len(v) == length and all(isinstance(n, int) and n > 0 for n in v),
        f"{length} integers of at least 1",
    )


def _count(default: int):
    return cfg.option(default, _COUNT)


def _counts(*default: int):
    return cfg.option(default, _COUNTS)


def _buckets(*default: int):
    rule = cfg.Rule(
        lambda v: all(map(_COUNT.holds, v)) and list(v) == sorted(set(v)),
        "history lengths in ascending order",
    )
    return cfg.option(default, rule)


@dataclasses.dataclass(frozen=True)
class Shape:
    """Training steps of a tokenizer.

    Attributes:
      num_items: Number of items.
      width: Width of the item vectors.
      hidden: Widths of the hidden layers.
      latent_width: Width of the latents.
      sizes: Codes of each level.
      batch_size: Items of a step.
      steps: Steps of a block, which is one call on the device.
    """

    num_items: int = _count(3883)
    width: int = _count(384)
    hidden: tuple[int, ...] = cfg.option((256, 128), cfg.each(_COUNT))
    latent_width: int = _count(32)
    sizes: tuple[int, ...] = _counts(64, 64, 64)
    batch_size: int = _count(512)
    steps: int = _count(64)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Shapes of tokenizers, named after variants of configs/rqvae.py.

    Attributes:
      ml1m: Shape of the variant `ml1m_plain`.
      mql4grec: Shape of the variant `mql4grec`.
    """

    ml1m: Shape = Shape()
    mql4grec: Shape = Shape(
        num_items=6250,
        width=768,
        hidden=(2048, 1024, 512, 256, 128, 64),
        sizes=(256, 256, 256, 256),
        batch_size=2048,
        steps=4,
    )


@dataclasses.dataclass(frozen=True)
class Sinkhorn:
    """Balanced assignments of batches.

    Attributes:
      shapes: Rows and codes of each case.
      epsilon: Entropy regularisation, also of the training steps with Sinkhorn.
      calls: Batches of a block.
    """

    shapes: tuple = cfg.option(((512, 64), (2048, 256)), cfg.each(_numbers(2)))
    epsilon: float = cfg.option(0.003, cfg.above(0))
    calls: int = _count(20)


@dataclasses.dataclass(frozen=True)
class KMeans:
    """k-means clusterings with their seeding.

    Attributes:
      shapes: Vectors, width and clusters of each case.
      iterations: Most iterations.
    """

    shapes: tuple = cfg.option(((20_000, 32, 256),), cfg.each(_numbers(3)))
    iterations: int = _count(25)


@dataclasses.dataclass(frozen=True)
class Repair:
    """Repair of a code table with conflicts.

    Attributes:
      num_items: Number of items of each case.
      width: Width of the latents.
      sizes: Codes of each level.
      conflicts: Share of conflict items.
      repetitions: Timed blocks.
    """

    num_items: tuple[int, ...] = _counts(10_000, 100_000, 1_000_000)
    width: int = _count(32)
    sizes: tuple[int, ...] = _counts(256, 256, 256, 256)
    conflicts: float = cfg.option(0.03, cfg.within(0, 1))
    repetitions: int = _count(1)


@dataclasses.dataclass(frozen=True)
class Scale:
    """Items in a file that stream through a tokenizer, and files that are read.

    Attributes:
      num_items: Number of items of each case.
      width: Width of the item vectors.
      hidden: Widths of the hidden layers.
      latent_width: Width of the latents.
      sizes: Codes of each level.
      batch_size: Items of a step.
      repetitions: Timed blocks.
    """

    num_items: tuple[int, ...] = _counts(10_000, 100_000, 1_000_000)
    width: int = _count(768)
    hidden: tuple[int, ...] = _counts(512, 256, 128)
    latent_width: int = _count(32)
    sizes: tuple[int, ...] = _counts(256, 256, 256, 256)
    batch_size: int = _count(1024)
    repetitions: int = _count(1)


@dataclasses.dataclass(frozen=True)
class Histories:
    """Synthetic histories and codes of `beam` and `t5`.

    If RFREC_DATA contains Amazon Instruments, its histories and codes are used.

    Attributes:
      num_users: Number of users.
      num_items: Number of items.
      levels: Levels of the codes.
      codes: Codes of each level.
      max_history: Most items of a history.
    """

    num_users: int = _count(17_112)
    num_items: int = _count(6250)
    levels: int = _count(4)
    codes: int = _count(256)
    max_history: int = _count(20)


@dataclasses.dataclass(frozen=True)
class Model:
    """Architecture of the T5; the defaults are those of MQL4GRec.

    Attributes:
      d_model: Width of the embeddings.
      d_ff: Width of the feed-forward layers.
      d_kv: Width of a head.
      num_heads: Number of heads.
      num_layers: Layers of the encoder.
      num_decoder_layers: Layers of the decoder.
    """

    d_model: int = _count(128)
    d_ff: int = _count(1024)
    d_kv: int = _count(64)
    num_heads: int = _count(6)
    num_layers: int = _count(4)
    num_decoder_layers: int = _count(4)


@dataclasses.dataclass(frozen=True)
class Beam:
    """Searches for users of the test split.

    A block of ours answers all users, one of PyTorch a batch. If there are as many
    repetitions as batches, both sides do the same work.

    Attributes:
      users: Number of users.
      beams: Number of beams.
      batch_size: Users of a batch.
      buckets: History lengths with a compiled program; the longest is added.
      torch_batch_size: Users of a batch of PyTorch; the default is MQL4GRec's.
      repetitions: Timed blocks.
    """

    users: int = _count(256)
    beams: int = _count(20)
    batch_size: int = _count(64)
    buckets: tuple[int, ...] = _buckets(4, 5, 6, 8, 10, 14)
    torch_batch_size: int = _count(64)
    repetitions: int = _count(4)


@dataclasses.dataclass(frozen=True)
class T5:
    """Training steps of the T5.

    Attributes:
      examples: Fewest examples of a block of ours: enough that batches are padded as
        in an epoch.
      batch_size: Examples of a step.
      buckets: History lengths with a compiled program; the longest is added.
      run: Steps of a call on the device.
      dropout: Dropout rate.
      torch_steps: Steps of a block of PyTorch.
      repetitions: Timed blocks.
    """

    examples: int = _count(12_288)
    batch_size: int = _count(256)
    buckets: tuple[int, ...] = _buckets(1, 2, 4, 6, 9, 13)
    run: int = _count(16)
    dropout: float = cfg.option(0.1, cfg.within(0, 1))
    torch_steps: int = _count(1)
    repetitions: int = _count(2)


@dataclasses.dataclass(frozen=True)
class Trie:
    """Construction of a trie, and searches with and without it.

    Attributes:
      num_items: Number of items of each case.
      levels: Levels of the codes of each case.
      codes: Codes of each level.
      exponent: Exponent of the power law of the first codes.
      users: Users of a search.
      history: Items of each history.
      beams: Number of beams.
      repetitions: Timed blocks.
    """

    num_items: tuple[int, ...] = _counts(10_000, 100_000, 1_000_000, 10_000_000)
    levels: tuple[int, ...] = _counts(4, 8)
    codes: int = _count(256)
    exponent: float = cfg.option(1.5, cfg.at_least(0))
    users: int = _count(32)
    history: int = _count(8)
    beams: int = _count(20)
    repetitions: int = _count(5)


@dataclasses.dataclass(frozen=True)
class Gume:
    """GUME with the sizes of Amazon Baby in MMRec's split, on synthetic purchases.

    Attributes:
      num_users: Number of users.
      num_items: Number of items.
      train_pairs: Pairs of the training split.
      valid_pairs: Pairs of the validation split.
      test_pairs: Pairs of the test split.
      feature_widths: Width of the item features of each modality.
      width: Width of the embeddings.
      ui_layers: Layers of the graph of users and items.
      item_layers: Layers of the graphs of items.
      neighbours: Neighbours of an item in each modality.
      batch_size: Pairs of a step.
      steps: Steps of a block of ours.
      torch_steps: Steps of a block of PyTorch.
      torch_users: Users of a batch of PyTorch's evaluation; the default is MMRec's.
      repetitions: Timed blocks.
    """

    num_users: int = _count(19_445)
    num_items: int = _count(7050)
    train_pairs: int = _count(118_551)
    valid_pairs: int = _count(20_559)
    test_pairs: int = _count(21_682)
    feature_widths: tuple[int, ...] = _counts(4096, 384)
    width: int = _count(64)
    ui_layers: int = _count(3)
    item_layers: int = _count(2)
    neighbours: int = _count(10)
    batch_size: int = _count(2048)
    steps: int = _count(8)
    torch_steps: int = _count(2)
    torch_users: int = _count(4096)
    repetitions: int = _count(3)


@dataclasses.dataclass(frozen=True)
class Spmm:
    """Products with the graph of the users and items of `gume`, and their gradients.

    Attributes:
      widths: Columns of the dense matrix of each case.
      calls: Products of a block.
      repetitions: Timed blocks.
    """

    widths: tuple[int, ...] = _counts(64, 128)
    calls: int = _count(10)
    repetitions: int = _count(5)


@dataclasses.dataclass(frozen=True)
class Knn:
    """Nearest neighbours among vectors in a file; the default is Amazon Electronics.

    Attributes:
      shapes: Vectors and width of each case.
      neighbours: Neighbours of each vector.
      repetitions: Timed blocks.
    """

    shapes: tuple = cfg.option(((63_001, 4096),), cfg.each(_numbers(2)))
    neighbours: int = _count(10)
    repetitions: int = _count(1)


@dataclasses.dataclass(frozen=True)
class Flow:
    """Cost of the flow in an epoch of `gume`, and of diffrax over a plain scan.

    Attributes:
      rows: Rows that the solver generates, those of three batches by default.
      sampling_steps: Steps of the solver.
      calls: Calls of a block.
      repetitions: Timed blocks.
    """

    rows: int = _count(6144)
    sampling_steps: int = _count(10)
    calls: int = _count(3)
    repetitions: int = _count(3)


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the benchmark.

    Attributes:
      seed: Seed of data and initialisation.
      repetitions: Timed blocks of each side, in turns, of which the median counts.
      rqvae: Training steps of tokenizers.
      sinkhorn: Balanced assignments.
      kmeans: Clusterings.
      repair: Repair of code tables.
      scale: Large catalogues.
      histories: Data of `beam` and `t5`.
      model: Architecture of `beam`, `t5` and `trie`.
      beam: Searches.
      t5: Training steps of the T5.
      trie: Tries.
      gume: GUME.
      spmm: Products with a graph.
      knn: Nearest neighbours.
      flow: Rectified flow.
    """

    seed: int = cfg.option(0, cfg.at_least(0))
    repetitions: int = _count(5)
    rqvae: Shapes = Shapes()
    sinkhorn: Sinkhorn = Sinkhorn()
    kmeans: KMeans = KMeans()
    repair: Repair = Repair()
    scale: Scale = Scale()
    histories: Histories = Histories()
    model: Model = Model()
    beam: Beam = Beam()
    t5: T5 = T5()
    trie: Trie = Trie()
    gume: Gume = Gume()
    spmm: Spmm = Spmm()
    knn: Knn = Knn()
    flow: Flow = Flow()


_TINY = Shape(
    num_items=100,
    width=12,
    hidden=(8,),
    latent_width=4,
    sizes=(8, 8),
    batch_size=32,
    steps=4,
)
SMOKE = Options(
    repetitions=2,
    rqvae=Shapes(ml1m=_TINY, mql4grec=_TINY),
    sinkhorn=Sinkhorn(shapes=((16, 8),), calls=2),
    kmeans=KMeans(shapes=((60, 3, 4),), iterations=3),
    repair=Repair(num_items=(2000,), width=4, sizes=(16, 16, 16)),
    scale=Scale(
        num_items=(300,),
        width=12,
        hidden=(8,),
        latent_width=4,
        sizes=(8, 8),
        batch_size=64,
    ),
    histories=Histories(num_users=60, num_items=80, levels=3, codes=8),
    model=Model(16, 24, 8, 2, 1, 1),
    beam=Beam(users=11, beams=5, batch_size=4, buckets=(8,), torch_batch_size=4),
    t5=T5(examples=30, batch_size=16, buckets=(8,)),
    trie=Trie(
        num_items=(1000, 2000),
        levels=(3, 4),
        codes=16,
        users=3,
        history=2,
        beams=5,
        repetitions=2,
    ),
    gume=Gume(
        num_users=60,
        num_items=40,
        train_pairs=300,
        valid_pairs=64,
        test_pairs=66,
        feature_widths=(24, 12),
        width=8,
        neighbours=5,
        batch_size=64,
        steps=3,
        torch_users=32,
        repetitions=2,
    ),
    spmm=Spmm(widths=(8,), calls=2),
    knn=Knn(shapes=((50, 12),), neighbours=5),
    flow=Flow(rows=48, calls=2, repetitions=2),
)


def check_sizes(options: Options) -> None:
    """Checks sizes that depend on each other.

    Raises:
      UserError: Two sizes contradict each other; names their keys.
    """
    gume = options.gume
    limits = [
        ("beam.users", options.beam.users, options.histories.num_users),
        ("gume.neighbours", gume.neighbours, gume.num_items),
        *(("knn.neighbours", options.knn.neighbours, s[0]) for s in options.knn.shapes),
        *(("kmeans.shapes: clusters", s[2], s[0]) for s in options.kmeans.shapes),
    ]
    for name in ("train_pairs", "valid_pairs", "test_pairs"):
        limits.append(("gume.num_users", gume.num_users, getattr(gume, name)))
    quarter = gume.num_users * gume.num_items // 4
    limits.append(("gume.train_pairs", gume.train_pairs, quarter))
    for key, value, limit in limits:
        if value > limit:
            raise UserError(f"config.{key}={value}: must be at most {limit}")
