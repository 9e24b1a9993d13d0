# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Histories to continue, as padded arrays for a compiled search; NumPy only."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from rfrec.data import sequences
from rfrec.data.sequences import NO_ITEM, Windows
from rfrec.retrieval import lists


class Queries(NamedTuple):
    """Histories to continue.

    Attributes:
      items: Flat item rows that the other fields point into.
      begin: Position where the whole history of each user begins.
      windows: The latest items of each history, which the model reads.
      users: User tokens, if the tables of the task have them.
    """

    items: Int32[np.ndarray, " E"]
    begin: Int[np.ndarray, " P"]
    windows: Windows
    users: Int32[np.ndarray, " P"] | None = None

    def take(self, rows: Int[np.ndarray, " R"]) -> "Queries":
        """Returns the queries of some rows."""
        windows = Windows(*(column[rows] for column in self.windows))
        users = None if self.users is None else self.users[rows]
        return Queries(self.items, self.begin[rows], windows, users)

    @property
    def whole(self) -> Windows:
        """The whole histories, of which the windows are the end."""
        end = self.windows.start + self.windows.length
        begin = self.begin.astype(np.int32)
        return Windows(begin, (end - begin).astype(np.int32), self.windows.target)


def pack(histories: Sequence[Sequence[int]], max_history: int) -> Queries:
    """Returns the queries of histories that are lists of item rows.

    Args:
      histories: Item rows of each history, oldest first, at least one.
      max_history: Number of latest items that the model reads.
    """
    lengths = np.array([len(history) for history in histories], np.int32)
    items = np.concatenate([np.asarray(h, np.int32) for h in histories])
    end = lengths.cumsum(dtype=np.int32)
    length = np.minimum(lengths, max_history)
    target = np.full(len(lengths), NO_ITEM, np.int32)
    return Queries(items, end - lengths, Windows(end - length, length, target))


def pad(queries: Queries, width: int, seen_width: int = 0) -> dict[str, np.ndarray]:
    """Returns the inputs of a compiled search.

    Args:
      queries: Queries of one batch, whose windows have at most `width` items.
      width: Columns of the histories.
      seen_width: Columns for the distinct items of the whole histories, which are
        excluded from the lists; 0 excludes none.

    Returns:
      `histories` [B width], `lengths` [B], `seen` [B seen_width] if items are excluded,
      and `users` [B] if the queries have them; -1 is padding.
    """
    windows = queries.windows
    inputs = {
        "histories": sequences.padded_histories(queries.items, windows, width),
        "lengths": windows.length,
    }
    if seen_width:
        seen = sequences.padded_histories(queries.items, queries.whole, seen_width)
        inputs["seen"] = np.where(lists.repeated(seen), NO_ITEM, seen).astype(np.int32)
    if queries.users is not None:
        inputs["users"] = queries.users
    return inputs
