# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Nearest items in blocks, against all pairs at once."""

import tracemalloc

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.graph import neighbours


def vectors(count=150, width=8, seed=0, dtype="float32"):
    x = np.random.default_rng(seed).normal(size=(count, width))
    return (x * 3).astype(dtype)


def all_pairs(x, k):
    """Sorts whole rows in float64: by cosine, then by number."""
    x = x.astype(np.float64)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ unit.T
    items = np.stack([np.lexsort((np.arange(len(x)), -row))[:k] for row in cosine])
    return items, np.take_along_axis(cosine, items, axis=1)


@pytest.mark.parametrize("block_rows", [7, 64, 149, 150, 1000])
@pytest.mark.parametrize("k", [1, 10])
def test_blocks_find_what_all_pairs_show(block_rows, k):
    x = vectors()
    found = neighbours.find(x, k, block_rows=block_rows)
    items, cosine = all_pairs(x, k)
    np.testing.assert_array_equal(found.items, items)
    np.testing.assert_allclose(found.cosine, cosine, atol=1e-6)


@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize("block_rows", [64, 1000])
def test_the_way_of_accelerators_finds_the_same(monkeypatch, approximate, block_rows):
    monkeypatch.setattr(neighbours.jax, "default_backend", lambda: "gpu")
    x = vectors()
    found = neighbours.find(x, 10, approximate=approximate, block_rows=block_rows)
    items, cosine = all_pairs(x, 10)
    # On a CPU the approximation is exact.
    np.testing.assert_array_equal(found.items, items)
    np.testing.assert_allclose(found.cosine, cosine, atol=1e-6)


def test_more_neighbours_than_the_sampled_columns():
    x = vectors(count=400)
    found = neighbours.find(x, 300, block_rows=128)
    np.testing.assert_array_equal(np.sort(found.items), np.sort(all_pairs(x, 300)[0]))


def test_equal_vectors_come_from_the_item_itself_on():
    # Of whole numbers, so that all products are exact.
    x = np.zeros((40, 4), np.float32)
    x[np.arange(40), np.arange(40) % 4] = 2
    found = neighbours.find(x, 6, block_rows=9)
    for item in range(40):
        wanted = (item + np.arange(6) * 4) % 40
        np.testing.assert_array_equal(found.items[item], wanted)
    np.testing.assert_array_equal(found.cosine, 1)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("k", [1, 10, 25])
def test_the_same_vector_has_the_same_cosine_wherever_it_stands(
    monkeypatch, backend, k
):
    monkeypatch.setattr(neighbours.jax, "default_backend", lambda: backend)
    x = vectors(count=300, width=1280) + 1
    rng = np.random.default_rng(1)
    same = rng.choice(300, 60, replace=False)
    # Like the mean vector, similar to many; more of it than neighbours are wanted.
    x[same[:30]] = x.mean(axis=0)
    x[same[30:]] = x[same[30]]
    # Equal cosines, exactly: both sides read the first row of each vector.
    first = np.arange(300)
    groups = np.sort(same[:30]), np.sort(same[30:])
    for group in groups:
        first[group] = group[0]
    unit = x.astype("f8") / np.linalg.norm(x.astype("f8"), axis=1, keepdims=True)
    cosine = (unit @ unit.T)[first][:, first]

    def turn(item):
        """Says which of equal vectors an item takes first: rank by number."""
        rank = np.arange(300)
        for group in groups:
            begin = list(group).index(item) if item in group else item % 30
            rank[np.roll(group, -begin)] = np.sort(rank[group])
        return rank

    wanted = np.stack([np.lexsort((turn(i), -row))[:k] for i, row in enumerate(cosine)])
    for block_rows in (7, 64, 1000):
        found = neighbours.find(x, k, block_rows=block_rows)
        np.testing.assert_array_equal(found.items, wanted)
        np.testing.assert_allclose(
            found.cosine, np.take_along_axis(cosine, wanted, axis=1), atol=1e-6
        )


