# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Packs histories into rows of a fixed length for a sequence model.

A row contains several short histories one after the other, which keeps the padding at
a few percent; slots at the end that no history fits are padding.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from rfrec.data.interactions import Interactions
from rfrec.data.sequences import Windows


class Rows(NamedTuple):
    """Packed windows, the input of `rfrec.retrieval.sasrec.model.SASRec`.

    Attributes:
      items: Item rows; 0 at padding.
      positions: Position of each item, counted back from the last of its window.
      histories: Number of the window in its row, from 1; 0 is padding.
      targets: The item that follows; 0 at padding.
    """

    items: Int32[np.ndarray, "R L"]
    positions: Int32[np.ndarray, "R L"]
    histories: Int32[np.ndarray, "R L"]
    targets: Int32[np.ndarray, "R L"]


def cut_histories(train: Interactions, history: int) -> Windows:
    """Cuts the training histories so that every item except a first is a target once.

    A history longer than `history` is cut from its end backwards. The target of each
    item of a window is the next item; that of the last is the item after the window.

    Args:
      train: Histories without held-out items; those of one item give no window.
      history: Maximum number of items in a window, at least 1.
    """
    inputs = np.diff(train.indptr) - 1
    number = -(-np.maximum(inputs, 0) // history)
    user = np.repeat(np.arange(len(inputs)), number)
    nth = np.arange(len(user)) - np.repeat(np.cumsum(number) - number, number)
    end = inputs[user] - nth * history
    length = np.minimum(end, history)
    start = train.indptr[user] + end - length
    return Windows(
        start.astype(np.int32), length.astype(np.int32), train.items[start + length]
    )


def pack(
    items: Int32[np.ndarray, "E"], windows: Windows, width: int, *, seed: int
) -> Rows:
    """Packs windows into rows, in a random order.

    The next window goes into the current row if it fits, else into a new one. Which
    histories share a row affects only the order of training.

    Args:
      items: The flat items that the windows refer to.
      windows: At least one window, none longer than `width`.
      width: Slots of a row.
      seed: Seed of the order.

    Returns:
      As many rows as needed.
    """
    order = np.random.default_rng([seed, 3]).permutation(len(windows.start))
    start, length = windows.start[order], windows.length[order]
    row, slot, number = _next_fit(length.tolist(), width)
    window = np.repeat(np.arange(len(length)), length)
    within = np.arange(len(window)) - np.repeat(np.cumsum(length) - length, length)
    to, source = row[window] * width + slot[window] + within, start[window] + within

    def spread(values: np.ndarray) -> Int32[np.ndarray, "R L"]:
        result = np.zeros((int(row[-1]) + 1, width), np.int32)
        result.ravel()[to] = values
        return result

    return Rows(
        items=spread(items[source]),
        positions=spread(length[window] - 1 - within),
        histories=spread(number[window]),
        targets=spread(items[source + 1]),
    )


def _next_fit(lengths: list[int], width: int) -> Int[np.ndarray, "3 P"]:
    """Returns row, first slot and number in the row (from 1) of each window."""
    placed = np.empty((3, len(lengths)), np.int64)
    row, slot, number = 0, 0, 0
    for i, length in enumerate(lengths):
        if slot + length > width:
            row, slot, number = row + 1, 0, 0
        number += 1
        placed[:, i] = row, slot, number
        slot += length
    return placed


class Batch(NamedTuple):
    """Users whose histories are encoded together.

    Attributes:
      width: Slots of each history.
      users: Rows of the users; the last batch is padded with its last user.
    """

    width: int
    users: Int32[np.ndarray, "B"]


def batches_by_length(
    lengths: Int[np.ndarray, "U"], batch_size: int, history: int
) -> list[Batch]:
    """Splits users into full batches of short and of long histories.

    Args:
      lengths: Number of items of each history, at most `history`.
      batch_size: Users of every batch.
      history: Maximum number of items of a history.

    Returns:
      Batches whose width is a quarter of `history` or all of it, so that two programs
      serve all of them.
    """
    order = np.argsort(lengths, kind="stable").astype(np.int32)
    short = -(-history // 4)
    batches = []
    for start in range(0, len(order), batch_size):
        users = order[start : start + batch_size]
        width = short if lengths[users].max() <= short else history
        missing = batch_size - len(users)
        batches.append(Batch(width, np.pad(users, (0, missing), mode="edge")))
    return batches
