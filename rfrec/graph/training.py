# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a recommender of embeddings: the steps, and the ranking of the catalogue.

A `Model`, its constants and the pairs flow in; the loop's `Program` and ranked lists
come out. Order, negatives and batches are made on the devices, in the call that also
does the steps.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float

from rfrec.data import pairs, triplets
from rfrec.evaluation import metrics, ranking, report
from rfrec.graph.model import Encoded, Model
from rfrec.train import loop, partition
from rfrec.train.state import TrainState, create
from rfrec.typing import PyTree

# What validation decides by.
CRITERION = "recall@20"
# Users whose catalogues are scored together.
_EVAL_USERS = 1024
# Streams of random numbers, apart from that of the initial parameters.
_ORDER, _NOISE = 1, 2


class Choice(NamedTuple):
    """How embeddings are encoded, as validation chose it.

    Attributes:
      arguments: Of `Model.encode`; empty if there was nothing to choose.
      tried: The criterion's value for each of `Model.choices`.
    """

    arguments: Mapping[str, float]
    tried: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """Builds and runs the training of one model; holds settings, no state.

    Attributes:
      model: To train.
      constants: Of the model, on the host.
      optimizer: Of all parameters, whatever their label.
      schedule: Of the loop.
      batch_size: Triplets of all devices together.
      engine: Places and compiles; `jit`, because the rows of a batch are coupled.
      split: Pairs to train on and to evaluate.
      table: Of `triplets.build` for them.
      top_k: Length of the lists.
      fingerprint: Of pairs and features, held against those of a checkpoint.
      decimals: Digits to which metrics of validation are rounded before they are
        compared, 4 in MMRec; None compares them as they are.
    """

    model: Model
    constants: PyTree
    optimizer: optax.GradientTransformation
    schedule: loop.Schedule
    batch_size: int
    engine: partition.Engine
    split: pairs.PairSplit
    table: triplets.Table
    top_k: int = 50
    fingerprint: str = ""
    decimals: int | None = None

    def init(self, seed: int) -> TrainState:
        """Returns the state before the first step, on the host.

        Args:
          seed: Of initialisation, order, negatives and noise.
        """
        key = jax.random.fold_in(jax.random.key(seed), 0)
        params, model_state = self.model.init(key)
        state = create(
            params=params,
            model_state=model_state,
            optimizer=self.optimizer,
            seed=seed,
        )
        return jax.tree.map(np.asarray, state)

    def batch(self, state: TrainState, table: triplets.Table) -> triplets.Triplets:
        """Returns the batch of the step about to be done, spread over the devices."""
        epoch, index = jnp.divmod(state.step, self.schedule.steps_per_epoch)
        key = _stream(state, _ORDER)
        made = triplets.batch(table, key, epoch, index, self.batch_size)
        return self.engine.spread(made)

    def step(
        self, state: TrainState, constants: PyTree, batch: triplets.Triplets
    ) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        """Does one step.

        Args:
          state: Before the step.
          constants: Of the model.
          batch: Triplets of all devices.

        Returns:
          The new state; the loss and its parts.
        """
        epoch = state.step // self.schedule.steps_per_epoch
        key = jax.random.fold_in(_stream(state, _NOISE), state.step)

        def objective(params: PyTree):
            return self.model.loss(
                params, state.model_state, constants, batch, key, epoch
            )

        found, grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        loss, (parts, model_state) = found
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        state = state.replace(
            step=state.step + 1,
            params=params,
            model_state=self.model.after_update(params, model_state),
            opt_state=opt_state,
        )
        return state, {"loss": loss, **parts}

    def compile_steps(self):
        """Compiles `(state, (constants, table), _, count) -> (state, metrics)`.

        One call does `count` steps, known only when it runs, so that calls of every
        length share one program.
        """

        def steps(state, placed, nothing, count):
            del nothing
            constants, table = placed

            def advance(state):
                return self.step(state, constants, self.batch(state, table))

            def one(i, carry):
                state, told = carry
                state, values = advance(state)
                return state, {k: told[k].at[i].set(values[k]) for k in told}

            names = jax.eval_shape(advance, state)[1]
            told = {name: jnp.zeros(self.schedule.steps_per_call) for name in names}
            return lax.fori_loop(0, count, one, (state, told))

        return self.engine.compile(steps, donate=True)

    def compile_encoding(self):
        """Compiles `(state, constants, choice, _) -> ((), Encoded)`."""

        def encode(state, constants, choice, count):
            del count
            # Of the steps done; the epoch that has just ended counts as the current.
            epoch = jnp.maximum(state.step - 1, 0) // self.schedule.steps_per_epoch
            return (), self.model.encode(
                state.params, state.model_state, constants, epoch, **choice
            )

        return self.engine.compile(encode)

    def compile_refining(self):
        """Compiles the model's refine, `(state, constants, _, _) -> (state, ())`."""

        def refine(state, constants, nothing, count):
            del nothing, count
            assert self.model.refine is not None
            params, kept = self.model.refine(state.params, state.model_state, constants)
            return state.replace(params=params, model_state=kept), ()

        return self.engine.compile(refine)


