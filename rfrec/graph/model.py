# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a recommender of embeddings is to its training: pure functions.

A model scores an item for a user by the inner product of two embeddings. Settings are
closed over; everything that is an array comes in as an argument, so that it is placed
on the devices once: parameters, `model_state` (moving averages and the like) and
`constants` (graphs, frozen features).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from rfrec.typing import PyTree

# Parameters by the optimiser that trains them, as `Model.labels` tells.
HOST = "host"
RF = "rf"


class Encoded(NamedTuple):
    """Embeddings of everybody, by which items are ranked.

    Attributes:
      users: One row for each user.
      items: One row for each item.
      numbers: Scalars to be logged with an evaluation.
    """

    users: Float[Array, "U D"]
    items: Float[Array, "I D"]
    numbers: Mapping[str, Any]


class Model(NamedTuple):
    """A recommender.

    Attributes:
      init: `key -> (params, model_state)`, called once and not compiled.
      loss: `(params, model_state, constants, batch, key, epoch) -> (loss, (parts,
        model_state))`; batch is a `data.triplets.Triplets`, epoch counts from 0, and
        parts are scalars, the terms of the loss by name.
      encode: `(params, model_state, constants, epoch, **choice) -> Encoded`. It is the
        same for equal arguments: what is drawn comes from a fixed key.
      after_update: `(params, model_state) -> model_state`, once the optimiser has moved
        the parameters.
      labels: `params -> HOST or RF` for each parameter.
      choices: Keyword arguments of `encode` among which validation chooses once the
        best checkpoint is known; empty if there is nothing to choose.
      refine: `(params, model_state, constants) -> (params, model_state)`, what is still
        to be learned of the best checkpoint before that choice; None for nothing.
    """

    init: Callable[[jax.Array], tuple[PyTree, PyTree]]
    loss: Callable[..., tuple[Float[Array, ""], tuple[dict[str, Any], PyTree]]]
    encode: Callable[..., Encoded]
    after_update: Callable[[PyTree, PyTree], PyTree] = lambda params, state: state
    labels: Callable[[PyTree], PyTree] = lambda params: jax.tree.map(
        lambda leaf: HOST, params
    )
    choices: tuple[Mapping[str, float], ...] = ()
    refine: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]] | None = None
