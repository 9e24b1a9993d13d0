# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME's graphs, built once from training pairs and item features.

Each modality has a graph of the most similar items by cosine. Items that are similar in
all modalities are also joined in the graph of users and items (Lin et al., CIKM 2024,
section 3.1). The graphs are built on the host, in SciPy.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Integer

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.graph import gume, neighbours, spmm
from rfrec.graph.neighbours import Neighbours


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the item graphs.

    Attributes:
      neighbours: Number of most similar items of each item, itself included.
      cache: Folder in which neighbours are stored for later runs, under a name that
        depends on features and options; None stores nothing.
      approximate: Whether an accelerator may miss a few neighbours.
    """

    neighbours: int = cfg.option(10, cfg.whole(1))
    cache: str | None = cfg.option(None, when="evaluation")
    approximate: bool = False


class Matrices(NamedTuple):
    """The graphs as SciPy matrices, float32 in CSR.

    Attributes:
      adjacency: Normalised graph of all nodes; users come first.
      user_item: Upper right part of `adjacency`.
      similar: Normalised graph of each modality.
    """

    adjacency: sp.csr_matrix
    user_item: sp.csr_matrix
    similar: tuple[sp.csr_matrix, ...]


def build(
    indptr: Integer[np.ndarray, "U1"],
    items: Integer[np.ndarray, "E"],
    features: Mapping[str, Float[np.ndarray, "I _"]],
    options: Options,
) -> Matrices:
    """Builds all graphs.

    Args:
      indptr: User u has the training items `items[indptr[u] : indptr[u + 1]]`.
      items: Items of the training pairs: rows of the features.
      features: Features of each modality by name, possibly memory maps; a row of zeros
        is an item without a vector.
      options: Options of the graphs.

    Raises:
      UserError: Features differ in their number of items, an item has no row, there
        are fewer items than neighbours, or the cache cannot be written.
    """
    num_items = _count_items(items, features)
    folder = Path(options.cache).expanduser() if options.cache else None
    nearest = [
        neighbours.cached(
            folder, x, options.neighbours, approximate=options.approximate, name=name
        )
        for name, x in features.items()
    ]
    adjacency, user_item_part = user_item(indptr, items, num_items, semantic(nearest))
    return Matrices(adjacency, user_item_part, tuple(map(similarity, nearest)))


def place(matrices: Matrices) -> gume.Graphs:
    """Puts the graphs on the device; the graph of all nodes is split into its parts."""
    users = matrices.user_item.shape[0]
    return gume.Graphs(
        spmm.from_scipy(matrices.user_item),
        spmm.from_scipy(matrices.adjacency[users:, users:]),
        tuple(map(spmm.from_scipy, matrices.similar)),
    )


def _count_items(items: np.ndarray, features: Mapping[str, np.ndarray]) -> int:
    if not features:
        raise UserError("GUME requires the features of at least one modality")
    counts = {name: len(x) for name, x in features.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UserError(f"features differ in their number of items: {listed}")
    num_items = next(iter(counts.values()))
    if len(items) and not 0 <= items.min() <= items.max() < num_items:
        raise UserError(
            f"training pairs contain items {items.min()} to {items.max()}, but the"
            f" features have {num_items} rows: one row for each item is required"
        )
    return num_items


def user_item(
    indptr: Integer[np.ndarray, "U1"],
    items: Integer[np.ndarray, "E"],
    num_items: int,
    joined: sp.csr_matrix,
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Returns the normalised graph of all nodes, and its part from items to users.

    Args:
      indptr: User u has the items `items[indptr[u] : indptr[u + 1]]`.
      items: Items of the training pairs; a repeated pair counts once.
      num_items: Number of items, including those without users.
      joined: Edges between items, from `semantic`.
    """
    users, ones = len(indptr) - 1, np.ones(len(items), np.float32)
    pairs = sp.csr_matrix((ones, items, indptr), (users, num_items))
    pairs.sum_duplicates()
    pairs.data[:] = 1
    whole = normalise(sp.bmat([[None, pairs], [pairs.T, joined]], format="csr"))
    return whole, whole[:users, users:]


def normalise(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Returns D^-1/2 W D^-1/2, where D are the sums of rows; W may be asymmetric.

    The factor of a row without a positive sum is 0.
    """
    degree = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    factor = np.zeros_like(degree)
    np.power(degree, -0.5, out=factor, where=degree > 0)
    scaled = sp.csr_matrix(matrix, dtype=np.float32, copy=True)
    rows = np.repeat(factor, np.diff(scaled.indptr))
    scaled.data = (rows * scaled.data * factor[scaled.indices]).astype(np.float32)
    scaled.sort_indices()
    return scaled


def similarity(nearest: Neighbours) -> sp.csr_matrix:
    """Returns the normalised graph from items to their neighbours, by cosine."""
    count, k = nearest.items.shape
    indptr = np.arange(count + 1) * k
    weights, columns = nearest.cosine.ravel(), nearest.items.ravel()
    graph = sp.csr_matrix((weights, columns, indptr), (count, count), copy=True)
    graph.sum_duplicates()
    graph.eliminate_zeros()
    return normalise(graph)


def semantic(nearest: Sequence[Neighbours]) -> sp.csr_matrix:
    """Returns unit edges between different items that are similar in all modalities."""
    count = len(nearest[0].items)
    edges = reduce(np.intersect1d, map(_edges, nearest))
    ones = np.ones(len(edges), np.float32)
    return sp.csr_matrix((ones, np.divmod(edges, count)), (count, count))


def _edges(nearest: Neighbours) -> np.ndarray:
    """Returns row * I + column of all edges between different items."""
    count = len(nearest.items)
    rows = np.arange(count, dtype=np.int64)[:, None]
    apart = (nearest.items != rows) & (nearest.cosine != 0)
    return (rows * count + nearest.items)[apart]
