# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Products with a constant sparse matrix, against the dense ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from rfrec.graph import spmm


def problem(rows=23, columns=17, width=5, seed=0):
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < 0.2)
    dense[3], dense[:, 4] = 0, 0
    x = rng.normal(size=(columns, width)).astype(np.float32)
    return dense.astype(np.float32), jnp.asarray(x)


def test_product_equals_the_dense_one_jitted_and_eager():
    dense, x = problem()
    graph = spmm.from_scipy(sp.csr_matrix(dense))
    np.testing.assert_allclose(spmm.product(graph, x), dense @ x, atol=1e-6)
    jitted = jax.jit(spmm.product)(graph, x)
    np.testing.assert_array_equal(jitted, spmm.product(graph, x))


def test_gradient_equals_that_of_the_dense_product():
    dense, x = problem()
    graph = spmm.from_scipy(sp.csr_matrix(dense))

    def loss(product):
        return lambda x: jnp.sum(jnp.sin(product(x)))

    ours = jax.jit(jax.grad(loss(lambda x: spmm.product(graph, x))))(x)
    np.testing.assert_allclose(ours, jax.grad(loss(lambda x: dense @ x))(x), atol=1e-5)


def test_double_entries_and_unsorted_columns_are_one_matrix():
    rows, columns = np.array([1, 0, 1, 1]), np.array([2, 1, 0, 2])
    matrix = sp.coo_matrix((np.ones(4), (rows, columns)), (2, 3)).tocsr()
    x = jnp.eye(3)
    found = spmm.product(spmm.from_scipy(matrix), x)
    np.testing.assert_array_equal(found, [[0, 1, 0], [1, 0, 2]])


def test_refuses_rows_of_another_number():
    dense, x = problem()
    graph = spmm.from_scipy(sp.csr_matrix(dense))
    with pytest.raises(TypeError, match="shape"):
        spmm.product(graph, x[:-1])
