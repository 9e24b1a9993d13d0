# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Windows against plain loops over lists, and batches against what must be in them."""

import os
import random
import time
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.data import interactions, sequences, sources


def histories(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.permutation(60)[:n].tolist() for n in lengths]


def pack(lists):
    return sequences.from_histories(lists, 60)


def unpack(inter, windows):
    return [
        (tuple(inter.items[s : s + n].tolist()), int(t))
        for s, n, t in zip(*windows, strict=True)
    ]


def every_prefix(lists, most):
    """Mode 0 in plain Python: one pair for each item but the first."""
    return [
        (tuple(items[max(0, i - most) : i]), items[i])
        for items in lists
        for i in range(1, len(items))
    ]


def full_windows(lists, most):
    """Mode 1: short histories whole, long ones from the second full window on."""
    pairs = []
    for items in lists:
        if len(items) > most + 1:
            last = range(most + 1, len(items))
        else:
            last = [len(items) - 1] if len(items) > 1 else []
        pairs += [(tuple(items[max(0, i - most) : i]), items[i]) for i in last]
    return pairs


def possible(items, mode, most):
    """All windows that a drawing mode may give for one user."""
    count = len(items)
    if mode == 2:
        return set(full_windows([items], most))
    if mode == 3:
        return set(every_prefix([items], most))
    return {
        (tuple(items[max(a, b - most) : b]), items[b])
        for a in range(count - 1)
        for b in range(a + 1, count)
    }


LENGTHS = [1, 2, 3, 5, 6, 7, 8, 25, 40]


@pytest.mark.parametrize("most", [1, 4, 20])
def test_modes_0_and_1_equal_plain_loops(most):
    lists = histories(LENGTHS)
    for mode, oracle in ((0, every_prefix), (1, full_windows)):
        windows = sequences.training_windows(pack(lists), held=0, mode=mode, most=most)
        assert unpack(pack(lists), windows) == oracle(lists, most)
        assert all(column.dtype == np.int32 for column in windows)


@pytest.mark.parametrize("mode", [2, 3, 4])
def test_drawing_modes_reach_every_window_and_no_other(mode):
    lists, most = histories([2, 3, 5, 6, 8]), 4
    inter, rng = pack(lists), np.random.default_rng(1)
    seen = [set() for _ in lists]
    for _ in range(400):
        windows = sequences.training_windows(
            inter, held=0, mode=mode, most=most, rng=rng
        )
        for user, pair in enumerate(unpack(inter, windows)):
            seen[user].add(pair)
    assert seen == [possible(items, mode, most) for items in lists]


def test_mode_4_draws_the_first_item_before_the_target():
    # Four items: first drawn among 0, 1, 2 and then the target uniformly behind it.
    inter, rng = pack([[0, 1, 2, 3]] * 6000), np.random.default_rng(0)
    windows = sequences.training_windows(inter, held=0, mode=4, rng=rng)
    begin = windows.start - inter.indptr[:-1]
    share = [
        (begin == b)[windows.target == t].sum() / 6000
        for b, t in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    ]
    assert np.allclose(share, [1 / 9, 1 / 9, 1 / 9, 1 / 6, 1 / 6, 1 / 3], atol=0.02)


def test_draws_follow_the_generator():
    inter = pack(histories([9] * 50))
    drawn = [
        sequences.training_windows(
            inter, held=2, mode=3, rng=np.random.default_rng(seed)
        )
        for seed in (5, 5, 6)
    ]
    assert np.array_equal(drawn[0].target, drawn[1].target)
    assert not np.array_equal(drawn[0].target, drawn[2].target)


def test_whole_histories_with_two_held_out_give_what_the_split_gives():
    lists = histories([3, 4, 9, 30])
    inter = pack(lists)
    train = interactions.leave_one_out(inter).train
    for mode in (0, 1):
        whole = sequences.training_windows(inter, held=2, mode=mode)
        part = sequences.training_windows(train, held=0, mode=mode)
        assert unpack(inter, whole) == unpack(train, part)


def test_no_training_window_shows_a_held_out_item():
    lists = [[u * 6 + i for i in range(6)] for u in range(9)]
    hidden = {item for items in lists for item in items[-2:]}
    for mode in sequences.MODES:
        windows = sequences.training_windows(
            pack(lists), held=2, mode=mode, rng=np.random.default_rng(mode)
        )
        for history, target in unpack(pack(lists), windows):
            assert not hidden & {*history, target}


def test_heldout_windows_end_before_their_target():
    lists = histories([3, 4, 25, 50])
    for which, back in (("valid", 2), ("test", 1)):
        windows = sequences.heldout_windows(pack(lists), which, most=20)
        assert unpack(pack(lists), windows) == [
            (tuple(items[:-back][-20:]), items[-back]) for items in lists
        ]


def test_latest_windows_keep_the_most_recent_items():
    lists = histories([1, 20, 21, 33])
    inter = pack(lists)
    windows = sequences.latest_windows(inter)
    rows = sequences.padded_histories(inter.items, windows, 22)
    assert rows.dtype == np.int32
    assert rows.tolist() == [
        items[-20:] + [-1] * (22 - len(items[-20:])) for items in lists
    ]
    assert (windows.target == sequences.NO_ITEM).all()


