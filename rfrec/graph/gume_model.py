# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME as a `Model`: triplets in, the weighted loss out; nothing but wiring."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from rfrec.data.triplets import Triplets
from rfrec.graph import gume
from rfrec.graph import loss as losses
from rfrec.graph.model import Encoded, Model
from rfrec.typing import PyTree


class Constants(NamedTuple):
    """What a GUME reads and never learns.

    Attributes:
      graphs: Of `adjacency.build`.
      features: Arrays [I _] of each modality if they are frozen; None if they are
        parameters.
    """

    graphs: gume.Graphs
    features: tuple[Any, ...] | None


def constants(
    arch: gume.Architecture,
    graphs: gume.Graphs,
    features: Sequence[Float[np.ndarray, "I _"]],
) -> Constants:
    """Returns the constants of a GUME.

    Args:
      arch: Says whether features are frozen.
      graphs: Built from the same features.
      features: Of each modality, in the order of the architecture.
    """
    return Constants(graphs, tuple(features) if arch.freeze_features else None)


def gume_model(
    arch: gume.Architecture,
    weights: losses.Weights,
    features: Sequence[Float[np.ndarray, "I _"]],
) -> Model:
    """Makes a GUME.

    Args:
      arch: Its shape.
      weights: Of its losses.
      features: Where their tables start if they are trained.
    """

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        return gume.init(arch, key, features), {}

    def loss(
        params: PyTree,
        model_state: PyTree,
        constants: Constants,
        batch: Triplets,
        key: jax.Array,
        epoch: jax.Array,
    ):
        del epoch
        found = gume.propagate(arch, params, constants.graphs, constants.features)
        chosen = gume.nodes(arch, batch.users, batch.positives, batch.negatives)
        rows = gume.rows(arch, params, found, chosen)
        noise = losses.draw_noise(key, len(batch.users), arch.width)
        total, parts = losses.total(weights, rows, found, noise, batch.weights)
        return total, (parts, model_state)

    def encode(
        params: PyTree, model_state: PyTree, constants: Constants, epoch: jax.Array
    ) -> Encoded:
        del model_state, epoch
        users, items = gume.embed(arch, params, constants.graphs, constants.features)
        return Encoded(users, items, {})

    return Model(init, loss, encode)
