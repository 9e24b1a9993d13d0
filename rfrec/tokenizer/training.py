# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains an RQ-VAE: the step, its k-means event, evaluation, all on the devices.

Item vectors [N D] (in memory or memory-mapped) flow in; the loop's `Program` comes out.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from rfrec.codes import table
from rfrec.tokenizer import kmeans, loss, rqvae
from rfrec.train import loop, partition
from rfrec.train.state import TrainState, create, step_key
from rfrec.typing import PyTree

# Rows of one block of an evaluation.
_EVAL_ROWS = 2048


@dataclasses.dataclass(frozen=True)
class Codebooks:
    """How codebooks start and are updated.

    Attributes:
      init: `uniform` in (-1/K, 1/K), or `kmeans` on the residuals of each level.
      init_epoch: Epochs done before k-means: 0 at the first step (MQL4GRec, TIGER),
        1 after one epoch, when latents mean something.
      bypass: Until k-means the decoder gets the latents themselves and the codebook
        no loss, so that the vectors clustered are those of a trained autoencoder; else
        the random codebook is trained with.
      init_on: `batch`: the first batch of that epoch; `all`: every training item.
      kmeans_iterations: Most Lloyd iterations.
      ema_decay: Of the moving averages, for `learned_by=ema`.
      revive_below: Average uses in a batch below which an EMA code is revived.
      temperature: Gumbel softmax temperature at the first and from the last annealed
        epoch on, exponentially in between.
      temperature_epochs: Epochs over which the temperature is annealed.
    """

    init: Literal["uniform", "kmeans"] = "kmeans"
    init_epoch: int = 0
    bypass: bool = False
    init_on: Literal["batch", "all"] = "batch"
    kmeans_iterations: int = 100
    ema_decay: float = 0.99
    revive_below: float = 0.0
    temperature: tuple[float, float] = (1.0, 1.0)
    temperature_epochs: float = 1.0


