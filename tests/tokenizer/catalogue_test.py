# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which items are trained on, in which batches."""

import numpy as np
import pytest

from rfrec.tokenizer import catalogue


@pytest.mark.parametrize("ratio, held", [(0.0, 0), (0.1, 10), (0.333, 33), (0.99, 99)])
def test_split_holds_out_a_share_once(ratio, held):
    train, validation = catalogue.split_items(100, ratio, seed=4)
    assert len(validation) == held
    np.testing.assert_array_equal(
        np.sort(np.concatenate([train, validation])), np.arange(100)
    )


def test_split_depends_on_the_seed_alone():
    first, again, other = (
        catalogue.split_items(50, 0.2, seed)[1] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("size", [1, 4, 10, 64])
def test_an_epoch_has_every_item_in_full_batches(size):
    rows = np.arange(5, 15)
    batches = catalogue.epoch_rows(rows, size, seed=0, epoch=3)
    assert batches.shape == (-(-10 // size), size)
    counts = np.unique(batches, return_counts=True)
    np.testing.assert_array_equal(counts[0], rows)
    assert counts[1].max() - counts[1].min() <= 1


def test_epochs_and_seeds_shuffle_differently():
    rows = np.arange(100)
    orders = [
        catalogue.epoch_rows(rows, 100, seed=seed, epoch=epoch)[0]
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    for i in range(3):
        assert (orders[i] != orders[i - 1]).sum() > 80
    again = catalogue.epoch_rows(rows, 100, seed=0, epoch=1)[0]
    np.testing.assert_array_equal(orders[1], again)


def test_column_statistics_keep_the_scale_of_constant_columns():
    x = np.random.default_rng(0).normal(size=(50, 3)).astype("f4") * 7 + 100
    x[:, 1] = 3.5
    made = catalogue.column_statistics(x)
    np.testing.assert_allclose(made["mean"], x.mean(axis=0, dtype="f8"), rtol=1e-6)
    deviation = x.std(axis=0, dtype="f8")
    deviation[1] = 1
    np.testing.assert_allclose(made["deviation"], deviation, rtol=1e-6)
    standard = (x - made["mean"]) / made["deviation"]
    np.testing.assert_allclose(standard[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(standard[:, [0, 2]].std(axis=0), 1, rtol=1e-4)


def test_rows_of_a_memory_map_come_in_the_order_asked_for(tmp_path):
    values = np.random.default_rng(0).normal(size=(30, 4)).astype("f2")
    np.save(tmp_path / "x.npy", values)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows = np.array([[3, 3, 29], [0, 17, 3]])
    made = catalogue.read_rows(mapped, rows)
    assert not isinstance(made, np.memmap)
    np.testing.assert_array_equal(made, values[rows])
