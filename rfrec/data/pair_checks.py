# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of user-item pairs: pairs in; one line of what is wrong, or warnings, out."""

import itertools
from pathlib import Path

import numpy as np
from jaxtyping import Int

from rfrec.config import UserError
from rfrec.data import interactions
from rfrec.data.folders import DataSet
from rfrec.data.join import Feature


def notice(
    data: DataSet, last: int, features: tuple[Feature, ...], split: str
) -> tuple[str, ...]:
    """Returns what is accepted of a log and may have been meant otherwise.

    Args:
      data: with its log.
      last: the largest item in the log.
      features: of the items, checked.
      split: how the log is split.
    """
    lines = []
    if features and last + 1 < len(features[0].values):
        lines.append(
            f"{data.log}: ends at item {last}, {features[0].origin} has"
            f" {len(features[0].values)} rows: nobody uses the others; row i must be"
            " item i"
        )
    if data.log.suffix == ".inter" and split in ("leave_one_out", "time"):
        names, _ = interactions.read_header(data.log)
        if "timestamp" not in names:
            lines.append(
                f"{data.log}: has no column timestamp: its lines are taken to stand in"
                " the order of time"
            )
    return tuple(lines)


def check_lengths(features: tuple[Feature, ...]) -> None:
    """Refuses features of different numbers of items, and names the files."""
    for one, other in itertools.pairwise(features):
        if len(one.values) != len(other.values):
            raise UserError(
                f"{one.origin} has {len(one.values)} rows, {other.origin} has"
                f" {len(other.values)}; row i of each must be item i"
            )


def check_shares(shares: tuple[float, float, float]) -> None:
    """Refuses what is not three shares of a whole."""
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise UserError(
            f"data.shares is {tuple(shares)}: expected three numbers above 0 that add"
            " up to 1, for training, validation and test"
        )


def check_range(
    users: Int[np.ndarray, "E"],
    items: Int[np.ndarray, "E"],
    num_items: int | None,
    path: Path,
) -> int:
    """Returns the number of items, and refuses one beyond."""
    bound = 2**31 - 1 if num_items is None else num_items
    outside = np.flatnonzero((items < 0) | (items >= bound))
    if outside.size:
        of = (
            ""
            if num_items is None
            else f", the fewest rows of the features beside it ({num_items})"
        )
        raise UserError(
            f"{path}: item {items[outside[0]]} of user {users[outside[0]]} is out of"
            f" range 0 to {bound - 1}{of}; {outside.size} such interactions"
        )
    return int(items.max()) + 1 if num_items is None else num_items


def check_repeats(
    users: Int[np.ndarray, "E"],
    items: Int[np.ndarray, "E"],
    num_items: int,
    origin: str,
) -> None:
    """Refuses a pair that comes twice, in whatever parts."""
    keys = np.sort(users.astype(np.int64) * num_items + items)
    double = np.flatnonzero(keys[1:] == keys[:-1])
    if double.size:
        user, item = divmod(int(keys[double[0]]), num_items)
        raise UserError(
            f"{origin}: user {user} has item {item} more than once; {double.size}"
            " repeats in all parts together, keep one of each"
        )
