# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Optimisers by name, with schedule, clipping and accumulation, from optax."""

import dataclasses
import math
from typing import Literal

import jax
import numpy as np
import optax

from rfrec.typing import PyTree


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Settings of an optimiser.

    Attributes:
      name: `adamw` decays weights apart from the gradient; with `adam`, `adagrad`
        and `sgd` the decay is added to the gradient, as in PyTorch.
      lr: Peak learning rate.
      schedule: `constant`; `cosine` from `lr` to `min_lr` at the last step; or
        `staircase`, times `stair_factor` after every `stair` updates.
      min_lr: End of the cosine.
      stair: Updates of one stair.
      stair_factor: From one stair to the next.
      warmup_steps: Updates of linear growth from 0 to `lr`.
      warmup_share: The same as a share of all updates, rounded up; the larger counts.
      weight_decay: Coefficient of the decay.
      decay: `all` parameters, or `matrices`: those of two axes or more, which leaves
        out biases and the gains of norms.
      clip_norm: Largest global norm of a gradient; None never clips.
      momentum: Of `sgd`.
      accumulate: Steps whose mean gradient makes one update.
    """

    name: Literal["adamw", "adam", "adagrad", "sgd"] = "adamw"
    lr: float = 1e-3
    schedule: Literal["constant", "cosine", "staircase"] = "constant"
    min_lr: float = 0.0
    stair: int = 1
    stair_factor: float = 1.0
    warmup_steps: int = 0
    warmup_share: float = 0.0
    weight_decay: float = 0.0
    decay: Literal["all", "matrices"] = "all"
    clip_norm: float | None = None
    momentum: float = 0.0
    accumulate: int = 1


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
    """Falls by a constant factor a stair, without the drift of repeated products."""
    return lambda count: (
        settings.lr * settings.stair_factor ** (count // settings.stair)
    )


def _is_matrix(params: PyTree) -> PyTree:
    return jax.tree.map(lambda a: np.ndim(a) > 1, params)


def build(settings: Optimizer, total_steps: int) -> optax.GradientTransformation:
    """Builds the optimiser of a run of `total_steps` steps."""
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
