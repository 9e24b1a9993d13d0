# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cleaning and splitting of a log, on arrays sorted by user and time.

Every function takes the sorted log and returns a mask or a label for each interaction;
none loops over rows.
"""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, Shaped, UInt8

from rfrec import config as cfg
from rfrec.config import UserError, option
from rfrec.data.prepared import TEST, TRAIN, VALID


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """Which interactions are kept.

    Attributes:
      min_rating: Smallest rating that counts as an interaction; None keeps all.
      start: Earliest time, ISO 8601 or in the units of the log; None has no bound.
      end: Time before which interactions are kept; None has no bound.
      user_core: Fewest interactions of a user, applied together with `item_core` until
        both hold (k-core).
      item_core: Fewest interactions of an item.
      repeats: What to do with further interactions of a user with the same item:
        `keep` all, the `first` or the `last`.
      short_users: What to do with users who have fewer than three interactions and
        cannot be tested by leave-one-out: keep them for training (`train`) or `drop`.
      bad_times: What to do with interactions whose time is missing, not a number or
        negative: `drop`, put them `first`, or `fail`.
    """

    min_rating: float | None = None
    start: str | None = None
    end: str | None = None
    user_core: int = option(0, cfg.whole(0))
    item_core: int = option(0, cfg.whole(0))
    repeats: Literal["keep", "first", "last"] = "keep"
    short_users: Literal["train", "drop"] = "train"
    bad_times: Literal["drop", "first", "fail"] = "drop"


@dataclasses.dataclass(frozen=True)
class Split:
    """How interactions are divided into training, validation and test.

    Attributes:
      kind: `leave_one_out`: the last of each user is the test, the one before
        validation; `time`: two points in time for all users, so that nothing from the
        future is trained on; `ratio`: shares of each user's history in order of time;
        `label`: a column of the log, 0, 1 or 2, as in MMRec's `x_label`.
      valid_from: Time at which validation starts, for `time`; None takes the quantile
        of `ratios`.
      test_from: Time at which the test starts, for `time`.
      ratios: Shares of training, validation and test, for `ratio` and `time`.
    """

    kind: Literal["leave_one_out", "time", "ratio", "label"] = "leave_one_out"
    valid_from: str | None = None
    test_from: str | None = None
    ratios: tuple[float, ...] = option((0.8, 0.1, 0.1), cfg.each(cfg.at_least(0)))


class Log(NamedTuple):
    """A log sorted by user, then time, then the order of ties.

    Attributes:
      users: Row of the user.
      items: Row of the item.
      times: Milliseconds since 1970.
      labels: Label of the log; zeros if it has none.
    """

    users: Int32[np.ndarray, " E"]
    items: Int32[np.ndarray, " E"]
    times: Int64[np.ndarray, " E"]
    labels: UInt8[np.ndarray, " E"]

    def take(self, kept: Shaped[np.ndarray, " _"]) -> "Log":
        """Returns some interactions, by mask or index, in order."""
        return Log(*(column[kept] for column in self))


def first_of_pairs(
    users: Int[np.ndarray, " E"], items: Int[np.ndarray, " E"], *, last: bool = False
) -> Bool[np.ndarray, " E"]:
    """Returns True for the first (or last) interaction of each user with each item.

    Args:
      users: Row of the user of each interaction.
      items: Row of the item.
      last: Whether the last one is kept instead.
    """
    keys = users.astype(np.int64) * (int(items.max(initial=0)) + 1) + items
    kept = np.zeros(len(keys), bool)
    if last:
        _, index = np.unique(keys[::-1], return_index=True)
        kept[len(keys) - 1 - index] = True
    else:
        _, index = np.unique(keys, return_index=True)
        kept[index] = True
    return kept


def k_core(
    users: Int[np.ndarray, " E"],
    items: Int[np.ndarray, " E"],
    user_core: int,
    item_core: int,
) -> tuple[Bool[np.ndarray, " E"], int]:
    """Returns the largest part of a log in which users and items are frequent enough.

    Users with fewer than `user_core` and items with fewer than `item_core` interactions
    are removed together until none is left, the fixed point of both conditions.

    Args:
      users: Row of the user of each interaction.
      items: Row of the item.
      user_core: Fewest interactions of a user.
      item_core: Fewest interactions of an item.

    Returns:
      True for interactions that stay, and the number of rounds that removed any.
    """
    kept = np.ones(len(users), bool)
    rounds = 0
    index = np.arange(len(users))
    while len(index):
        u, i = users[index], items[index]
        enough = (np.bincount(u) >= user_core)[u] & (np.bincount(i) >= item_core)[i]
        if enough.all():
            break
        rounds += 1
        kept[index[~enough]] = False
        index = index[enough]
    return kept, rounds


def ties(log: Log, order: Int[np.ndarray, " N"]) -> dict[str, float]:
    """Returns the share of neighbours in a history that have the same time.

    Args:
      log: Sorted log.
      order: Rank of each item by its original id.

    Returns:
      `share`: tied neighbours of one user, out of all neighbours; `ascending`: tied
      neighbours whose item ids ascend, out of the tied ones. A share near 1 means that
      ties are sorted by item id, which a sequence model can learn.
    """
    same_user = log.users[1:] == log.users[:-1]
    tied = same_user & (log.times[1:] == log.times[:-1])
    rank = order[log.items]
    up = tied & (rank[1:] > rank[:-1])
    return {
        "share": float(tied.sum() / max(same_user.sum(), 1)),
        "ascending": float(up.sum() / max(tied.sum(), 1)),
    }


def bounds(users: Int[np.ndarray, " E"], num_users: int) -> Int64[np.ndarray, " U1"]:
    """Returns where each user's history begins and ends."""
    return np.searchsorted(users, np.arange(num_users + 1)).astype(np.int64)


