# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a SASRec: the step, and the ranking of the whole catalogue, on the devices.

Histories flow in; the loop's `Program` and ranked lists come out.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from rfrec.data import interactions, sequences
from rfrec.evaluation import metrics, ranking, report
from rfrec.retrieval import packing, sasrec
from rfrec.train import loop, partition
from rfrec.train.state import TrainState, create, step_key
from rfrec.typing import PyTree

# Users whose catalogues are scored together.
_EVAL_USERS = 512


class Data(NamedTuple):
    """Histories, and what training makes of them.

    Attributes:
      inter: Whole histories.
      split: Of them, leave-one-out.
      rows: Packed training histories.
    """

    inter: interactions.Interactions
    split: interactions.Split
    rows: packing.Rows


class Batch(NamedTuple):
    """Rows of `packing.Rows` on a device."""

    items: Int[Array, "B L"]
    places: Int[Array, "B L"]
    histories: Int[Array, "B L"]
    targets: Int[Array, "B L"]


def prepare(inter: interactions.Interactions, history: int, seed: int) -> Data:
    """Splits histories and packs those of training.

    Raises:
      UserError: A history is too short to hold two items out.
    """
    split = interactions.leave_one_out(inter)
    windows = packing.cut_histories(split.train, history)
    return Data(
        inter, split, packing.pack(split.train.items, windows, history, seed=seed)
    )


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Builds and runs the training of one SASRec; holds settings, no state.

    Attributes:
      arch: Of the model.
      optimizer: From `train.optim`.
      schedule: Of the loop.
      batch_size: Rows of all devices together.
      seed: Of initialisation, order and dropout.
      engine: Places and compiles.
      data: To train on and to evaluate.
      top_k: Length of the lists.
      filter_seen: Whether lists leave out the items of the user's history.
    """

    arch: sasrec.Architecture
    optimizer: optax.GradientTransformation
    schedule: loop.Schedule
    batch_size: int
    seed: int
    engine: partition.Engine
    data: Data
    top_k: int = 20
    filter_seen: bool = False

    def init(self) -> TrainState:
        """Returns the state before the first step, on the host."""
        model = sasrec.SASRec(self.arch)
        key = jax.random.fold_in(jax.random.key(self.seed), 0)
        one = jnp.zeros((1, 1), jnp.int32)
        params = jax.jit(model.init)(key, one, one, one)["params"]
        state = create(
            params=params, model_state={}, optimizer=self.optimizer, seed=self.seed
        )
        return jax.tree.map(np.asarray, state)

    def step(
        self, state: TrainState, batch: Batch
    ) -> tuple[TrainState, Float[Array, ""]]:
        """Does one step on the rows of this device.

        Args:
          state: Before the step.
          batch: Its rows.

        Returns:
          The new state and the mean loss of the targets of the whole batch.
        """
        axis = self.engine.axis_name
        # Devices hold unequal numbers of targets; the mean is that of all targets.
        number = partition.mean(jnp.sum(batch.histories > 0), axis)
        keys = None
        if self.arch.dropout > 0:
            keys = partition.row_keys(step_key(state), len(batch.items), axis)

        def objective(params: PyTree):
            return self._total_loss(params, batch, keys) / number

        grads = jax.value_and_grad(objective)(state.params)
        loss, grads = partition.mean(grads, axis)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        )
        return state, loss

    def _total_loss(self, params: PyTree, batch: Batch, keys):
        bound = sasrec.SASRec(self.arch).bind({"params": params})
        vectors = bound(batch.items, batch.places, batch.histories, keys=keys)
        losses = bound.losses(
            vectors.reshape(-1, self.arch.width), batch.targets.reshape(-1)
        )
        return jnp.sum(jnp.where(batch.histories.reshape(-1) > 0, losses, 0.0))

    def compile_steps(self):
        """Compiles `(state, rows, batches, count) -> (state, losses)`.

        One call does `count` steps, known only when it runs, so that calls of every
        length share one program.
        """

        def steps(state, rows, batches, count):
            def one(i, carry):
                state, losses = carry
                chosen = lax.dynamic_index_in_dim(batches, i, keepdims=False)
                batch = Batch(*(a[chosen] for a in rows))
                state, loss = self.step(state, batch)
                return state, losses.at[i].set(loss)

            losses = jnp.zeros(batches.shape[0])
            return lax.fori_loop(0, count, one, (state, losses))

        return self.engine.compile(steps, donate=True)

    def compile_ranking(self, width: int):
        """Compiles `(state, histories, users, _) -> ((), (items, scores))`.

        Args:
          width: Slots of the histories, of which each row holds one.
        """
        arch, axis = self.arch, self.engine.axis_name

        def rank(state, histories, users, count):
            del count
            items, start, length, first, seen_places = histories
            users = users[0]
            back = jnp.arange(width - 1, -1, -1)[None]
            there = back < length[users][:, None]
            place = (start + length)[users][:, None] - 1 - back
            rows = items[jnp.where(there, place, 0)]
            bound = sasrec.SASRec(arch).bind({"params": state.params})
            places = jnp.where(there, back, 0)
            vectors = bound(rows, places, there.astype(jnp.int32))
            scores = bound.scores(vectors[:, -1])
            seen = None
            if self.filter_seen:
                place = first[users][:, None] + seen_places[None]
                inside = place < (start + length)[users][:, None]
                seen = jnp.where(inside, items[jnp.where(inside, place, 0)], -1)
            best = ranking.top_k(scores, self.top_k, seen)
            return (), tuple(partition.gather(a, axis) for a in best)

        return self.engine.compile(rank)


class Run:
    """A trainer with its compiled functions and placed data."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self._rows = trainer.engine.replicate(trainer.data.rows)
        self._steps = trainer.compile_steps()
        self._rank = functools.cache(trainer.compile_ranking)
        self._histories = functools.cache(self._place_histories)

    def _place_histories(self, which: str) -> tuple[sequences.Windows, PyTree]:
        inter = self.trainer.data.inter
        windows = sequences.heldout_windows(
            inter, which, most=self.trainer.arch.history
        )
        longest = int(np.diff(inter.indptr).max()) if self.trainer.filter_seen else 1
        placed = (
            *(inter.items, windows.start, windows.length),
            *(inter.indptr[:-1].astype(np.int32), np.arange(longest, dtype=np.int32)),
        )
        return windows, self.trainer.engine.replicate(placed)

    def program(self) -> loop.Program:
        """Returns what the loop runs."""
        return loop.Program(self._run, lambda state, epoch: state, self._metrics)

    def _run(self, state, first: int, count: int):
        t, parts, step = self.trainer, [], first
        size = t.schedule.steps_per_epoch
        while step < first + count:
            epoch, within = divmod(step, size)
            rows = packing.epoch_rows(
                len(t.data.rows.items), t.batch_size, seed=t.seed, epoch=epoch
            )
            parts.append(rows[within : within + first + count - step])
            step += len(parts[-1])
        rows = np.concatenate(parts)
        padded = np.pad(rows, ((0, t.schedule.steps_per_call - count), (0, 0)))
        batches = t.engine.shard(lambda part: padded[:, part], padded.shape)
        state, losses = self._steps(state, self._rows, batches, np.int32(count))
        return state, {"loss": t.engine.fetch(losses)}

    def rank(self, state, which: str) -> ranking.Lists:
        """Ranks the whole catalogue for each user.

        Args:
          state: Placed by the engine.
          which: `valid` or `test`: the item to be predicted.
        """
        t = self.trainer
        windows, placed = self._histories(which)
        num_users = len(windows.length)
        size = min(_EVAL_USERS, num_users)
        size += -size % t.engine.num_parts
        shape = (num_users, t.top_k)
        items, scores = np.empty(shape, np.int32), np.empty(shape, np.float32)
        for batch in packing.batches_by_length(windows.length, size, t.arch.history):
            rows = batch.users[None]
            users = t.engine.shard(lambda part, rows=rows: rows[:, part], rows.shape)
            _, best = self._rank(batch.width)(state, placed, users, np.int32(0))
            items[batch.users], scores[batch.users] = t.engine.fetch(best)
        return ranking.Lists(items, scores)

    def targets(self, which: str) -> Int[np.ndarray, "U"]:
        """Returns the item to be predicted for each user."""
        split = self.trainer.data.split
        return split.valid_items if which == "valid" else split.test_items

    def _metrics(self, state) -> dict[str, Any]:
        """Evaluates the validation items of all users."""
        found = metrics.match(self.rank(state, "valid").items, self.targets("valid"))
        return report.means(found)
