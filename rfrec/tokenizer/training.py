# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains an RQ-VAE: the step, its k-means event, evaluation, all on the devices.

Item vectors [N D] (in memory or memory-mapped) flow in; the loop's `Program` comes out.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from rfrec.codes import table
from rfrec.tokenizer import codebooks as codebooks_lib
from rfrec.tokenizer import loss, rqvae
from rfrec.train import epochs, loop, partition
from rfrec.train.state import TrainState, create, step_key
from rfrec.typing import PyTree

# Rows of one block of an evaluation.
_EVAL_ROWS = 2048


@dataclasses.dataclass(frozen=True)
class Items:
    """Item vectors and which of them are trained on.

    Attributes:
      values: Vectors, float16 or float32, possibly memory-mapped.
      train: Rows to train on.
      validation: Rows held out, possibly none.
      multi_hot: True for the columns of multi-hot features; None if there are none.
      resident: Whether every device holds all vectors; otherwise batches are read from
        `values` when they are needed.
    """

    values: Float[np.ndarray, "N D"]
    train: Int[np.ndarray, " T"]
    validation: Int[np.ndarray, " V"]
    multi_hot: Bool[np.ndarray, " D"] | None = None
    resident: bool = True


def split_items(
    num_items: int, val_ratio: float, seed: int
) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " V"]]:
    """Holds out a random share of the items; returns training and held-out rows."""
    order = np.random.default_rng([seed, 1]).permutation(num_items)
    held = int(round(val_ratio * num_items))
    return np.sort(order[held:]), np.sort(order[:held])


def column_statistics(
    x: Float[np.ndarray, "T D"],
) -> dict[str, Float[np.ndarray, " D"]]:
    """Returns mean and standard deviation of columns; 1 for constant columns."""
    mean, deviation = x.mean(axis=0, dtype="f8"), x.std(axis=0, dtype="f8")
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    return {"mean": mean.astype("f4"), "deviation": deviation.astype("f4")}


def read_rows(
    values: Float[np.ndarray, "N D"], rows: Int[np.ndarray, "S B"]
) -> Float[np.ndarray, "S B D"]:
    """Reads rows of a memory map in ascending order, which is fast on disks."""
    flat, inverse = np.unique(rows, return_inverse=True)
    return np.asarray(values[flat])[inverse].reshape(*rows.shape, values.shape[1])


