# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Merges two ranked lists of each user, for example of text and of image beams.

All rules work on the union of both lists: the items of the first list, then those that
only the second list has. Entries beyond the end of a list are -1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rfrec.config import UserError
from rfrec.evaluation import metrics
from rfrec.evaluation.ranking import NEG, Lists
from rfrec.retrieval.lists import repeated

# The constant of Cormack, Clarke & Buettcher 2009.
RRF_CONSTANT = 60.0


class United(NamedTuple):
    """The items of both lists, with their ranks and scores in each.

    Attributes:
      items: -1 where there is none.
      scores: In the first and in the second list; 0 where an item is not in it.
      ranks: From 1; 0 where an item is not in the list.
    """

    items: Int[np.ndarray, "U W"]
    scores: Float[np.ndarray, "2 U W"]
    ranks: Int[np.ndarray, "2 U W"]

    @property
    def present(self) -> Bool[np.ndarray, "2 U W"]:
        """Which list holds which item."""
        return self.ranks > 0


class Choice(NamedTuple):
    """A weight chosen on validation lists.

    Attributes:
      alpha: Weight of the first list.
      value: Metric for that weight, averaged over users.
      alphas: Weights that were compared.
      values: Metric for each weight.
    """

    alpha: float
    value: float
    alphas: tuple[float, ...]
    values: tuple[float, ...]


def unite(first: Lists, second: Lists) -> United:
    """Joins the lists of each user, an item once.

    If a list contains an item twice, the better rank counts.

    Raises:
      UserError: The lists have different numbers of users.
    """
    if len(first.items) != len(second.items):
        raise UserError(
            f"an ensemble of lists of {len(first.items)} and {len(second.items)} users;"
            " both need the same users in the same order"
        )
    a, b = (np.where(repeated(x.items), -1, x.items) for x in (first, second))
    equal = (a[:, :, None] == b[:, None, :]) & (a >= 0)[:, :, None]
    where_b = np.where(equal.any(axis=2), np.argmax(equal, axis=2), -1)
    only_b = np.where(equal.any(axis=1), -1, b)
    items = np.concatenate([a, only_b], axis=1)
    places_a, places_b = (np.arange(x.shape[1])[None] for x in (a, b))
    place = np.stack(
        [
            np.concatenate(
                [np.where(a >= 0, places_a, -1), np.full_like(only_b, -1)], axis=1
            ),
            np.concatenate([where_b, np.where(only_b >= 0, places_b, -1)], axis=1),
        ]
    )
    scores = [
        np.where(p >= 0, np.take_along_axis(x.scores, np.maximum(p, 0), axis=1), 0.0)
        for x, p in zip((first, second), place, strict=True)
    ]
    return United(items, np.stack(scores).astype(np.float64), place + 1)


def _ranked(
    items: Int[np.ndarray, "U W"],
    scores: Float[np.ndarray, "U W"],
    keep: int,
    ties: Float[np.ndarray, "U W"] | None = None,
) -> Lists:
    """Sorts by score, then by `ties`, then in the order of the items."""
    valid = items >= 0
    scores = np.where(valid, scores, NEG)
    second = np.zeros(scores.shape) if ties is None else ties
    order = np.lexsort((-second, -scores, ~valid), axis=1)[:, :keep]
    ranked = np.take_along_axis(items, order, axis=1).astype(np.int32)
    return Lists(ranked, np.take_along_axis(scores, order, axis=1).astype(np.float32))


def mql4grec(first: Lists, second: Lists, *, keep: int = 20) -> Lists:
    """Merges as MQL4GRec does: agreement comes first.

    An item of both lists gets the mean of its scores plus 1, which ranks it above all
    others as long as scores are mean log-probabilities close to each other; an item
    of one list keeps its score (Zhai et al. 2025).

    Args:
      first: Text lists in the paper; scores are log-probabilities.
      second: Image lists.
      keep: Length of the merged lists.
    """
    union = unite(first, second)
    both = union.present.all(axis=0)
    own = union.scores.sum(axis=0)
    return _ranked(union.items, np.where(both, own / 2 + 1, own), keep)


