# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Histories in; index arrays of (history, next item) and batches of like length out.

A window is a stretch of the flat `Interactions.items` and the item that follows: three
integers, whatever the length of the history.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from rfrec.config import UserError
from rfrec.data.interactions import Interactions

MODES = range(5)
NO_ITEM = -1


class Windows(NamedTuple):
    """Histories `items[start : start + length]` and the item after each.

    Attributes:
      start: First position in the flat items.
      length: Items in the history, at least 1.
      target: Row of the next item; `NO_ITEM` where it is to be predicted.
    """

    start: Int32[np.ndarray, "P"]
    length: Int32[np.ndarray, "P"]
    target: Int32[np.ndarray, "P"]


class Run(NamedTuple):
    """Batches of one length bucket, to be dispatched together.

    Attributes:
      bucket: Row of the bucket.
      rows: Examples of each batch.
    """

    bucket: int
    rows: Int32[np.ndarray, "S B"]


class Padding(NamedTuple):
    """Share of the history slots of an epoch that hold nothing.

    Attributes:
      bucketed: With the buckets.
      longest: If every history were padded to the longest.
      saved: 1 - slots with the buckets / slots without.
    """

    bucketed: float
    longest: float
    saved: float


def training_windows(
    inter: Interactions,
    *,
    held: int,
    mode: int = 0,
    most: int = 20,
    rng: np.random.Generator | None = None,
) -> Windows:
    """Cuts training windows as MQL4GRec's five ways of sampling do.

    With n items of a user left for training:

    - 0: each of the n - 1 items after the first, with the `most` items before it.
    - 1: the last item if n <= most + 1; else each item with more than `most` items
      before it (so the first full window is passed over, as there).
    - 2: one window a user: the last item if n <= most + 1, else an item drawn among
      those with more than `most` items before it.
    - 3: one window a user: an item drawn among all but the first.
    - 4: one window a user: first item of the history drawn, then the target after it.

    Modes 2 to 4 draw again at each call, once per epoch. Users with n < 2 give nothing.

    Args:
      inter: Histories of all users.
      held: Items at the end of each history that are not for training: 2 for whole
        histories, 0 for the `train` part of `leave_one_out`.
      mode: 0 to 4.
      most: Items of history that are kept, the most recent ones.
      rng: Source of the draws of modes 2 to 4.

    Returns:
      Windows into `inter.items`, users in order.

    Raises:
      UserError: No such mode, or no user has two items to train on.
    """
    if mode not in MODES:
        raise UserError(f"train_data_mode {mode}: use 0 to {MODES[-1]}")
    counts = np.diff(inter.indptr) - held
    users = np.flatnonzero(counts >= 2)
    if not users.size:
        raise UserError(
            f"no user has 2 items besides the {held} held out; none to train"
        )
    first, counts = inter.indptr[users], counts[users]
    if mode >= 2:
        if rng is None:
            raise ValueError("modes 2 to 4 draw: give rng")
        begin, end = _draw(counts, mode, most, rng)
        return _windows(inter.items, first + begin, first + end, most)
    earliest = np.ones_like(counts)
    if mode == 1:
        earliest = np.where(counts <= most + 1, counts - 1, most + 1)
    each = counts - earliest
    owner = np.repeat(np.arange(len(users)), each)
    number = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
    return _windows(inter.items, first[owner], (first + earliest)[owner] + number, most)


def _draw(
    counts: Int[np.ndarray, "U"], mode: int, most: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "U"], Int[np.ndarray, "U"]]:
    """Draws first history item and target among each user's items."""
    begin = np.zeros_like(counts)
    if mode == 2:
        low = np.where(counts <= most + 1, counts - 1, most + 1)
    elif mode == 3:
        low = np.ones_like(counts)
    else:
        begin = rng.integers(0, counts - 1)
        low = begin + 1
    return begin, rng.integers(low, counts)


def _windows(
    items: Int32[np.ndarray, "E"],
    begin: Int[np.ndarray, "P"],
    target: Int[np.ndarray, "P"],
    most: int,
) -> Windows:
    """Cuts histories from `begin` up to `target`, the most recent `most` items."""
    start = np.maximum(begin, target - most)
    return Windows(
        start.astype(np.int32), (target - start).astype(np.int32), items[target]
    )


def heldout_windows(inter: Interactions, which: str, *, most: int = 20) -> Windows:
    """Cuts one window a user for evaluation, as leave-one-out has it.

    Args:
      inter: Whole histories.
      which: `valid` predicts the item before the last, `test` the last, from all items
        before it.
      most: Items of history that are kept, the most recent ones.

    Returns:
      Window u belongs to user u.

    Raises:
      UserError: Another word, or a user has no item before the target.
    """
    if which not in ("valid", "test"):
        raise UserError(f"split {which!r}: use valid or test")
    target = inter.indptr[1:] - (1 if which == "test" else 2)
    short = np.flatnonzero(target <= inter.indptr[:-1])
    if short.size:
        user = int(short[0])
        raise UserError(
            f"user {inter.user_ids[user]!r} has {len(inter.history(user))} items, too"
            f" few for the {which} split; drop such users first"
        )
    return _windows(inter.items, inter.indptr[:-1], target, most)


def latest_windows(inter: Interactions, *, most: int = 20) -> Windows:
    """Cuts the end of each history, to predict what comes next (serving).

    Args:
      inter: Histories of at least one item.
      most: Items of history that are kept, the most recent ones.

    Returns:
      Window u belongs to user u; targets are `NO_ITEM`.
    """
    end = inter.indptr[1:]
    start = np.maximum(inter.indptr[:-1], end - most)
    return Windows(
        start.astype(np.int32),
        (end - start).astype(np.int32),
        np.full(len(end), NO_ITEM, np.int32),
    )


