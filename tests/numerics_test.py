# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared mathematics against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec import numerics


@pytest.mark.parametrize("shape", [(7,), (1,), (40, 9), (5, 3, 64)])
def test_the_first_minimum_of_many_equal_ones(shape):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, size=shape).astype(np.float32)
    values[rng.random(shape) < 0.1] = np.inf
    values[rng.random(shape) < 0.1] = -np.inf
    found = jax.jit(numerics.first_min)(values)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, values.argmin(axis=-1))


def test_rows_without_a_finite_value():
    values = np.array([[np.inf] * 3, [np.nan] * 3, [1, np.nan, 0]], np.float32)
    np.testing.assert_array_equal(numerics.first_min(jnp.asarray(values)), [0, 2, 2])


def test_under_vmap_and_scan():
    values = np.random.default_rng(1).normal(size=(6, 5, 17)).astype(np.float32)
    _, found = jax.lax.scan(
        lambda carry, rows: (carry, jax.vmap(numerics.first_min)(rows)), 0, values
    )
    np.testing.assert_array_equal(found, values.argmin(axis=2))
