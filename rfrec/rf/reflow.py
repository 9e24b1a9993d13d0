# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reflow: a flow learns straight lines between the ends of a frozen teacher's paths.

Liu et al. 2022, section 2.2: pairs (z0, ODE(z0)) of a 1-rectified flow train a
2-rectified flow, whose paths are straighter and need fewer steps. Distillation learns
the first step of those paths alone, for generation in one step. Conditions and a
teacher flow in; stored pairs and the student's state come out.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from rfrec.rf import average, flow, generator, sample, units
from rfrec.rf.settings import Settings
from rfrec.typing import PyTree


class Pairs(NamedTuple):
    """Ends of a teacher's paths, in the units of its network, and their conditions.

    `side` is the kind of each row of a network with kinds, or None.
    """

    start: Float[Array, "P D"]
    end: Float[Array, "P D"]
    condition: Float[Array, "P C"]
    side: Int[Array, " P"] | None = None


def transport(
    settings: Settings,
    params: PyTree,
    moments: units.Moments,
    start: Float[Array, "B D"],
    condition: Float[Array, "B C"],
    *,
    side: Int[Array, " B"] | None = None,
    reverse: bool = False,
) -> Float[Array, "B D"]:
    """Follows the flow from given noise to its end, or from an end back to the noise.

    Args:
      settings: Settings of the generator; `teacher_steps` ODE steps are made.
      params: Parameters of its network.
      moments: Moments of its training.
      start: Noise, or ends to be followed back, in the units of the network.
      condition: Conditions side by side, in the host's.
      side: Kind of each row of a network with kinds.
      reverse: From end to noise.
    """
    arch = generator.network(settings, moments, side)
    seen = units.enter(settings, moments.condition, condition)
    weight = settings.guidance_weight
    return sample.solve(
        sample.build_field(arch, guidance=weight, interval=settings.guidance_interval),
        sample.prepare(arch, params, seen, side=side, guidance=weight),
        start,
        generator.solver(settings, settings.teacher_steps),
        reverse=reverse,
    ).x


@functools.partial(jax.jit, static_argnames=("settings", "rounds"))
def make_pairs(
    settings: Settings,
    teacher: generator.State,
    condition: Float[Array, "B C"],
    key: PRNGKeyArray,
    *,
    rounds: int = 1,
    side: Int[Array, " B"] | None = None,
) -> Pairs:
    """Returns the ends of the teacher's paths from fresh noise, to be stored.

    Args:
      settings: Settings of the teacher.
      teacher: Frozen.
      condition: A row for each path.
      key: Random key of the noise.
      rounds: Paths from each row of conditions.
      side: As for `transport`.
    """
    params = average.choose(settings.ema_decay, teacher.ema, teacher.params)
    width = len(teacher.moments.target.mean)

    def one(number: Int[Array, ""]):
        drawn = jax.random.normal(
            jax.random.fold_in(key, number), (len(condition), width)
        )
        start = settings.noise_scale * drawn
        end = transport(settings, params, teacher.moments, start, condition, side=side)
        return start, end

    start, end = (a.reshape(-1, width) for a in lax.map(one, jnp.arange(rounds)))
    if side is not None:
        side = jnp.tile(side, rounds)
    return Pairs(start, end, jnp.tile(condition, (rounds, 1)), side)


@functools.partial(jax.jit, static_argnames=("settings", "kind", "steps", "batch_size"))
def train(
    settings: Settings,
    teacher: generator.State,
    pairs: Pairs,
    *,
    kind: Literal["reflow", "distil"] = "reflow",
    steps: int,
    batch_size: int,
) -> tuple[generator.State, Float[Array, " {steps}"]]:
    """Trains a student, which starts as its teacher, on stored pairs.

    Args:
      settings: Settings of both.
      teacher: Initial state of the student; its moments are kept.
      pairs: Result of `make_pairs`.
      kind: `reflow`: velocities at all times; `distil`: at time 0.
      steps: Number of training steps.
      batch_size: Number of pairs in a step, drawn with replacement.

    Returns:
      The student's state and the loss of the flow before each step.
    """
    student = _student(settings, teacher)

    def one(state: generator.State, number: Int[Array, ""]):
        # Not the keys that `generator.update` draws from.
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), steps + number)
        keys = jax.random.split(jax.random.fold_in(key, 1))
        rows = jax.random.randint(keys[0], (batch_size,), 0, len(pairs.start))
        drawn: Pairs = jax.tree.map(lambda a: a[rows], pairs)
        times = draw_times(settings, kind, keys[1], batch_size)
        state, parts = generator.update(
            _regression_alone(settings),
            state,
            drawn.end,
            drawn.condition,
            side=drawn.side,
            line=units.Line(drawn.start, drawn.end, times),
        )
        return state, parts["rf_loss"]

    return lax.scan(one, student, jnp.arange(steps))


def draw_times(
    settings: Settings, kind: str, key: PRNGKeyArray, count: int
) -> Float[Array, " {count}"]:
    """Returns the times at which a student learns: all the same 0 to be distilled."""
    if kind == "distil":
        return jnp.zeros(count)
    return flow.draw_times(key, count, settings.time_law)


def _student(settings: Settings, teacher: generator.State) -> generator.State:
    params = average.choose(settings.ema_decay, teacher.ema, teacher.params)
    return teacher._replace(
        params=params,
        ema=average.start(settings.ema_decay, params),
        opt_state=generator.optimizer(settings).init(params),
    )


def _regression_alone(settings: Settings) -> Settings:
    """Returns settings whose loss reads pairs only, no targets of the host's."""
    return dataclasses.replace(
        settings, contrast="none", user_guidance_scale=0.0, cosine_guidance_scale=0.0
    )


@functools.partial(jax.jit, static_argnames=("settings", "steps"))
def straightness(
    settings: Settings,
    state: generator.State,
    condition: Float[Array, "B C"],
    key: PRNGKeyArray,
    *,
    steps: int = 50,
) -> Float[Array, ""]:
    """Returns how far the paths are from straight lines; 0 if they are.

    S of Liu et al. 2022, in the units of the network, by Euler.

    Args:
      settings: Settings of the generator.
      state: State of the generator.
      condition: A row for each path.
      key: Random key of their noise.
      steps: Number of steps of each path.
    """
    params = average.choose(settings.ema_decay, state.ema, state.params)
    arch = generator.network(settings, state.moments, None)
    seen = units.enter(settings, state.moments.condition, condition)
    noise = jax.random.normal(key, (len(condition), arch.width))
    return sample.straightness(
        sample.build_field(arch),
        sample.prepare(arch, params, seen),
        settings.noise_scale * noise,
        sample.Solver("euler", steps),
    )
