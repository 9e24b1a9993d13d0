# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Dropout whose mask is a hash of the element's index.

The mask of an element depends on the key of its row and its index in the row, but not
on how a batch is split over devices or padded with other rows. XLA fuses the hash into
the operation that applies it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped, UInt32

# Multipliers of a 32-bit hash finaliser with low bias (C. Wellons, hash-prospector,
# public domain), and the odd number closest to 2^32 divided by the golden ratio.
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B
_GOLDEN, _SITE = 0x9E3779B1, 0x85EBCA6B


def random_words(
    keys: Key[Array, "B"], site: int, shape: tuple[int, ...]
) -> UInt32[Array, "B ..."]:
    """Returns one word for each element of each row, uniform in its upper bits.

    On a CPU, JAX's generator Threefry takes ten times as long as the dropout itself; a
    mask does not need its quality.

    Args:
      keys: Random key of each row.
      site: Number of the layer in the network; masks of different sites are unrelated.
      shape: Shape of one row.
    """
    seeds = jax.random.key_data(keys)
    size = 1
    for n in shape:
        size *= n
    indices = (jnp.arange(size, dtype=jnp.uint32) * jnp.uint32(_GOLDEN)).reshape(shape)
    ones = (1,) * len(shape)
    first, second = (seeds[:, i].reshape(-1, *ones) for i in (0, 1))
    shift = jnp.uint32((site * _SITE) % 2**32)
    words = indices[None] + (first ^ shift)
    words = (words ^ (words >> 16)) * jnp.uint32(_FIRST)
    words = words ^ (words >> 15) ^ second
    return words * jnp.uint32(_SECOND)


def dropout(
    x: Float[Array, "B ..."],
    rate: float,
    *,
    keys: Shaped[Array, "B"] | None,
    site: int,
) -> Float[Array, "B ..."]:
    """Zeroes elements with probability `rate` and scales the others by 1/(1 - rate).

    Args:
      x: Array with one row for each key.
      rate: Dropout rate, in [0, 1).
      keys: Random key of each row; None returns `x` unchanged.
      site: Number of the layer in the network.
    """
    if keys is None or rate == 0.0:
        return x
    kept = random_words(keys, site, x.shape[1:]) >= jnp.uint32(int(rate * 2**32))
    return jnp.where(kept, x / (1.0 - rate), 0.0)
