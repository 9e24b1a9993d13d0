# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME's graphs, built once: training pairs and item features in, `gume.Graphs` out.

For each modality the items most similar by cosine; items similar in all modalities are
joined in the graph of users and items (Lin et al., CIKM 2024, section 3.1). All on the
host, in SciPy; the neighbours come from `neighbours`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Integer

from rfrec.config import UserError
from rfrec.graph import gume, neighbours, spmm
from rfrec.graph.neighbours import Neighbours


@dataclasses.dataclass(frozen=True)
class Settings:
    """How graphs are built.

    Attributes:
      neighbours: Items that an item is similar to, itself included.
      approximate: Whether an accelerator may miss a few of them.
    """

    neighbours: int = 10
    approximate: bool = False


class Matrices(NamedTuple):
    """The graphs as SciPy matrices, float32 in CSR.

    Attributes:
      adjacency: Of users and items, normalised; users come first.
      user_item: Its upper right part.
      similar: Of each modality, normalised.
    """

    adjacency: sp.csr_matrix
    user_item: sp.csr_matrix
    similar: tuple[sp.csr_matrix, ...]


def build(
    indptr: Integer[np.ndarray, "U1"],
    items: Integer[np.ndarray, "E"],
    features: Mapping[str, Float[np.ndarray, "I _"]],
    settings: Settings,
    *,
    folder: Path | None = None,
) -> Matrices:
    """Builds all graphs.

    Args:
      indptr: User u has the training items `items[indptr[u] : indptr[u + 1]]`.
      items: Rows of the features.
      features: Of each modality by name, possibly memory maps; a row of zeros is an
        item without a vector.
      settings: Of the graphs.
      folder: Where neighbours are kept, under a name that features and settings give;
        None keeps nothing.

    Raises:
      UserError: Features differ in their number of items, an item is beyond it, there
        are fewer items than neighbours, or the folder cannot be written.
    """
    num_items = _count(items, features)
    found = [
        neighbours.cached(
            folder, x, settings.neighbours, approximate=settings.approximate, name=name
        )
        for name, x in features.items()
    ]
    adjacency, user_item_part = user_item(indptr, items, num_items, semantic(found))
    return Matrices(adjacency, user_item_part, tuple(map(similarity, found)))


def place(matrices: Matrices) -> gume.Graphs:
    """Puts graphs on the device: that of users and items in parts."""
    users = matrices.user_item.shape[0]
    return gume.Graphs(
        spmm.from_scipy(matrices.user_item),
        spmm.from_scipy(matrices.adjacency[users:, users:]),
        tuple(map(spmm.from_scipy, matrices.similar)),
    )


def _count(items: np.ndarray, features: Mapping[str, np.ndarray]) -> int:
    if not features:
        raise UserError("there are no item features: GUME needs one modality or more")
    counts = {name: len(x) for name, x in features.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UserError(f"features differ in their number of items: {told}")
    num_items = next(iter(counts.values()))
    if len(items) and not 0 <= items.min() <= items.max() < num_items:
        raise UserError(
            f"training pairs name items {items.min()} to {items.max()}, the features"
            f" have {num_items} rows: one for each item is needed"
        )
    return num_items


def user_item(
    indptr: Integer[np.ndarray, "U1"],
    items: Integer[np.ndarray, "E"],
    num_items: int,
    joined: sp.csr_matrix,
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Returns the graph of users and items, and its part from items to users.

    Args:
      indptr: User u has the items `items[indptr[u] : indptr[u + 1]]`.
      items: Of training; a repeated pair counts once.
      num_items: Items, those without users included.
      joined: Edges between items, as of `semantic`.
    """
    users, ones = len(indptr) - 1, np.ones(len(items), np.float32)
    pairs = sp.csr_matrix((ones, items, indptr), (users, num_items))
    pairs.sum_duplicates()
    pairs.data[:] = 1
    whole = normalise(sp.bmat([[None, pairs], [pairs.T, joined]], format="csr"))
    return whole, whole[:users, users:]


def normalise(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Returns D^-1/2 W D^-1/2, D the sums of rows, also for what is not symmetric.

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


def similarity(found: Neighbours) -> sp.csr_matrix:
    """Returns the normalised graph from items to their neighbours, by cosine."""
    count, k = found.items.shape
    indptr = np.arange(count + 1) * k
    weights, columns = found.cosine.ravel(), found.items.ravel()
    graph = sp.csr_matrix((weights, columns, indptr), (count, count), copy=True)
    graph.sum_duplicates()
    graph.eliminate_zeros()
    return normalise(graph)


def semantic(found: Sequence[Neighbours]) -> sp.csr_matrix:
    """Returns unit edges from items to the others that all modalities hold similar."""
    count = len(found[0].items)
    edges = reduce(np.intersect1d, map(_edges, found))
    ones = np.ones(len(edges), np.float32)
    return sp.csr_matrix((ones, np.divmod(edges, count)), (count, count))


def _edges(found: Neighbours) -> np.ndarray:
    """Returns row * I + column of all edges between different items."""
    count = len(found.items)
    rows = np.arange(count, dtype=np.int64)[:, None]
    apart = (found.items != rows) & (found.cosine != 0)
    return (rows * count + found.items)[apart]
