# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a T5 on codes: the step, length buckets and the evaluation.

Histories and codes are arrays that are copied to the devices once; a step lays out its
tokens itself, from the rows of its examples.
"""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from jax import lax
from jaxtyping import Array, Float, Int

from rfrec.data import sequences
from rfrec.retrieval import batches, beam, constraint, t5, validation, vocab
from rfrec.retrieval.batches import Examples, Tables
from rfrec.retrieval.corpus import Catalogue, Corpus
from rfrec.train import chunks, epochs, loop, partition, running
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.state import TrainState, create, step_key
from rfrec.typing import PyTree


class Sizes(NamedTuple):
    """How much the devices process at once.

    Attributes:
      batch: Examples of a step over all devices.
      run: Maximum number of consecutive steps of one bucket, in one call.
      evaluation: Examples of a batch of an evaluation.
      beams: Beams of the search.
    """

    batch: int
    run: int
    evaluation: int
    beams: int


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """The training of one T5: its settings and compiled functions, no state.

    Attributes:
      arch: Shape of the model.
      optimizer: Optimizer from `rfrec.train.optim`.
      schedule: When to evaluate and stop.
      sizes: Sizes of batches.
      seed: Seed of initialisation, order and dropout.
      engine: Places arrays and compiles.
      corpus: Data to train on and to evaluate.
      weights: Parameters to start from, on the host; None initialises them.
    """

    arch: t5.Architecture
    optimizer: optax.GradientTransformation
    schedule: loop.Schedule
    sizes: Sizes
    seed: int
    engine: partition.Engine
    corpus: Corpus
    weights: PyTree = None

    def init(self) -> TrainState:
        """Returns the state before the first step, on the host."""
        params = self.weights
        if params is None:
            params = fresh_weights(self.arch, self.seed)
        return jax.tree.map(np.asarray, self._state(params))

    def _state(self, params: PyTree) -> TrainState:
        return create(
            params=params, model_state={}, optimizer=self.optimizer, seed=self.seed
        )

    @functools.cached_property
    def shardings(self) -> PyTree:
        """Sharding of each array of the state; None if all are on every device."""
        if self.engine.num_parts == self.engine.num_devices:
            return None
        key = jax.random.key(0)
        state = jax.eval_shape(lambda: self._state(t5.init(self.arch, key)))
        return self.engine.shardings(state, t5.logical_axes(self.arch))

    def place(self, state: TrainState) -> TrainState:
        """Puts a host state on the devices."""
        if self.shardings is None:
            return self.engine.replicate(state)
        return self.engine.place(state, self.shardings)

    def step(
        self, state: TrainState, tables: Tables, examples: Examples, *, history: int
    ) -> tuple[TrainState, Float[Array, ""]]:
        """Runs one step on the examples of this device.

        Args:
          state: State before the step.
          tables: Tables that the examples refer to.
          examples: Examples of this device.
          history: Length bucket; static.

        Returns:
          The new state and the loss of the whole batch.
        """
        axis = self.engine.axis_name
        batch = batches.batch(tables, examples, history)
        loss, grads = self._gradient(state, batch)
        loss, grads = partition.mean((loss, grads), axis)
        return epochs.apply_gradients(state, grads, self.optimizer), loss

    def _gradient(self, state: TrainState, batch: batches.Batch):
        """Returns this device's share of the loss and its gradient.

        The mean of the shares over devices is the loss: the mean over the label tokens
        of the whole batch, weighted by task.
        """
        axis, keys = self.engine.axis_name, None
        if self.arch.dropout > 0:
            keys = partition.row_keys(step_key(state), batch.tokens.shape[0], axis)
        counted = batch.labels != vocab.PAD
        total = partition.mean(jnp.sum(counted * batch.weights[:, None]), axis)

        def objective(params, part):
            batch, keys = part
            losses, counted = self.token_losses(params, batch, keys=keys)
            return jnp.sum(losses * counted * batch.weights[:, None]) / total

        parts = chunks.count(self.engine, *batch.tokens.shape)
        return chunks.value_and_grad(objective, state.params, (batch, keys), parts)

    def token_losses(
        self, params: PyTree, batch: batches.Batch, *, keys: Array | None = None
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """Returns the cross-entropy of each label, and 1 where there is a label."""
        decoder_tokens = t5.shift_right(batch.labels)
        logits = t5.T5(self.arch).apply(
            {"params": params}, batch.tokens, decoder_tokens, keys=keys
        )
        counted = batch.labels != vocab.PAD
        labels = batch.labels
        if self.arch.level_heads:
            # A head scores the codes of its level, not their tokens.
            ranges = self.corpus.vocabulary.level_range(self.corpus.modality)
            labels = labels - jnp.array([[first for first, _ in ranges]])
        labels = jnp.where(counted, labels, 0)
        losses = optax.softmax_cross_entropy_with_integer_labels(
            jnp.asarray(logits), labels
        )
        return losses, counted.astype(jnp.float32)

    def compile_steps(self, history: int):
        """Compiles `(state, (tables, examples), rows, count) -> (state, losses)`.

        One call runs `count` steps of one bucket, see `epochs.run_steps`.
        """

        def steps(state, constants, rows, count):
            tables, examples = constants

            def one(state, i):
                chosen = batches.take(examples, rows[i])
                return self.step(state, tables, chosen, history=history)

            return epochs.run_steps(one, state, count, rows.shape[0])

        return self.engine.compile(steps, donate=True, shardings=self.shardings)

    def compile_losses(self, history: int):
        """Compiles `(state, (tables, examples), rows, _) -> ((), mean losses)`."""

        def evaluate(state, constants, rows, count):
            del count
            tables, examples = constants

            def one(row):
                batch = batches.batch(tables, batches.take(examples, row), history)
                losses, counted = self.token_losses(state.params, batch)
                loss = jnp.sum(losses * counted, axis=1) / jnp.sum(counted, axis=1)
                return partition.gather(loss, self.engine.axis_name)

            return (), lax.map(one, rows)

        return self.engine.compile(evaluate)

    def compile_search(self, history: int, catalogue: Catalogue):
        """Compiles `(state, constants, rows, _) -> ((), leaves)`.

        The constants are tables, examples and the index of `search_arrays`.
        """
        search = beam.settings(self.arch, catalogue.trie, num_beams=self.sizes.beams)

        def evaluate(state, constants, rows, count):
            del count
            tables, examples, index = constants

            def one(row):
                batch = batches.batch(tables, batches.take(examples, row), history)
                beams = beam.search(state.params, batch.tokens, index, search)
                return partition.gather(beams.leaves, self.engine.axis_name)

            return (), lax.map(one, rows)

        return self.engine.compile(evaluate)

    def search_arrays(self, catalogue: Catalogue) -> constraint.Index:
        """Returns the trie and the tokens of its codes."""
        tokens = self.corpus.vocabulary.code_tokens(self.corpus.modality)
        return constraint.make_index(catalogue.trie, tokens)


def fresh_weights(arch: t5.Architecture, seed: int) -> PyTree:
    """Returns initial parameters, on the host."""
    key = jax.random.fold_in(jax.random.key(seed), 0)
    init = jax.jit(t5.init, static_argnums=0)
    return jax.tree.map(np.asarray, init(arch, key))


class Run:
    """A trainer with its compiled functions and placed arrays."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        corpus, engine = trainer.corpus, trainer.engine
        self._tables = engine.replicate(corpus.tables)
        self._compiled: dict[Any, Any] = {}
        self._epoch = -1
        self._runs: tuple[sequences.Run, ...] = ()
        self._examples: tuple[Examples, PyTree] | None = None
        self._validation = engine.replicate(corpus.validation)
        self._catalogues = [
            engine.replicate((c.examples, trainer.search_arrays(c)))
            for c in corpus.catalogues
        ]

    def program(self) -> loop.Program:
        """Returns the program of the training loop."""
        return loop.Program(self._run, lambda state, _: state, self.evaluate)

    def fit(
        self,
        checkpoints: Checkpoints,
        *,
        workdir: Path | None,
        notes: dict[str, Any],
        what: str = "histories or codes",
    ) -> loop.Progress:
        """Trains to the end, resuming at the latest checkpoint.

        Args:
          checkpoints: Where states are stored; they contain the result.
          workdir: Folder for the metrics; None writes none.
          notes: JSON values stored with every state, such as the fingerprint of the
            data.
          what: Names what the notes identify, for the error.

        Returns:
          Steps and seconds.

        Raises:
          UserError: The checkpoints were written with other notes, or the loss is not
            finite.
          Preempted: SIGTERM came; the state is stored.
        """
        padding = self.padding()
        logging.info(
            "histories: %.1f%% of the slots are padding, %.1f%% without length buckets:"
            " %.1f%% saved",
            *(100 * share for share in padding),
        )
        return running.train(
            self.trainer.init(),
            self.program(),
            self.trainer.schedule,
            engine=self.trainer.engine,
            checkpoints=checkpoints,
            workdir=workdir,
            notes=notes,
            what=what,
            place=self.trainer.place,
        )

    def padding(self) -> sequences.Padding:
        """Returns the padding of the first epoch, with and without buckets."""
        self._open(0)
        assert self._examples is not None
        corpus = self.trainer.corpus
        lengths = batches.slots(corpus.tables, self._examples[0])
        return sequences.padding(lengths, self._runs, corpus.buckets)

    def _open(self, epoch: int) -> None:
        """Draws the batches of an epoch, and places its examples if they changed."""
        if self._epoch == epoch:
            return
        trainer, corpus = self.trainer, self.trainer.corpus
        examples = corpus.examples(seed=trainer.seed, epoch=epoch)
        before = self._examples
        if before is None or not all(map(np.array_equal, examples, before[0])):
            self._examples = (examples, trainer.engine.replicate(examples))
        self._runs = sequences.bucketed_epoch(
            batches.slots(corpus.tables, examples),
            corpus.buckets,
            trainer.sizes.batch,
            run=trainer.sizes.run,
            seed=trainer.seed,
            epoch=epoch,
        )
        self._epoch = epoch

    def _pieces(self, first: int, count: int) -> Iterator[sequences.Run]:
        """Yields the rows of steps `first` to `first + count - 1`, bucket by bucket."""
        stop = first + count
        while first < stop:
            epoch, within = divmod(first, self.trainer.schedule.steps_per_epoch)
            self._open(epoch)
            ends = np.cumsum([len(run.rows) for run in self._runs])
            number = int(np.searchsorted(ends, within, side="right"))
            bucket, rows = self._runs[number]
            offset = within - int(ends[number]) + len(rows)
            part = rows[offset : offset + stop - first]
            yield sequences.Run(bucket, part)
            first += len(part)

    def _run(self, state, first: int, count: int):
        trainer, pending = self.trainer, []
        longest = trainer.sizes.run
        for bucket, rows in self._pieces(first, count):
            assert self._examples is not None
            history = trainer.corpus.buckets[bucket]
            steps = self._program("steps", history, trainer.compile_steps)
            padded = np.pad(rows, ((0, longest - len(rows)), (0, 0)), mode="edge")
            constants = (self._tables, self._examples[1])
            placed = self._place(padded)
            state, losses = steps(state, constants, placed, np.int32(len(rows)))
            pending.append((losses, len(rows)))
        # The host waits for the devices only here.
        losses = [trainer.engine.fetch(losses)[:n] for losses, n in pending]
        return state, {"loss": np.concatenate(losses)}

    def _program(self, name: str, history: int, compile_it, *more):
        key = (name, history, *map(id, more))
        if key not in self._compiled:
            self._compiled[key] = compile_it(history, *more)
        return self._compiled[key]

    def _place(self, rows: Int[np.ndarray, "S B"]) -> jax.Array:
        return self.trainer.engine.shard(lambda part: rows[:, part], rows.shape)

    def _over(self, state, examples: Examples, choose) -> np.ndarray:
        """Runs a program over examples, bucket by bucket.

        Args:
          state: State on the devices.
          examples: Examples on the host.
          choose: Function of a length bucket that returns its program and constants.
        """
        trainer, corpus = self.trainer, self.trainer.corpus
        blocks = validation.blocks(
            batches.slots(corpus.tables, examples),
            # Every second bucket: compiling a program takes longer than padding costs.
            corpus.buckets[::-2][::-1],
            trainer.sizes.evaluation,
            trainer.engine.num_parts,
        )
        results = []
        for block in blocks:
            run, constants = choose(block.history)
            placed = self._place(block.rows)
            results.append(run(state, constants, placed, np.int32(0))[1])
        return validation.in_order(blocks, trainer.engine.fetch(results))

    def losses(self, state) -> Float[np.ndarray, " P"]:
        """Returns the mean loss of the labels of each validation example."""
        constants = (self._tables, self._validation)
        return self._over(
            state,
            self.trainer.corpus.validation,
            lambda h: (
                self._program("losses", h, self.trainer.compile_losses),
                constants,
            ),
        )

    def leaves(self, state, number: int) -> Int[np.ndarray, "U S"]:
        """Searches for the users of a catalogue; returns ranked leaves of its trie."""
        trainer, catalogue = self.trainer, self.trainer.corpus.catalogues[number]
        constants = (self._tables, *self._catalogues[number])
        return self._over(
            state,
            catalogue.examples,
            lambda h: (
                self._program("search", h, trainer.compile_search, catalogue),
                constants,
            ),
        )

    def evaluate(self, state) -> dict[str, Any]:
        """Returns the validation loss and the metrics of the search."""
        catalogues = self.trainer.corpus.catalogues
        leaves = [self.leaves(state, i) for i in range(len(catalogues))]
        loss = float(self.losses(state).mean(dtype="f8"))
        return {"loss": loss, **validation.search_metrics(catalogues, leaves)}
