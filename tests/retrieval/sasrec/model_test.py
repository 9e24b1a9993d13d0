# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The network: causal, blind to its neighbours in a row, and as written in NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.retrieval.sasrec import model as sasrec

ARCH = sasrec.Architecture(num_items=30, history=8, width=12, hidden=20, heads=3)


def make(arch=ARCH, seed=0):
    one = jnp.zeros((1, 1), jnp.int32)
    init = jax.jit(sasrec.SASRec(arch).init)
    params = init(jax.random.key(seed), one, one, one)["params"]
    # Gains, biases and tables away from their special starts.
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    leaves = [a + 0.3 * rng.normal(size=a.shape).astype("f4") for a in leaves]
    return jax.tree.unflatten(tree, leaves)


@functools.partial(jax.jit, static_argnums=0)
def encode(arch, params, items, positions, histories, keys=None):
    model = sasrec.SASRec(arch)
    return model.apply({"params": params}, items, positions, histories, keys=keys)


def apply(params, items, arch=ARCH, keys=None):
    """Encodes histories, one a row, oldest first."""
    items = jnp.asarray(items)
    positions = jnp.broadcast_to(jnp.arange(items.shape[1])[::-1], items.shape)
    return encode(arch, params, items, positions, jnp.ones_like(items), keys)


def numpy_sasrec(params, items, arch=ARCH):
    """One history in float64, position by position."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)

    def norm(x, w):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + arch.epsilon) * w["scale"] + w["bias"]

    def dense(x, w):
        return x @ w["kernel"] + w["bias"]

    n = len(items)
    x = p["items"][items] * np.sqrt(arch.width) + p["positions"][np.arange(n)[::-1]]
    for layer in range(arch.layers):
        w = p[f"block_{layer}"]
        y = norm(x, w["attention_norm"])
        q, k, v = (dense(y, w[name]) for name in ("query", "key", "value"))
        size = arch.width // arch.heads
        out = np.zeros_like(x)
        for head in range(arch.heads):
            s = slice(head * size, (head + 1) * size)
            for i in range(n):
                logits = k[: i + 1, s] @ q[i, s] / np.sqrt(size)
                weights = np.exp(logits - logits.max())
                out[i, s] = weights / weights.sum() @ v[: i + 1, s]
        x = x + dense(out, w["output"])
        y = np.maximum(dense(norm(x, w["feed_forward_norm"]), w["inner"]), 0)
        x = x + dense(y, w["outer"])
    x = norm(x, p["norm"])
    return x, x @ p["items"].T


def test_vectors_scores_and_losses_are_those_of_numpy():
    params, items = make(), np.array([3, 17, 4, 4, 29])
    wanted, scores = numpy_sasrec(params, items)
    bound = sasrec.SASRec(ARCH).bind({"params": params})
    with jax.default_matmul_precision("highest"):
        vectors = apply(params, items[None])[0]
        np.testing.assert_allclose(vectors, wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(bound.scores(vectors), scores, rtol=1e-4, atol=1e-4)
        targets = jnp.array([1, 2, 3, 4, 5])
        losses = bound.losses(vectors, targets)
    shifted = scores - scores.max(-1, keepdims=True)
    entropy = np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(5), targets]
    np.testing.assert_allclose(losses, entropy, rtol=1e-4)


def test_no_place_sees_what_follows():
    params = make()
    items = np.array([[3, 17, 4, 9, 29]])
    before = apply(params, items)
    items[0, 3:] = [0, 1]
    after = apply(params, items)
    np.testing.assert_allclose(after[0, :3], before[0, :3], rtol=1e-5, atol=1e-6)
    assert np.abs(after[0, 3:] - before[0, 3:]).max() > 1e-2


def test_a_history_does_not_see_its_neighbours_or_the_padding():
    params = make()
    alone = apply(params, [[7, 8, 9]])[0]
    items = jnp.array([[1, 2, 7, 8, 9, 5, 23, 11]])
    positions = jnp.array([[1, 0, 2, 1, 0, 0, 4, 4]])
    histories = jnp.array([[1, 1, 2, 2, 2, 3, 0, 0]])
    row = encode(ARCH, params, items, positions, histories)
    np.testing.assert_allclose(row[0, 2:5], alone, rtol=1e-4, atol=1e-5)
    assert np.isfinite(row).all()


def test_dropout_belongs_to_the_row_and_averages_out():
    arch = dataclasses.replace(ARCH, dropout=0.3)
    params, items = make(arch), np.array([[3, 17, 4], [5, 6, 7]])
    keys = jax.random.split(jax.random.key(1), 2)
    both = apply(params, items, arch, keys)
    alone = apply(params, items[1:], arch, keys[1:])
    np.testing.assert_allclose(both[1:], alone, rtol=1e-4, atol=1e-5)
    assert np.abs(both - apply(params, items, arch)).max() > 1e-2
    with_none = apply(params, items, dataclasses.replace(arch, dropout=0.0), keys)
    np.testing.assert_allclose(with_none, apply(params, items), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_scores_are_float32_whatever_the_computation(dtype):
    arch = dataclasses.replace(ARCH, dtype=dtype)
    params = make(arch)
    vectors = apply(params, [[1, 2, 3]], arch)
    bound = sasrec.SASRec(arch).bind({"params": params})
    assert vectors.dtype == bound.scores(vectors).dtype == jnp.float32
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(params))
    exact = apply(params, [[1, 2, 3]])
    np.testing.assert_allclose(vectors, exact, atol=0.2)
