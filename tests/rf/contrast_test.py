# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""InfoNCE against its definition in float64 NumPy, its gradient against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.rf import contrast


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def oracle(x, y, temperature, negatives, weights=None):
    """Follows the definition row by row; negatives[i] are rows of y, its own apart."""
    x, y = unit(x), unit(y)
    losses = []
    for i in range(len(x)):
        near = [j for j in negatives[i] if j != i]
        logits = np.array([x[i] @ y[j] for j in [i, *near]]) / temperature
        top = logits.max()
        losses.append(top + np.log(np.exp(logits - top).sum()) - logits[0])
    return np.average(losses, weights=weights)


def naive(x, y, temperature):
    """Writes all logits down, for autodiff."""
    x, y = (z / jnp.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    logits = x @ y.T / temperature
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(logits, axis=1)))


@pytest.mark.parametrize("block", [None, 1, 4, 5, 100])
@pytest.mark.parametrize(("rows", "candidates"), [(9, 9), (9, 14), (1, 1)])
def test_info_nce_is_its_definition(rows, candidates, block):
    x, y = draw(rows, 6), 2 * draw(candidates, 6, seed=1)
    for temperature in (1.0, 0.2, 0.005):
        wanted = oracle(x, y, temperature, [range(candidates)] * rows)
        got = contrast.info_nce(x, y, temperature, block=block)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("block", [None, 3])
@pytest.mark.parametrize("candidates", [8, 12])
def test_its_gradient_is_that_of_autodiff(candidates, block):
    x, y = draw(8, 5), draw(candidates, 5, seed=1)

    def ours(x, y):
        return 3 * contrast.info_nce(x, y, 0.3, block=block)

    got = jax.jit(jax.value_and_grad(ours, (0, 1)))(x, y)
    wanted = jax.value_and_grad(lambda x, y: 3 * naive(x, y, 0.3), (0, 1))(x, y)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_row_may_be_its_own_positive():
    # Both sides of a perturbation come from one array: gradients of both add up.
    x = draw(7, 4)
    got = jax.grad(lambda x: contrast.info_nce(x, x + 0.1, 0.2, block=2))(x)
    wanted = jax.grad(lambda x: naive(x, x + 0.1, 0.2))(x)
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("block", [None, 3])
def test_rows_that_fill_up_count_nowhere(block):
    x, y = draw(10, 4), draw(12, 4, seed=1)
    weights = jnp.asarray([1.0] * 6 + [0.0] * 4)

    def padded(x, y):
        return contrast.info_nce(x, y, 0.2, weights=weights, block=block)

    def short(x, y):
        kept = jnp.concatenate([y[:6], y[10:]])
        return contrast.info_nce(x[:6], kept, 0.2)

    got, wanted = (jax.value_and_grad(f, (0, 1))(x, y) for f in (padded, short))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(got[1][0][6:], 0)
    np.testing.assert_array_equal(got[1][1][6:10], 0)


def test_rows_count_by_their_weight():
    x, y, weights = draw(6, 4), draw(6, 4, seed=1), np.arange(1.0, 7.0)
    wanted = oracle(x, y, 0.2, [range(6)] * 6, weights)
    got = contrast.info_nce(x, y, 0.2, weights=jnp.asarray(weights, jnp.float32))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize("block", [None, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_sampled_negatives_leave_out_an_anchors_own_positive(block, weighted):
    x, y = draw(7, 4), draw(9, 4, seed=1)
    weights = jnp.asarray([1.0, 1, 1, 1, 1, 0, 0]) if weighted else None
    shared = np.array([8, 2, 6, 2, 0])
    own = np.random.default_rng(5).integers(0, 9, (7, 4))

    def kept(chosen):
        return [j for j in chosen if not (weighted and j in (5, 6))]

    for negatives in (shared, own):
        rows = [kept(n) for n in np.broadcast_to(negatives, (7, negatives.shape[-1]))]
        wanted = oracle(x, y, 0.3, rows, weights)
        given = {"weights": weights, "block": block}
        got = contrast.info_nce_sampled(x, y, 0.3, jnp.asarray(negatives), **given)
        np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_shared_and_own_negatives_have_the_same_gradient():
    x, y = draw(7, 4), draw(9, 4, seed=1)
    shared = jnp.asarray([8, 2, 6, 0])

    def slope(negatives):
        def loss(x, y):
            return contrast.info_nce_sampled(x, y, 0.3, negatives, block=3)

        return jax.jit(jax.grad(loss, (0, 1)))(x, y)

    every = jnp.tile(shared[None], (7, 1))
    for a, b in zip(slope(shared), slope(every), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_all_rows_as_sampled_negatives_are_the_whole_batch():
    x, y = draw(8, 4), draw(8, 4, seed=1)
    got = contrast.info_nce_sampled(x, y, 0.2, jnp.arange(8))
    np.testing.assert_allclose(got, contrast.info_nce(x, y, 0.2), rtol=1e-5)


def test_rows_without_a_direction_and_batches_without_a_row_stay_finite():
    x = draw(5, 4).at[2].set(0)
    y = draw(5, 4, seed=1).at[3].set(0)
    for weights in (None, jnp.zeros(5), jnp.asarray([0.0, 0, 1, 0, 0])):

        def loss(x, y, weights=weights):
            return contrast.info_nce(x, y, 0.01, weights=weights)

        value, slopes = jax.value_and_grad(loss, (0, 1))(x, y)
        assert jnp.isfinite(value)
        assert all(jnp.isfinite(s).all() for s in slopes)
    assert contrast.info_nce(x, y, 0.2, weights=jnp.zeros(5)) == 0


@pytest.mark.parametrize("block", [64, None])
def test_memory_stays_that_of_a_block(block):
    # All logits of these rows would take 256 MiB, a block without a size of its own 16.
    rows = jax.ShapeDtypeStruct((8192, 8), jnp.float32)

    def loss(x, y):
        return contrast.info_nce(x, y, 0.2, block=block)

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(rows, rows).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    used = memory.temp_size_in_bytes / 2**20
    assert used < (12 if block else 60)


def test_squared_is_the_mean_square_of_rows_that_count():
    x, y = draw(4, 3), draw(4, 3, seed=1)
    np.testing.assert_allclose(
        contrast.squared(x, y), np.mean(np.asarray(x - y) ** 2), rtol=1e-6
    )
    weights = jnp.asarray([1.0, 1, 0, 0])
    np.testing.assert_allclose(
        contrast.squared(x, y, weights), contrast.squared(x[:2], y[:2]), rtol=1e-6
    )


def test_more_anchors_than_candidates_are_refused():
    with pytest.raises(ValueError, match="5 anchors, 4 candidates"):
        contrast.info_nce(draw(5, 3), draw(4, 3), 0.2)
