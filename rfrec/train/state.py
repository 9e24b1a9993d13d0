# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run carries from step to step."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rfrec.typing import PyTree


class TrainState(flax.struct.PyTreeNode):
    """Arrays only, so that any engine can place it and orbax can store it.

    Attributes:
      step: Steps done, int32 [].
      params: Learned by gradient.
      model_state: Other collections of the model: statistics, moving averages.
      opt_state: Of the optimiser.
      key: Raw data of the run's random key, uint32 [2]; it never changes: the key of a
        step is `fold_in(key, step)`, so a resumed run draws what it would have drawn.
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
    """Returns the random key of the step about to be done."""
    return jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
