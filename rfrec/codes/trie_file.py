# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tries as `.npz` files of integers of the smallest width; nothing is pickled.

A file contains, for each depth, the number of children of every node and the values
that lead to them: codes, and items at the leaves. Everything is checked when it is
read, so a damaged file cannot refer to an item that does not exist.
"""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer, Shaped

from rfrec import files
from rfrec.codes.trie import Trie, exclusive_sum, from_levels
from rfrec.config import UserError

_FORMAT = "rfrec trie 1"


def save(trie: Trie, path: str | os.PathLike[str]) -> None:
    """Writes a trie to a `.npz` file, atomically.

    Raises:
      UserError: The file cannot be written.
    """
    path = Path(path)
    content = {
        "format": np.array(_FORMAT),
        "sizes": np.array(trie.sizes, np.int64),
        "num_items": np.array(trie.num_items, np.int64),
    }
    for depth, indptr in enumerate(trie.pointers):
        content[f"children_{depth}"] = _narrow(np.diff(indptr))
        content[f"values_{depth}"] = _narrow(trie.values[depth])
    with files.replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **content)


def _narrow(values: Int[np.ndarray, "_"]) -> Integer[np.ndarray, "_"]:
    return values.astype(np.min_scalar_type(values.max()))


def load(path: str | os.PathLike[str]) -> Trie:
    """Reads and checks a file of `save`.

    Raises:
      UserError: The file cannot be read, is not a trie, or is damaged.
    """
    path = Path(path)
    content = _read(path)
    sizes = tuple(_integers(path, content, "sizes", 1).tolist())
    num_items = int(_integers(path, content, "num_items", 0))
    if not sizes or min(sizes) < 1 or max(*sizes, num_items) >= 2**31:
        raise _damaged(path, "sizes")
    pointers, values, nodes = [], [], 1
    for depth, limit in enumerate((*sizes, num_items)):
        children = _integers(path, content, f"children_{depth}", 1)
        value = _integers(path, content, f"values_{depth}", 1)
        total = int(children.sum(dtype=np.int64))
        if len(children) != nodes or children.min() < 1 or total != len(value):
            raise _damaged(path, f"children_{depth}")
        indptr = exclusive_sum(children)
        rises = np.zeros(len(value), bool)
        rises[1:] = value[1:] > value[:-1]
        rises[indptr[:-1]] = True
        if not rises.all() or value.min() < 0 or value.max() >= limit:
            raise _damaged(path, f"values_{depth}")
        pointers.append(indptr)
        values.append(value.astype(np.int32))
        nodes = len(value)
    if np.bincount(values[-1]).max() > 1:
        raise _damaged(path, f"values_{len(sizes)}")
    return from_levels(sizes, pointers, values, num_items)


def _read(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads all arrays of a file that is marked as a trie."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    remedy = "use a file that rfrec.codes.trie_file wrote, or rebuild the trie"
    with file:
        try:
            archive = np.load(file, allow_pickle=False)
            content = {name: archive[name] for name in archive.files}
        # Damaged archives raise many kinds of exceptions.
        except Exception as error:
            raise UserError(f"{path}: is not a complete .npz file; {remedy}") from error
    if str(content.get("format")) != _FORMAT:
        raise UserError(f"{path}: is not marked {_FORMAT!r}; {remedy}")
    return content


def _integers(
    path: Path, content: dict[str, Shaped[np.ndarray, "..."]], name: str, rank: int
) -> Integer[np.ndarray, "..."]:
    values = content.get(name)
    if values is None or values.ndim != rank or values.dtype.kind not in "iu":
        raise _damaged(path, name)
    return values


def _damaged(path: Path, name: str) -> UserError:
    return UserError(f"{path}: {name} is damaged; rebuild the trie and save it")
