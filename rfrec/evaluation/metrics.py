# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Metrics of ranked lists, one value for each user, in float64 NumPy.

A list is a row of items, best first. Entries that are masked or -1 are no items: they
keep their rank and are never hits. Metrics are not defined for users without a relevant
item; their value is NaN.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rfrec.config import UserError

# Number of users whose pairs of items are compared at a time.
_BLOCK = 512


class Matches(NamedTuple):
    """Relevant items in ranked lists.

    Attributes:
      hit: Whether the item at a rank is relevant; of an item that is listed twice only
        the first rank counts.
      relevant: Number of distinct relevant items.
    """

    hit: Bool[np.ndarray, "U K"]
    relevant: Int[np.ndarray, " U"]


def match(
    ranked: Int[np.ndarray, "U K"],
    relevant: Int[np.ndarray, "U *R"],
    valid: Bool[np.ndarray, "U K"] | None = None,
) -> Matches:
    """Finds the relevant items in ranked lists.

    Codes are matched in the same way as items, by the number of each code.

    Args:
      ranked: Items, best first; negative numbers are no items.
      relevant: Relevant item of each user, or rows of items padded with -1.
      valid: Entries of `ranked` that count; None counts all.

    Returns:
      The hits, from which every metric is computed.
    """
    num_users = len(ranked)
    relevant = relevant.reshape(num_users, -1).astype(np.int64)
    counted = ranked >= 0 if valid is None else valid & (ranked >= 0)
    span = max(int(ranked.max(initial=0)), int(relevant.max(initial=0))) + 1
    users = np.arange(num_users, dtype=np.int64)[:, None] * span
    wanted = np.unique((users + relevant)[relevant >= 0])
    positions = np.flatnonzero(counted.ravel())
    keys, first = np.unique((users + ranked).ravel()[positions], return_index=True)
    hit = np.zeros(ranked.size, bool)
    hit[positions[first]] = np.isin(keys, wanted, assume_unique=True)
    number = np.bincount(wanted // span, minlength=num_users)
    return Matches(hit.reshape(ranked.shape), number)


def match_rows(
    ranked: Int[np.ndarray, "U K"],
    indptr: Int[np.ndarray, " U1"],
    items: Int[np.ndarray, " E"],
) -> Matches:
    """Finds the relevant items, like `match`, for users with many of them.

    Args:
      ranked: Items, best first, each at most once; negative numbers are no items.
      indptr: User u's relevant items are `items[indptr[u] : indptr[u + 1]]`.
      items: Relevant items, ascending within a user, each once.
    """
    number = np.diff(indptr)
    if not len(items):
        return Matches(np.zeros(ranked.shape, bool), number)
    span = max(int(ranked.max(initial=0)), int(items.max())) + 1
    users = np.arange(len(ranked), dtype=np.int64)
    wanted = np.repeat(users, number) * span + items
    keys = users[:, None] * span + ranked
    index = np.searchsorted(wanted, keys).clip(max=len(wanted) - 1)
    return Matches((wanted[index] == keys) & (ranked >= 0), number)


def restrict(
    indptr: Int[np.ndarray, " U1"],
    items: Int[np.ndarray, " E"],
    members: Bool[np.ndarray, " N"],
) -> tuple[Int[np.ndarray, " U1"], Int[np.ndarray, " F"]]:
    """Keeps the relevant items that belong to a group of items.

    Args:
      indptr: Boundaries of the users, as in `match_rows`.
      items: Relevant items, as in `match_rows`.
      members: Items of the catalogue that belong to the group.

    Returns:
      The same two arrays for the group. Metrics of a user without a relevant item in
      it are NaN.
    """
    kept = members[items]
    before = np.concatenate([[0], np.cumsum(kept)])
    return before[indptr], items[kept]


def hit_rate(matches: Matches, k: int) -> Float[np.ndarray, " U"]:
    """Returns 1 for users with a relevant item among the first k, else 0."""
    return _defined(matches.hit[:, :k].any(axis=1), matches)


def recall(matches: Matches, k: int) -> Float[np.ndarray, " U"]:
    """Returns the share of the relevant items that are among the first k."""
    hits = matches.hit[:, :k].sum(axis=1)
    return _defined(hits / np.maximum(matches.relevant, 1), matches)


def precision(matches: Matches, k: int) -> Float[np.ndarray, " U"]:
    """Returns the relevant items among the first k, over k."""
    return _defined(matches.hit[:, :k].sum(axis=1) / k, matches)


def ndcg(matches: Matches, k: int) -> Float[np.ndarray, " U"]:
    """Returns the discounted gain of the first k over that of the best list.

    Relevance is 0 or 1 and rank r is discounted by log2(r + 1) (Jarvelin & Kekalainen
    2002). The best list begins with min(k, relevant) relevant items.
    """
    gain = 1.0 / np.log2(np.arange(2, max(k, 1) + 2))
    hit = matches.hit[:, :k]
    best = np.concatenate([[0.0], np.cumsum(gain)])[np.minimum(matches.relevant, k)]
    total = hit @ gain[: hit.shape[1]]
    return _defined(total / np.where(best > 0, best, 1.0), matches)


def average_precision(matches: Matches, k: int) -> Float[np.ndarray, " U"]:
    """Returns the precision at each hit of the first k, over min(k, relevant)."""
    hit = matches.hit[:, :k]
    at_rank = np.cumsum(hit, axis=1) / np.arange(1, hit.shape[1] + 1)[None]
    most = np.minimum(np.maximum(matches.relevant, 1), k)
    return _defined((at_rank * hit).sum(axis=1) / most, matches)


def reciprocal_rank(matches: Matches, k: int) -> Float[np.ndarray, " U"]:
    """Returns one over the rank of the first hit among the first k, 0 without one."""
    hit = matches.hit[:, :k]
    if not hit.shape[1]:
        return _defined(np.zeros(len(hit)), matches)
    first = np.argmax(hit, axis=1) + 1
    return _defined(np.where(hit.any(axis=1), 1.0 / first, 0.0), matches)


def _defined(values, matches: Matches) -> Float[np.ndarray, " U"]:
    return np.where(matches.relevant > 0, values, np.nan)


_METRICS = {
    "hr": hit_rate,
    "recall": recall,
    "precision": precision,
    "ndcg": ndcg,
    "map": average_precision,
    "mrr": reciprocal_rank,
}


def per_user(
    matches: Matches, names: Sequence[str]
) -> dict[str, Float[np.ndarray, " U"]]:
    """Computes metrics by name.

    Args:
      matches: Hits of the lists.
      names: Names such as `hr@10`, `recall@20`, `precision@5`, `ndcg@10`, `map@10` and
        `mrr@10`. Without a cut-off, as in `mrr`, the whole list counts.

    Raises:
      UserError: A metric does not exist or a cut-off is wrong.
    """
    values = {}
    for name in names:
        metric, at, cutoff = name.partition("@")
        number = cutoff if at else str(matches.hit.shape[1])
        if metric not in _METRICS or not number.isdecimal() or int(number) < 1:
            raise UserError(
                f"metric {name!r} does not exist: use one of {', '.join(_METRICS)},"
                " with a cut-off of at least 1 as in ndcg@10"
            )
        values[name] = _METRICS[metric](matches, int(number))
    return values


def coverage(ranked: Int[np.ndarray, "U K"], num_items: int, k: int) -> float:
    """Returns the share of the catalogue that is in the first k of any user's list.

    Args:
      ranked: Items; negative numbers are no items.
      num_items: Number of items in the catalogue, at least 1.
      k: Cut-off, at least 1.
    """
    shown = ranked[:, :k]
    return len(np.unique(shown[shown >= 0])) / num_items


def vector_distance(
    ranked: Int[np.ndarray, "U K"], vectors: Float[np.ndarray, "N D"], k: int
) -> Float[np.ndarray, " U"]:
    """Returns the mean cosine distance between the items of each list.

    The mean is over all pairs of the first k items; a zero vector has distance 1 to all
    others. It is computed without the pairs: the squared length of the sum of the unit
    vectors is the sum of all products.

    Args:
      ranked: Items; negative numbers are no items.
      vectors: Vectors of the items.
      k: Cut-off.

    Returns:
      From 0 (equal directions) to 2; NaN for lists of fewer than two items.
    """
    result = np.empty(len(ranked))
    for start in range(0, len(ranked), _BLOCK):
        items = ranked[start : start + _BLOCK, :k]
        rows = vectors[np.maximum(items, 0)].astype(np.float64)
        length = np.sqrt(np.sum(rows**2, axis=-1, keepdims=True))
        rows = rows / np.where(length > 0, length, 1.0) * (items >= 0)[:, :, None]
        total = np.sum(rows.sum(axis=1) ** 2, axis=-1) - np.sum(rows**2, axis=(1, 2))
        pairs = _ordered_pairs(items)
        similarity = total / np.where(pairs > 0, pairs, np.nan)
        result[start : start + _BLOCK] = 1.0 - similarity
    return result


def code_distance(
    ranked: Int[np.ndarray, "U K"], codes: Int[np.ndarray, "N Q"], k: int
) -> Float[np.ndarray, " U"]:
    """Returns the mean share of levels in which the codes of two listed items differ.

    Args:
      ranked: Items; negative numbers are no items.
      codes: Codes of the items.
      k: Cut-off.

    Returns:
      From 0 (equal codes) to 1; NaN for lists of fewer than two items.
    """
    result = np.empty(len(ranked))
    for start in range(0, len(ranked), _BLOCK):
        items = ranked[start : start + _BLOCK, :k]
        valid = items >= 0
        both = valid[:, :, None] & valid[:, None, :]
        rows = codes[np.maximum(items, 0)]
        differing = np.zeros(len(items), np.int64)
        for level in range(codes.shape[1]):
            one = rows[:, :, level]
            differing += np.sum(
                (one[:, :, None] != one[:, None, :]) & both, axis=(1, 2)
            )
        pairs = _ordered_pairs(items) * codes.shape[1]
        result[start : start + _BLOCK] = differing / np.where(pairs > 0, pairs, np.nan)
    return result


def _ordered_pairs(items: Int[np.ndarray, "U K"]) -> Int[np.ndarray, " U"]:
    number = np.sum(items >= 0, axis=1)
    return number * (number - 1)
