# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Optimisers by name, with schedule and clipping, from optax."""

import dataclasses
from typing import Literal

import optax


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Settings of an optimiser.

    Attributes:
      name: `adamw` decays weights apart from the gradient; with `adam`, `adagrad`
        and `sgd` the decay is added to the gradient, as in PyTorch.
      lr: Peak learning rate.
      schedule: `constant`, or `cosine` from `lr` to `min_lr` at the last step.
      min_lr: End of the cosine.
      warmup_steps: Steps of linear growth from 0 to `lr`.
      weight_decay: Coefficient of the decay, on every parameter.
      clip_norm: Largest global norm of a gradient; None never clips.
      momentum: Of `sgd`.
    """

    name: Literal["adamw", "adam", "adagrad", "sgd"] = "adamw"
    lr: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    min_lr: float = 0.0
    warmup_steps: int = 0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    momentum: float = 0.0


def learning_rate(settings: Optimizer, total_steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step."""
    steps = max(total_steps - settings.warmup_steps, 1)
    if settings.schedule == "cosine":
        alpha = settings.min_lr / settings.lr
        after = optax.cosine_decay_schedule(settings.lr, steps, alpha=alpha)
    else:
        after = optax.constant_schedule(settings.lr)
    if settings.warmup_steps == 0:
        return after
    warmup = optax.linear_schedule(0.0, settings.lr, settings.warmup_steps)
    return optax.join_schedules([warmup, after], [settings.warmup_steps])


def build(settings: Optimizer, total_steps: int) -> optax.GradientTransformation:
    """Builds the optimiser of a run of `total_steps` steps."""
    lr = learning_rate(settings, total_steps)
    # Constants where optax and PyTorch differ are PyTorch's, for comparable runs.
    rule = {
        "adamw": lambda: optax.adamw(lr, weight_decay=settings.weight_decay),
        "adam": lambda: optax.adam(lr),
        "adagrad": lambda: optax.adagrad(lr, initial_accumulator_value=0.0, eps=1e-10),
        "sgd": lambda: optax.sgd(lr, momentum=settings.momentum or None),
    }[settings.name]()
    parts = []
    if settings.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(settings.clip_norm))
    if settings.weight_decay > 0 and settings.name != "adamw":
        parts.append(optax.add_decayed_weights(settings.weight_decay))
    return optax.chain(*parts, rule)
