# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reflow: pairs of a teacher, straighter paths, better single steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.rf import generator, reflow, velocity
from rfrec.rf import settings as switches

# Two lumps: from noise at one point paths lead to both, so they have to bend.
SETTINGS = switches.resolve(
    "plugin",
    {
        "hidden_dim": 48,
        "dropout": 0.0,
        "contrast": "none",
        "user_guidance_scale": 0.0,
        "cosine_guidance_scale": 0.0,
        "lr": 4e-3,
        "weight_decay": 0.0,
        "time_code": "fourier",
        "teacher_steps": 20,
    },
)


@functools.cache
def lumps(count=512):
    rng = np.random.default_rng(0)
    condition = rng.normal(size=(count, 1))
    centre = np.where(rng.uniform(size=(count, 1)) < 0.5, 2.0, -2.0)
    target = np.concatenate([centre, condition], 1) + 0.1 * rng.normal(size=(count, 2))
    return jnp.asarray(target, "f4"), jnp.asarray(condition, "f4")


@functools.cache
def teacher():
    state = generator.init(SETTINGS, 2, (1,), 0)
    target, condition = lumps()
    for _ in range(400):
        state, _ = generator.update(SETTINGS, state, target, condition)
    return state


@functools.cache
def pairs():
    return reflow.make_pairs(
        SETTINGS, teacher(), lumps()[1], jax.random.key(5), rounds=2
    )


def error(state, steps):
    """Distance of what few steps generate from where the teacher's path leads."""
    start, end, condition, _ = pairs()
    arch = generator.network(SETTINGS, state.moments, None)
    x = start
    for i in range(steps):
        t = jnp.full(1, i / steps)
        x = x + velocity.apply(arch, state.params, x, t, condition) / steps
    return float(jnp.sqrt(jnp.mean((x - end) ** 2)))


def test_pairs_are_the_ends_of_the_teachers_paths():
    start, end, condition, _ = pairs()
    assert start.shape == end.shape == (1024, 2)
    np.testing.assert_array_equal(condition[:512], condition[512:])
    assert np.any(start[:512] != start[512:])
    assert error(teacher(), 20) < 1e-4
    target = np.abs(np.asarray(lumps()[0][:, 0])).mean()
    assert abs(np.abs(np.asarray(end[:, 0])).mean() - target) < 0.4
    back = reflow.transport(
        SETTINGS,
        teacher().params,
        teacher().moments,
        end,
        condition,
        reverse=True,
    )
    # Euler back is not Euler inverted, but near it.
    assert float(jnp.mean(jnp.abs(back - start))) < 0.25


@pytest.mark.parametrize("kind", ["reflow", "distil"])
def test_a_student_does_in_one_step_what_took_many(kind):
    student, losses = reflow.train(
        SETTINGS, teacher(), pairs(), kind=kind, steps=600, batch_size=256
    )
    assert losses.shape == (600,)
    assert float(losses[-50:].mean()) < 0.7 * float(losses[:5].mean())
    assert error(student, 1) < 0.6 * error(teacher(), 1)
    if kind == "reflow":
        key, condition = jax.random.key(2), lumps()[1]
        before, after = (
            float(reflow.straightness(SETTINGS, s, condition, key))
            for s in (teacher(), student)
        )
        assert after < 0.5 * before


def test_distillation_learns_at_time_zero_alone():
    key = jax.random.key(0)
    assert not np.any(reflow.draw_times(SETTINGS, "distil", key, 9))
    times = reflow.draw_times(SETTINGS, "reflow", key, 900)
    assert 0 <= times.min() < 0.1 and 0.9 < times.max() <= 1