def from_histories(
    histories: Sequence[Sequence[Any]],
    num_items: int,
    *,
    user_ids: Sequence[str] | None = None,
    origin: str = "histories",
) -> Interactions:
    """Packs histories that a caller asks recommendations for.

    Unlike the readers of data sets it lets an item occur twice.

    Args:
      histories: Item rows, oldest first; other values are refused by name.
      num_items: Size of the catalogue.
      user_ids: Name of each history; None numbers them.
      origin: Named in errors.

    Raises:
      UserError: No history, an empty one, or an item that is not in the catalogue.
    """
    names = [str(u) for u in (range(len(histories)) if user_ids is None else user_ids)]
    if not histories:
        raise UserError(f"{origin}: holds no history")
    for name, history in zip(names, histories, strict=True):
        if not len(history):
            raise UserError(
                f"{origin}: user {name!r} has an empty history; give at least one item"
            )
        for item in history:
            whole = isinstance(item, int | np.integer) and not isinstance(item, bool)
            if not whole or not 0 <= item < num_items:
                raise UserError(
                    f"{origin}: user {name!r}: item {item!r} is not in the catalogue"
                    f" (rows 0 to {num_items - 1})"
                )
    indptr = np.cumsum([0, *map(len, histories)], dtype=np.int64)
    items = np.concatenate([np.asarray(h, np.int32) for h in histories])
    return Interactions(indptr, items, num_items, tuple(names))


def stack_interactions(parts: Mapping[str, Interactions]) -> Interactions:
    """Puts data sets behind one another, to pre-train on several.

    Args:
      parts: By name of the data set.

    Returns:
      Items of each part follow those of the parts before it; users and items are named
      `data set/name`.
    """
    sizes = [part.num_items for part in parts.values()]
    offsets = np.cumsum([0, *sizes]).astype(np.int32)
    lengths = np.concatenate([np.diff(part.indptr) for part in parts.values()])
    return Interactions(
        np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        np.concatenate(
            [p.items + o for p, o in zip(parts.values(), offsets, strict=False)]
        ),
        sum(sizes),
        tuple(f"{name}/{u}" for name, part in parts.items() for u in part.user_ids),
        tuple(
            f"{name}/{item}"
            for name, part in parts.items()
            for item in part.item_ids or range(part.num_items)
        ),
    )


def padded_histories(
    items: Int32[np.ndarray, "E"], windows: Windows, width: int
) -> Int32[np.ndarray, "P {width}"]:
    """Lays histories out in rows, oldest item first, `NO_ITEM` behind the last.

    Args:
      items: The flat items.
      windows: Histories no longer than `width`.
      width: Columns.
    """
    column = np.arange(width)
    inside = column < windows.length[:, None]
    position = np.where(inside, windows.start[:, None] + column, 0)
    return np.where(inside, items[position], NO_ITEM).astype(np.int32)


def bucketed_epoch(
    lengths: Int[np.ndarray, "P"],
    buckets: Sequence[int],
    batch_size: int,
    *,
    run: int = 16,
    seed: int,
    epoch: int,
) -> tuple[Run, ...]:
    """Shuffles examples into full batches of like length.

    An example goes to the smallest bucket that holds it. What does not fill a batch
    moves on to the next bucket; the last batch of all is filled up from the beginning
    of its bucket. So each example comes once, a few of the longest bucket twice.

    Args:
      lengths: Length of each example, at least 0.
      buckets: Lengths in ascending order; the last holds the longest example.
      batch_size: Examples of a batch.
      run: Most batches of a run.
      seed: Seed of the training run.
      epoch: Each has another order.

    Returns:
      Runs in random order.

    Raises:
      UserError: Buckets do not ascend, or an example is longer than the last.
    """
    _check_buckets(lengths, buckets)
    rng = np.random.default_rng([seed, 3, epoch])
    order = rng.permutation(len(lengths)).astype(np.int32)
    place = np.searchsorted(buckets, lengths[order])
    last = int(place.max())
    runs, left = [], order[:0]
    for bucket in range(last + 1):
        rows = np.concatenate([left, order[place == bucket]])
        if len(left):
            rows = rng.permutation(rows)
        full = len(rows) // batch_size
        if bucket == last:
            full = -(-len(rows) // batch_size)
        left = rows[full * batch_size :]
        batches = np.resize(rows, (full, batch_size))
        runs += [Run(bucket, batches[i : i + run]) for i in range(0, full, run)]
    return tuple(runs[i] for i in rng.permutation(len(runs)))


def _check_buckets(lengths: Int[np.ndarray, "P"], buckets: Sequence[int]) -> None:
    if not len(lengths):
        raise UserError("no examples to make batches of")
    if not len(buckets) or (np.diff(buckets) <= 0).any():
        raise UserError(f"length buckets {tuple(buckets)}: must ascend")
    if lengths.max() > buckets[-1]:
        raise UserError(
            f"length buckets {tuple(buckets)}: the longest example has"
            f" {lengths.max()} items; end with a bucket of at least that"
        )


def padding(
    lengths: Int[np.ndarray, "P"], runs: Sequence[Run], buckets: Sequence[int]
) -> Padding:
    """Counts the empty slots of an epoch, with its buckets and without.

    Args:
      lengths: Length of each example.
      runs: From `bucketed_epoch`.
      buckets: Those of the runs.
    """
    slots = sum(buckets[run.bucket] * run.rows.size for run in runs)
    used = sum(int(lengths[run.rows].sum()) for run in runs)
    longest = int(lengths.max()) * sum(run.rows.size for run in runs)
    return Padding(1 - used / slots, 1 - used / longest, 1 - slots / longest)
