# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME's forward pass, against its equations in float64 NumPy with dense graphs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.graph import adjacency, gume, spmm

USERS, ITEMS, WIDTH = 9, 14, 6
WIDTHS = (10, 7, 5)


@functools.cache
def problem(modalities=2, **changes):
    rng = np.random.default_rng(modalities)
    lists = [rng.permutation(ITEMS)[: rng.integers(1, 6)] for _ in range(USERS)]
    features = {
        f"m{i}": rng.normal(size=(ITEMS, WIDTHS[i])).astype(np.float32)
        for i in range(modalities)
    }
    matrices = adjacency.build(
        np.cumsum([0, *map(len, lists)]),
        np.concatenate(lists).astype(np.int32),
        features,
        adjacency.Options(neighbours=5),
    )
    arch = gume.Architecture(
        num_users=USERS,
        num_items=ITEMS,
        modalities=tuple(features),
        feature_widths=WIDTHS[:modalities],
        width=WIDTH,
        **changes,
    )
    given = tuple(map(jnp.asarray, features.values()))
    params = gume.init(arch, jax.random.key(1), given)
    # Tables are tiny at the start: make every term count.
    for name in ("users", "items"):
        params[name] = params[name] * 3
    return arch, params, matrices, given


def linear(maps, x):
    kernel, bias = (np.asarray(maps[n], np.float64) for n in ("kernel", "bias"))
    return x @ kernel + bias


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_definition(arch, params, matrices, features):
    """Returns H, F, Q, G and Z of all nodes, as the paper writes them."""
    table = functools.partial(np.asarray, dtype=np.float64)
    adjacent = matrices.adjacency.toarray().astype(np.float64)

    def convolve(x):
        powers = [x]
        for _ in range(arch.ui_layers):
            powers.append(adjacent @ powers[-1])
        return np.mean(powers, axis=0)

    h = convolve(np.concatenate([table(params["users"]), table(params["items"])]))
    explicit, interest = [], []
    for name, graph, x in zip(arch.modalities, matrices.similar, features, strict=True):
        maps = params["project"][name]
        y = linear(maps["transform"], linear(maps["reduce"], table(x)))
        f = table(params["items"]) * sigmoid(y)
        for _ in range(arch.item_layers):
            f = graph.toarray() @ f
        explicit.append(np.concatenate([matrices.user_item.toarray() @ f, f]))
        preference = table(params["preferences"][name])
        interest.append(convolve(np.concatenate([preference, f])))
    attention = params["attention"]
    scores = np.stack(
        [np.tanh(linear(attention, f)) @ table(attention["score"]) for f in explicit]
    )
    shares = np.exp(scores) / np.exp(scores).sum(axis=0)
    coarse = (shares * np.stack(explicit)).sum(axis=0)
    g = coarse
    for name, f in zip(arch.modalities, explicit, strict=True):
        g = g + sigmoid(linear(params["behaviour"][name], h)) * (f - coarse)
    g = g / (len(explicit) + 1)
    return h, explicit, np.mean(interest, axis=0), g, h + g


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_forward_equals_the_equations_jitted_and_eager(modalities):
    arch, params, matrices, features = problem(modalities)
    graphs = adjacency.place(matrices)
    h, f, q, g, z = by_definition(arch, params, matrices, features)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)

    def run(params, graphs):
        found = gume.propagate(arch, params, graphs)
        return found, gume.integrate(arch, params, found.behaviour, found.explicit)

    for found, whole in (run(params, graphs), jax.jit(run)(params, graphs)):
        near(found.behaviour, h)
        near(found.interest, q)
        for ours, theirs in zip(found.explicit, f, strict=True):
            near(ours, theirs)
        near(whole.integration, g)
        near(whole.embeddings, z)
    users, items = gume.embed(arch, params, gume.propagate(arch, params, graphs))
    near(users, z[:USERS])
    near(items, z[USERS:])


