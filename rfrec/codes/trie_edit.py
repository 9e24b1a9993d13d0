# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Search in a trie, and changes without rebuilding it.

`add` and `remove` return the trie that `trie.build` would return for the changed table.
Existing entries are not sorted again: new items are inserted by bisection, and every
level is copied once.
"""

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64

from rfrec.codes import table
from rfrec.codes.trie import Trie, check_items, exclusive_sum, from_levels
from rfrec.config import UserError


def find(trie: Trie, codes: Int[np.ndarray, "n Q"]) -> Int32[np.ndarray, "n"]:
    """Returns the leaf of each code tuple, -1 if no item has it.

    Raises:
      UserError: The tuples do not have as many levels as the trie.
    """
    if codes.shape[1] != len(trie.sizes):
        raise UserError(
            f"codes have {codes.shape[1]} levels, the trie has {len(trie.sizes)}; both"
            " must be of one tokenizer"
        )
    place, known = np.zeros(len(codes), np.int64), np.ones(len(codes), bool)
    for indptr, values, column in zip(trie.indptr, trie.codes, codes.T, strict=True):
        place, known = _descend(indptr, values, place, known, column)
    return np.where(known, place, -1).astype(np.int32)


def _descend(
    indptr: Int32[np.ndarray, "_"],
    values: Int32[np.ndarray, "_"],
    place: Int64[np.ndarray, "n"],
    known: Bool[np.ndarray, "n"],
    wanted: Int[np.ndarray, "n"],
) -> tuple[Int64[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Goes one level down, by bisection among the children.

    Args:
      place: Nodes; where `known` is false, the node before which the prefix belongs.
      wanted: Code to follow.

    Returns:
      `place` and `known` one level below.
    """
    low = indptr[place].astype(np.int64)
    stop = np.where(known, indptr[np.minimum(place + 1, len(indptr) - 1)], low)
    high = stop
    while (low < high).any():
        middle = (low + high) // 2
        # Where the search has ended, middle may lie past the last value.
        less = values[np.minimum(middle, len(values) - 1)] < wanted
        less &= low < high
        low, high = np.where(less, middle + 1, low), np.where(less, high, middle)
    hit = values[np.minimum(low, len(values) - 1)] == wanted
    return low, known & (low < stop) & hit


def add(trie: Trie, codes: Int[np.ndarray, "n Q"], items: Int[np.ndarray, "_"]) -> Trie:
    """Inserts items and returns a new trie.

    Args:
      codes: Codes 0 to `sizes[l]` - 1 at level l; tuples may be repeated, and may be in
        the trie.
      items: Item of each row; items beyond the catalogue enlarge it.

    Raises:
      UserError: An item is repeated or in the trie, or a code is out of range.
    """
    table.check_codes(codes, trie.sizes)
    check_items(items, len(codes))
    present = items[_held(trie, items)]
    if len(present):
        raise UserError(f"item {present[0]} is already in the trie; remove it first")
    order = np.lexsort((items, *codes.T[::-1]))
    columns = [*codes[order].T, items[order]]
    place, number = np.zeros((2, len(items)), np.int64)
    known, first = np.ones(len(items), bool), np.zeros(len(items), bool)
    first[0], new_parents = True, np.zeros(0, np.int64)
    pointers, values = [], []
    for indptr, old, column in zip(trie.pointers, trie.values, columns, strict=True):
        place, known = _descend(indptr, old, place, known, column)
        first[1:] |= column[1:] != column[:-1]
        opens = first & ~known
        children = np.insert(np.diff(indptr), new_parents, 0)
        np.add.at(children, number[opens], 1)
        pointers.append(exclusive_sum(children))
        new_parents = place[opens]
        values.append(np.insert(old, new_parents, column[opens]))
        number = place + np.cumsum(opens) - ~known
    num_items = max(trie.num_items, int(items.max()) + 1)
    return from_levels(trie.sizes, pointers, values, num_items)


def remove(trie: Trie, items: Int[np.ndarray, "_"]) -> Trie:
    """Removes items and returns a new trie; the catalogue keeps its size.

    Raises:
      UserError: An item is repeated or not in the trie, or none would be left.
    """
    check_items(items, len(items))
    absent = items[~_held(trie, items)]
    if len(absent):
        raise UserError(f"item {absent[0]} is not in the trie; nothing was removed")
    if len(items) == len(trie.leaf_items):
        raise UserError(f"removing all {len(items)} items would leave an empty trie")
    gone = np.zeros(trie.num_items, bool)
    gone[items] = True
    dead, pointers, values = np.flatnonzero(gone[trie.leaf_items]), [], []
    for indptr, old in zip(trie.pointers[::-1], trie.values[::-1], strict=True):
        values.append(np.delete(old, dead))
        # With keys of another type, searchsorted would convert all of indptr.
        keys = dead.astype(np.int32)
        above = np.searchsorted(indptr, keys, side="right") - 1
        parents, lost = np.unique(above, return_counts=True)
        children = np.diff(indptr)
        children[parents] -= lost
        dead = parents[children[parents] == 0]
        pointers.append(exclusive_sum(np.delete(children, dead)))
    return from_levels(trie.sizes, pointers[::-1], values[::-1], trie.num_items)


def _held(trie: Trie, items: Int[np.ndarray, "_"]) -> Bool[np.ndarray, "_"]:
    """Marks the items that are in the trie."""
    held = np.zeros(max(trie.num_items, int(items.max(initial=-1)) + 1), bool)
    held[trie.leaf_items] = True
    return held[items]
