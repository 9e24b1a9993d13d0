# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Histories in; histories of which a trainer cannot learn certain items out.

The cold-start protocol: some items are taken out of all histories, as if they were new,
but stay where they are the last item, which leave-one-out tests on. Whatever trains or
validates on the result has never seen them, and is asked to name them.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from rfrec.config import UserError
from rfrec.data.interactions import Interactions

# Leave-one-out needs so many.
_SHORTEST = 3


def draw(inter: Interactions, share: float, seed: int) -> Bool[np.ndarray, " N"]:
    """Draws items of a catalogue at random, of those that somebody used.

    Args:
      inter: Histories.
      share: Share of the items that occur to withhold, above 0 and below 1; the
        number is rounded and at least one.
      seed: Seed of the draw.

    Returns:
      Marks the items that are drawn.
    """
    used = np.unique(inter.items)
    count = min(max(round(share * len(used)), 1), len(used) - 1)
    chosen = np.random.default_rng(seed).choice(used, count, replace=False)
    marks = np.zeros(inter.num_items, bool)
    marks[chosen] = True
    return marks


def withhold(inter: Interactions, items: Bool[np.ndarray, " N"]) -> Interactions:
    """Takes items out of histories, but for the last item of each.

    Users of whom fewer than three items are left are left out: leave-one-out could
    neither train nor validate on them.

    Args:
      inter: Histories; all items of the result keep their rows.
      items: Marks what is to be taken out.

    Raises:
      UserError: Nobody is left.
    """
    lengths = np.diff(inter.indptr)
    owner = np.repeat(np.arange(inter.num_users), lengths)
    last = np.zeros(len(inter.items), bool)
    last[inter.indptr[1:] - 1] = True
    kept = last | ~items[inter.items]
    left = np.bincount(owner[kept], minlength=inter.num_users)
    users = left >= _SHORTEST
    if not users.any():
        raise UserError(
            f"without the {items.sum()} withheld items no user has {_SHORTEST} items"
            " left: withhold fewer"
        )
    return replace(
        inter,
        indptr=np.concatenate([[0], np.cumsum(left[users])]).astype(np.int64),
        items=inter.items[kept & users[owner]],
        user_ids=tuple(np.array(inter.user_ids, object)[users]),
    )
