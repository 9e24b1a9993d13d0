# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Moving average of parameters; a decay of 0 disables it."""

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
      decay: Share of the average that is kept in a step.
      ema: Result of `start`.
      params: Parameters after a step.
      count: Number of steps before it.
    """
    if not decay:
        return ema
    kept = jnp.minimum(decay, (1.0 + count) / (10.0 + count))
    return jax.tree.map(lambda a, b: kept * a + (1.0 - kept) * b, ema, params)


def choose(decay: float, ema: PyTree, params: PyTree) -> PyTree:
    """Returns the parameters for generation: the average, if there is one."""
    return ema if decay else params