class Evaluation(NamedTuple):
    """One value, or one row, for each item."""

    codes: Int[np.ndarray, "N Q"]
    latents: Float[np.ndarray, "N W"]
    loss: Float[np.ndarray, " N"]
    reconstruction: Float[np.ndarray, " N"]
    error: Float[np.ndarray, " N"]
    square: Float[np.ndarray, " N"]


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Builds the compiled functions of one RQ-VAE's training; has no state.

    Attributes:
      arch: Architecture of the model.
      objective: Weights and reductions of the loss.
      codebooks: How codebooks are initialised and updated.
      optimizer: Optimizer from `train.optim`.
      schedule: Schedule of the training loop.
      batch_size: Number of rows in a batch, over all devices.
      seed: Seed of initialisation, order and noise.
      engine: Places arrays and compiles functions.
      items: Item vectors to train on.
    """

    arch: rqvae.Architecture
    objective: loss.Objective
    codebooks: codebooks_lib.Codebooks
    optimizer: optax.GradientTransformation
    schedule: loop.Schedule
    batch_size: int
    seed: int
    engine: partition.Engine
    items: Items

    @property
    def model(self) -> rqvae.RQVAE:
        """The module, with the engine's device axis."""
        return rqvae.RQVAE(self.arch, self.engine.axis_name)

    def init(self) -> TrainState:
        """Returns the state before the first step, on the host."""
        # Parameters do not depend on the device axis, and outside a compiled step
        # there is none.
        model = rqvae.RQVAE(self.arch)
        key = jax.random.fold_in(jax.random.key(self.seed), 0)
        x = jnp.zeros((1, self.arch.input_width))
        # Without the quantizer, which has no parameters and takes long to compile.
        init = jax.jit(functools.partial(model.init, method="reconstruct"))
        variables = init(key, x)
        params = variables.pop("params")
        if self.arch.normalize_input:
            variables["inputs"] = column_statistics(self.items.values[self.items.train])
        state = create(
            params=params,
            model_state=variables,
            optimizer=self.optimizer,
            seed=self.seed,
        )
        return jax.tree.map(np.asarray, state)

    def step(
        self, state: TrainState, x: Float[Array, "B D"], *, frozen: bool = False
    ) -> tuple[TrainState, loss.Losses]:
        """Does one step on the rows of this device.

        Args:
          state: Before the step.
          x: Item vectors.
          frozen: Whether only the decoder learns.

        Returns:
          The new state and the losses of the whole batch.
        """
        axis = self.engine.axis_name
        gradient = jax.grad(self._objective, has_aux=True)
        grads, (losses, updated, quantized) = gradient(state.params, state, x, frozen)
        grads, losses = partition.mean((grads, losses), axis)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        if frozen:
            # Momentum and weight decay move parameters that have no gradient too.
            fixed = {k: u for k, u in updates.items() if k != "decoder"}
            updates = updates | jax.tree.map(jnp.zeros_like, fixed)
        model_state = {**state.model_state, **updated}
        if self.arch.quantization.learned_by == "ema":
            model_state["codebook"] = self._move_codebook(state, quantized)
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=model_state,
            opt_state=opt_state,
        )
        return state, losses

    def _objective(self, params: PyTree, state: TrainState, x, frozen: bool):
        """Returns the loss of this device's rows and auxiliary outputs."""
        if frozen:
            fixed = {k: v for k, v in params.items() if k != "decoder"}
            params = params | lax.stop_gradient(fixed)
        epoch = state.step / self.schedule.steps_per_epoch
        before = epoch < self.codebooks.init_epoch if self.codebooks.bypass else None
        noisy = self.arch.dropout > 0 or self.arch.quantization.estimator == "gumbel"
        key, keys = jax.random.fold_in(step_key(state), 0), None
        if noisy:
            keys = partition.row_keys(key, x.shape[0], self.engine.axis_name)
        output, updated = self.model.apply(
            {"params": params, **state.model_state},
            x,
            training=True,
            keys=keys,
            temperature=codebooks_lib.temperature_at(epoch, self.codebooks),
            bypass=before,
            mutable=["batch_stats"],
        )
        rows = loss.row_losses(
            output,
            x,
            self.objective,
            beta=loss.beta_at(epoch, self.objective),
            multi_hot=self.items.multi_hot,
            bypass=before,
        )
        losses = jax.tree.map(jnp.mean, rows)
        return losses.total, (losses, updated, output.quantized)

    def _move_codebook(self, state: TrainState, quantized) -> PyTree:
        codebook = state.model_state["codebook"]
        averages, vectors = rqvae.update_averages(
            rqvae.Averages(codebook["counts"], codebook["sums"]),
            quantized.residuals,
            quantized.codes,
            decay=self.codebooks.ema_decay,
            revive_below=self.codebooks.revive_below,
            mask=self.arch.quantization.mask,
            key=jax.random.fold_in(step_key(state), 1),
            axis_name=self.engine.axis_name,
        )
        return {"vectors": vectors, **averages._asdict()}

    def compile_steps(self, *, frozen: bool):
        """Compiles `(state, vectors, batches, count) -> (state, losses)`.

        One call runs `count` steps. The count is an argument of the program, so that
        calls of every length share one program.
        """
        resident = self.items.resident

        def steps(state, vectors, batches, count):
            def one(state, i):
                batch = lax.dynamic_index_in_dim(batches, i, keepdims=False)
                x = vectors[batch] if resident else batch
                return self.step(state, x.astype(jnp.float32), frozen=frozen)

            return epochs.run_steps(one, state, count, batches.shape[0])

        return self.engine.compile(steps, donate=True)

    def compile_evaluation(self):
        """Compiles `(state, vectors, batches, _) -> ((), result)` without noise.

        The result holds the fields of `Evaluation` by name.
        """
        axis, resident = self.engine.axis_name, self.items.resident
        model = rqvae.RQVAE(self.arch)

        def evaluate(state, vectors, batches, count):
            del count
            variables = {"params": state.params, **state.model_state}

            def one(batch):
                x = (vectors[batch] if resident else batch).astype(jnp.float32)
                output = cast(rqvae.Output, model.apply(variables, x))
                rows = loss.row_losses(
                    output,
                    x,
                    self.objective,
                    beta=self.objective.beta,
                    multi_hot=self.items.multi_hot,
                )
                decoded = loss.reconstruct(
                    output.reconstruction,
                    self.objective,
                    multi_hot=self.items.multi_hot,
                )
                result = {
                    "codes": output.quantized.codes,
                    "latents": output.latents,
                    "loss": rows.total,
                    "reconstruction": rows.reconstruction,
                    "error": jnp.sum((decoded - x) ** 2, axis=1),
                    "square": jnp.sum(x**2, axis=1),
                }
                return jax.tree.map(lambda a: partition.gather(a, axis), result)

            return (), lax.map(one, batches)

        return self.engine.compile(evaluate)

    def place_vectors(self) -> PyTree:
        """Puts the item vectors on every device, or nothing if they are streamed."""
        vectors = self.items.values if self.items.resident else np.zeros((1, 1), "f4")
        return self.engine.replicate(vectors)

    def place_batches(self, rows: Int[np.ndarray, "S B"]) -> jax.Array:
        """Spreads batches over the devices: row numbers, or the vectors themselves."""
        if self.items.resident:
            return self.engine.shard(lambda part: rows[:, part], rows.shape)
        shape = (*rows.shape, self.arch.input_width)
        return self.engine.shard(
            lambda part: read_rows(self.items.values, rows[:, part]), shape
        )