def _stream(state: TrainState, number: int) -> jax.Array:
    """Returns a key of its own for each use of randomness."""
    return jax.random.split(jax.random.wrap_key_data(state.key), 3)[number]


class Run:
    """A trainer with its compiled functions and placed data."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        engine = trainer.engine
        self._constants = engine.replicate(trainer.constants)
        self._table = engine.replicate(trainer.table)
        self._steps = trainer.compile_steps()
        self._encode = trainer.compile_encoding()
        self._refine = trainer.compile_refining()

    def program(self) -> loop.Program:
        """Returns what the loop runs."""
        return loop.Program(self._run, lambda state, epoch: state, self._metrics)

    def _run(self, state, first: int, count: int):
        del first
        placed = (self._constants, self._table)
        state, told = self._steps(state, placed, (), np.int32(count))
        return state, self.trainer.engine.fetch(told)

    def encode(self, state: TrainState, choice: Mapping[str, float]) -> Encoded:
        """Returns the embeddings of all users and items.

        Args:
          state: Placed by the engine.
          choice: Arguments of `Model.encode`.
        """
        arguments = {name: np.float32(value) for name, value in choice.items()}
        return self._encode(state, self._constants, arguments, np.int32(0))[1]

    def rank(self, encoded: Encoded) -> ranking.Lists:
        """Ranks the whole catalogue, but for training items, for each user.

        One ranking serves validation and test: items of either are candidates of both.
        """
        split = self.trainer.split
        return ranking.rank_products(
            encoded.users,
            encoded.items,
            k=self.trainer.top_k,
            block=_EVAL_USERS,
            seen=(split.train.indptr, split.train.items),
        )

    def validate(self, lists: ranking.Lists) -> dict[str, float]:
        """Returns the metrics of the validation items."""
        valid, decimals = self.trainer.split.valid, self.trainer.decimals
        found = metrics.match_rows(lists.items, valid.indptr, valid.items)
        means = report.means(found, report.PAIR_NAMES)
        if decimals is None:
            return means
        return {name: round(value, decimals) for name, value in means.items()}

    def refine(self, state: TrainState) -> TrainState:
        """Returns the best checkpoint with what the model still learns of it.

        Args:
          state: Placed by the engine.
        """
        if self.trainer.model.refine is None:
            return state
        return self._refine(state, self._constants, (), np.int32(0))[0]

    def choose(self, state: TrainState) -> Choice:
        """Tries all choices of the model on validation; the first best wins.

        Args:
          state: Placed by the engine.
        """
        choices = self.trainer.model.choices
        if not choices:
            return Choice({}, ())
        tried = tuple(
            self.validate(self.rank(self.encode(state, choice)))[CRITERION]
            for choice in choices
        )
        return Choice(choices[int(np.argmax(tried))], tried)

    def _metrics(self, state) -> dict[str, Any]:
        encoded = self.encode(state, {})
        numbers = self.trainer.engine.fetch(dict(encoded.numbers))
        told = {name: float(value) for name, value in numbers.items()}
        return self.validate(self.rank(encoded)) | told