def split_log(
    log: Log, num_users: int, split: Split, *, has_times: bool
) -> tuple[UInt8[np.ndarray, " E"], dict[str, int]]:
    """Labels each interaction as training, validation or test.

    Args:
      log: Sorted log.
      num_users: Number of users.
      split: How to divide.
      has_times: Whether the log has times.

    Returns:
      The labels, and the two points in time of `time` in milliseconds.

    Raises:
      UserError: The ratios do not sum to 1, the times are missing or out of order, or a
        label is none of 0, 1 and 2.
    """
    if split.kind == "leave_one_out":
        return _leave_one_out(bounds(log.users, num_users), len(log.users)), {}
    if split.kind == "label":
        wrong = np.flatnonzero(log.labels > TEST)
        if wrong.size:
            raise UserError(
                "config.split.kind=label: the label must be 0, 1 or 2;"
                f" {wrong.size} interactions have another"
            )
        return log.labels.astype(np.uint8), {}
    shares = _shares(split.ratios)
    if split.kind == "ratio":
        return _by_ratio(bounds(log.users, num_users), shares), {}
    if not has_times:
        raise UserError("config.split.kind=time requires config.log.time")
    points = _points_in_time(log.times, split, shares)
    labels = np.full(len(log.times), TRAIN, np.uint8)
    labels[log.times >= points["valid_from"]] = VALID
    labels[log.times >= points["test_from"]] = TEST
    return labels, points


def parse_time(text: str, key: str) -> int:
    """Returns milliseconds since 1970 of an ISO 8601 text (UTC) or of a number.

    Raises:
      UserError: It is neither.
    """
    try:
        return to_milliseconds(float(text))
    except ValueError:
        pass
    try:
        return int(np.datetime64(text.strip().replace(" ", "T"), "ms").astype(np.int64))
    except ValueError as error:
        raise UserError(
            f"config.{key}={text!r}: expected a date such as 2015-01-31 or a number"
        ) from error


def to_milliseconds(value: float) -> int:
    """Returns a time in seconds, milliseconds or microseconds as milliseconds."""
    return int(value * {"s": 1000, "ms": 1, "us": 1e-3}[unit_of(value)])


def unit_of(largest: float) -> str:
    """Returns the unit of times, `s`, `ms` or `us`, by the largest of them.

    In seconds 1e11 is the year 5138, in milliseconds 1973: no log has both.
    """
    if largest < 1e11:
        return "s"
    return "ms" if largest < 1e14 else "us"


def _leave_one_out(indptr: Int64[np.ndarray, " U1"], size: int):
    """Labels the last two of each history of at least three."""
    labels = np.full(size, TRAIN, np.uint8)
    long = np.flatnonzero(np.diff(indptr) >= 3)
    last = indptr[long + 1] - 1
    labels[last], labels[last - 1] = TEST, VALID
    return labels


def _by_ratio(indptr: Int64[np.ndarray, " U1"], shares: tuple[float, float, float]):
    """Labels each history by shares: the test at its end, training at least one."""
    lengths = np.diff(indptr)
    test = np.floor(lengths * shares[2] + 0.5).astype(np.int64)
    valid = np.floor(lengths * shares[1] + 0.5).astype(np.int64)
    test = np.minimum(test, np.maximum(lengths - 1, 0))
    valid = np.minimum(valid, np.maximum(lengths - 1 - test, 0))
    position = np.arange(indptr[-1]) - np.repeat(indptr[:-1], lengths)
    from_end = np.repeat(lengths, lengths) - position
    labels = np.full(len(position), TRAIN, np.uint8)
    labels[from_end <= np.repeat(test + valid, lengths)] = VALID
    labels[from_end <= np.repeat(test, lengths)] = TEST
    return labels


def _shares(ratios: tuple[float, ...]) -> tuple[float, float, float]:
    if len(ratios) != 3 or abs(sum(ratios) - 1) > 1e-6:
        raise UserError(
            f"config.split.ratios={ratios}: expected three shares that sum to 1"
        )
    return ratios[0], ratios[1], ratios[2]


def _points_in_time(times, split: Split, shares) -> dict[str, int]:
    quantiles = np.quantile(times, [shares[0], shares[0] + shares[1]], method="lower")
    names, set_ = ("valid_from", "test_from"), (split.valid_from, split.test_from)
    points = {
        point: parse_time(text, f"split.{point}") if text is not None else int(default)
        for point, text, default in zip(names, set_, quantiles, strict=True)
    }
    if points["valid_from"] > points["test_from"]:
        raise UserError("config.split.valid_from must not be after split.test_from")
    return points
