# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Dropout whose mask is a hash of the element's place, fused into what it drops.

A row's key and a place inside the row decide an element, so the mask does not depend on
how a batch is spread over devices or padded by other rows.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped, UInt32

# The multipliers of a 32-bit finaliser with low bias (C. Wellons, hash-prospector, in
# the public domain), and the odd number next to 2^32 divided by the golden ratio.
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B
_GOLDEN, _SITE = 0x9E3779B1, 0x85EBCA6B


def random_words(
    keys: Key[Array, "B"], site: int, shape: tuple[int, ...]
) -> UInt32[Array, "B ..."]:
    """Draws one word for each element of each row, uniform in its upper bits.

    Threefry, JAX's generator, takes ten times as long as the dropout it serves on a
    CPU; a mask needs no such quality.

    Args:
      keys: One for each row.
      site: Number of the place in the network; draws at two sites are unrelated.
      shape: Of one row.
    """
    seeds = jax.random.key_data(keys)
    size = 1
    for n in shape:
        size *= n
    places = (jnp.arange(size, dtype=jnp.uint32) * jnp.uint32(_GOLDEN)).reshape(shape)
    ones = (1,) * len(shape)
    first, second = (seeds[:, i].reshape(-1, *ones) for i in (0, 1))
    shift = jnp.uint32((site * _SITE) % 2**32)
    words = places[None] + (first ^ shift)
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
      x: Any array with one row for each key.
      rate: In [0, 1).
      keys: Random keys; None leaves `x` as it is.
      site: Number of the place in the network.
    """
    if keys is None or rate == 0.0:
        return x
    kept = random_words(keys, site, x.shape[1:]) >= jnp.uint32(int(rate * 2**32))
    return jnp.where(kept, x / (1.0 - rate), 0.0)
