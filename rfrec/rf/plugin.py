# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A generator of embeddings for any recommender, public as rfrec.RFEmbeddingGenerator.

Arrays are JAX or NumPy; results are of the same kind as the arguments. The class wraps
the pure functions of `generator`, which a host with a compiled step calls directly.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfrec.config import UserError
from rfrec.rf import average, generator, store
from rfrec.rf import settings as switches
from rfrec.rf.settings import Settings

# Shapes are checked below, for errors in plain words.
Rows = Float[Array | np.ndarray, "_ _"]

_compiled_generate = jax.jit(generator.generate, static_argnames=("settings", "steps"))


class RFEmbeddingGenerator:
    """Learns to generate a host's embeddings from conditions, with its own optimizer.

    Attributes:
      embedding_dim: Width of the embeddings.
      settings: All settings, see `rf.settings.Settings`.
      epoch: Current epoch, from `set_epoch`.
      evaluations: Velocity evaluations in the last generation; 0 before it.
    """

    def __init__(
        self,
        embedding_dim: int,
        hidden_dim: int = Settings.hidden_dim,
        n_layers: int = Settings.n_layers,
        dropout: float = Settings.dropout,
        learning_rate: float = Settings.lr,
        sampling_steps: int = Settings.sampling_steps,
        user_guidance_scale: float = Settings.user_guidance_scale,
        guidance_decay_power: float = Settings.guidance_decay_power,
        cosine_guidance_scale: float = Settings.cosine_guidance_scale,
        cosine_decay_power: float = Settings.cosine_decay_power,
        warmup_epochs: int = Settings.warmup_epochs,
        train_mix_ratio: float = Settings.mix_ratio,
        inference_mix_ratio: float = Settings.inference_mix_ratio,
        contrast_temp: float = Settings.contrast_temp,
        contrast_weight: float = Settings.contrast_weight,
        *,
        condition_dims: Sequence[int] | None = None,
        seed: int = 0,
        **others: Any,
    ):
        """Creates a generator; its network is created at the first conditions.

        The named settings and `others` are those of `rf.settings.Settings`, where they
        are explained. `learning_rate` is its `lr`, `train_mix_ratio` its `mix_ratio`.
        `condition_dims` are the widths of the conditions, which creates the network at
        once. `seed` determines the network and all noise.

        Raises:
          UserError: There is no such setting, its value is not allowed, or only a host
            with a graph reads it (`rf.settings.HOST_SWITCHES`).
        """
        settings = others | {
            "hidden_dim": hidden_dim,
            "n_layers": n_layers,
            "dropout": dropout,
            "learning_rate": learning_rate,
            "sampling_steps": sampling_steps,
            "user_guidance_scale": user_guidance_scale,
            "guidance_decay_power": guidance_decay_power,
            "cosine_guidance_scale": cosine_guidance_scale,
            "cosine_decay_power": cosine_decay_power,
            "warmup_epochs": warmup_epochs,
            "train_mix_ratio": train_mix_ratio,
            "inference_mix_ratio": inference_mix_ratio,
            "contrast_temp": contrast_temp,
            "contrast_weight": contrast_weight,
        }
        _refuse_host_switches(others)
        resolved = switches.resolve("plugin", settings)
        self._start(embedding_dim, resolved, seed, condition_dims)

    @classmethod
    def from_preset(
        cls,
        embedding_dim: int,
        preset: str,
        *,
        condition_dims: Sequence[int] | None = None,
        seed: int = 0,
        **overrides: Any,
    ) -> "RFEmbeddingGenerator":
        """Creates a generator with the settings of a preset.

        Settings that only a host with a graph reads have no effect here: `joint` is one
        generator with its own optimizer that passes no gradient to the host, and
        `improved` learns from all rows and mixes by `inference_mix_ratio`.

        Args:
          embedding_dim: Width of the embeddings.
          preset: `joint`, `plugin` or `improved`.
          condition_dims: As for the constructor.
          seed: As for the constructor.
          **overrides: Settings that differ from the preset.
        """
        _refuse_host_switches(overrides)
        plugin = cls.__new__(cls)
        settings = switches.resolve(preset, overrides)
        plugin._start(embedding_dim, settings, seed, condition_dims)
        return plugin

    def _start(self, embedding_dim, settings: Settings, seed, condition_dims) -> None:
        if embedding_dim < 1:
            raise UserError(f"embedding_dim={embedding_dim}: must be at least 1")
        self.embedding_dim = embedding_dim
        self.settings = settings
        self.epoch = 0
        self._evaluations: Any = 0
        self._seed = seed
        self._dims: tuple[int, ...] | None = None
        self._state: generator.State | None = None
        if condition_dims is not None:
            self._build(tuple(condition_dims))

    def _build(self, dims: tuple[int, ...]) -> generator.State:
        self._dims, self._state = dims, self._fresh(dims)
        return self._state

    def _fresh(self, dims: tuple[int, ...]) -> generator.State:
        return generator.init(self.settings, self.embedding_dim, dims, self._seed)

    @property
    def evaluations(self) -> int:
        """Velocity evaluations in the last generation; 0 before it."""
        return int(self._evaluations)

    @property
    def state(self) -> generator.State:
        """Arrays of the generator; set it after `reflow.train`, for example.

        Raises:
          UserError: The network does not exist yet.
        """
        if self._state is None:
            raise UserError("the generator has no network yet: pass condition_dims")
        return self._state

    @state.setter
    def state(self, state: generator.State) -> None:
        self._state = state

    def set_epoch(self, epoch: int) -> None:
        """Sets the current epoch, which determines whether the warm-up is over."""
        self.epoch = int(epoch)

    def compute_loss_and_step(
        self,
        target_embeds: Rows,
        conditions: Sequence[Rows],
        user_prior: Rows | None = None,
        epoch: int | None = None,
    ) -> dict[str, float]:
        """Runs one training step.

        Args:
          target_embeds: Embeddings to be generated; no gradient reaches the host.
          conditions: Conditions of the same rows.
          user_prior: Direction that guides each row; None for none.
          epoch: As for `set_epoch`; None leaves it.

        Returns:
          `rf_loss` of the flow, `cl_loss` of the contrast, and their weighted sum
          `total_loss`, before the step.

        Raises:
          UserError: Shapes do not match, or values are not finite; names the argument.
        """
        if epoch is not None:
            self.set_epoch(epoch)
        state = self._checked(conditions)
        rows, width = len(conditions[0]), self.embedding_dim
        _check("target_embeds", target_embeds, rows, width)
        if user_prior is not None:
            _check("user_prior", user_prior, rows, width)
            user_prior = jnp.asarray(user_prior)
        self._state, parts = generator.update(
            self.settings,
            state,
            jnp.asarray(target_embeds),
            generator.join([jnp.asarray(c) for c in conditions]),
            prior=user_prior,
        )
        return {name: float(value) for name, value in jax.device_get(parts).items()}

    def generate(
        self,
        conditions: Sequence[Rows],
        n_steps: int | None = None,
        user_prior: Rows | None = None,
    ) -> Rows:
        """Generates a row for each row of conditions.

        The noise depends on the position of the row and on the number of training
        steps: between two steps the same conditions give the same rows.

        Args:
          conditions: As in training.
          n_steps: Number of ODE steps; None for `sampling_steps`.
          user_prior: As in training, where `guided_sampling` is set; None for none.

        Raises:
          UserError: Shapes do not match, values are not finite, or `guided_sampling` is
            False and a prior was passed.
        """
        if n_steps is not None and n_steps < 1:
            raise UserError(f"n_steps={n_steps}: must be at least 1")
        state = self._checked(conditions)
        if user_prior is not None:
            if not self.settings.guided_sampling:
                raise UserError(
                    "user_prior is read in training only: set guided_sampling=True to"
                    " generate with it, or leave it out"
                )
            rows = len(conditions[0])
            _check("user_prior", user_prior, rows, self.embedding_dim)
            user_prior = jnp.asarray(user_prior)
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        solution = _compiled_generate(
            self.settings,
            average.choose(self.settings.ema_decay, state.ema, state.params),
            state.moments,
            generator.join([jnp.asarray(c) for c in conditions]),
            jax.random.fold_in(key, 1),
            steps=n_steps,
            prior=user_prior,
        )
        self._evaluations = solution.evaluations
        return _as_type_of(conditions[0], solution.x)

    def mix_embeddings(
        self,
        original_embeds: Rows,
        generated_embeds: Rows,
        training: bool,
        epoch: int | None = None,
    ) -> Rows:
        """Mixes embeddings of the host with generated ones.

        Args:
          original_embeds: Embeddings of the host; returned unchanged in the warm-up.
          generated_embeds: The same rows.
          training: Whether `mix_ratio` applies; otherwise `inference_mix_ratio`.
          epoch: Current epoch; None for that of `set_epoch`.

        Raises:
          UserError: The two do not have the same shape.
        """
        if original_embeds.shape != generated_embeds.shape:
            raise UserError(
                f"original_embeds {original_embeds.shape} and generated_embeds"
                f" {generated_embeds.shape} differ in shape: pass the same rows"
            )
        mixed = generator.mix(
            self.settings,
            jnp.asarray(original_embeds),
            jnp.asarray(generated_embeds),
            training=training,
            epoch=self.epoch if epoch is None else epoch,
        )
        return _as_type_of(original_embeds, mixed)

    def save(self, path: str | Path) -> None:
        """Stores the generator in a folder, replacing one stored before."""
        assert self._dims is not None or self._state is None
        notes = {
            "settings": dataclasses.asdict(self.settings),
            "embedding_dim": self.embedding_dim,
            "condition_dims": list(self._dims or ()),
            "epoch": self.epoch,
        }
        store.save(Path(path), self.state, notes)

    def load(self, path: str | Path) -> None:
        """Restores a stored generator.

        Raises:
          UserError: The folder contains none, or one with other settings; names them.
        """
        notes = store.read_notes(Path(path))
        store.check_notes(Path(path), notes, self.embedding_dim, self.settings)
        dims = tuple(notes["condition_dims"])
        if self._dims is not None and self._dims != dims:
            raise UserError(
                f"{path} contains a generator with condition_dims={dims}, this one has"
                f" {self._dims}: pass condition_dims={dims}"
            )
        # This generator changes only after the other has been read completely.
        self._state = store.restore(Path(path), self._fresh(dims))
        self._dims = dims
        self.epoch = notes["epoch"]

    def _checked(self, conditions: Sequence[Rows]) -> generator.State:
        """Returns the state after checking the conditions."""
        if not conditions:
            raise UserError("conditions are empty: pass at least one array")
        dims = self._dims or tuple(c.shape[1] if c.ndim == 2 else 0 for c in conditions)
        if len(conditions) != len(dims):
            raise UserError(
                f"{len(conditions)} conditions were passed, {len(dims)} are required"
            )
        for i, (condition, width) in enumerate(zip(conditions, dims, strict=True)):
            _check(f"conditions[{i}]", condition, len(conditions[0]), width)
        return self._build(dims) if self._state is None else self._state


def _refuse_host_switches(values: Mapping[str, Any]) -> None:
    for name in sorted(switches.HOST_SWITCHES.intersection(values)):
        if values[name] is not None:
            raise UserError(
                f"{name}={values[name]!r}: only a host with a graph reads this setting;"
                " leave it out"
            )


def _check(name: str, x: Rows, rows: int, width: int) -> None:
    """Refuses rows of another shape, and values that are not finite."""
    if x.shape != (rows, width) or width == 0:
        raise UserError(
            f"{name} has shape {tuple(x.shape)}, but ({rows}, {width or 'width'}) is"
            " required: pass the same rows in all arrays"
        )
    if rows == 0:
        raise UserError(f"{name} has no rows: pass at least one")
    sound = jnp.isfinite(x).all(axis=1) if isinstance(x, Array) else None
    sound = np.isfinite(x).all(axis=1) if sound is None else np.asarray(sound)
    if not sound.all():
        raise UserError(
            f"{name} contains NaN or infinity in row {int(np.argmin(sound))}: fix its"
            " source before the generator learns from it"
        )


def _as_type_of(argument: Rows, result: Array) -> Rows:
    return np.asarray(result) if isinstance(argument, np.ndarray) else result
