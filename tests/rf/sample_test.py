# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Solvers against loops and closed forms, evaluations counted, generation by key."""

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from rfrec.config import UserError
from rfrec.rf import flow, sample, velocity

ARCH = velocity.Architecture(
    width=4, condition_width=3, hidden=8, layers=1, time="fourier", null_condition=True
)
TURN = np.array([[0.0, -1.5], [1.0, -0.3]])


@functools.cache
def params():
    made = velocity.init(ARCH, jax.random.key(0))
    return made | {"null": jnp.full((1, 8), 0.5)}


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def turning(args, t, x):
    """Turns rows at a rate that changes: dx/dt = 2t A x, x(1) = exp(A) x(0)."""
    return 2 * t * x @ args.T


def counted(calls, field=turning):
    """Counts how often a field is computed."""

    def run(args, t, x):
        jax.debug.callback(lambda: calls.update(("call",)))
        return field(args, t, x)

    return run


def path(solution):
    """Returns the rows on the way of a solution that was asked for them."""
    assert solution.trajectory is not None
    return np.asarray(solution.trajectory)


def euler(field, args, x, steps, start=0.0, end=1.0):
    size = (end - start) / steps
    for i in range(steps):
        x = x + size * field(args, start + i * size, x)
    return x


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [1, 3, 10, 60])
def test_euler_is_a_loop(steps, reverse):
    args, x0 = jnp.asarray(TURN, jnp.float32), draw(5, 2)
    ends = (1.0, 0.0) if reverse else (0.0, 1.0)

    def ours(args, x0):
        return sample.solve(
            turning, args, x0, sample.Solver("Euler", steps), reverse=reverse
        ).x

    def looped(args, x0):
        return euler(turning, args, x0, steps, *ends)

    wanted = looped(args, x0)
    np.testing.assert_allclose(ours(args, x0), wanted, rtol=1e-5, atol=1e-5)
    got, slope = (
        jax.jit(jax.grad(lambda *a, f=f: jnp.sum(f(*a) ** 2), (0, 1)))(args, x0)
        for f in (ours, looped)
    )
    for a, b in zip(got, slope, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [127, 1000, 1777])
def test_many_steps_end_at_the_end(steps):
    # The rounding of so many sums of times neither adds a step nor loses one.
    def constant(args, t, x):
        return jnp.ones_like(x)

    solver = sample.Solver("euler", steps)
    for reverse, wanted in ((False, 1.0), (True, -1.0)):
        solution = sample.solve(
            constant, None, jnp.zeros((1, 1)), solver, reverse=reverse
        )
        np.testing.assert_allclose(solution.x, wanted, rtol=1e-4)
        assert solution.evaluations == steps


# Error at 20 steps of each method, about ten times what it is.
PRECISION = collections.defaultdict(lambda: 2e-2, euler=2e-1, bosh3=1e-3)
PRECISION |= dict.fromkeys(("tsit5", "dopri5", "dopri8"), 1e-5)


@pytest.mark.parametrize("name", sample.SOLVERS)
def test_every_solver_nears_the_closed_form_and_counts_its_evaluations(name):
    calls, args, x0 = collections.Counter(), jnp.asarray(TURN, jnp.float32), draw(5, 2)
    solver = sample.Solver(name.upper(), 20)
    run = jax.jit(lambda x: sample.solve(counted(calls), args, x, solver))
    solution = run(x0)
    jax.effects_barrier()
    wanted = x0 @ scipy.linalg.expm(TURN).T
    np.testing.assert_allclose(solution.x, wanted, atol=PRECISION[name])
    assert solution.evaluations == calls["call"]


ADAPTIVE = [
    name for name in sample.SOLVERS if name not in ("euler", "leapfrogmidpoint")
]


