# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cases of the graphs: construction, products with one, nearest neighbours."""

import atexit
import dataclasses
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jaxtyping import Float32

from rfrec.benchmarks import data, timing, torch_graph
from rfrec.benchmarks.options import Gume, Options
from rfrec.data import pairs
from rfrec.graph import adjacency, neighbours, spmm


class Data(NamedTuple):
    """Data of a run.

    Attributes:
      split: Pairs of users and items.
      features: Item features by modality.
      matrices: Graphs.
    """

    split: pairs.PairSplit
    features: dict[str, Float32[np.ndarray, "I _"]]
    matrices: adjacency.Matrices


def draw(sizes: Gume, seed: int) -> Data:
    """Draws purchases and features, and builds the graphs."""
    split, features = data.purchases(sizes, seed), data.features(sizes, seed)
    return Data(split, features, build(split, features, sizes.neighbours))


def build(
    split: pairs.PairSplit, features: dict[str, Float32[np.ndarray, "I _"]], k: int
) -> adjacency.Matrices:
    """Builds the graphs, without a cache."""
    train = split.train
    settings = adjacency.Options(neighbours=k)
    return adjacency.build(train.indptr, train.items, features, settings)


def construct(options: Options, torch: bool) -> timing.Bench:
    """Times the construction of all graphs; compares a product with each."""
    sizes, seed = options.gume, options.seed
    split, features = data.purchases(sizes, seed), data.features(sizes, seed)
    users = split.num_users
    vector = torch_graph.probe(users + split.num_items)

    def ours():
        graphs = build(split, features, sizes.neighbours)
        products = [graphs.adjacency @ vector]
        return np.concatenate(products + [g @ vector[users:] for g in graphs.similar])

    theirs = None
    if torch:
        theirs = torch_graph.build(
            split.train.users,
            split.train.items,
            users,
            list(features.values()),
            k=sizes.neighbours,
            device=timing.torch_device(),
        )
    watched = timing.Watched(ours)
    return timing.Bench(
        ours=watched,
        torch=theirs,
        unit="s",
        per_block=1,
        # The sides may break ties differently.
        disagreement=lambda a, b: float(np.mean(np.abs(a - b) > 1e-4)),
        tolerance=1e-3,
        peak_bytes=watched.peak,
    )


def multiply(options: Options, torch: bool, *, columns: int) -> timing.Bench:
    """Times products with the graph of users and items, with their gradients."""
    # The number of edges between items hardly depends on the width of their vectors.
    sizes = dataclasses.replace(options.gume, feature_widths=(64, 64))
    matrix = draw(sizes, options.seed).matrices.adjacency
    shape, calls = (matrix.shape[0], columns), options.spmm.calls
    x = np.random.default_rng(options.seed).standard_normal(shape, np.float32)
    graph, placed = spmm.from_scipy(matrix), jax.device_put(x)

    @jax.jit
    def program(graph, x):
        def both(_, x):
            y, pull = jax.vjp(lambda x: spmm.product(graph, x), x)
            return pull(y)[0]

        return lax.fori_loop(0, calls, both, x)

    theirs = None
    if torch:
        device = timing.torch_device()
        theirs = torch_graph.product(matrix, x, calls=calls, device=device)
    return timing.Bench(
        ours=lambda: np.asarray(program(graph, placed)),
        torch=theirs,
        unit="ms",
        per_block=calls,
        disagreement=lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b)),
        tolerance=1e-4,
        peak_bytes=lambda: timing.peak(lambda: program.lower(graph, placed).compile()),
    )


def search(options: Options, torch: bool, *, shape: tuple[int, int]) -> timing.Bench:
    """Times nearest neighbours among vectors that are read from a file.

    There is no side of PyTorch: all cosines of 63,001 items take 16 GB.
    """
    del torch
    # Removed when the process that measures ends.
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "vectors.npy"
    data.write_vectors(path, shape, options.seed)

    def ours():
        vectors = np.load(path, mmap_mode="r")
        return neighbours.find(vectors, options.knn.neighbours).items

    return timing.host(ours)