@dataclasses.dataclass(frozen=True)
class Items:
    """Item vectors and which of them are trained on.

    Attributes:
      values: Vectors, float16 or float32, perhaps memory-mapped.
      train: Rows to train on.
      validation: Rows held out, perhaps none.
      multi_hot: True for the columns of multi-hot features; None if there are none.
      resident: Whether all vectors live on every device; else batches are read from
        `values` as they are needed.
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


def epoch_rows(
    rows: Int[np.ndarray, " T"], batch_size: int, *, seed: int, epoch: int
) -> Int[np.ndarray, "S B"]:
    """Returns the rows of each batch of an epoch, shuffled by seed and epoch.

    Every batch is full: the last one is filled up from the beginning of the order, so
    that no reduction needs weights and every engine sees equal parts.
    """
    order = np.random.default_rng([seed, 2, epoch]).permutation(rows)
    steps = -(-len(rows) // batch_size)
    return np.resize(order, (steps, batch_size)).astype(np.int32)


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
    """Builds and runs the training of one RQ-VAE; holds settings, no state.

    Attributes:
      arch: Of the model.
      objective: Of the loss.
      codebooks: Their start and update.
      optimizer: From `train.optim`.
      schedule: Of the loop.
      batch_size: Of all devices together.
      seed: Of initialisation, order and noise.
      engine: Places and compiles.
      items: To train on.
    """

    arch: rqvae.Architecture
    objective: loss.Objective
    codebooks: Codebooks
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
        variables = jax.jit(model.init)(key, x)
        params = variables.pop("params")
        if self.arch.normalize_input:
            variables["inputs"] = _statistics(self.items.values[self.items.train])
        state = create(
            params=params,
            model_state=variables,
            optimizer=self.optimizer,
            seed=self.seed,
        )
        return jax.tree.map(np.asarray, state)

    def step(self, state: TrainState, x: Float[Array, "B D"]):
        """Does one step on the rows of this device.

        Returns:
          The new state and the losses of the whole batch.
        """
        axis = self.engine.axis_name
        noise_key, revive_key = jax.random.split(step_key(state))
        epoch = state.step / self.schedule.steps_per_epoch
        noisy = self.arch.dropout > 0 or self.arch.quantization.estimator == "gumbel"
        keys = partition.row_keys(noise_key, x.shape[0], axis) if noisy else None
        bypass = None
        if self.codebooks.bypass:
            bypass = epoch < self.codebooks.init_epoch

        def objective(params):
            output, updated = self.model.apply(
                {"params": params, **state.model_state},
                x,
                training=True,
                keys=keys,
                temperature=temperature_at(epoch, self.codebooks),
                bypass=bypass,
                mutable=["batch_stats"],
            )
            rows = loss.row_losses(
                output,
                x,
                self.objective,
                beta=loss.beta_at(epoch, self.objective),
                multi_hot=self.items.multi_hot,
                bypass=bypass,
            )
            losses = jax.tree.map(jnp.mean, rows)
            return losses.total, (losses, updated, output.quantized)

        grads, (losses, updated, quantized) = jax.grad(objective, has_aux=True)(
            state.params
        )
        grads, losses = partition.mean((grads, losses), axis)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        model_state = {**state.model_state, **updated}
        if self.arch.learned_by == "ema":
            model_state["codebook"] = self._move_codebook(
                model_state["codebook"], quantized, revive_key
            )
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=model_state,
            opt_state=opt_state,
        )
        return state, losses

    def _move_codebook(self, codebook: PyTree, quantized, key) -> PyTree:
        averages, vectors = rqvae.update_averages(
            rqvae.Averages(codebook["counts"], codebook["sums"]),
            quantized.residuals,
            quantized.codes,
            decay=self.codebooks.ema_decay,
            revive_below=self.codebooks.revive_below,
            mask=self.arch.quantization.mask,
            key=key,
            axis_name=self.engine.axis_name,
        )
        return {"vectors": vectors, **averages._asdict()}

    def compile_steps(self):
        """Compiles `(state, vectors, batches, count) -> (state, losses)`.

        One call does `count` steps, known only when it runs, so that calls of every
        length share one program.
        """
        resident = self.items.resident

        def steps(state, vectors, batches, count):
            def one(i, carry):
                state, logs = carry
                batch = lax.dynamic_index_in_dim(batches, i, keepdims=False)
                x = vectors[batch] if resident else batch
                state, losses = self.step(state, x.astype(jnp.float32))
                return state, jax.tree.map(lambda a, b: a.at[i].set(b), logs, losses)

            logs = loss.Losses(*(jnp.zeros(batches.shape[0]) for _ in range(3)))
            return lax.fori_loop(0, count, one, (state, logs))

        return self.engine.compile(steps, donate=True)

    def compile_evaluation(self):
        """Compiles `(state, vectors, batches, _) -> ((), Evaluation)` without noise."""
        axis, resident = self.engine.axis_name, self.items.resident
        model = rqvae.RQVAE(self.arch)

        def evaluate(state, vectors, batches, count):
            del count
            variables = {"params": state.params, **state.model_state}

            def one(batch):
                x = (vectors[batch] if resident else batch).astype(jnp.float32)
                output = model.apply(variables, x)
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
                result = Evaluation(
                    codes=output.quantized.codes,
                    latents=output.latents,
                    loss=rows.total,
                    reconstruction=rows.reconstruction,
                    error=jnp.sum((decoded - x) ** 2, axis=1),
                    square=jnp.sum(x**2, axis=1),
                )
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
            lambda part: _read_rows(self.items.values, rows[:, part]), shape
        )


def temperature_at(epoch: Float[Array, ""], settings: Codebooks) -> Float[Array, ""]:
    """Returns the Gumbel temperature at a (fractional) epoch."""
    first, last = settings.temperature
    share = jnp.minimum(epoch / settings.temperature_epochs, 1.0)
    return first * (last / first) ** share


def _statistics(x: Float[np.ndarray, "T D"]) -> dict[str, Float[np.ndarray, " D"]]:
    """Returns mean and deviation of the columns; constant columns keep their scale."""
    mean, deviation = x.mean(axis=0, dtype="f8"), x.std(axis=0, dtype="f8")
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    return {"mean": mean.astype("f4"), "deviation": deviation.astype("f4")}


def _read_rows(
    values: Float[np.ndarray, "N D"], rows: Int[np.ndarray, "S B"]
) -> Float[np.ndarray, "S B D"]:
    """Reads rows of a memory map in ascending order, which disks prefer."""
    flat, inverse = np.unique(rows, return_inverse=True)
    return np.asarray(values[flat])[inverse].reshape(*rows.shape, values.shape[1])


def set_codebook(
    state: TrainState, vectors: Float[np.ndarray, "Q K W"], arch: rqvae.Architecture
) -> TrainState:
    """Replaces the codebook of a host state."""
    if arch.learned_by == "gradient" and not arch.projection:
        params = {**state.params, "codebook": vectors}
        return state.replace(params=params)
    codebook = {**state.model_state["codebook"], "vectors": vectors}
    if arch.learned_by == "ema":
        codebook |= {"counts": np.ones(vectors.shape[:2], "f4"), "sums": vectors}
    return state.replace(model_state={**state.model_state, "codebook": codebook})


class Run:
    """A trainer with its compiled functions and placed items."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self._vectors = trainer.place_vectors()
        self._steps = trainer.compile_steps()
        self._evaluate = trainer.compile_evaluation()
        self._epoch = (-1, np.zeros((0, 0), np.int32))

    def _batches(self, epoch: int) -> Int[np.ndarray, "S B"]:
        if self._epoch[0] != epoch:
            t = self.trainer
            rows = epoch_rows(t.items.train, t.batch_size, seed=t.seed, epoch=epoch)
            self._epoch = (epoch, rows)
        return self._epoch[1]

    def program(self) -> loop.Program:
        """Returns what the loop runs."""
        return loop.Program(self._run, self._begin_epoch, self._metrics)

    def _run(self, state, first: int, count: int):
        schedule = self.trainer.schedule
        size, parts, step = schedule.steps_per_epoch, [], first
        while step < first + count:
            epoch, within = divmod(step, size)
            part = self._batches(epoch)[within : within + first + count - step]
            parts.append(part)
            step += len(part)
        rows = np.concatenate(parts)
        most = schedule.steps_per_call
        padded = np.concatenate([rows, np.zeros((most - count, rows.shape[1]), "i4")])
        state, losses = self._steps(
            state, self._vectors, self.trainer.place_batches(padded), np.int32(count)
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
          state: Placed by the engine.
          rows: Items wanted.
        """
        trainer = self.trainer
        devices = trainer.engine.num_devices
        size = min(_EVAL_ROWS, len(rows))
        size += -size % devices
        blocks = np.resize(rows, (-(-len(rows) // size), size)).astype(np.int32)
        # Streamed vectors come one block a call, so that a call's memory is bounded.
        calls = [blocks] if trainer.items.resident else np.split(blocks, len(blocks))
        results = []
        for call in calls:
            batches = trainer.place_batches(call)
            _, result = self._evaluate(state, self._vectors, batches, np.int32(0))
            results.append(trainer.engine.fetch(result))
        joined = jax.tree.map(lambda *a: np.concatenate(a), *results)
        return jax.tree.map(
            lambda a: a.reshape(-1, *a.shape[2:])[: len(rows)], joined
        )

    def _begin_epoch(self, state, epoch: int):
        """Initialises the codebooks by k-means."""
        trainer, settings = self.trainer, self.trainer.codebooks
        rows = trainer.items.train
        if settings.init_on == "batch":
            rows = self._batches(epoch)[0]
        latents = self.evaluate(state, rows).latents
        spec = trainer.arch.quantization
        codebooks = kmeans.fit_residual(
            jax.random.fold_in(jax.random.key(trainer.seed), 1),
            jnp.asarray(latents),
            spec.sizes,
            iterations=settings.kmeans_iterations,
        )
        vectors = np.asarray(rqvae.pad_codebooks(codebooks, max(spec.sizes)))
        host = set_codebook(trainer.engine.fetch(state), vectors, trainer.arch)
        return trainer.engine.replicate(host)

    def _metrics(self, state) -> dict[str, Any]:
        """Evaluates all items: losses, share of energy left, code statistics."""
        items = self.trainer.items
        result = self.evaluate(state, np.arange(len(items.values)))
        return metrics(result, items, self.trainer.arch.quantization.sizes)


def metrics(
    result: Evaluation, items: Items, sizes: tuple[int, ...]
) -> dict[str, Any]:
    """Summarises an evaluation of all items.

    `energy_left` is the summed squared error of the reconstruction over the summed
    squares of the items; `loss` is that of the held-out items, or of all if there are
    none.
    """
    held = items.validation if len(items.validation) else slice(None)
    summary = {
        "loss": float(result.loss[held].mean(dtype="f8")),
        "train_loss": float(result.loss[items.train].mean(dtype="f8")),
        "reconstruction": float(result.reconstruction.mean(dtype="f8")),
        "energy_left": float(result.error.sum(dtype="f8"))
        / max(float(result.square.sum(dtype="f8")), 1e-30),
    }
    return summary | table.statistics(result.codes, sizes).as_dict()
