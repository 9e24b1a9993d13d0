# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Gradients in chunks against gradients of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.train import chunks, partition


def objective(params, batch):
    x, y = batch
    return jnp.sum(jnp.sum((jnp.tanh(x @ params["w"]) - y) ** 2, axis=1))


@pytest.mark.parametrize("number", [1, 2, 6, 12])
def test_chunks_sum_to_the_whole(number):
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(5, 3)).astype("f4")}
    batch = rng.normal(size=(12, 5)).astype("f4"), rng.normal(size=(12, 3)).astype("f4")
    value, grads = jax.jit(chunks.value_and_grad, static_argnums=(0, 3))(
        objective, params, batch, number
    )
    expected = objective(params, batch)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # By definition: 2 (tanh(xw) - y) (1 - tanh(xw)^2), summed over the rows.
    t = np.tanh(batch[0] @ params["w"])
    by_hand = batch[0].T @ (2 * (t - batch[1]) * (1 - t**2))
    np.testing.assert_allclose(grads["w"], by_hand, rtol=1e-4, atol=1e-5)


def test_a_chunk_holds_some_rows_of_each_device():
    engine = partition.make_engine("jit", devices=jax.devices()[:1])
    assert chunks.count(engine, 256, 6) == 1
    # 20,992 rows of matrices, of which 2,048 fit; 16 is the next divisor above 10.25.
    assert chunks.count(engine, 256, 82) == 16
    # Never less than a row, and always a divisor.
    assert chunks.count(engine, 6, 9000) == 6
    assert 250 % chunks.count(engine, 250, 82) == 0
