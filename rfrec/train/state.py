# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The state of a training run."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rfrec.typing import PyTree


class TrainState(flax.struct.PyTreeNode):
    """State of a run: arrays only, so that engines can place and orbax can store it.

    Attributes:
      step: Number of steps done, int32 [].
      params: Parameters, learned by gradient.
      model_state: Other collections of the model: statistics, moving averages.
      opt_state: State of the optimizer.
      key: Raw data of the run's random key, uint32 [2]. It never changes: the key of a
        step is `fold_in(key, step)`, so that a resumed run draws the same numbers.
    """

    step: PyTree
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    key: PyTree


def create(
    *,
    params: PyTree,
    model_state: PyTree,
    optimizer: optax.GradientTransformation,
    seed: int,
) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(
        step=jnp.int32(0),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        key=jax.random.key_data(jax.random.key(seed)),
    )


def step_key(state: TrainState) -> jax.Array:
    """Returns the random key of the next step."""
    return jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
