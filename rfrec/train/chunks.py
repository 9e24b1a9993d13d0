# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Gradients of a sum over rows, computed in chunks of rows.

On a CPU, a pass over all rows of a large batch writes its activations to memory and
reads them again, while those of a chunk stay in the cache.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rfrec.train.partition import Engine
from rfrec.typing import PyTree

# Maximum number of matrix rows, such as tokens, in one chunk.
_MOST = 2048


def count(engine: Engine, rows: int, width: int) -> int:
    """Returns the number of chunks of a batch on a CPU; 1 on accelerators.

    Args:
      engine: Engine of the run.
      rows: Number of rows that a step sees.
      width: Number of matrix rows for each of them, such as tokens.

    Returns:
      A number by which each chunk takes equally many rows from each device.
    """
    if engine.mesh.devices.flat[0].platform != "cpu":
        return 1
    # Under pmap a step sees the rows of its device, under jit all rows.
    share = rows // (engine.num_parts if engine.axis_name is None else 1)
    least = min(math.ceil(share * width / _MOST), share)
    return next(n for n in range(least, share + 1) if share % n == 0)


def value_and_grad(
    objective: Callable[[PyTree, PyTree], Float[Array, ""]],
    params: PyTree,
    batch: PyTree,
    chunks: int,
) -> tuple[Float[Array, ""], PyTree]:
    """Returns the sum of an objective over chunks of a batch, and its gradient.

    Args:
      objective: Function of parameters and rows that sums over the rows.
      params: Parameters to differentiate by.
      batch: Arrays with the same number of rows.
      chunks: Number of chunks, a divisor of the number of rows.
    """
    gradient = jax.value_and_grad(objective)
    if chunks == 1:
        return gradient(params, batch)

    def split(a):
        # Chunk c has rows c, c + chunks, ...: equally many of each device.
        whole = a.reshape(a.shape[0] // chunks, chunks, *a.shape[1:])
        return jnp.swapaxes(whole, 0, 1)

    def add(sums, part):
        return jax.tree.map(jnp.add, sums, gradient(params, part)), None

    zeros = jax.tree.map(jnp.zeros_like, (jnp.float32(0), params))
    return lax.scan(add, zeros, jax.tree.map(split, batch))[0]
