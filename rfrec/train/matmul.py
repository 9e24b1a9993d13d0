# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Matrix products whose weight gradient is fast on CPUs too."""

import jax
from jax import lax
from jaxtyping import Array, Float


@jax.custom_vjp
def matmul(
    x: Float[Array, "*B D"], weight: Float[Array, "D F"]
) -> Float[Array, "*B F"]:
    """Returns `x @ weight`.

    The gradient of the weight is a product `x.T @ y`, which XLA's CPU compiler computes
    at three quarters of the usual speed (132 instead of 177 GFLOP/s for 2,048 rows, 768
    by 2,048 columns), and slower if something, such as a dropout mask, is fused into
    the left side. On CPUs the narrower side is therefore transposed first, by itself.
    On accelerators both orders are equally fast.

    Args:
      x: Rows.
      weight: Weight matrix.
    """
    return x @ weight


def _forward(x, weight):
    return x @ weight, (x, weight)


def _backward(residuals, gradient):
    x, weight = residuals
    rows = x.reshape(-1, x.shape[-1])
    outputs = gradient.reshape(-1, gradient.shape[-1])
    slope = lax.platform_dependent(
        rows, outputs, cpu=_transposed_first, default=lambda x, y: x.T @ y
    )
    return gradient @ weight.T, slope.astype(weight.dtype)


def _transposed_first(
    x: Float[Array, "B D"], y: Float[Array, "B F"]
) -> Float[Array, "D F"]:
    """Returns `x.T @ y`; barriers keep the transposition out of the product."""
    if x.shape[1] <= y.shape[1]:
        return lax.optimization_barrier(x.T) @ y
    return lax.optimization_barrier(lax.optimization_barrier(y.T) @ x).T


matmul.defvjp(_forward, _backward)