def test_rows_are_those_of_the_whole():
    arch, params, matrices, features = problem()
    h, _, q, g, z = by_definition(arch, params, matrices, features)
    found = gume.propagate(arch, params, adjacency.place(matrices))
    users, positives, negatives = jnp.array([[2, 2, 8], [0, 13, 5], [1, 1, 7]])
    chosen = gume.batch_nodes(arch, users, positives, negatives)
    np.testing.assert_array_equal(chosen, [2, 2, 8, 9, 22, 14, 10, 10, 16])
    rows = gume.batch_rows(arch, params, found, chosen)
    wanted = (h[chosen], g[chosen], z[chosen], q[chosen[:6]])
    for ours, theirs in zip(rows, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_what_takes_the_place_of_behaviour_is_used():
    arch, params, matrices, _ = problem()
    found = gume.propagate(arch, params, adjacency.place(matrices))
    chosen = gume.batch_nodes(arch, *jnp.array([[2, 8], [0, 5], [1, 7]]))
    other = jnp.asarray(np.random.default_rng(0).normal(size=(6, WIDTH)), jnp.float32)
    rows = gume.batch_rows(arch, params, found, chosen, other)
    wanted = gume.integrate(arch, params, other, [f[chosen] for f in found.explicit])
    np.testing.assert_array_equal(rows.behaviour, other)
    np.testing.assert_array_equal(rows.embeddings, wanted.embeddings)


def test_frozen_features_give_the_same_and_are_no_parameters():
    arch, params, matrices, features = problem()
    graphs = adjacency.place(matrices)
    frozen = dataclasses.replace(arch, freeze_features=True)
    fewer = {name: value for name, value in params.items() if name != "features"}
    assert jax.tree.structure(gume.init(frozen, jax.random.key(0))) == (
        jax.tree.structure(fewer)
    )
    found = gume.propagate(frozen, fewer, graphs, features)
    wanted = gume.propagate(arch, params, graphs)
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_one_merged_projection_is_the_same_function():
    arch, params, _, features = problem()
    merged = dataclasses.replace(arch, merge_projection=True)
    fewer = gume.init(merged, jax.random.key(5), features)
    apart = gume.init(arch, jax.random.key(5), features)
    for name, x in zip(arch.modalities, features, strict=True):
        np.testing.assert_allclose(
            gume.project(merged, fewer, name, x),
            gume.project(arch, apart, name, x),
            rtol=1e-5,
        )
    assert len(jax.tree.leaves(fewer)) == len(jax.tree.leaves(params)) - 4


def test_gradients_reach_every_parameter_and_equal_those_of_dense_graphs():
    arch, params, matrices, _ = problem()

    def loss(params, graphs):
        found = gume.propagate(arch, params, graphs)
        whole = gume.integrate(arch, params, found.behaviour, found.explicit)
        return jnp.sum(jnp.sin(3 * whole.embeddings)) + jnp.sum(found.interest**2)

    graphs = adjacency.place(matrices)
    ours = jax.jit(jax.grad(loss))(params, graphs)
    # Differences in float32 would say little: compare directional derivatives.
    direction = jax.tree.map(
        lambda a: np.random.default_rng(a.size).normal(size=a.shape), params
    )
    with jax.enable_x64(True):
        at = functools.partial(_moved_loss, arch, params, matrices, direction)
        slope = (at(1e-5) - at(-1e-5)) / 2e-5
    along = jax.tree.map(lambda g, d: np.sum(np.asarray(g) * d), ours, direction)
    np.testing.assert_allclose(sum(jax.tree.leaves(along)), slope, rtol=1e-3)
    for path, leaf in jax.tree_util.tree_leaves_with_path(ours):
        assert np.abs(leaf).max() > 0, path


def _moved_loss(arch, params, matrices, direction, length):
    moved = jax.tree.map(
        lambda a, d: np.asarray(a, np.float64) + length * d, params, direction
    )
    features = tuple(moved["features"].values())
    _, _, q, _, z = by_definition(arch, moved, matrices, features)
    return np.sum(np.sin(3 * z)) + np.sum(q**2)


def test_tables_and_maps_start_as_in_pytorch():
    arch = gume.Architecture(3000, 500, ("text",), (100,), width=64)
    params = gume.init(arch, jax.random.key(0), [jnp.zeros((500, 100))])
    for table, count in (("users", 3000), ("items", 500)):
        bound = (6 / (count + 64)) ** 0.5
        assert 0.99 * bound < np.abs(params[table]).max() <= bound
    for maps, inputs in (("reduce", 100), ("transform", 64)):
        for leaf in params["project"]["text"][maps].values():
            assert 0.9 * inputs**-0.5 < np.abs(leaf).max() <= inputs**-0.5
    leaves = jax.tree.leaves(params)
    assert len({leaf.tobytes() for leaf in map(np.asarray, leaves)}) == len(leaves)


def test_sides_convolve_like_the_whole_graph():
    arch, _, matrices, _ = problem()
    whole, graphs = spmm.from_scipy(matrices.adjacency), adjacency.place(matrices)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(USERS + ITEMS, 3)), "float32")
    wanted = gume.convolve(whole, x, arch.ui_layers)
    users, items = gume.convolve_sides(graphs, x[:USERS], x[USERS:], arch.ui_layers)
    found = jnp.concatenate([users, items])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_no_edge_between_items_is_no_trouble():
    arch, params, matrices, features = problem()
    count = USERS + ITEMS
    lonely = matrices.adjacency.tolil()
    lonely[USERS:, USERS:] = 0
    lonely = matrices._replace(adjacency=lonely.tocsr())
    assert lonely.adjacency[USERS:, USERS:].nnz == 0
    found = gume.propagate(arch, params, adjacency.place(lonely))
    h, *_ = by_definition(arch, params, lonely, features)
    assert h.shape == (count, WIDTH)
    np.testing.assert_allclose(found.behaviour, h, rtol=1e-4, atol=1e-6)


def test_refuses_to_train_features_that_are_not_there():
    arch = gume.Architecture(3, 4, ("text",), (5,))
    with pytest.raises(ValueError, match="require initial values"):
        gume.init(arch, jax.random.key(0))
