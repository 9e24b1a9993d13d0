# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The place of the smallest value, by reductions that a CPU makes in vectors."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def first_min(values: Float[Array, "*B K"]) -> Int[Array, "*B"]:
    """Returns the first place of the last axis at which the minimum stands.

    `jnp.argmin` reduces pairs of value and place, which XLA's CPU compiler does number
    by number: 25 ms for 20,000 x 256, where the minimum alone takes 2. Two plain
    reductions find the same place. A row with a NaN gives the last.
    """
    places = jnp.arange(values.shape[-1], dtype=jnp.int32)
    lowest = jnp.min(values, axis=-1, keepdims=True)
    found = jnp.where(values == lowest, places, places[-1])
    return jnp.min(found, axis=-1)
