# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Groups of items, or of users by their target, by popularity in training."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from rfrec.config import UserError


class Groups(NamedTuple):
    """Users by the popularity of their target item.

    Attributes:
      cold: Users whose target occurs in training at most `cold_most` times.
      popular: Users whose target occurs at least `popular_least` times and is not cold.
      cold_most: Maximum number of occurrences of a cold item.
      popular_least: Minimum number of occurrences of a popular item.
    """

    cold: Bool[np.ndarray, " U"]
    popular: Bool[np.ndarray, " U"]
    cold_most: int
    popular_least: int

    def members(self) -> dict[str, Bool[np.ndarray, " U"]]:
        """Returns the groups of a report by name; `warm` users are those not cold."""
        return {"cold": self.cold, "warm": ~self.cold, "popular": self.popular}


class ItemGroups(NamedTuple):
    """Items by how often they occur in training.

    Attributes:
      cold: Items that occur at most `cold_most` times.
      tail: Long tail: all items but the head, cold items included.
      head: Items that occur at least `head_least` times and are not cold.
      cold_most: Maximum number of occurrences of a cold item.
      head_least: Minimum number of occurrences of an item of the head.
    """

    cold: Bool[np.ndarray, " N"]
    tail: Bool[np.ndarray, " N"]
    head: Bool[np.ndarray, " N"]
    cold_most: int
    head_least: int


def count_items(items: Int[np.ndarray, " E"], num_items: int) -> Int[np.ndarray, " N"]:
    """Counts how often each item occurs in the interactions of training."""
    return np.bincount(items, minlength=num_items)


def by_popularity(
    targets: Int[np.ndarray, " U"],
    counts: Int[np.ndarray, " N"],
    *,
    share: float = 0.2,
    cold_below: int | None = None,
) -> Groups:
    """Splits users by how often their target item occurs in training.

    The items of the catalogue are sorted by their number of occurrences. The last
    `share` of them are cold and the first `share` popular. Items that occur as often as
    the last one of a group belong to it too, so that the order of ties does not matter
    and a group can contain more than its share. Other users belong to neither.

    Args:
      targets: Target item of each user.
      counts: Number of occurrences in training of each item.
      share: Share of the catalogue, in (0, 0.5].
      cold_below: Items with fewer occurrences are cold; None uses `share`.

    Raises:
      UserError: `share` or `cold_below` is out of range.
    """
    most, least = _bounds(counts, share, cold_below)
    seen = counts[targets]
    cold = seen <= most
    return Groups(cold, (seen >= least) & ~cold, most, least)


def of_items(
    counts: Int[np.ndarray, " N"],
    *,
    share: float = 0.2,
    cold_below: int | None = None,
) -> ItemGroups:
    """Splits items by how often they occur in training.

    The head is the first `share` of the catalogue by occurrences and the tail the rest,
    of which the last `share` is cold; ties as in `by_popularity`.

    Args:
      counts: Number of occurrences in training of each item.
      share: Share of the catalogue, in (0, 0.5].
      cold_below: Items with fewer occurrences are cold; None uses `share`.

    Raises:
      UserError: `share` or `cold_below` is out of range.
    """
    most, least = _bounds(counts, share, cold_below)
    cold = counts <= most
    head = (counts >= least) & ~cold
    return ItemGroups(cold, ~head, head, most, least)


def _bounds(
    counts: Int[np.ndarray, " N"], share: float, cold_below: int | None
) -> tuple[int, int]:
    """Returns the maximum occurrences of a cold item, the minimum of a popular one."""
    if not 0 < share <= 0.5:
        raise UserError(f"share of cold items {share}: must be above 0 and at most 0.5")
    if cold_below is not None and cold_below < 1:
        raise UserError(f"cold_below={cold_below}: must be at least 1")
    ascending = np.sort(counts)
    taken = max(int(np.ceil(share * len(counts))), 1)
    most = int(ascending[taken - 1]) if cold_below is None else cold_below - 1
    return most, int(ascending[-taken])
