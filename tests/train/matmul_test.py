# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The product and its gradients against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.train.matmul import matmul


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("rows", "shape"), [((4,), (3, 7)), ((2, 5), (7, 3)), ((2, 3, 2), (4, 4))]
)
def test_product_and_gradients_equal_those_of_jax(rows, shape, dtype):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (*rows, shape[0])).astype(dtype)
    weight = jax.random.normal(keys[1], shape).astype(dtype)
    slope = jax.random.normal(keys[2], (*rows, shape[1])).astype(dtype)
    ours, pull = jax.vjp(matmul, x, weight)
    wanted, pull_wanted = jax.vjp(jnp.matmul, x, weight)
    tolerance = 1e-6 if dtype == "float32" else 2e-2
    pairs = zip((ours, *pull(slope)), (wanted, *pull_wanted(slope)), strict=True)
    for a, b in pairs:
        assert a.dtype == b.dtype and a.shape == b.shape
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
