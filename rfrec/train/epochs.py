# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The skeleton that all trainers share: rows of each step, many steps in one call."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Int, Int32

from rfrec.train.state import TrainState
from rfrec.typing import PyTree


def epoch_rows(
    rows: Int[np.ndarray, " T"], batch_size: int, *, seed: int, epoch: int
) -> Int32[np.ndarray, "S B"]:
    """Returns the rows of each batch of an epoch, shuffled by seed and epoch.

    Every batch is full: the last one is completed from the beginning of the order, so
    that no reduction needs weights and every engine sees equal parts.

    Args:
      rows: Rows to train on.
      batch_size: Rows of a batch over all devices.
      seed: Seed of the run.
      epoch: Number of the epoch, from 0.
    """
    order = np.random.default_rng([seed, 2, epoch]).permutation(rows)
    steps = -(-len(rows) // batch_size)
    return np.resize(order, (steps, batch_size)).astype(np.int32)


class EpochSteps:
    """Batches of rows by step, over the borders of epochs."""

    def __init__(self, rows: Int[np.ndarray, " T"], batch_size: int, *, seed: int):
        """Stores what determines the batches.

        Args:
          rows: Rows to train on.
          batch_size: Rows of a batch over all devices.
          seed: Seed of the run.
        """
        self._rows, self._batch_size, self._seed = rows, batch_size, seed
        self._cached = (-1, np.zeros((0, 0), np.int32))

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return -(-len(self._rows) // self._batch_size)

    def epoch(self, epoch: int) -> Int32[np.ndarray, "S B"]:
        """Returns the batches of one epoch."""
        if self._cached[0] != epoch:
            rows = epoch_rows(
                self._rows, self._batch_size, seed=self._seed, epoch=epoch
            )
            self._cached = (epoch, rows)
        return self._cached[1]

    def take(self, first: int, count: int, length: int) -> Int32[np.ndarray, "L B"]:
        """Returns the batches of steps `first` to `first + count - 1`.

        Args:
          first: First step, counted from the beginning of the run.
          count: Number of steps, at most `length`.
          length: Number of batches to return; the last ones are padded with zeros, so
            that calls of every length share one program.
        """
        parts, step = [], first
        while step < first + count:
            epoch, within = divmod(step, self.steps_per_epoch)
            parts.append(self.epoch(epoch)[within : within + first + count - step])
            step += len(parts[-1])
        rows = np.concatenate(parts)
        return np.pad(rows, ((0, length - count), (0, 0)))


def run_steps(
    step: Callable[[TrainState, Int[Array, ""]], tuple[TrainState, Any]],
    state: TrainState,
    count: Int[Array, ""],
    length: int,
) -> tuple[TrainState, Any]:
    """Runs `count` steps in one compiled loop.

    Args:
      step: `(state, index) -> (state, metrics)` with scalar metrics, a pytree.
      state: State before the first step.
      count: Number of steps; an argument of the program, not a constant.
      length: Upper bound of `count`: length of the metrics.

    Returns:
      The state after the last step, and the metrics [length] of each step.
    """
    shapes = jax.eval_shape(lambda s: step(s, jnp.int32(0))[1], state)
    logs = jax.tree.map(lambda a: jnp.zeros((length, *a.shape), a.dtype), shapes)

    def one(i, carry):
        state, logs = carry
        state, metrics = step(state, i)
        return state, jax.tree.map(lambda log, m: log.at[i].set(m), logs, metrics)

    return lax.fori_loop(0, count, one, (state, logs))


def apply_gradients(
    state: TrainState, grads: PyTree, optimizer: optax.GradientTransformation
) -> TrainState:
    """Returns the state after one update of the optimizer."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
    )
