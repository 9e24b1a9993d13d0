# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Ranking the whole catalogue, compared with a sort."""

import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.evaluation import ranking


def histories(num_users, num_items, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 9, num_users)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    rows = [rng.choice(num_items, n, replace=False) for n in lengths]
    return indptr, np.concatenate(rows).astype(np.int32)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("block", [5, 64])
def test_the_lists_are_those_of_a_sort(masked, block):
    scores = np.random.default_rng(0).normal(size=(23, 40)).astype(np.float32)
    indptr, items = histories(23, 40)
    seen = (indptr, items) if masked else None
    items_as_axes = np.eye(40, dtype=np.float32)
    lists = ranking.rank_products(scores, items_as_axes, k=7, block=block, seen=seen)
    for user in range(23):
        wanted = np.argsort(-scores[user])
        if masked:
            history = items[indptr[user] : indptr[user + 1]]
            wanted = wanted[~np.isin(wanted, history)]
        np.testing.assert_array_equal(lists.items[user], wanted[:7])
        np.testing.assert_array_equal(lists.scores[user], scores[user, wanted[:7]])


def test_a_list_ends_where_the_catalogue_does():
    seen = jnp.array([[0, -1], [1, 2]])
    items, scores = ranking.top_k(jnp.arange(6.0).reshape(2, 3), 5, seen)
    np.testing.assert_array_equal(items, [[2, 1, -1, -1, -1], [0, -1, -1, -1, -1]])
    assert np.isfinite(scores).all()
    lists = ranking.Lists(np.asarray(items), np.asarray(scores))
    np.testing.assert_array_equal(lists.valid.sum(axis=1), [2, 1])


def test_equal_scores_are_in_the_order_of_the_items():
    items, _ = ranking.top_k(jnp.zeros((1, 6)), 4)
    np.testing.assert_array_equal(items, [[0, 1, 2, 3]])


def test_histories_are_padded_to_a_power_of_two():
    indptr, items = np.array([0, 3, 3, 4]), np.array([5, 6, 7, 8], np.int32)
    rows = ranking.padded_rows(indptr, items, np.array([2, 0, 1]))
    np.testing.assert_array_equal(
        rows, [[8, -1, -1, -1], [5, 6, 7, -1], [-1, -1, -1, -1]]
    )


@pytest.mark.parametrize("block", [5, 23, 64])
def test_products_are_ranked_as_their_scores(block):
    rng = np.random.default_rng(0)
    users, items = (rng.normal(size=(n, 6)).astype(np.float32) for n in (23, 40))
    seen = histories(23, 40)
    wanted = ranking.rank_products(
        users @ items.T, np.eye(40, dtype=np.float32), k=7, seen=seen
    )
    found = ranking.rank_products(
        jnp.asarray(users), jnp.asarray(items), k=7, block=block, seen=seen
    )
    np.testing.assert_array_equal(found.items, wanted.items)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5)


def test_equal_products_are_in_the_order_of_the_items():
    items = np.array([1.0, 3.0, 1.0, 3.0, 0.0], np.float32)[:, None]
    lists = ranking.rank_products(np.ones((3, 1), np.float32), items, k=5)
    np.testing.assert_array_equal(lists.items, [[1, 3, 0, 2, 4]] * 3)
