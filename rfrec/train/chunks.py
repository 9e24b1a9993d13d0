# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Gradients of sums over rows, some rows at a time.

On a CPU a pass over all rows of a large batch writes its activations to memory and
reads them again; those of a chunk stay in the cache.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rfrec.train.partition import Engine
from rfrec.typing import PyTree

# Rows of matrices, such as tokens, of one chunk.
_MOST = 2048


def count(engine: Engine, rows: int, width: int) -> int:
    """Returns in how many chunks a CPU should pass a batch; 1 on accelerators.

    Args:
      engine: Of the run.
      rows: Of the batch, as many as the step sees.
      width: Rows of matrices that each of them makes.

    Returns:
      A number such that each chunk takes as many rows of each device.
    """
    if engine.mesh.devices.flat[0].platform != "cpu":
        return 1
    # Under pmap a step sees the rows of its device, otherwise all of them.
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
      objective: Of parameters and some rows; over all rows it is the sum of its values
        on any split of them.
      params: To differentiate by.
      batch: Arrays of as many rows.
      chunks: A divisor of the number of rows.
    """
    gradient = jax.value_and_grad(objective)
    if chunks == 1:
        return gradient(params, batch)

    def split(a):
        # Chunk c has rows c, c + chunks, ...: of every device as many.
        whole = a.reshape(a.shape[0] // chunks, chunks, *a.shape[1:])
        return jnp.swapaxes(whole, 0, 1)

    def add(sums, part):
        return jax.tree.map(jnp.add, sums, gradient(params, part)), None

    zeros = jax.tree.map(jnp.zeros_like, (jnp.float32(0), params))
    return lax.scan(add, zeros, jax.tree.map(split, batch))[0]