@pytest.mark.parametrize("name", ADAPTIVE)
def test_tolerances_choose_the_steps(name):
    calls, args, x0 = collections.Counter(), jnp.asarray(TURN, jnp.float32), draw(5, 2)
    wanted = x0 @ scipy.linalg.expm(TURN).T
    solver = sample.Solver(name, steps=4, rtol=1e-3, atol=1e-3)
    run = jax.jit(
        lambda x: sample.solve(counted(calls), args, x, solver, trajectory=True)
    )
    solution = run(x0)
    jax.effects_barrier()
    np.testing.assert_allclose(solution.x, wanted, atol=2e-2)
    assert solution.evaluations == calls["call"]
    assert path(solution).shape == (5, 5, 2)
    for i in range(5):
        there = x0 @ scipy.linalg.expm(TURN * (i / 4) ** 2).T
        np.testing.assert_allclose(path(solution)[i], there, atol=5e-2)


def test_an_end_that_is_out_of_reach_is_not_a_number():
    # dx/dt = x^2 from 4 is infinite at time 1/4.
    solver = sample.Solver("dopri5", rtol=1e-4, atol=1e-4)
    solution = sample.solve(lambda a, t, x: x**2, None, jnp.full((1, 1), 4.0), solver)
    assert jnp.isnan(solution.x).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "eular"}, "'eular' does not exist: use one of euler, heun"),
        ({"steps": 0}, "solver steps are 0"),
        ({"rtol": 1e-3}, "'euler' does not estimate its error"),
    ],
)
def test_an_impossible_solver_is_refused(given, message):
    with pytest.raises(UserError, match=message) as raised:
        sample.Solver(**given)
    assert "\n" not in str(raised.value)


def test_a_way_back_leads_to_the_noise():
    field = sample.build_field(ARCH)
    given = sample.prepare(ARCH, params(), draw(6, 3, seed=1))
    x0, solver = draw(6, 4), sample.Solver("dopri5", 60)
    there = sample.solve(field, given, x0, solver, trajectory=True)
    back = sample.solve(field, given, there.x, solver, reverse=True)
    assert jnp.abs(there.x - x0).max() > 0.1
    np.testing.assert_allclose(back.x, x0, atol=1e-4)
    assert path(there).shape == (61, 6, 4)
    np.testing.assert_array_equal(path(there)[0], x0)
    np.testing.assert_array_equal(path(there)[-1], there.x)


def generate(key=0, count=5, solver=None, **given):
    condition = draw(9, 3, seed=1)[:count]
    solver = solver or sample.Solver(steps=3)
    run = sample.sample_jit if given.pop("compiled", False) else sample.sample
    return run(ARCH, params(), condition, jax.random.key(key), solver, **given)


