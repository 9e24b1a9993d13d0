# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The most popular items for everybody: what any recommender has to beat.

A model without parameters: an item's embedding is its number of training pairs.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Integer

from rfrec.graph.model import Encoded, Model


def constants(
    items: Integer[np.ndarray, "E"], num_items: int
) -> Float32[np.ndarray, "I"]:
    """Returns how often each item occurs.

    Args:
      items: Of training.
      num_items: Items, those that do not occur included.
    """
    return np.bincount(items, minlength=num_items).astype(np.float32)


def model(num_users: int) -> Model:
    """Returns the model, whose constants are those of `constants`."""

    def loss(params, model_state, constants, batch, key, epoch):
        del params, constants, batch, key, epoch
        return jnp.float32(0), ({}, model_state)

    def encode(params, model_state, constants, epoch):
        del params, model_state, epoch
        return Encoded(jnp.ones((num_users, 1)), constants[:, None], {})

    return Model(lambda key: ({}, {}), loss, encode)
