# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Optimizers by name, with schedule, clipping and accumulation, from optax."""

import dataclasses
import math
from typing import Literal

import jax
import numpy as np
import optax

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.typing import PyTree


@dataclasses.dataclass(frozen=True)
class Optim:
    """Optimizer options of every command that trains.

    Attributes:
      name: `adamw` applies the weight decay apart from the gradient; `adam`, `adagrad`
        and `sgd` add it to the gradient, as in PyTorch.
      lr: Peak learning rate.
      schedule: `constant`, or `cosine` from `lr` to `min_lr` at the last update.
      min_lr: Learning rate at the end of the cosine.
      weight_decay: Coefficient of the weight decay.
      clip_norm: Maximum global norm of a gradient; None does not clip.
    """

    name: Literal["adamw", "adam", "adagrad", "sgd"] = "adamw"
    lr: float = cfg.option(1e-3, cfg.above(0))
    schedule: Literal["constant", "cosine", "staircase"] = cfg.option(
        "constant", cfg.one_of("constant", "cosine")
    )
    min_lr: float = cfg.option(0.0, cfg.at_least(0))
    weight_decay: float = cfg.option(0.0, cfg.at_least(0))
    clip_norm: float | None = cfg.option(None, cfg.above(0))


@dataclasses.dataclass(frozen=True)
class MomentumOptim(Optim):
    """Optimizer options of the commands that offer SGD with momentum.

    Attributes:
      warmup_steps: Updates of linear growth of the learning rate from 0 to `lr`.
      momentum: Momentum of `sgd`.
    """

    warmup_steps: int = cfg.option(0, cfg.whole(0))
    momentum: float = cfg.option(0.0, cfg.within(0, 1))


@dataclasses.dataclass(frozen=True)
class Optimizer(MomentumOptim):
    """All options of an optimizer, from which `build` makes it.

    Attributes:
      schedule: `constant`, `cosine`, or `staircase`: times `stair_factor` after every
        `stair` updates.
      stair: Number of updates of one stair.
      stair_factor: Factor from one stair to the next.
      warmup_share: Warm-up as a share of all updates, rounded up; the longer of the two
        warm-ups counts.
      decay: Parameters that decay: `all`, or `matrices`: those with two axes or more,
        without biases and the gains of norms.
      accumulate: Number of steps whose mean gradient makes one update.
    """

    schedule: Literal["constant", "cosine", "staircase"] = "constant"
    stair: int = cfg.option(1, cfg.whole(1))
    stair_factor: float = cfg.option(1.0, cfg.above(0))
    warmup_share: float = cfg.option(0.0, cfg.within(0, 1))
    decay: Literal["all", "matrices"] = "all"
    accumulate: int = cfg.option(1, cfg.whole(1))


def check(options: Optim) -> None:
    """Refuses options that cannot be combined.

    Raises:
      UserError: Names the keys of the config section `optim`.
    """
    if options.min_lr > options.lr:
        raise UserError(
            f"config.optim.min_lr={options.min_lr} is above config.optim.lr="
            f"{options.lr}; lower it"
        )
    if getattr(options, "momentum", 0) > 0 and options.name != "sgd":
        raise UserError(
            "config.optim.momentum cannot be combined with config.optim.name="
            f"{options.name}; set it to 0"
        )


def learning_rate(settings: Optimizer, total_updates: int) -> optax.Schedule:
    """Returns the learning rate as a function of the updates done."""
    share = math.ceil(settings.warmup_share * total_updates)
    warmup_steps = max(settings.warmup_steps, share)
    steps = max(total_updates - warmup_steps, 1)
    if settings.schedule == "cosine":
        alpha = settings.min_lr / settings.lr
        after = optax.cosine_decay_schedule(settings.lr, steps, alpha=alpha)
    elif settings.schedule == "staircase":
        after = _staircase(settings)
    else:
        after = optax.constant_schedule(settings.lr)
    if warmup_steps == 0:
        return after
    warmup = optax.linear_schedule(0.0, settings.lr, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


def _staircase(settings: Optimizer) -> optax.Schedule:
    """Falls by a constant factor each stair, without the drift of repeated products."""
    return lambda count: (
        settings.lr * settings.stair_factor ** (count // settings.stair)
    )


def _is_matrix(params: PyTree) -> PyTree:
    return jax.tree.map(lambda a: np.ndim(a) > 1, params)


def build(options: Optim, total_steps: int) -> optax.GradientTransformation:
    """Builds the optimizer of a run.

    Args:
      options: Options of a command; those that it does not offer have their defaults.
      total_steps: Number of steps of the run.
    """
    settings = options
    if not isinstance(settings, Optimizer):
        settings = Optimizer(**dataclasses.asdict(options))
    lr = learning_rate(settings, max(total_steps // settings.accumulate, 1))
    decay = settings.weight_decay
    mask = _is_matrix if settings.decay == "matrices" else None
    # Constants where optax and PyTorch differ are PyTorch's, for comparable runs.
    rule = {
        "adamw": lambda: optax.adamw(lr, weight_decay=decay, mask=mask),
        "adam": lambda: optax.adam(lr),
        "adagrad": lambda: optax.adagrad(lr, initial_accumulator_value=0.0, eps=1e-10),
        "sgd": lambda: optax.sgd(lr, momentum=settings.momentum or None),
    }[settings.name]()
    parts = []
    if settings.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(settings.clip_norm))
    if decay > 0 and settings.name != "adamw":
        parts.append(optax.add_decayed_weights(decay, mask))
    whole = optax.chain(*parts, rule)
    if settings.accumulate == 1:
        return whole
    steps = optax.MultiSteps(whole, every_k_schedule=settings.accumulate)
    return steps.gradient_transformation()
