# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The graphs' cases of the benchmark: how they are built, and products with one."""

import atexit
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jaxtyping import Float32

from rfrec.benchmarks import graph_data, timing, torch_graph
from rfrec.data import pairs
from rfrec.graph import adjacency, neighbours, spmm


class Data(NamedTuple):
    """What a run is made of.

    Attributes:
      split: Pairs of users and items.
      features: Of each modality by name.
      matrices: The graphs.
    """

    split: pairs.PairSplit
    features: dict[str, Float32[np.ndarray, "I _"]]
    matrices: adjacency.Matrices


def draw(settings: dict[str, Any], seed: int) -> Data:
    """Draws purchases and features, and builds the graphs."""
    split = graph_data.purchases(settings, seed)
    features = name_modalities(graph_data.features(settings, seed))
    return Data(split, features, build(split, features, settings["neighbours"]))


def name_modalities(
    drawn: tuple[Float32[np.ndarray, "I _"], ...],
) -> dict[str, Float32[np.ndarray, "I _"]]:
    """Gives modalities names."""
    return {f"modality_{number}": x for number, x in enumerate(drawn)}


def build(
    split: pairs.PairSplit, features: dict[str, Float32[np.ndarray, "I _"]], k: int
) -> adjacency.Matrices:
    """Builds the graphs; nothing is read from a cache."""
    train = split.train
    made = adjacency.Options(neighbours=k)
    return adjacency.build(train.indptr, train.items, features, made)


def construct(settings: dict[str, Any], seed: int, torch: bool) -> timing.Bench:
    """Times the building of all graphs, which are told apart by a product with each."""
    split = graph_data.purchases(settings, seed)
    features = name_modalities(graph_data.features(settings, seed))
    users = split.num_users
    vector = torch_graph.probe(users + split.num_items)

    def ours():
        made = build(split, features, settings["neighbours"])
        products = [made.adjacency @ vector]
        return np.concatenate(products + [g @ vector[users:] for g in made.similar])

    theirs = None
    if torch:
        theirs = torch_graph.build(
            split.train.users,
            split.train.items,
            users,
            list(features.values()),
            k=settings["neighbours"],
            device=timing.torch_device(),
        )
    watched = timing.Watched(ours)
    return timing.Bench(
        ours=watched,
        torch=theirs,
        unit="s",
        per_block=1,
        # A tie may be broken either way.
        disagreement=lambda a, b: float(np.mean(np.abs(a - b) > 1e-4)),
        tolerance=1e-3,
        peak_bytes=watched.peak,
    )


def multiply(settings: dict[str, Any], seed: int, torch: bool) -> timing.Bench:
    """Times products with the graph of users and items, with their gradients."""
    # The edges between items do not depend much on how wide their vectors are.
    data = draw(settings | {"feature_widths": (64, 64)}, seed)
    matrix, calls = data.matrices.adjacency, settings["calls"]
    shape = (matrix.shape[0], settings["columns"])
    x = np.random.default_rng(seed).standard_normal(shape, np.float32)
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


def search(settings: dict[str, Any], seed: int, torch: bool) -> timing.Bench:
    """Times nearest neighbours among vectors that are read from a file.

    Plain PyTorch has no side here: all cosines of 63,001 items take 16 GB.
    """
    del torch
    # Removed when the process that measures ends.
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "vectors.npy"
    graph_data.write_vectors(path, settings["shape"], seed)

    def ours():
        vectors = np.load(path, mmap_mode="r")
        return neighbours.find(vectors, settings["neighbours"]).items

    return timing.host(ours)
