# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Products of a constant sparse matrix with dense rows, fast in both directions.

JAX multiplies a CSR matrix by a native kernel on a CPU, but its own gradient of that
product gathers and scatters every entry: four times slower. Here the transpose is
stored too, and the gradient is the same kind of product. Only float32 has the kernel,
and `vmap` does not: set vectors side by side in the columns instead.
"""

from typing import NamedTuple

import jax
import numpy as np
import scipy.sparse as sp
from jax.experimental import sparse
from jaxtyping import Array, Float


class Graph(NamedTuple):
    """A matrix and its transpose, on the device.

    Attributes:
      forward: [R C], row = receiver.
      transpose: [C R].
    """

    forward: sparse.BCSR
    transpose: sparse.BCSR


def from_scipy(matrix: sp.csr_matrix | sp.csr_array) -> Graph:
    """Places a matrix; explicit zeros stay, double entries are summed."""
    return Graph(_place(matrix), _place(matrix.T))


def _place(matrix) -> sparse.BCSR:
    csr = sp.csr_matrix(matrix, dtype=np.float32, copy=True)
    csr.sum_duplicates()
    csr.indices, csr.indptr = csr.indices.astype("int32"), csr.indptr.astype("int32")
    return sparse.BCSR.from_scipy_sparse(csr)


def transposed(graph: Graph) -> Graph:
    """Returns the transpose, which shares the arrays."""
    return Graph(graph.transpose, graph.forward)


@jax.custom_vjp
def product(graph: Graph, x: Float[Array, "C D"]) -> Float[Array, "R D"]:
    """Returns `graph @ x`; the graph counts as a constant.

    Args:
      graph: Sums the rows that each row receives.
      x: Rows to be sent.
    """
    return graph.forward @ x


def _forward(graph, x):
    return graph.forward @ x, graph.transpose


def _backward(transpose, gradient):
    return None, transpose @ gradient


product.defvjp(_forward, _backward)
