# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The items most similar to each item, by the cosine of their features.

Never all pairs at once: a block of rows meets a block of columns. On a CPU each product
serves both blocks, which halves the arithmetic; features stay where they are, on disk
if they are memory-mapped. An accelerator compares a block of rows with all items.

Items with the same vector, as those that were given the mean, are compared once: the
last bit of a product depends on its place in a block and on the number of threads, and
which of them are nearest would depend on these. An item takes them one after the other,
the first after the last, from itself on if it is one of them, else from place i modulo
their number on, where i is its own number: each is taken about as often as any other.
By their number alone the first few would be neighbours of most items, for a mean is
close to all, and the last not even of themselves. An item without a vector, a row of
zeros, is similar to itself alone.
"""

import functools
import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import lax
from jaxtyping import Float, Float32, Int32, Int64

from rfrec import files
from rfrec.config import UserError
from rfrec.data import features

# Products of a block with itself are the only ones made twice: small blocks waste less.
BLOCK_ROWS = 1024
# Columns whose k-th best is a row's first bar: few of the others pass it.
_SAMPLE = 256
# Values of a row that say whether it may be equal to another: to hash all of it takes a
# tenth of the time of the products.
_COMPARED = 32
# Of vectors; PyTorch's `normalize` has the same.
_FLOOR = 1e-12
# Part of the name of what is kept: change it with the meaning of the content.
_VERSION = "4"

_DAMAGED = (
    *(OSError, EOFError, ValueError, KeyError),
    *(zipfile.BadZipFile, zlib.error),
)


class Neighbours(NamedTuple):
    """The most similar items of each item, best first.

    Of equal vectors the item itself comes first; see above.

    Attributes:
      items: Their rows; an item is commonly its own first.
      cosine: Their similarity.
    """

    items: Int32[np.ndarray, "I K"]
    cosine: Float32[np.ndarray, "I K"]


def find(
    x: Float[np.ndarray, "I D"],
    k: int,
    *,
    approximate: bool = False,
    name: str = "features",
    block_rows: int = BLOCK_ROWS,
) -> Neighbours:
    """Finds the k most similar items of each item.

    Args:
      x: Finite vectors, possibly a memory map.
      k: From 1 to the number of items.
      approximate: Take `lax.approx_max_k`, fast on accelerators, which misses a few.
      name: Name of the features, for errors.
      block_rows: Rows of a block.

    Raises:
      UserError: There are fewer items than k.
    """
    if not 1 <= k <= len(x):
        raise UserError(
            f"{name}: {k} neighbours of {len(x)} items are impossible; set"
            f" graph.neighbours from 1 to {len(x)}"
        )
    scale = _inverse_norms(x, block_rows)
    first, group = _group_equal(x, block_rows)
    vectors = _Rows(x, None if len(first) == len(x) else first)
    most = min(k, len(first))
    if approximate or jax.default_backend() != "cpu":
        nearest = _find_on_device(vectors, scale[first], most, approximate, block_rows)
    else:
        nearest = _find_on_host(vectors, scale[first], most, block_rows)
    if len(first) < len(x):
        nearest = _spread(nearest, group, k)
    empty = np.flatnonzero(scale == 0)
    nearest.items[empty] = empty[:, None]
    nearest.cosine[empty] = np.arange(k) == 0
    return nearest


class _Rows:
    """Some rows of vectors that stay where they are; slices of them are read."""

    def __init__(self, x: np.ndarray, chosen: np.ndarray | None):
        self._x, self._chosen = x, chosen

    def __len__(self) -> int:
        return len(self._x if self._chosen is None else self._chosen)

    def __getitem__(self, rows: slice) -> np.ndarray:
        wanted = rows if self._chosen is None else self._chosen[rows]
        return features.as_float32(self._x[wanted])


def _group_equal(
    x: np.ndarray, block_rows: int
) -> tuple[Int64[np.ndarray, " G"], Int64[np.ndarray, " I"]]:
    """Returns the first row of each different vector, and each row's number there."""
    owners, seen = np.arange(len(x)), {}
    for row in _alike(x, block_rows):
        digest = hashlib.blake2b(x[row].tobytes(), digest_size=16).digest()
        owners[row] = seen.setdefault(digest, row)
    return np.unique(owners, return_inverse=True)