def test_stacked_data_sets_keep_their_histories():
    a = pack([[0, 1, 2], [3, 4]])
    b = sequences.from_histories([[0, 2]], 7, user_ids=["ann"])
    both = sequences.stack_interactions({"a": a, "b": b})
    assert both.num_items == 67 and both.num_users == 3
    assert [both.history(u).tolist() for u in range(3)] == [[0, 1, 2], [3, 4], [60, 62]]
    assert both.user_ids == ("a/0", "a/1", "b/ann")
    assert both.item_ids is not None and both.item_ids[60] == "b/0"


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([], "served: holds no history"),
        ([[1], []], "served: user '1' has an empty history; give at least one item"),
        ([[60]], "served: user '0': item 60 is not in the catalogue (rows 0 to 59)"),
        ([[-1]], "item -1 is not in the catalogue"),
        ([[1.5]], "item 1.5 is not in the catalogue"),
        ([[True]], "item True is not in the catalogue"),
        ([["7"]], "item '7' is not in the catalogue"),
    ],
)
def test_bad_histories_are_named(lists, message):
    with pytest.raises(UserError) as error:
        sequences.from_histories(lists, 60, origin="served")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_item_may_come_twice_when_serving():
    assert pack([[3, 3, 3]]).items.tolist() == [3, 3, 3]


def test_bad_splits_and_modes_are_named():
    inter = pack([[1, 2, 3]])
    with pytest.raises(UserError, match="train_data_mode 5: use 0 to 4"):
        sequences.training_windows(inter, held=0, mode=5)
    with pytest.raises(UserError, match="no user has 2 items besides the 2 held out"):
        sequences.training_windows(inter, held=2)
    with pytest.raises(UserError, match="split 'dev': use valid or test"):
        sequences.heldout_windows(inter, "dev")
    with pytest.raises(UserError, match="user '0' has 2 items, too few for the valid"):
        sequences.heldout_windows(pack([[1, 2]]), "valid")


@hypothesis.given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=200),
    batch_size=st.integers(1, 17),
    run=st.integers(1, 5),
    seed=st.integers(0, 3),
)
def test_an_epoch_holds_every_example_once_and_fits(lengths, batch_size, run, seed):
    lengths, buckets = np.asarray(lengths), (1, 4, 20)
    runs = sequences.bucketed_epoch(
        lengths, buckets, batch_size, run=run, seed=seed, epoch=1
    )
    times = np.zeros(len(lengths), int)
    for bucket, rows in runs:
        assert rows.dtype == np.int32 and rows.shape[1] == batch_size
        assert 1 <= len(rows) <= run
        assert lengths[rows].max() <= buckets[bucket]
        np.add.at(times, rows, 1)
    assert times.min() >= 1
    assert times.sum() == -(-len(lengths) // batch_size) * batch_size
    # Who comes twice is in the last bucket: all else was full.
    last = max(bucket for bucket, _ in runs)
    twice = np.concatenate([r.rows.ravel() for r in runs if r.bucket == last])
    assert np.isin(np.flatnonzero(times > 1), twice).all()


def test_epochs_are_deterministic_and_differ():
    lengths = np.random.default_rng(0).integers(1, 21, 500)

    def order(seed, epoch):
        runs = sequences.bucketed_epoch(lengths, (5, 20), 16, seed=seed, epoch=epoch)
        return [(run.bucket, run.rows.tolist()) for run in runs]

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3) and order(1, 2) != order(2, 2)


def test_padding_counts_empty_slots():
    lengths = np.asarray([1, 1, 2, 2, 8, 8, 8, 4])
    runs = sequences.bucketed_epoch(lengths, (2, 8), 4, seed=0, epoch=0)
    share = sequences.padding(lengths, runs, (2, 8))
    assert share.bucketed == pytest.approx(1 - 34 / 40)
    assert share.longest == pytest.approx(1 - 34 / 64)
    assert share.saved == pytest.approx(1 - 40 / 64)


def test_bad_buckets_are_named():
    lengths = np.asarray([1, 9])
    with pytest.raises(UserError, match="must ascend"):
        sequences.bucketed_epoch(lengths, (4, 4), 2, seed=0, epoch=0)
    with pytest.raises(UserError, match="longest example has 9 items; end with"):
        sequences.bucketed_epoch(lengths, (4, 8), 2, seed=0, epoch=0)
    with pytest.raises(UserError, match="no examples"):
        sequences.bucketed_epoch(lengths[:0], (4, 8), 2, seed=0, epoch=0)


def test_a_million_examples_are_batched_quickly():
    lengths = np.random.default_rng(0).integers(1, 21, 10**6)
    times = []
    for epoch in range(3):
        start = time.perf_counter()
        sequences.bucketed_epoch(lengths, (2, 4, 8, 20), 256, seed=0, epoch=epoch)
        times.append(time.perf_counter() - start)
    assert min(times) < 1


def instruments():
    root = Path(os.environ["RFREC_DATA"])
    if not [*root.glob("Instruments.*"), *root.glob("*/Instruments.*")]:
        pytest.skip("needs Instruments in RFREC_DATA")
    return sources.load_interactions(source="folder", name="Instruments")


@pytest.mark.realdata
def test_instruments_have_the_published_number_of_training_prefixes():
    inter = instruments()
    windows = sequences.training_windows(inter, held=2)
    assert len(windows.target) == 84_890
    assert windows.length.max() == 20
    lists = [inter.history(u)[:-2].tolist() for u in range(inter.num_users)]
    sample = random.Random(0).sample(range(84_890), 2000)
    oracle = every_prefix(lists, 20)
    found = unpack(inter, windows)
    assert all(found[i] == oracle[i] for i in sample)
    for which in ("valid", "test"):
        assert len(sequences.heldout_windows(inter, which).target) == 17_112


@pytest.mark.realdata
def test_buckets_save_most_of_the_padding_of_instruments():
    lengths = sequences.training_windows(instruments(), held=2).length
    buckets = (2, 4, 8, 20)
    runs = sequences.bucketed_epoch(lengths, buckets, 256, seed=0, epoch=0)
    share = sequences.padding(lengths, runs, buckets)
    assert share.saved > 0.6 and share.bucketed < 0.3 < share.longest
