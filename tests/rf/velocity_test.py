# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The velocity network against NumPy, its dropout, and what it is told of a row."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.rf import velocity

ARCH = velocity.Architecture(width=5, condition_width=7, hidden=12, dropout=0.0)
FULL = dataclasses.replace(
    ARCH,
    layers=3,
    time="fourier",
    sides=2,
    null_condition=True,
    linear_skip=True,
    dropout=0.4,
)
SIDE = jnp.asarray([0, 1, 1, 0, 1, 0])


@functools.cache
def params(arch, seed=0):
    made = velocity.init(arch, jax.random.key(seed))
    # What starts as zeros and ones would hide mistakes.
    leaves, tree = jax.tree.flatten(made)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    moved = [
        x + 0.2 * jax.random.normal(k, x.shape)
        for x, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def rows(arch, count=6, seed=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, arch.width))
    condition = rng.normal(size=(count, arch.condition_width))
    drawn = (x, rng.random(count), condition)
    return [jnp.asarray(a, jnp.float32) for a in drawn]


def oracle(arch, p, x, t, condition, side=None, drop=None):
    """Follows the equations of the network row by row in float64."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), p)

    def linear(p, row):
        return row @ p["kernel"] + p["bias"]

    def norm(p, row):
        row = (row - row.mean()) / np.sqrt(row.var() + 1e-5)
        return row * p["scale"] + p["bias"]

    def silu(row):
        return row / (1 + np.exp(-row))

    def layer(p, row):
        return silu(norm(p["norm"], linear(p["linear"], row)))

    out = []
    for i in range(len(x)):
        if arch.time == "raw":
            frequency = [np.exp(-np.log(1e4) * k / 31) for k in range(32)]
        else:
            frequency = [32 * np.pi * 64 ** (-k / 31) for k in range(32)]
        angles = [float(t[i]) * f for f in frequency]
        code = np.array([np.sin(a) for a in angles] + [np.cos(a) for a in angles])
        y = layer(p["input"], np.asarray(x[i], np.float64))
        y = y + silu(linear(p["time"], code))
        if drop is not None and drop[i]:
            y = y + p["null"][0]
        elif arch.condition_width:
            y = y + layer(p["condition"], np.asarray(condition[i], np.float64))
        if side is not None:
            y = y + p["side"][side[i]]
        for b in range(arch.layers):
            block = p[f"blocks_{b}"]
            z = norm(block["norm"], linear(block["linear"], layer(block["layer"], y)))
            y = silu(y + z)
        v = linear(p["output"], layer(p["last"], y))
        if arch.linear_skip and not (drop is not None and drop[i]):
            skip = p["skip"][0 if side is None else side[i]]
            v = v + np.asarray(condition[i], np.float64) @ skip
        out.append(v)
    return np.stack(out)


@pytest.mark.parametrize(
    "arch",
    [
        ARCH,
        dataclasses.replace(ARCH, layers=1, time="fourier"),
        dataclasses.replace(ARCH, condition_width=0, layers=0),
        dataclasses.replace(ARCH, linear_skip=True),
        dataclasses.replace(ARCH, condition_width=0, linear_skip=True),
    ],
)
def test_the_network_follows_its_equations(arch):
    got = velocity.apply(arch, params(arch), *rows(arch))
    wanted = oracle(arch, params(arch), *rows(arch))
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5)


def test_sides_and_the_null_condition_follow_the_equations():
    drop = jnp.asarray([True, True, False, False, True, False])
    got = velocity.apply(FULL, params(FULL), *rows(FULL), side=SIDE, drop=drop)
    wanted = oracle(FULL, params(FULL), *rows(FULL), side=SIDE, drop=drop)
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5)


def test_parameters_start_as_the_references():
    arch = dataclasses.replace(ARCH, width=64, condition_width=128, hidden=256)
    made = velocity.init(arch, jax.random.key(0))
    for layer, inputs in ((made["time"], 64), (made["condition"]["linear"], 128)):
        for x in (layer["kernel"], layer["bias"]):
            bound = inputs**-0.5
            assert jnp.abs(x).max() <= bound
            error = 6 * bound / 3**0.5 / x.size**0.5
            np.testing.assert_allclose(jnp.std(x), bound / 3**0.5, atol=error)
    # With 128-d conditions and 2 or 3 blocks, as counted in the reference.
    count = sum(x.size for x in jax.tree.leaves(made))
    assert round(count / 1000) == 415


def test_a_linear_skip_starts_at_zero():
    arch = dataclasses.replace(FULL, linear_skip=False)
    with_skip, without = (
        velocity.apply(a, velocity.init(a, jax.random.key(0)), *rows(a), side=SIDE)
        for a in (FULL, arch)
    )
    np.testing.assert_array_equal(with_skip, without)


def test_compiled_equals_eager():
    side, drop = jnp.zeros(6, int), jnp.arange(6) < 2
    run = functools.partial(velocity.apply, FULL)
    given = {"side": side, "drop": drop, "dropout_key": jax.random.key(5)}
    eager = run(params(FULL), *rows(FULL), **given)
    np.testing.assert_allclose(
        jax.jit(run)(params(FULL), *rows(FULL), **given), eager, rtol=1e-5, atol=1e-6
    )


def test_gradients_are_those_of_finite_differences():
    with jax.enable_x64(True):
        x, t, condition = (jnp.asarray(a, jnp.float64) for a in rows(ARCH))
        p = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), params(ARCH))
        rng = np.random.default_rng(0)
        way = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), (p, x))

        def value(step):
            moved, points = jax.tree.map(lambda a, d: a + step * d, (p, x), way)
            return jnp.sum(velocity.apply(ARCH, moved, points, t, condition) ** 2)

        slope = (value(1e-5) - value(-1e-5)) / 2e-5
        np.testing.assert_allclose(jax.grad(value)(0.0), slope, rtol=1e-6)


def test_codes_made_once_serve_every_step():
    x, t, condition = rows(FULL)
    code = velocity.encode(FULL, params(FULL), condition, side=SIDE)
    got = velocity.velocity(FULL, params(FULL), x, t[:1], code)
    wanted = velocity.apply(
        FULL, params(FULL), x, jnp.full(6, t[0]), condition, side=SIDE
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_dropped_rows_know_nothing_of_their_conditions_and_others_do():
    x, t, condition = rows(FULL)
    side, drop = jnp.zeros(6, int), jnp.arange(6) < 3
    run = functools.partial(velocity.apply, FULL, params(FULL), x, t)
    before = run(condition, side=side, drop=drop)
    after = run(condition + 1, side=side, drop=drop)
    np.testing.assert_array_equal(before[:3], after[:3])
    assert jnp.abs(before[3:] - after[3:]).min(axis=1).max() > 0
    whole = run(condition, side=side)
    np.testing.assert_allclose(before[3:], whole[3:], rtol=1e-6)


def test_a_rows_dropout_depends_on_key_and_place_only():
    x, t, condition = rows(FULL)
    side = jnp.zeros(6, int)

    def run(count, seed):
        few = (a[:count] for a in (x, t, condition))
        key = None if seed is None else jax.random.key(seed)
        return velocity.apply(
            FULL, params(FULL), *few, side=side[:count], dropout_key=key
        )

    np.testing.assert_allclose(run(4, 1), run(6, 1)[:4], rtol=1e-5, atol=1e-6)
    assert jnp.abs(run(6, 1) - run(6, 2)).max(axis=1).min() > 1e-3
    assert jnp.abs(run(6, 1) - run(6, None)).max(axis=1).min() > 1e-3


def test_dropout_keeps_the_mean_of_the_first_layer():
    # One layer before any nonlinearity: its mean over masks is the layer undropped.
    arch = dataclasses.replace(ARCH, dropout=0.3)
    layer = velocity.Layer(arch, site=2)
    x = rows(ARCH, count=1)[0]
    p = layer.init(jax.random.key(0), x, None)
    keys = jax.random.split(jax.random.key(1), 4000)
    dropped = jnp.asarray(layer.apply(p, jnp.repeat(x, 4000, axis=0), keys))
    wanted = jnp.asarray(layer.apply(p, x, None))[0]
    np.testing.assert_allclose(dropped.mean(axis=0), wanted, atol=0.05)
    np.testing.assert_allclose((dropped == 0).mean(), 0.3, atol=0.01)


def test_the_fourier_code_tells_times_apart():
    t = jnp.linspace(0, 1, 400)

    def directions(kind):
        """Counts directions in which times differ by more than a thousandth."""
        code = np.asarray(velocity.time_code(t, kind), np.float64)
        values = np.linalg.svd(code - code.mean(axis=0), compute_uv=False)
        return int((values > 1e-3 * values[0]).sum())

    assert directions("raw") <= 4
    assert directions("fourier") >= 20


@pytest.mark.parametrize(
    ("arch", "given", "message"),
    [
        (FULL, {}, "the network has 2 sides"),
        (ARCH, {"side": jnp.zeros(6, int)}, "the network has 0 sides"),
        (ARCH, {"drop": jnp.zeros(6, bool)}, "there is no null condition"),
    ],
)
def test_what_the_network_does_not_know_is_refused(arch, given, message):
    with pytest.raises(ValueError, match=message):
        velocity.apply(arch, params(arch), *rows(arch), **given)
