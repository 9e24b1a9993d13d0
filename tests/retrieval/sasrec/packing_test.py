# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Packed histories: every target once, nothing lost, little padding."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from rfrec.data import interactions, sequences, synthetic
from rfrec.retrieval.sasrec import packing


def histories(num_users=80, seed=0):
    return synthetic.histories(num_users, num_items=90, mean_length=12.0, seed=seed)


def unpacked(rows):
    """Every window as (items, positions, targets)."""
    found = []
    for row in zip(*rows, strict=True):
        items, positions, numbers, targets = row
        for number in range(1, numbers.max() + 1):
            mine = numbers == number
            # A window is contiguous.
            assert np.ptp(np.flatnonzero(mine)) == mine.sum() - 1
            found.append(
                tuple(tuple(x[mine].tolist()) for x in (items, positions, targets))
            )
    return found


@pytest.mark.parametrize("history", [1, 4, 50])
def test_every_item_but_a_first_is_a_target_once(history):
    train = interactions.leave_one_out(histories()).train
    windows = packing.cut_histories(train, history)
    wanted = sorted(
        (user, int(item))
        for user in range(train.num_users)
        for item in train.history(user)[1:]
    )
    found = []
    for start, length, target in zip(*windows, strict=True):
        assert 1 <= length <= history
        user = int(np.searchsorted(train.indptr, start, side="right")) - 1
        assert start + length < train.indptr[user + 1]
        stretch = train.items[start + 1 : start + length + 1]
        assert stretch[-1] == target
        found += [(user, int(item)) for item in stretch]
    assert sorted(found) == wanted


def test_users_of_one_item_have_nothing_to_train():
    inter = interactions.Interactions(
        np.array([0, 1, 4]), np.array([5, 1, 2, 3], np.int32), 9, ("a", "b")
    )
    windows = packing.cut_histories(inter, 10)
    np.testing.assert_array_equal(np.stack(windows), [[1], [2], [3]])


@hypothesis.given(st.integers(0, 10_000), st.integers(1, 20))
@hypothesis.settings(max_examples=20)
def test_packed_rows_hold_every_window_as_it_was(seed, history):
    train = interactions.leave_one_out(histories(seed=seed)).train
    windows = packing.cut_histories(train, history)
    rows = packing.pack(train.items, windows, history, seed=seed)
    wanted = []
    for start, length, _ in zip(*windows, strict=True):
        items = train.items[start : start + length]
        targets = train.items[start + 1 : start + length + 1]
        positions = range(length - 1, -1, -1)
        wanted.append(
            (tuple(items.tolist()), tuple(positions), tuple(targets.tolist()))
        )
    assert sorted(unpacked(rows)) == sorted(wanted)


def test_packing_wastes_little():
    train = interactions.leave_one_out(histories(2000)).train
    windows = packing.cut_histories(train, 50)
    rows = packing.pack(train.items, windows, 50, seed=0)
    assert (rows.histories == 0).mean() < 0.15
    assert 1 - windows.length.sum() / (len(windows.length) * 50) > 0.7


def test_batches_by_length_hold_every_user_in_two_widths():
    inter = histories(200)
    lengths = sequences.heldout_windows(inter, "valid", most=20).length
    batches = packing.batches_by_length(lengths, 32, 20)
    assert {batch.width for batch in batches} == {5, 20}
    for width, users in batches:
        assert len(users) == 32
        assert lengths[users].max() <= width
    seen = np.concatenate([batch.users for batch in batches])
    assert set(seen.tolist()) == set(range(200))