def test_compiled_equals_eager():
    given = {"draws": 2, "guidance": 2.0, "interval": (0.2, 0.7), "trajectory": True}
    eager, compiled = (generate(compiled=c, **given) for c in (False, True))
    for a, b in zip(*map(jax.tree.leaves, (eager, compiled)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_key_says_what_is_generated():
    np.testing.assert_array_equal(generate(1).x, generate(1).x)
    assert jnp.abs(generate(1).x - generate(2).x).max() > 0.1


def test_generation_is_a_solution_from_noise_without_dropout():
    assert ARCH.dropout > 0
    condition, key = draw(5, 3, seed=1), jax.random.fold_in(jax.random.key(4), 0)

    def field(args, t, x):
        return velocity.apply(ARCH, params(), x, jnp.full(5, t), condition)

    x0 = 0.5 * jax.random.normal(key, (5, 4))
    wanted = euler(field, None, x0, 3)
    got = generate(4, noise_scale=0.5)
    np.testing.assert_allclose(got.x, wanted, rtol=1e-4, atol=1e-5)
    assert got.evaluations == 3
    still = generate(4, noise_kind="zero")
    np.testing.assert_allclose(
        still.x, euler(field, None, 0 * x0, 3), rtol=1e-4, atol=1e-5
    )


def test_draws_are_averaged():
    # The draws of a key are the solutions from the noise of its numbers.
    field = sample.build_field(ARCH)
    given = sample.prepare(ARCH, params(), draw(5, 3, seed=1))
    singles = []
    for number in range(3):
        x0 = sample.noise(jax.random.fold_in(jax.random.key(7), number), (5, 4))
        singles.append(sample.solve(field, given, x0, sample.Solver(steps=3)).x)
    got = generate(7, draws=3)
    np.testing.assert_allclose(got.x, np.mean(singles, axis=0), rtol=1e-4, atol=1e-5)
    assert got.evaluations == 9
    once = generate(7, draws=3, noise_kind="zero")
    assert once.evaluations == 3


def test_noise_is_as_large_as_its_scale():
    drawn = sample.noise(jax.random.key(0), (500, 20), scale=0.3)
    np.testing.assert_allclose(jnp.std(drawn), 0.3, rtol=0.05)
    np.testing.assert_allclose(jnp.mean(drawn), 0.0, atol=0.02)


def test_guidance_goes_beyond_the_velocity_without_conditions():
    condition, weight, interval = draw(5, 3, seed=1), 2.5, (0.3, 0.8)

    def field(args, t, x):
        times = jnp.full(5, t)
        run = functools.partial(velocity.apply, ARCH, params(), x, times, condition)
        plain, without = run(), run(drop=jnp.ones(5, bool))
        if not interval[0] <= t <= interval[1]:
            return plain
        return weight * plain + (1 - weight) * without

    x0 = sample.noise(jax.random.fold_in(jax.random.key(4), 0), (5, 4))
    wanted = euler(field, None, x0, 4)
    solver = sample.Solver(steps=4)
    got = generate(4, solver=solver, guidance=weight, interval=interval)
    np.testing.assert_allclose(got.x, wanted, rtol=1e-4, atol=1e-5)
    assert jnp.abs(got.x - generate(4, solver=solver).x).max() > 1e-3


def test_guidance_of_a_network_that_always_had_conditions_is_refused():
    arch = dataclasses.replace(ARCH, null_condition=False)
    p = velocity.init(arch, jax.random.key(0))
    with pytest.raises(UserError, match="condition_dropout"):
        sample.sample(
            *(arch, p, draw(2, 3), jax.random.key(0), sample.Solver()), guidance=1.5
        )


def test_a_prior_pushes_as_in_training():
    prior, one = draw(5, 4, seed=6), sample.Solver(steps=2)
    plain = generate(2, solver=one, noise_kind="zero", trajectory=True)
    pushed = generate(
        *(2, 5, one),
        noise_kind="zero",
        prior=prior,
        prior_scale=0.3,
        prior_power=2.0,
        trajectory=True,
    )
    step = flow.prior_guidance(jnp.zeros(5), prior, 0.3, 2.0) / 2
    np.testing.assert_allclose(
        path(pushed)[1], path(plain)[1] + step, rtol=1e-5, atol=1e-6
    )


def test_straightness_is_the_integral_of_its_definition():
    x0 = np.asarray(draw(6, 2), np.float64)
    chord = x0 @ scipy.linalg.expm(TURN).T - x0
    gaps = []
    times = np.linspace(0, 1, 2001)
    for t in times:
        speed = 2 * t * (x0 @ scipy.linalg.expm(TURN * t**2).T) @ TURN.T
        gaps.append(np.mean(np.sum((chord - speed) ** 2, axis=1)))
    wanted = np.trapezoid(gaps, times)
    got = jax.jit(
        lambda a, x: sample.straightness(turning, a, x, sample.Solver("dopri5", 100))
    )(jnp.asarray(TURN, jnp.float32), jnp.asarray(x0, jnp.float32))
    np.testing.assert_allclose(got, wanted, rtol=1e-3)


def test_straight_paths_have_straightness_zero():
    ends = draw(6, 2, seed=3)

    def straight(args, t, x):
        return args

    got = sample.straightness(straight, ends, draw(6, 2), sample.Solver(steps=50))
    np.testing.assert_allclose(got, 0, atol=1e-9)
