# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches: every pair once an epoch, and negatives with the law of rejection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rfrec.config import UserError
from rfrec.data import pairs, triplets

NUM_ITEMS = 30


def positives(counts, seed=0, num_items=NUM_ITEMS):
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(len(counts)), counts)
    # Item 0 is never in training.
    rows = [1 + rng.permutation(num_items - 1)[:n] for n in counts]
    return pairs.select(users, np.concatenate(rows), len(counts))


@pytest.fixture(scope="module")
def train():
    return positives([7, 1, 20, 12, 3])


@pytest.fixture(scope="module")
def table(train):
    return jax.device_put(triplets.build(train))


KEY = jax.random.key(3)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 64, 1000, 1025])
def test_an_order_is_a_permutation(number):
    order = jax.jit(triplets.permute, static_argnums=2)
    found = order(KEY, jnp.arange(number, dtype=jnp.int32), number)
    np.testing.assert_array_equal(np.sort(found), np.arange(number))


def test_orders_are_as_random_as_shuffles():
    """Every place gets every value equally often; neighbours are no neighbours."""
    number, trials = 20, 4000
    keys = jax.random.split(KEY, trials)
    places = jnp.arange(number, dtype=jnp.int32)
    orders = np.asarray(
        jax.jit(
            jax.vmap(lambda key: triplets.permute(key, places, number)),
        )(keys)
    )
    seen = np.stack([np.bincount(column, minlength=number) for column in orders.T])
    statistic = np.sum((seen - trials / number) ** 2) / (trials / number)
    assert stats.chi2.sf(statistic, (number - 1) ** 2) > 1e-3
    steps = np.bincount((np.diff(orders, axis=1) % number).ravel(), minlength=number)
    assert steps[0] == 0
    assert stats.chisquare(steps[1:]).pvalue > 1e-3


def test_an_epoch_holds_every_pair_once(train, table):
    size = 8
    number = triplets.num_batches(table, size)
    assert number == 6
    draw = jax.jit(triplets.batch, static_argnums=4)
    rows = [draw(table, KEY, 2, i, size) for i in range(number)]
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
    np.testing.assert_array_equal(np.flatnonzero(whole.weights == 0), range(43, 48))
    kept = whole.weights > 0
    drawn = set(zip(whole.users[kept], whole.positives[kept], strict=True))
    assert drawn == set(zip(train.users, train.items, strict=True))
    owned = {*zip(train.users.tolist(), train.items.tolist(), strict=True)}
    both = zip(whole.users.tolist(), whole.negatives.tolist(), strict=True)
    assert not owned.intersection(both)
    assert np.isin(whole.negatives, train.items).all()


def test_epochs_differ_and_repeat(table):
    one, same, later, other = (
        triplets.batch(table, key, epoch, 1, 8)
        for key, epoch in ((KEY, 0), (KEY, 0), (KEY, 1), (jax.random.key(4), 0))
    )
    jax.tree.map(np.testing.assert_array_equal, one, same)
    for different in (later, other):
        assert (one.positives != different.positives).any()
        assert (one.negatives != different.negatives).any()
    jitted = jax.jit(triplets.batch, static_argnums=4)(table, KEY, 0, 1, 8)
    jax.tree.map(np.testing.assert_array_equal, one, jitted)


def test_negatives_have_the_law_of_rejection_sampling(train, table):
    draws = 20_000
    candidates = np.unique(train.items)
    for user in range(5):
        users = jnp.full(draws, user, jnp.int32)
        drawn = np.asarray(triplets.draw_negatives(table, KEY, users))
        own = train.items[train.indptr[user] : train.indptr[user + 1]]
        allowed = np.setdiff1d(candidates, own)
        counts = np.bincount(drawn, minlength=NUM_ITEMS)
        assert counts[allowed].sum() == draws
        assert stats.chisquare(counts[allowed]).pvalue > 1e-3


def test_a_user_who_lacks_one_item_gets_it():
    train = positives([28, 29, 2], num_items=30)
    train = pairs.select(np.repeat([0, 1], [28, 1]), np.append(np.arange(1, 29), 29), 2)
    table = jax.device_put(triplets.build(train))
    found = triplets.draw_negatives(table, KEY, jnp.zeros(50, jnp.int32))
    np.testing.assert_array_equal(found, 29)


def test_a_user_who_has_everything_is_refused():
    train = pairs.select(np.array([0, 0, 1]), np.array([4, 2, 4]), 2)
    with pytest.raises(UserError, match="user 0 has all 2 items of training"):
        triplets.build(train)
    with pytest.raises(UserError, match="user 'ann' has all 2 items"):
        triplets.build(train, user_ids=("ann", "bob"))
