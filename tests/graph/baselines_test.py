# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""LightGCN against dense NumPy; the most popular items against counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.data import pairs, triplets
from rfrec.evaluation import ranking
from rfrec.graph import baselines

USERS, ITEMS = 6, 9


@pytest.fixture(scope="module")
def train():
    rng = np.random.default_rng(0)
    # The last item is nobody's.
    has = rng.random((USERS, ITEMS - 1)) < 0.4
    has[np.arange(USERS), np.arange(USERS)] = True
    users, items = np.nonzero(has)
    return pairs.select(users, items, USERS)


@pytest.fixture(scope="module")
def dense(train):
    matrix = np.zeros((USERS + ITEMS, USERS + ITEMS))
    matrix[train.users, USERS + train.items] = 1
    matrix += matrix.T
    degree = matrix.sum(axis=1)
    factor = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1)), 0)
    return factor[:, None] * matrix * factor[None]


@pytest.fixture(scope="module")
def built(train):
    model = baselines.LightGCN(USERS, ITEMS, width=5, layers=2, regularisation=0.3)
    constants = baselines.normalised_graph(train.indptr, train.items, ITEMS)
    params, model_state = model.init(jax.random.key(1))
    return model, params, model_state, constants


def _propagate(dense, nodes):
    return (nodes + dense @ nodes + dense @ dense @ nodes) / 3


def _batch(train):
    batch = triplets.batch(triplets.build(train), jax.random.key(0), 0, 0, 7)
    return batch._replace(weights=batch.weights.at[-2:].set(0.0))


def _loss(dense, nodes, batch):
    ranked = _propagate(dense, nodes)
    total = 0.0
    rows = [(u, USERS + p, USERS + n) for u, p, n in zip(*batch[:3], strict=True)]
    for u, p, n in rows[:-2]:
        margin = ranked[u] @ (ranked[p] - ranked[n])
        squares = sum(nodes[i] @ nodes[i] for i in (u, p, n))
        total = total + np.log1p(np.exp(-margin)) + 0.3 * 0.5 * squares
    return total / (len(rows) - 2)


def test_embeddings_are_the_mean_of_the_layers(built, dense):
    model, params, model_state, constants = built
    found = model.encode(params, model_state, constants, 0)
    wanted = _propagate(dense, np.asarray(params["nodes"], np.float64))
    np.testing.assert_allclose(found.users, wanted[:USERS], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.items, wanted[USERS:], rtol=1e-5, atol=1e-7)


def test_loss_and_gradient_are_those_of_a_loop(built, dense, train):
    model, params, model_state, constants = built
    batch = _batch(train)

    def objective(params):
        return model.loss(params, model_state, constants, batch, None, 0)[0]

    loss, grads = jax.jit(jax.value_and_grad(objective))(params)
    np.testing.assert_allclose(loss, objective(params), rtol=1e-6)
    nodes = np.asarray(params["nodes"], np.float64)
    rows = jax.tree.map(np.asarray, batch)
    np.testing.assert_allclose(loss, _loss(dense, nodes, rows), rtol=1e-5)
    for place in ((0, 0), (USERS, 3), (USERS + ITEMS - 1, 2)):
        moved = np.zeros_like(nodes)
        moved[place] = 1e-5
        up, down = (_loss(dense, nodes + s * moved, rows) for s in (1, -1))
        wanted = (up - down) / 2e-5
        np.testing.assert_allclose(grads["nodes"][place], wanted, rtol=1e-4, atol=1e-7)


def test_tables_are_drawn_for_users_and_items_by_themselves(built):
    _, params, _, _ = built
    for rows, count in (
        (params["nodes"][:USERS], USERS),
        (params["nodes"][USERS:], ITEMS),
    ):
        bound = np.sqrt(6 / (count + 5))
        assert 0.7 * bound < jnp.abs(rows).max() <= bound


def test_everybody_gets_the_most_popular_items_not_yet_had():
    users = np.array([0, 0, 1, 1, 2, 2, 2])
    items = np.array([3, 1, 3, 4, 3, 4, 0])
    train = pairs.select(users, items, 3)
    model = baselines.Popularity(3)
    constants = baselines.count_items(train.items, 6)
    found = model.encode(*model.init(jax.random.key(0)), constants, 0)
    assert found.items.shape == (6, 1)
    seen = (train.indptr, train.items)
    lists = ranking.rank_products(found.users, found.items, k=3, seen=seen)
    np.testing.assert_array_equal(lists.items, [[4, 0, 2], [0, 1, 2], [1, 2, 5]])
    loss, (parts, state) = model.loss({}, {}, constants, None, None, 0)
    assert (float(loss), parts, state) == (0.0, {}, {})
