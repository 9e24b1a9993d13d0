# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Training of a graph recommender, and ranking of the catalogue.

Order, negatives and batches are computed on the devices, in the same call as the steps.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from rfrec.data import pairs, triplets
from rfrec.evaluation import metrics, ranking, report
from rfrec.graph.model import Encoded, Model
from rfrec.train import epochs, loop, partition
from rfrec.train.state import TrainState, create
from rfrec.typing import PyTree

# Validation metric that selects the epoch and, if there is a choice, the encoding.
CRITERION = "recall@20"
# Number of users that are ranked in one call.
_EVAL_USERS = 1024
# Streams of random numbers; stream 0 is that of the initial parameters.
_ORDER, _NOISE = 1, 2


class Choice(NamedTuple):
    """Arguments of `Model.encode`, chosen on the validation items.

    Attributes:
      arguments: The best of `Model.choices`; empty if there is none.
      tried: Value of the criterion for each of `Model.choices`.
    """

    arguments: Mapping[str, float]
    tried: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """The training of one model; holds settings and host arrays, no state.

    Attributes:
      model: Model to train.
      constants: Constants of the model, on the host.
      optimizer: Optimizer of all parameters.
      schedule: Schedule of the training loop.
      batch_size: Number of triplets in a batch, over all devices.
      engine: Places arrays and compiles; `jit`, because the rows of a batch are
        coupled by the contrastive losses.
      split: Training, validation and test pairs.
      table: Result of `triplets.build` for the training pairs.
      top_k: Length of the ranked lists.
      fingerprint: Fingerprint of pairs and features; resuming compares it with that of
        the checkpoint.
      decimals: Digits to which validation metrics are rounded before they are compared,
        4 in MMRec; None compares them unrounded.
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
          seed: Seed of the initial parameters, order, negatives and noise.
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
        """Returns the batch of the next step, spread over the devices."""
        epoch, index = jnp.divmod(state.step, self.schedule.steps_per_epoch)
        key = _stream(state, _ORDER)
        batch = triplets.batch(table, key, epoch, index, self.batch_size)
        return self.engine.spread(batch)

    def step(
        self, state: TrainState, constants: PyTree, batch: triplets.Triplets
    ) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        """Runs one training step.

        Args:
          state: State before the step.
          constants: Constants of the model.
          batch: Triplets of all devices.

        Returns:
          The new state, and the loss and its terms by name.
        """
        epoch = state.step // self.schedule.steps_per_epoch
        key = jax.random.fold_in(_stream(state, _NOISE), state.step)

        def objective(params: PyTree):
            return self.model.loss(
                params, state.model_state, constants, batch, key, epoch
            )

        (loss, (terms, model_state)), grads = jax.value_and_grad(
            objective, has_aux=True
        )(state.params)
        state = epochs.apply_gradients(state, grads, self.optimizer)
        model_state = self.model.after_update(state.params, model_state)
        return state.replace(model_state=model_state), {"loss": loss, **terms}

    def compile_steps(self):
        """Compiles `(state, (constants, table), _, count) -> (state, metrics)`.

        One call runs `count` steps. The number is an argument of the program, so that
        calls of every length share it.
        """

        def steps(state, placed, unused, count):
            del unused
            constants, table = placed

            def advance(state, index):
                del index
                return self.step(state, constants, self.batch(state, table))

            return epochs.run_steps(advance, state, count, self.schedule.steps_per_call)

        return self.engine.compile(steps, donate=True)

    def compile_encoding(self):
        """Compiles `(state, constants, choice, _) -> ((), Encoded)`."""

        def encode(state, constants, choice, count):
            del count
            # An epoch that has just ended counts as the current one.
            epoch = jnp.maximum(state.step - 1, 0) // self.schedule.steps_per_epoch
            return (), self.model.encode(
                state.params, state.model_state, constants, epoch, **choice
            )

        return self.engine.compile(encode)

    def compile_refining(self):
        """Compiles `Model.refine` as `(state, constants, _, _) -> (state, ())`."""

        def refine(state, constants, unused, count):
            del unused, count
            params, model_state = self.model.refine(
                state.params, state.model_state, constants
            )
            return state.replace(params=params, model_state=model_state), ()

        return self.engine.compile(refine)


def _stream(state: TrainState, number: int) -> jax.Array:
    """Returns the random key of one of the streams."""
    return jax.random.split(jax.random.wrap_key_data(state.key), 3)[number]


class Run:
    """A trainer with its compiled functions and with its data on the devices."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        engine = trainer.engine
        self._constants = engine.replicate(trainer.constants)
        self._table = engine.replicate(trainer.table)
        self._steps = trainer.compile_steps()
        self._encode = trainer.compile_encoding()
        self._refine = trainer.compile_refining()

    def program(self) -> loop.Program:
        """Returns the functions that the training loop calls."""
        return loop.Program(self._run, lambda state, epoch: state, self._metrics)

    def _run(self, state, first: int, count: int):
        del first
        placed = (self._constants, self._table)
        state, metrics = self._steps(state, placed, (), np.int32(count))
        return state, self.trainer.engine.fetch(metrics)

    def encode(self, state: TrainState, choice: Mapping[str, float]) -> Encoded:
        """Returns the embeddings of all users and items.

        Args:
          state: State on the devices.
          choice: Arguments of `Model.encode`.
        """
        arguments = {name: np.float32(value) for name, value in choice.items()}
        return self._encode(state, self._constants, arguments, np.int32(0))[1]

    def rank(self, encoded: Encoded) -> ranking.Lists:
        """Ranks for each user the whole catalogue without the training items.

        Validation and test use the same lists: both kinds of items are candidates.
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
        matches = metrics.match_rows(lists.items, valid.indptr, valid.items)
        means = report.means(matches, report.PAIR_NAMES)
        if decimals is None:
            return means
        return {name: round(value, decimals) for name, value in means.items()}

    def refine(self, state: TrainState) -> TrainState:
        """Returns the state after `Model.refine`.

        Args:
          state: State of the best checkpoint, on the devices.
        """
        if not self.trainer.model.refines:
            return state
        return self._refine(state, self._constants, (), np.int32(0))[0]

    def choose(self, state: TrainState) -> Choice:
        """Returns the choice with the best validation metric; the first of equal ones.

        Args:
          state: State on the devices.
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
        scalars = {name: float(value) for name, value in numbers.items()}
        return self.validate(self.rank(encoded)) | scalars