class Run:
    """A trainer with its compiled functions and placed items."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self._vectors = trainer.place_vectors()
        self._steps = trainer.compile_steps(frozen=False)
        self._frozen_steps = trainer.compile_steps(frozen=True)
        self._evaluate = trainer.compile_evaluation()
        self._epochs = epochs.EpochSteps(
            trainer.items.train, trainer.batch_size, seed=trainer.seed
        )

    def program(self) -> loop.Program:
        """Returns the functions for the training loop."""
        return loop.Program(self._run, self._begin_epoch, self._metrics)

    def _run(self, state, first: int, count: int):
        schedule, settings = self.trainer.schedule, self.trainer.codebooks
        rows = self._epochs.take(first, count, schedule.steps_per_call)
        first_frozen = settings.init_epoch * schedule.steps_per_epoch
        frozen = settings.freeze and first >= first_frozen
        steps = self._frozen_steps if frozen else self._steps
        state, losses = steps(
            state, self._vectors, self.trainer.place_batches(rows), np.int32(count)
        )
        losses = self.trainer.engine.fetch(losses)
        return state, {
            "loss": losses.total,
            "reconstruction": losses.reconstruction,
            "quantization": losses.quantization,
        }

    def evaluate(self, state, rows: Int[np.ndarray, " R"]) -> Evaluation:
        """Passes items through the model with nearest codes.

        Args:
          state: State on the devices.
          rows: Rows of the items.
        """
        trainer = self.trainer
        devices = trainer.engine.num_devices
        size = min(_EVAL_ROWS, len(rows))
        size += -size % devices
        blocks = np.resize(rows, (-(-len(rows) // size), size)).astype(np.int32)
        # Streamed vectors pass one block in each call, which bounds the memory.
        calls = [blocks] if trainer.items.resident else np.split(blocks, len(blocks))
        results = []
        for call in calls:
            batches = trainer.place_batches(call)
            _, result = self._evaluate(state, self._vectors, batches, np.int32(0))
            results.append(trainer.engine.fetch(result))
        joined = jax.tree.map(lambda *a: np.concatenate(a), *results)
        flat = {k: a.reshape(-1, *a.shape[2:])[: len(rows)] for k, a in joined.items()}
        return Evaluation(**flat)

    def _begin_epoch(self, state, epoch: int):
        """Initialises the codebooks by k-means."""
        trainer, settings = self.trainer, self.trainer.codebooks
        rows = trainer.items.train
        if settings.init_on == "batch":
            rows = self._epochs.epoch(epoch)[0]
        elif settings.kmeans_rows is not None and len(rows) > settings.kmeans_rows:
            drawn = np.random.default_rng((trainer.seed, epoch))
            rows = np.sort(drawn.choice(rows, settings.kmeans_rows, replace=False))
        vectors = codebooks_lib.fit(
            jax.random.fold_in(jax.random.key(trainer.seed), 1),
            jnp.asarray(self.evaluate(state, rows).latents),
            trainer.arch.quantization.sizes,
            settings,
        )
        host = codebooks_lib.replace(trainer.engine.fetch(state), vectors, trainer.arch)
        return trainer.engine.replicate(host)

    def _metrics(self, state) -> dict[str, Any]:
        """Evaluates all items: losses, remaining energy, code statistics."""
        items = self.trainer.items
        result = self.evaluate(state, np.arange(len(items.values)))
        return metrics(result, items, self.trainer.arch.quantization.sizes)


def metrics(result: Evaluation, items: Items, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Summarises an evaluation of all items.

    `energy_left` is the summed squared error of the reconstruction over the summed
    squares of the items; `loss` and `held_out_energy_left` are those of the held-out
    items, or of all if there are none.
    """
    held = items.validation if len(items.validation) else slice(None)

    def energy_left(rows) -> float:
        square = float(result.square[rows].sum(dtype="f8"))
        return float(result.error[rows].sum(dtype="f8")) / max(square, 1e-30)

    summary = {
        "loss": float(result.loss[held].mean(dtype="f8")),
        "train_loss": float(result.loss[items.train].mean(dtype="f8")),
        "reconstruction": float(result.reconstruction.mean(dtype="f8")),
        "energy_left": energy_left(slice(None)),
        "held_out_energy_left": energy_left(held),
    }
    return summary | table.statistics(result.codes, sizes).as_dict()
