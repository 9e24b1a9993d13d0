# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME as a model: its parts add up, filled rows count for nothing, all is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.data import triplets
from rfrec.graph import adjacency, gume, losses
from rfrec.graph.model import GUME, HOST, make_constants

USERS, ITEMS = 21, 17
WIDTHS = {"text": 6, "image": 5, "sound": 4}


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    features = {m: rng.normal(size=(ITEMS, w)).astype("f4") for m, w in WIDTHS.items()}
    rows = [np.sort(rng.choice(ITEMS, 4, replace=False)) for _ in range(USERS)]
    indptr, items = np.arange(USERS + 1) * 4, np.concatenate(rows)
    arch = gume.Architecture(USERS, ITEMS, tuple(WIDTHS), tuple(WIDTHS.values()), 8)
    matrices = adjacency.build(indptr, items, features, adjacency.Options(4))
    values = tuple(features.values())
    weights = losses.Weights(batch_size=10, user=0.3, alignment=0.2, embeddings=0.1)
    model = GUME(arch, weights, values)
    constants = make_constants(arch, adjacency.place(matrices), values)
    return arch, weights, model, constants, model.init(jax.random.key(0))[0]


def make_batch(rows=10, filled=0):
    rng = np.random.default_rng(1)
    users, positives, negatives = (
        jnp.asarray(rng.integers(n, size=rows), jnp.int32)
        for n in (USERS, ITEMS, ITEMS)
    )
    weights = jnp.asarray(np.arange(rows) < rows - filled, jnp.float32)
    return triplets.Triplets(users, positives, negatives, weights)


def eager(case, batch):
    _, _, model, constants, params = case
    return model.loss(params, {}, constants, batch, jax.random.key(7), jnp.int32(0))


@pytest.fixture(scope="module")
def call(case):
    return jax.jit(lambda batch: eager(case, batch))


def test_the_loss_is_the_weighted_sum_of_its_parts(case, call):
    weights = case[1]
    total, (parts, _) = call(make_batch())
    factors = {name: getattr(weights, name, 1.0) for name in parts}
    factors["behaviour_modality"] = weights.behaviour
    factors["user_modality"] = weights.user
    wanted = sum(factors[name] * float(parts[name]) for name in parts)
    np.testing.assert_allclose(total, wanted, rtol=1e-6)


def test_what_fills_a_batch_up_changes_nothing(call):
    one, other = make_batch(filled=4), make_batch(filled=4)
    other = other._replace(
        **{
            name: getattr(one, name).at[-4:].set(0)
            for name in ("users", "positives", "negatives")
        }
    )
    np.testing.assert_allclose(call(one)[0], call(other)[0], rtol=1e-6)


def test_ranked_scores_are_those_that_bpr_compares(case, call):
    arch, _, model, constants, params = case
    batch = make_batch()
    encoded = model.encode(params, {}, constants, jnp.int32(0))
    users, items = np.asarray(encoded.users), np.asarray(encoded.items)
    margin = np.sum(users[batch.users] * items[batch.positives], axis=1)
    margin -= np.sum(users[batch.users] * items[batch.negatives], axis=1)
    wanted = np.mean(np.log1p(np.exp(-margin)))
    np.testing.assert_allclose(call(batch)[1][0]["bpr"], wanted, rtol=1e-5)
    assert encoded.users.shape == (USERS, arch.width)


def test_every_parameter_is_trained_by_the_host_and_has_a_gradient(case):
    model, params, batch = case[2], case[4], make_batch()
    grads = jax.jit(jax.grad(lambda p: eager((*case[:4], p), batch)[0]))(params)
    assert set(jax.tree.leaves(model.labels(params))) == {HOST}
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.abs(grad).max() > 0, jax.tree_util.keystr(path)


def test_features_are_parameters_or_constants(case, call):
    arch, weights, _, constants, params = case
    frozen = gume.Architecture(**{**vars(arch), "freeze_features": True})
    values = tuple(map(np.asarray, params["features"].values()))
    kept = make_constants(frozen, constants.graphs, values)
    placed = jax.tree.map(jnp.asarray, kept)
    model = GUME(frozen, weights, values)
    rest = {name: part for name, part in params.items() if name != "features"}
    assert constants.features is None
    assert set(model.init(jax.random.key(0))[0]) == set(rest)
    found = jax.jit(lambda batch: eager((0, 0, model, placed, rest), batch))
    found = found(make_batch())
    np.testing.assert_allclose(found[0], call(make_batch())[0], rtol=1e-6)
