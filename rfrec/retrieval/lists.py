# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Ranked lists of items from the beams of a search; NumPy, without the model."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32

# The score of an entry without an item. It is finite, so that nothing computed from it
# is NaN.
INVALID = -1e9


class Answers(NamedTuple):
    """Ranked lists, best first; in the order drawn if items were sampled.

    Attributes:
      items: Item rows; -1 after the last one.
      scores: Scores of the items; items that share a code tuple share the score.
      leaves: Code tuples, as leaves of the trie; -1 after the last one.
    """

    items: Int32[np.ndarray, "P K"]
    scores: Float32[np.ndarray, "P K"]
    leaves: Int32[np.ndarray, "P S"]


def from_beams(
    items: Int32[np.ndarray, "P S G"],
    scores: Float32[np.ndarray, "P S"],
    leaves: Int32[np.ndarray, "P S"],
    top_k: int,
) -> Answers:
    """Lists the items of ranked code tuples, each item once.

    Args:
      items: Items of each code tuple; -1 where there is none.
      scores: Scores of the code tuples.
      leaves: Leaves of the code tuples; -1 where invalid. Repeated leaves are ignored.
      top_k: Length of the lists.
    """
    repeats = repeated(leaves)
    leaves = np.where(repeats, -1, leaves)
    items = np.where(repeats[..., None], -1, items)
    flat = items.reshape(len(items), -1)
    each = np.repeat(scores, items.shape[2], axis=1)
    missing = ((0, 0), (0, max(top_k - flat.shape[1], 0)))
    flat = np.pad(flat, missing, constant_values=-1)
    each = np.pad(each, missing, constant_values=INVALID)
    order = np.argsort(flat < 0, axis=1, kind="stable")[:, :top_k]
    flat, each = (np.take_along_axis(a, order, axis=1) for a in (flat, each))
    each = np.where(flat < 0, np.float32(INVALID), each)
    return Answers(flat, each, to_front(leaves))


def distinct_codes(
    items: Int32[np.ndarray, "U K"], leaf_of: Int32[np.ndarray, " N"]
) -> Int32[np.ndarray, "U K"]:
    """Turns ranked items into ranked code tuples, each at its first rank.

    Args:
      items: Item rows; -1 where there is none.
      leaf_of: Leaf of each item, from `trie.leaf_of`.
    """
    leaves = np.where(items >= 0, leaf_of[items], -1)
    return to_front(np.where(repeated(leaves), -1, leaves))


def to_front(numbers: Int32[np.ndarray, "U K"]) -> Int32[np.ndarray, "U K"]:
    """Moves the entries that are not -1 to the front of their rows, in order."""
    order = np.argsort(numbers < 0, axis=1, kind="stable")
    return np.take_along_axis(numbers, order, axis=1)


def repeated(numbers: Int[np.ndarray, "U K"]) -> Bool[np.ndarray, "U K"]:
    """Marks entries that occur earlier in their row; -1 is not an entry."""
    order = np.argsort(numbers, axis=1, kind="stable")
    ranked = np.take_along_axis(numbers, order, axis=1)
    same = np.zeros(numbers.shape, bool)
    same[:, 1:] = (ranked[:, 1:] == ranked[:, :-1]) & (ranked[:, 1:] >= 0)
    result = np.empty_like(same)
    np.put_along_axis(result, order, same, axis=1)
    return result
