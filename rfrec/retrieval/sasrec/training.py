# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a SASRec, and ranks the whole catalogue with it, on the devices."""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.data import interactions, sequences
from rfrec.evaluation import metrics, ranking, report
from rfrec.retrieval.sasrec import model as sasrec
from rfrec.retrieval.sasrec import packing
from rfrec.train import epochs, loop, optim, options, partition
from rfrec.train.state import TrainState, create, step_key
from rfrec.typing import PyTree

CRITERION = "ndcg@10"
# Users whose catalogues are scored together.
_EVAL_USERS = 512


@dataclasses.dataclass(frozen=True)
class Model:
    """Shape of the model.

    Attributes:
      history: Maximum number of items of a history; the latest are used.
      width: Width of the embeddings and layers.
      hidden: Width inside the feed-forward layers.
      heads: Attention heads; they share the width.
      layers: Pairs of attention and feed-forward layers.
      dropout: Dropout rate.
      dtype: Data type of the computation.
    """

    history: int = cfg.option(50, cfg.at_least(1))
    width: int = cfg.option(64, cfg.at_least(1))
    hidden: int = cfg.option(64, cfg.at_least(1))
    heads: int = cfg.option(2, cfg.at_least(1))
    layers: int = cfg.option(2, cfg.at_least(1))
    dropout: float = cfg.option(0.2, cfg.within(0, 1))
    dtype: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True)
class Train(options.Train, options.DataParallel, options.EarlyStopping):
    """Training.

    Attributes:
      batch_size: Rows of `model.history` slots in a batch over all devices; a row
        contains several short histories.
    """

    batch_size: int = cfg.option(32, cfg.whole(1))
    eval_every: int = cfg.option(2, cfg.whole(1))
    patience: int | None = cfg.option(5, cfg.whole(1))


class Data(NamedTuple):
    """Histories and what is derived from them for training.

    Attributes:
      inter: Whole histories.
      split: Their leave-one-out split.
      rows: Packed training histories.
    """

    inter: interactions.Interactions
    split: interactions.Split
    rows: packing.Rows


class Batch(NamedTuple):
    """Rows of `packing.Rows` on a device."""

    items: Int[Array, "B L"]
    positions: Int[Array, "B L"]
    histories: Int[Array, "B L"]
    targets: Int[Array, "B L"]


def check(model: Model, optimizer: optim.Optim) -> None:
    """Refuses options that cannot be combined.

    Raises:
      UserError: Names the keys.
    """
    if model.width % model.heads:
        raise UserError(
            f"config.model.width={model.width} is not a multiple of"
            f" config.model.heads={model.heads}; change one of them"
        )
    optim.check(optimizer)


def prepare(inter: interactions.Interactions, history: int, seed: int) -> Data:
    """Splits histories leave-one-out and packs the training parts.

    Raises:
      UserError: A history is too short to hold out two items.
    """
    split = interactions.leave_one_out(inter)
    windows = packing.cut_histories(split.train, history)
    return Data(
        inter, split, packing.pack(split.train.items, windows, history, seed=seed)
    )