def weighted(first: Lists, second: Lists, alpha: float, *, keep: int = 20) -> Lists:
    """Merges by `alpha * first + (1 - alpha) * second`.

    An item missing from a list gets the lowest score of that user's list, an upper
    bound of its score. Ties are broken in favour of items in the list with the larger
    weight, so that alpha 1 begins with the first list and alpha 0 with the second.

    Args:
      first: Lists with scores.
      second: Lists with scores of the same scale.
      alpha: Weight of the first, in [0, 1].
      keep: Length of the merged lists.

    Raises:
      UserError: `alpha` is out of range.
    """
    if not 0.0 <= alpha <= 1.0:
        raise UserError(f"alpha={alpha} of an ensemble: must be from 0 to 1")
    return _weighted(unite(first, second), alpha, keep)


def _weighted(union: United, alpha: float, keep: int) -> Lists:
    present = union.present
    lowest = np.where(present, union.scores, np.inf).min(axis=2, keepdims=True)
    filled = np.where(present, union.scores, np.where(np.isinf(lowest), 0.0, lowest))
    weights = np.array([alpha, 1.0 - alpha])[:, None, None]
    ties = (weights * present).sum(axis=0)
    return _ranked(union.items, (weights * filled).sum(axis=0), keep, ties)


def choose_alpha(
    first: Lists,
    second: Lists,
    targets: Int[np.ndarray, " U"],
    *,
    alphas: Sequence[float] = tuple(i / 20 for i in range(21)),
    metric: str = "ndcg@10",
    keep: int = 20,
) -> Choice:
    """Chooses the weight of `weighted` that is best on validation lists.

    Args:
      first: Lists of the validation users.
      second: Lists of the same users.
      targets: Validation item of each user, never the test item.
      alphas: Weights to compare; of equally good ones, the closest to 1/2 is chosen.
      metric: Metric of `metrics.per_user`.
      keep: Length of the merged lists.
    """
    union = unite(first, second)
    values = []
    for alpha in alphas:
        matches = metrics.match(_weighted(union, alpha, keep).items, targets)
        values.append(float(np.nanmean(metrics.per_user(matches, (metric,))[metric])))
    pairs = zip(values, alphas, strict=True)
    value, alpha = max(pairs, key=lambda pair: (pair[0], -abs(pair[1] - 0.5)))
    return Choice(alpha, value, tuple(alphas), tuple(values))


def reciprocal_ranks(
    first: Lists, second: Lists, *, constant: float = RRF_CONSTANT, keep: int = 20
) -> Lists:
    """Merges by the sum of `1 / (constant + rank)` over the lists with an item.

    Reciprocal rank fusion (Cormack, Clarke & Buettcher 2009) needs no scores, so the
    two systems need not share a scale.

    Args:
      first: Lists; scores are not used.
      second: Lists; scores are not used.
      constant: Above 0; a large value rewards agreement more than high ranks.
      keep: Length of the merged lists.
    """
    union = unite(first, second)
    each = np.where(union.present, 1.0 / (constant + union.ranks), 0.0)
    return _ranked(union.items, each.sum(axis=0), keep)


def rescored(
    lists: Lists, scores: Float[np.ndarray, "U K"], *, keep: int = 20
) -> Lists:
    """Sorts the items of lists by another system's scores: a second stage.

    Args:
      lists: Candidates.
      scores: Scores of the candidates by the other system; arbitrary for missing
        items.
      keep: Length of the lists.
    """
    return _ranked(lists.items, scores, keep)


def standardized(lists: Lists) -> Lists:
    """Standardises the scores of each list to mean 0 and standard deviation 1.

    A weight then means the same for log-probabilities and for inner products. A list of
    one item, or of equal scores, gets zeros.
    """
    valid, scores = lists.valid, lists.scores.astype(np.float64)
    counts = np.maximum(valid.sum(axis=1, keepdims=True), 1)
    centred = np.where(valid, scores, 0.0)
    centred = centred - centred.sum(axis=1, keepdims=True) / counts
    centred = np.where(valid, centred, 0.0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / counts)
    divided = centred / np.where(deviation > 0, deviation, 1.0)
    return lists._replace(scores=np.where(valid, divided, NEG))
