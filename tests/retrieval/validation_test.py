# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches of an evaluation and its lists, against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfrec.codes import trie
from rfrec.retrieval import validation
from rfrec.retrieval.batches import Examples
from rfrec.retrieval.corpus import Catalogue

# Items 0 and 3 share their codes, as do 1, 4 and 5; item 2 has none.
CODES = np.array([[1, 0], [0, 2], [1, 0], [0, 2], [0, 2], [2, 1]], np.int32)
ROWS = np.array([0, 1, 3, 4, 5, 6])


def make_trie():
    return trie.build(CODES, (3, 3), items=ROWS, num_items=7)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=50),
    batch=st.integers(1, 4),
    parts=st.sampled_from([1, 2, 4]),
)
def test_every_example_is_counted_once_in_its_bucket(lengths, batch, parts):
    lengths, buckets = np.array(lengths), (2, 5, 9)
    made = validation.blocks(lengths, buckets, batch * parts, parts)
    counted = [int(row) for block in made for row in block.rows[block.counted]]
    assert sorted(counted) == list(range(len(lengths)))
    for block in made:
        assert block.rows.shape[1] % parts == 0
        assert block.rows.shape[1] <= batch * parts
        fits = min(b for b in buckets if b >= lengths[block.rows].max())
        assert block.history == fits
    values = [block.rows[..., None] * np.array([1, 10]) for block in made]
    put = validation.in_order(made, values)
    np.testing.assert_array_equal(put[:, 1], 10 * np.arange(len(lengths)))


def test_users_are_drawn_once_and_without_repeats():
    drawn = validation.draw_users(100, 20, seed=4)
    assert len(set(drawn.tolist())) == 20
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(drawn, validation.draw_users(100, 20, seed=4))
    assert drawn.tolist() != validation.draw_users(100, 20, seed=5).tolist()
    for most in (0, 100, 500):
        assert validation.draw_users(100, most, seed=4).tolist() == list(range(100))


def test_leaves_become_items_in_order():
    made = make_trie()
    leaves = np.array([[2, 0], [0, -1], [-1, -1], [1, 2]])
    items = validation.ranked_items(made, leaves)
    # Leaves in lexicographic order: (0, 2), (1, 0), (2, 1).
    wanted = [[6, 1, 4, 5], [1, 4, 5, -1], [-1] * 4, [0, 3, 6, -1]]
    np.testing.assert_array_equal(items, wanted)


def test_metrics_by_item_and_by_code():
    targets = np.array([4, 3, 6, 0], np.int32)
    zeros = np.zeros(4, np.int32)
    examples = Examples(zeros, zeros, zeros + 1, targets)
    halves = [np.array([0, 1]), np.array([2, 3])]
    catalogues = [
        Catalogue(str(i), make_trie(), Examples(*(a[h] for a in examples)))
        for i, h in enumerate(halves)
    ]
    leaves = [np.array([[0, 1, -1], [0, 1, 2]]), np.array([[0, -1], [1, 0]])]
    made = validation.search_metrics(catalogues, leaves)
    # Ranks by item 2, 5, none, 1; by code 1, 2, none, 1.
    gains = [1 / np.log2(1 + r) for r in (2, 5, 1)]
    np.testing.assert_allclose(made["ndcg@10"], sum(gains) / 4)
    np.testing.assert_allclose(made["hr@1"], 1 / 4)
    np.testing.assert_allclose(made["hr@5"], 3 / 4)
    np.testing.assert_allclose(made["mrr"], (1 / 2 + 1 / 5 + 1) / 4)
    np.testing.assert_allclose(made["code_ndcg@10"], (2 + 1 / np.log2(3)) / 4)
    np.testing.assert_allclose(made["code_hr@10"], 3 / 4)
    assert made.keys() == set(validation.NAMES)


@pytest.mark.parametrize("width", [1, 3])
def test_lists_without_an_item(width):
    leaves = np.full((2, width), -1)
    assert validation.ranked_items(make_trie(), leaves).tolist() == [[-1], [-1]]