def _alike(x: np.ndarray, block_rows: int) -> Int64[np.ndarray, " S"]:
    """Returns the rows that have a few values in common with another, in place."""
    every = max(1, x.shape[1] // _COMPARED)
    parts = [
        np.ascontiguousarray(x[start : start + block_rows, ::every])
        for start in range(0, len(x), block_rows)
    ]
    few = np.concatenate(parts)
    _, number, counts = np.unique(
        few.view(f"V{few.itemsize * few.shape[1]}").ravel(),
        return_inverse=True,
        return_counts=True,
    )
    return np.flatnonzero(counts[number] > 1)


def _spread(nearest: Neighbours, group: np.ndarray, k: int) -> Neighbours:
    """Turns neighbours among different vectors into those among items.

    Args:
      nearest: Neighbours of each different vector, min(k, their number).
      group: The vector of each item.
      k: Neighbours wanted.
    """
    count, rows = len(group), np.arange(len(group))
    members, sizes = np.argsort(group, kind="stable"), np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    own = np.empty(count, np.int64)  # Place of an item among those of its vector.
    own[members] = rows - starts[group[members]]
    near = nearest.items[group]
    begin = np.where(near == group[:, None], own[:, None], rows[:, None])
    # More than k of one vector are never wanted.
    each = np.minimum(sizes, k)[near]
    of_row, each = each.sum(axis=1), each.ravel()
    near, begin = np.repeat(near, each), np.repeat(begin, each)
    nth = np.arange(len(near)) - np.repeat(np.cumsum(each) - each, each)
    item = members[starts[near] + (begin + nth) % sizes[near]]
    value = np.repeat(nearest.cosine[group].ravel(), each)
    # The first k of each row, which is in order already.
    place = np.arange(len(near)) - np.repeat(np.cumsum(of_row) - of_row, of_row)
    return Neighbours(
        *(a[place < k].reshape(-1, k) for a in (item.astype(np.int32), value))
    )


def _inverse_norms(x: np.ndarray, block_rows: int) -> Float32[np.ndarray, "I"]:
    scale = np.zeros(len(x), np.float32)
    for start in range(0, len(x), block_rows):
        rows = features.as_float32(x[start : start + block_rows])
        norm = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        np.divide(1, norm, out=scale[start : start + block_rows], where=norm > _FLOOR)
    return scale


def _find_on_host(x: _Rows, scale: np.ndarray, k: int, block_rows: int) -> Neighbours:
    """Compares each block of rows with itself and with the later blocks."""
    count = len(x)
    # Placeholders: no item, worse than any.
    items = np.full((count, k), count, np.int32)
    cosine = np.full((count, k), -np.inf, np.float32)
    starts = range(0, count, block_rows)
    buffer = np.empty((min(block_rows, count),) * 2, np.float32)
    for start in starts:
        a = slice(start, min(start + block_rows, count))
        left = x[a] * scale[a, None]
        for other in starts[start // block_rows :]:
            b = slice(other, min(other + block_rows, count))
            # Contiguous, as BLAS writes in place.
            part = buffer.ravel()[: len(left) * (b.stop - b.start)]
            part = part.reshape(len(left), -1)
            np.matmul(left, x[b].T, out=part)
            part *= scale[b]
            _merge(items[a], cosine[a], part, other)
            if other != start:
                _merge(items[b], cosine[b], part.T, start)
    return Neighbours(items, cosine)


def _merge(items: np.ndarray, cosine: np.ndarray, part: np.ndarray, first: int):
    """Updates the best of some rows, in place, by further columns.

    Args:
      items: Best so far.
      cosine: Cosines of the best so far.
      part: Cosines with the columns.
      first: Number of the first column, greater than any item found so far: among
        equal cosines the order of arrival is that of the numbers.
    """
    rows, k = items.shape
    bar = cosine[:, -1]
    if np.isneginf(bar).any() and part.shape[1] >= k:
        sample = part[:, : max(_SAMPLE, k)]
        place = sample.shape[1] - k
        bar = np.maximum(bar, np.partition(sample, place, axis=1)[:, place])
    where = _at_least(part, bar)
    row = np.concatenate([np.repeat(np.arange(rows), k), where[0]])
    item = np.concatenate([items.ravel(), where[1].astype(np.int32) + first])
    value = np.concatenate([cosine.ravel(), part[where]])
    order = np.argsort(_falling(row, value), kind="stable")
    counts = np.bincount(row, minlength=rows)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    best = order[place < k].reshape(rows, k)
    items[:], cosine[:] = item[best], value[best]


def _falling(row: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Returns integers that order by row, and within one from large to small values.

    One sort of integers takes a third of the time that sorting by two keys takes.
    """
    # Of positive floats the bits ascend, of negative ones they descend; 0 is not -0.
    bits = (value + np.float32(0)).view(np.int32)
    ascending = np.where(bits < 0, bits ^ np.int32(2**31 - 1), bits).astype(np.int64)
    return (row.astype(np.int64) << 32) - ascending


def _at_least(part: np.ndarray, bar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows and columns of the values that reach the bar of their row."""
    if part.flags.c_contiguous:
        row, column = np.divmod(np.flatnonzero(part >= bar[:, None]), part.shape[1])
    else:
        column, row = np.divmod(np.flatnonzero(bar <= part.T), len(part))
    return row, column


def _find_on_device(
    x: _Rows, scale: np.ndarray, k: int, approximate: bool, block_rows: int
) -> Neighbours:
    """Compares blocks of rows with all items."""
    count, size = len(x), min(block_rows, len(x))
    placed = jnp.asarray(x[:])
    unit = jax.jit(lambda x, s: x * s[:, None], donate_argnums=0)(placed, scale)
    best = functools.partial(_best_of_block, k=k, size=size, approximate=approximate)
    items, cosine = np.empty((count, k), np.int32), np.empty((count, k), np.float32)
    # The last block overlaps the one before, so that all have the same size.
    for start in [*range(0, count - size, size), count - size]:
        rows = slice(start, start + size)
        cosine[rows], items[rows] = jax.device_get(best(unit, start))
    return Neighbours(items, cosine)


@functools.partial(jax.jit, static_argnames=("k", "size", "approximate"))
def _best_of_block(unit, start, *, k: int, size: int, approximate: bool):
    rows = lax.dynamic_slice_in_dim(unit, start, size)
    part = jnp.matmul(rows, unit.T, precision=lax.Precision.HIGHEST)
    if approximate:
        return lax.approx_max_k(part, k)
    return tuple(lax.top_k(part, k))


def cached(
    folder: Path | None,
    x: Float[np.ndarray, "I D"],
    k: int,
    *,
    approximate: bool = False,
    name: str = "features",
) -> Neighbours:
    """Returns the result of `find`, stored in a folder for later calls.

    Args:
      folder: Folder of the files, created if missing; None stores nothing.
      x: Finite vectors, possibly a memory map.
      k: From 1 to the number of items.
      approximate: As for `find`.
      name: Name of the features, for errors and the log.

    Raises:
      UserError: There are fewer items than k, or the folder cannot be written.
    """
    if folder is None:
        return find(x, k, approximate=approximate, name=name)
    settings = f"{features.fingerprint(x)} {k} {approximate} {_VERSION}"
    path = folder / f"knn_{hashlib.sha256(settings.encode()).hexdigest()[:20]}.npz"
    if path.exists():
        try:
            return _read(path, len(x), k)
        except _DAMAGED as error:
            logging.warning(
                "%s: neighbours by %s are damaged (%s): computing them again",
                *(path, name, " ".join(repr(error).split())[:120]),
            )
    nearest = find(x, k, approximate=approximate, name=name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created: {error.strerror}") from error
    with files.replacing(path) as partial:
        np.savez(partial, **nearest._asdict())
    return nearest


def _read(path: Path, count: int, k: int) -> Neighbours:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        items, cosine = file["items"], file["cosine"]
    shapes = items.shape == cosine.shape == (count, k)
    if not shapes or items.dtype != np.int32 or cosine.dtype != np.float32:
        raise ValueError("arrays of another shape or type")
    if items.min() < 0 or items.max() >= count or not np.isfinite(cosine).all():
        raise ValueError("values out of range")
    return Neighbours(items, cosine)
