# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A generator of embeddings that any recommender can hold, whatever trains it.

Target embeddings and conditions flow in as JAX or NumPy arrays; generated and mixed
embeddings come out in the same kind. A thin shell with a state round the pure functions
of `generator`, which a host that compiles its whole step calls itself.
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

# Shapes are checked below, in words.
Rows = Float[Array | np.ndarray, "_ _"]

_compiled_generate = jax.jit(generator.generate, static_argnames=("settings", "steps"))


class RFEmbeddingGenerator:
    """Learns to generate a host's embeddings from conditions, with its own optimiser.

    Attributes:
      embedding_dim: Width of the embeddings.
      settings: All switches.
      epoch: The current one, as `set_epoch` told.
      evaluations: Calls of the velocity in the last generation; 0 before it.
    """

    def __init__(
        self,
        embedding_dim: int,
        hidden_dim: int = 256,
        n_layers: int = 2,
        dropout: float = 0.1,
        learning_rate: float = 0.001,
        sampling_steps: int = 10,
        user_guidance_scale: float = 0.2,
        guidance_decay_power: float = 2.0,
        cosine_guidance_scale: float = 0.1,
        cosine_decay_power: float = 2.0,
        warmup_epochs: int = 0,
        train_mix_ratio: float = 0.5,
        inference_mix_ratio: float = 0.5,
        contrast_temp: float = 0.2,
        contrast_weight: float = 1.0,
        *,
        condition_dims: Sequence[int] | None = None,
        seed: int = 0,
        **others: Any,
    ):
        """Makes a generator; its network is made once the conditions are known.

        Args:
          embedding_dim: Width of the embeddings.
          hidden_dim: Of `rf.settings.Settings`, as those below up to `contrast_weight`.
          n_layers: See there.
          dropout: See there.
          learning_rate: Its `lr`.
          sampling_steps: See there.
          user_guidance_scale: See there.
          guidance_decay_power: See there.
          cosine_guidance_scale: See there.
          cosine_decay_power: See there.
          warmup_epochs: See there.
          train_mix_ratio: Its `mix_ratio`.
          inference_mix_ratio: See there.
          contrast_temp: See there.
          contrast_weight: See there.
          condition_dims: Widths of the conditions; None waits for the first ones.
          seed: Of the network and of all noise.
          **others: Other switches of `Settings`.

        Raises:
          UserError: There is no such switch, its value cannot be, or only a host with a
            graph reads it (`rf.settings.HOST_SWITCHES`).
        """
        documented = {
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
        chosen = switches.resolve("plugin", documented | others)
        self._start(embedding_dim, chosen, seed, condition_dims)

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
        """Makes a generator with the switches of a preset.

        What of them only a host with a graph reads is without effect here: `joint` has
        one generator with its own optimiser, whose host feels no gradient of it, and
        `improved` learns from all rows it is given and mixes by `inference_mix_ratio`.

        Args:
          embedding_dim: Width of the embeddings.
          preset: `joint`, `plugin` or `improved`.
          condition_dims: As for the constructor.
          seed: As for the constructor.
          **overrides: Switches that differ.
        """
        _refuse_host_switches(overrides)
        made = cls.__new__(cls)
        chosen = switches.resolve(preset, overrides)
        made._start(embedding_dim, chosen, seed, condition_dims)
        return made

    def _start(self, embedding_dim, chosen: Settings, seed, condition_dims) -> None:
        if embedding_dim < 1:
            raise UserError(f"embedding_dim={embedding_dim}: must be at least 1")
        self.embedding_dim = embedding_dim
        self.settings = chosen
        self.epoch = 0
        self._asked: Any = 0
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
        """Calls of the velocity in the last generation; 0 before it."""
        return int(self._asked)

    @property
    def state(self) -> generator.State:
        """Arrays of the generator; set it after `reflow.train`, for example.

        Raises:
          UserError: There are none before the first conditions.
        """
        if self._state is None:
            raise UserError(
                "the generator has not seen conditions yet: give it condition_dims"
            )
        return self._state

    @state.setter
    def state(self, state: generator.State) -> None:
        self._state = state

    def set_epoch(self, epoch: int) -> None:
        """Tells the current epoch, which decides whether warm-up is over."""
        self.epoch = int(epoch)

    def compute_loss_and_step(
        self,
        target_embeds: Rows,
        conditions: Sequence[Rows],
        user_prior: Rows | None = None,
        epoch: int | None = None,
    ) -> dict[str, float]:
        """Does one step of training.

        Args:
          target_embeds: Embeddings to be generated; no gradient reaches the host.
          conditions: Rows that belong to them.
          user_prior: Direction that guides each row; None for none.
          epoch: As for `set_epoch`; None leaves it.

        Returns:
          `rf_loss` of the flow, `cl_loss` of the contrast, and their weighted sum
          `total_loss`, before the step.

        Raises:
          UserError: Rows do not belong together or hold NaN; names the argument.
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

        The noise depends on the row's place and on the steps of training done: between
        two steps the same conditions give the same rows.

        Args:
          conditions: As in training.
          n_steps: Of the ODE; None for `sampling_steps`.
          user_prior: As in training, where `guided_sampling` is set; None for none.

        Raises:
          UserError: Conditions do not belong together or hold NaN; names the first. Or
            a prior is given that nothing reads.
        """
        if n_steps is not None and n_steps < 1:
            raise UserError(f"n_steps={n_steps}: must be at least 1")
        state = self._checked(conditions)
        if user_prior is not None:
            if not self.settings.guided_sampling:
                raise UserError(
                    "user_prior guides training alone: set guided_sampling=True to"
                    " generate with it, or leave it out"
                )
            rows = len(conditions[0])
            _check("user_prior", user_prior, rows, self.embedding_dim)
            user_prior = jnp.asarray(user_prior)
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        made = _compiled_generate(
            self.settings,
            average.choose(self.settings.ema_decay, state.ema, state.params),
            state.moments,
            generator.join([jnp.asarray(c) for c in conditions]),
            jax.random.fold_in(key, 1),
            steps=n_steps,
            prior=user_prior,
        )
        self._asked = made.evaluations
        return _as_given(made.x, conditions[0])

    def mix_embeddings(
        self,
        original_embeds: Rows,
        generated_embeds: Rows,
        training: bool,
        epoch: int | None = None,
    ) -> Rows:
        """Mixes embeddings of the host with generated ones.

        Args:
          original_embeds: Of the host; returned as they are during warm-up.
          generated_embeds: The same rows.
          training: Whether `mix_ratio` counts; otherwise `inference_mix_ratio`.
          epoch: The current one; None for that of `set_epoch`.

        Raises:
          UserError: The two do not have the same shape.
        """
        if original_embeds.shape != generated_embeds.shape:
            raise UserError(
                f"original_embeds {original_embeds.shape} and generated_embeds"
                f" {generated_embeds.shape} differ in shape: give the same rows"
            )
        mixed = generator.mix(
            self.settings,
            jnp.asarray(original_embeds),
            jnp.asarray(generated_embeds),
            training=training,
            epoch=self.epoch if epoch is None else epoch,
        )
        return _as_given(mixed, original_embeds)

    def save(self, path: str | Path) -> None:
        """Stores the generator in a folder, in place of one stored there before."""
        assert self._dims is not None or self._state is None
        notes = {
            "settings": dataclasses.asdict(self.settings),
            "embedding_dim": self.embedding_dim,
            "condition_dims": list(self._dims or ()),
            "epoch": self.epoch,
        }
        store.save(Path(path), self.state, notes)

    def load(self, path: str | Path) -> None:
        """Goes on where a stored generator stood.

        Raises:
          UserError: The folder holds none, or one of other settings; names them.
        """
        notes = store.read_notes(Path(path))
        store.check_notes(Path(path), notes, self.embedding_dim, self.settings)
        dims = tuple(notes["condition_dims"])
        if self._dims is not None and self._dims != dims:
            raise UserError(
                f"{path} holds a generator of conditions {dims} wide, this one has"
                f" {self._dims}: give condition_dims={dims}"
            )
        # Nothing of this one changes before all of the other has been read.
        self._state = store.restore(Path(path), self._fresh(dims))
        self._dims = dims
        self.epoch = notes["epoch"]

    def _checked(self, conditions: Sequence[Rows]) -> generator.State:
        """Returns the state, once conditions are found to fit it."""
        if not conditions:
            raise UserError("conditions are empty: give at least one array")
        dims = self._dims or tuple(c.shape[1] if c.ndim == 2 else 0 for c in conditions)
        if len(conditions) != len(dims):
            raise UserError(
                f"{len(conditions)} conditions are given, the generator has {len(dims)}"
            )
        for i, (condition, width) in enumerate(zip(conditions, dims, strict=True)):
            _check(f"conditions[{i}]", condition, len(conditions[0]), width)
        return self._build(dims) if self._state is None else self._state


def _refuse_host_switches(given: Mapping[str, Any]) -> None:
    for name in sorted(switches.HOST_SWITCHES.intersection(given)):
        if given[name] is not None:
            raise UserError(
                f"{name}={given[name]!r}: only a host with a graph reads this switch;"
                " leave it out"
            )


def _check(name: str, x: Rows, rows: int, width: int) -> None:
    """Refuses rows of another shape, and numbers that are none."""
    if x.shape != (rows, width) or width == 0:
        raise UserError(
            f"{name} has shape {tuple(x.shape)}, where ({rows}, {width or 'width'}) is"
            " needed: give rows that belong together"
        )
    if rows == 0:
        raise UserError(f"{name} has no rows: give at least one")
    sound = jnp.isfinite(x).all(axis=1) if isinstance(x, Array) else None
    sound = np.isfinite(x).all(axis=1) if sound is None else np.asarray(sound)
    if not sound.all():
        raise UserError(
            f"{name} holds NaN or infinity in row {int(np.argmin(sound))}: mend what"
            " made it before the generator learns from it"
        )


def _as_given(made: Array, given: Rows) -> Rows:
    return np.asarray(made) if isinstance(given, np.ndarray) else made
