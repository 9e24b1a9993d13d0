# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Moving average of parameters; a decay of 0 means that there is none."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from rfrec.typing import PyTree


def start(decay: float, params: PyTree) -> PyTree:
    """Returns the average before the first step; empty if there is none."""
    return jax.tree.map(jnp.copy, params) if decay else {}


def advance(decay: float, ema: PyTree, params: PyTree, count: Int[Array, ""]) -> PyTree:
    """Moves the average towards the parameters, faster during the first steps.

    Args:
      decay: What remains of the average in a step.
      ema: Of `start`.
      params: After a step.
      count: Steps done before it.
    """
    if not decay:
        return ema
    kept = jnp.minimum(decay, (1.0 + count) / (10.0 + count))
    return jax.tree.map(lambda a, b: kept * a + (1.0 - kept) * b, ema, params)


def choose(decay: float, ema: PyTree, params: PyTree) -> PyTree:
    """Returns the parameters to be used once training rests."""
    return ema if decay else params