def build_trainer(
    inter: interactions.Interactions,
    *,
    model: Model,
    optimizer: optim.Optim,
    train: Train,
    top_k: int = 20,
    filter_seen: bool = False,
    seed: int = 0,
) -> "Trainer":
    """Builds the trainer of a SASRec.

    Args:
      inter: Whole histories; the last two items of each are held out.
      model: Shape of the model.
      optimizer: Options of the optimizer.
      train: Options of the training.
      top_k: Length of the ranked lists.
      filter_seen: Whether lists leave out the items of the user's history.
      seed: Seed of initialisation, order and dropout.

    Raises:
      UserError: The batch size does not divide among the devices, or a history is too
        short.
    """
    engine = partition.make_engine(train.engine)
    engine.check_batch(train.batch_size, "config.train.batch_size")
    data = prepare(inter, model.history, seed)
    schedule = train.schedule(
        steps_per_epoch=-(-len(data.rows.items) // train.batch_size),
        patience=train.patience,
        criterion=CRITERION,
    )
    shape = dataclasses.asdict(model) | {"dtype": jnp.dtype(model.dtype)}
    return Trainer(
        arch=sasrec.Architecture(inter.num_items, **shape),
        optimizer=optim.build(optimizer, schedule.total_steps),
        schedule=schedule,
        batch_size=train.batch_size,
        seed=seed,
        engine=engine,
        data=data,
        top_k=top_k,
        filter_seen=filter_seen,
    )


@dataclasses.dataclass(frozen=True)
class Trainer:
    """The training of one SASRec: its settings and compiled functions, no state.

    Attributes:
      arch: Shape of the model.
      optimizer: Optimizer from `rfrec.train.optim`.
      schedule: When to evaluate and stop.
      batch_size: Rows of a batch over all devices.
      seed: Seed of initialisation, order and dropout.
      engine: Places arrays and compiles.
      data: Histories to train on and to evaluate.
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
        """Runs one step on the rows of this device.

        Args:
          state: State before the step.
          batch: Rows of this device.

        Returns:
          The new state, and the mean loss of all targets of the whole batch.
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
        return epochs.apply_gradients(state, grads, self.optimizer), loss

    def _total_loss(self, params: PyTree, batch: Batch, keys):
        bound = sasrec.SASRec(self.arch).bind({"params": params})
        vectors = bound(batch.items, batch.positions, batch.histories, keys=keys)
        losses = bound.losses(
            vectors.reshape(-1, self.arch.width), batch.targets.reshape(-1)
        )
        return jnp.sum(jnp.where(batch.histories.reshape(-1) > 0, losses, 0.0))

    def compile_steps(self):
        """Compiles `(state, rows, batches, count) -> (state, losses)`.

        See `epochs.run_steps`.
        """

        def steps(state, rows, batches, count):
            def one(state, i):
                chosen = lax.dynamic_index_in_dim(batches, i, keepdims=False)
                return self.step(state, Batch(*(a[chosen] for a in rows)))

            return epochs.run_steps(one, state, count, batches.shape[0])

        return self.engine.compile(steps, donate=True)

    def compile_ranking(self, width: int):
        """Compiles `(state, histories, users, _) -> ((), (items, scores))`.

        Args:
          width: Slots of the histories; each row contains one history.
        """
        arch, axis = self.arch, self.engine.axis_name

        def rank(state, histories, users, count):
            del count
            items, start, length, first, offsets = histories
            users = users[0]
            back = jnp.arange(width - 1, -1, -1)[None]
            present = back < length[users][:, None]
            index = (start + length)[users][:, None] - 1 - back
            rows = items[jnp.where(present, index, 0)]
            bound = sasrec.SASRec(arch).bind({"params": state.params})
            positions = jnp.where(present, back, 0)
            vectors = bound(rows, positions, present.astype(jnp.int32))
            scores = bound.scores(vectors[:, -1])
            seen = None
            if self.filter_seen:
                index = first[users][:, None] + offsets[None]
                inside = index < (start + length)[users][:, None]
                seen = jnp.where(inside, items[jnp.where(inside, index, 0)], -1)
            best = ranking.top_k(scores, self.top_k, seen)
            return (), tuple(partition.gather(a, axis) for a in best)

        return self.engine.compile(rank)


class Run:
    """A trainer with its compiled functions and placed data."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self._epochs = epochs.EpochSteps(
            np.arange(len(trainer.data.rows.items)),
            trainer.batch_size,
            seed=trainer.seed,
        )
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
        """Returns the program of the training loop."""
        return loop.Program(self._run, lambda state, epoch: state, self._metrics)

    def _run(self, state, first: int, count: int):
        engine, schedule = self.trainer.engine, self.trainer.schedule
        rows = self._epochs.take(first, count, schedule.steps_per_call)
        batches = engine.shard(lambda part: rows[:, part], rows.shape)
        state, losses = self._steps(state, self._rows, batches, np.int32(count))
        return state, {"loss": engine.fetch(losses)}

    def rank(self, state, which: str) -> ranking.Lists:
        """Ranks the whole catalogue for each user.

        Args:
          state: State on the devices.
          which: Item to be predicted, `valid` or `test`.
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
        lists = self.rank(state, "valid")
        return report.means(metrics.match(lists.items, self.targets("valid")))