def test_vectors_that_differ_in_a_few_values_are_apart():
    # All but the last column of a thousand are the same in three rows.
    x = vectors(count=60, width=1000)
    x[[20, 41]] = x[7]
    x[20, -1] += 400
    found = neighbours.find(x, 5, block_rows=16)
    items, cosine = all_pairs(x, 5)
    for pair in (found.items, items):
        pair[pair == 41] = 7
    np.testing.assert_array_equal(found.items, items)
    np.testing.assert_allclose(found.cosine, cosine, atol=1e-6)
    assert list(found.items[[7, 20, 41], 0]) == [7, 20, 7]


def test_more_neighbours_than_different_vectors():
    x = vectors(count=20)[np.arange(60) % 20]
    found = neighbours.find(x, 30, block_rows=7)
    assert all(len(set(row)) == 30 for row in found.items)
    np.testing.assert_array_equal(
        np.sort(found.items)[:20], np.sort(found.items)[20:40]
    )
    np.testing.assert_array_equal(
        found.items[:, :3], (np.arange(60)[:, None] + [0, 20, 40]) % 60
    )


@pytest.mark.parametrize("same", [slice(None, None, 5), slice(150, None)])
def test_no_item_of_many_equal_ones_is_the_neighbour_of_all(same):
    # They have the mean vector, which is close to all, wherever they stand.
    x = vectors(count=200, width=64) * 0.1 + 1
    x[same] = x.mean(axis=0)
    found = neighbours.find(x, 10)
    np.testing.assert_array_equal(found.items[same, 0], np.arange(200)[same])
    often = np.bincount(found.items.ravel(), minlength=200)[same]
    assert often.sum() > 1500
    assert often.max() <= often.min() + 10


def test_an_item_without_a_vector_is_alone():
    x = vectors()
    x[[4, 90]] = 0
    found = neighbours.find(x, 5, block_rows=32)
    np.testing.assert_array_equal(found.items[[4, 90]], [[4] * 5, [90] * 5])
    np.testing.assert_array_equal(found.cosine[[4, 90]], [[1, 0, 0, 0, 0]] * 2)
    others = np.delete(np.arange(150), [4, 90])
    items, _ = all_pairs(x[others], 5)
    np.testing.assert_array_equal(found.items[others], others[items])


def test_reads_half_precision_from_a_file(tmp_path):
    x = vectors(dtype="float16")
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = neighbours.find(mapped, 4, block_rows=50)
    np.testing.assert_array_equal(found.items, all_pairs(x, 4)[0])


def test_never_holds_all_pairs():
    x = vectors(count=3000, width=4)
    tracemalloc.start()
    neighbours.find(x, 10, block_rows=128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 3000 * 4 / 8


def test_refuses_more_neighbours_than_items():
    with pytest.raises(UserError, match="text: 11 neighbours of 10 items"):
        neighbours.find(vectors(count=10), 11, name="text")


def test_what_was_found_is_kept_by_features_and_settings(tmp_path, monkeypatch):
    x, folder = vectors(), tmp_path / "graphs"
    found = neighbours.cached(folder, x, 5)
    assert len(list(folder.iterdir())) == 1
    changed = x.copy()
    changed[3, 2] += 1
    neighbours.cached(folder, changed, 5)
    neighbours.cached(folder, x, 6)
    assert len(list(folder.iterdir())) == 3
    monkeypatch.setattr(neighbours, "find", None)
    again = neighbours.cached(folder, x, 5)
    np.testing.assert_array_equal(again.items, found.items)
    np.testing.assert_array_equal(again.cosine, found.cosine)


@pytest.mark.parametrize("damage", ["cut", "other", "beyond"])
def test_a_damaged_file_is_made_again(tmp_path, damage, caplog):
    x = vectors()
    found = neighbours.cached(tmp_path, x, 5)
    (path,) = tmp_path.iterdir()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-300])
    elif damage == "other":
        np.savez(path, items=found.items)
    else:
        np.savez(path, items=found.items + 100, cosine=found.cosine)
    with caplog.at_level("WARNING"):
        again = neighbours.cached(tmp_path, x, 5, name="text")
    assert "text" in caplog.text
    np.testing.assert_array_equal(again.items, found.items)
    np.testing.assert_array_equal(neighbours._read(path, 150, 5).items, found.items)


def test_refuses_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        neighbours.cached(tmp_path / "file", vectors(), 5)
