# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The interface of a graph recommender, and GUME as its first implementation.

To write your own recommender, subclass `Model` with three pure methods: `init`, `loss`
and `encode`. `baselines.py` has the shortest examples. `training.Trainer` then provides
batches, compiled steps, early stopping, checkpoints, ranking and evaluation.

A model holds settings only. Arrays are arguments, so that they are placed on the
devices once: parameters, `model_state` (moving averages and the like) and `constants`
(graphs, frozen features).
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from rfrec.data.triplets import Triplets
from rfrec.graph import gume, losses
from rfrec.typing import PyTree

# Labels of parameters: the optimizer of the host recommender, or that of the flow.
HOST = "host"
RF = "rf"

# The value, the losses by name, and the new model state.
Loss = tuple[Float[Array, ""], tuple[dict[str, Any], PyTree]]


class Encoded(NamedTuple):
    """Embeddings of all users and items; a score is their inner product.

    Attributes:
      users: One row for each user.
      items: One row for each item.
      numbers: Scalars that are logged with an evaluation.
    """

    users: Float[Array, "U D"]
    items: Float[Array, "I D"]
    numbers: Mapping[str, Any]


class Model(abc.ABC):
    """A recommender that scores an item for a user by the product of two embeddings."""

    # Keyword arguments of `encode` among which validation chooses after training.
    choices: tuple[Mapping[str, float], ...] = ()
    # Whether `refine` has something to learn after training.
    refines: bool = False

    @abc.abstractmethod
    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        """Returns the first parameters and model state; called once, not compiled."""

    @abc.abstractmethod
    def loss(
        self,
        params: PyTree,
        model_state: PyTree,
        constants: PyTree,
        batch: Triplets,
        key: jax.Array,
        epoch: jax.Array,
    ) -> Loss:
        """Returns the loss of a batch.

        Args:
          params: Parameters, which are differentiated.
          model_state: Other arrays that change in training.
          constants: Arrays that do not change.
          batch: Users, positive and negative items, and their weights [B].
          key: Random key of the step.
          epoch: Number of the epoch, from 0.

        Returns:
          The loss, each of its terms by name (scalars, for the log), and the new model
          state.
        """

    @abc.abstractmethod
    def encode(
        self,
        params: PyTree,
        model_state: PyTree,
        constants: PyTree,
        epoch: jax.Array,
        **choice: Float[Array, ""],
    ) -> Encoded:
        """Returns the embeddings of all users and items.

        Equal arguments give equal results: random numbers come from a fixed key.
        """

    def after_update(self, params: PyTree, model_state: PyTree) -> PyTree:
        """Returns the model state after the optimizer has updated the parameters."""
        del params
        return model_state

    def labels(self, params: PyTree) -> PyTree:
        """Returns `HOST` or `RF` for each parameter: which optimizer trains it."""
        return jax.tree.map(lambda leaf: HOST, params)

    def refine(
        self, params: PyTree, model_state: PyTree, constants: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Returns what is learned from the best checkpoint after training."""
        del constants
        return params, model_state


class Constants(NamedTuple):
    """Arrays that GUME reads and does not train.

    Attributes:
      graphs: Result of `adjacency.place`.
      features: Arrays [I _], one for each modality, if they are frozen; None if they
        are parameters.
    """

    graphs: gume.Graphs
    features: tuple[Any, ...] | None


def make_constants(
    arch: gume.Architecture,
    graphs: gume.Graphs,
    features: Sequence[Float[np.ndarray, "I _"]],
) -> Constants:
    """Returns the constants of a GUME.

    Args:
      arch: Architecture, which says whether features are frozen.
      graphs: Graphs that were built from the same features.
      features: Features of each modality, in the order of the architecture.
    """
    return Constants(graphs, tuple(features) if arch.freeze_features else None)


@dataclasses.dataclass(frozen=True, eq=False)
class GUME(Model):
    """GUME (Lin et al., CIKM 2024) as a `Model`.

    Attributes:
      arch: Shape of the network.
      weights: Weights of the losses.
      features: Initial values [I _] of the feature tables, one for each modality; not
        used if features are frozen.
    """

    arch: gume.Architecture
    weights: losses.Weights
    features: Sequence[Float[np.ndarray, "I _"]]

    def init(self, key):
        """Returns the parameters of `gume.init`; there is no other state."""
        return gume.init(self.arch, key, self.features), {}

    def loss(self, params, model_state, constants, batch, key, epoch):
        """Returns the weighted sum of `losses.total`."""
        del epoch
        propagated = self.propagate(params, constants)
        nodes = gume.batch_nodes(self.arch, *batch[:3])
        total, terms = self.batch_loss(params, propagated, nodes, batch, key)
        return total, (terms, model_state)

    def encode(self, params, model_state, constants, epoch, **choice):
        """Returns the embeddings Z of all users and items."""
        del model_state, epoch, choice
        propagated = self.propagate(params, constants, interest=False)
        return Encoded(*gume.embed(self.arch, params, propagated), {})

    def propagate(
        self, params: PyTree, constants: Constants, *, interest: bool = True
    ) -> gume.Propagated:
        """Returns the embeddings of all nodes after the graph convolutions."""
        return gume.propagate(
            self.arch, params, constants.graphs, constants.features, interest=interest
        )

    def batch_loss(
        self,
        params: PyTree,
        propagated: gume.Propagated,
        nodes: Int[Array, " B3"],
        batch: Triplets,
        key: jax.Array,
        behaviour: Float[Array, "B3 D"] | None = None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Returns GUME's loss of a batch and its terms.

        Args:
          params: Parameters of GUME.
          propagated: Embeddings of all nodes, with interest.
          nodes: Nodes of the batch, from `gume.batch_nodes`.
          batch: The batch.
          key: Random key of the step.
          behaviour: Rows that replace H of the batch's nodes; None for H itself.
        """
        rows = gume.batch_rows(self.arch, params, propagated, nodes, behaviour)
        noise = losses.draw_noise(key, len(batch.users), self.arch.width)
        return losses.total(self.weights, rows, propagated, noise, batch.weights)
