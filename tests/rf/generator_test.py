# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The generator's loss by definition, its gradients, mixing, and what it learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import flatten_util

from rfrec.config import UserError
from rfrec.rf import average, generator, sample, units, velocity
from rfrec.rf import settings as switches

WIDTH, CONDITIONS, ROWS = 6, (4, 3), 24
TINY = {"hidden_dim": 16, "n_layers": 1, "dropout": 0.0, "sampling_steps": 3}


def make(preset="plugin", **overrides):
    return switches.resolve(preset, TINY | overrides)


@functools.cache
def rows(seed=0, count=ROWS):
    rng = np.random.default_rng(seed)
    condition = rng.normal(size=(count, sum(CONDITIONS)))
    target = condition @ rng.normal(size=(sum(CONDITIONS), WIDTH)) / 3
    return jnp.asarray(target, "f4"), jnp.asarray(condition, "f4")


def start(settings, seed=0):
    state = generator.init(settings, WIDTH, CONDITIONS, seed)
    # Weights of norm 1 and more, so that outputs are not all alike.
    params = jax.tree.map(lambda a: 2 * a, state.params)
    return state._replace(params=params)


def objective(settings, params, target, condition, **arguments):
    moments = units.start(WIDTH, sum(CONDITIONS))
    moments = units.observe(settings, moments, target, condition)
    key = jax.random.key(3)
    return generator.loss(
        settings, params, moments, target, condition, key, **arguments
    )


def info_nce(x, y, temperature, candidates):
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    logits = x @ y.T / temperature
    total = 0.0
    for i in range(len(x)):
        others = [j for j in candidates if j != i]
        total -= logits[i, i] - np.log(np.exp(logits[i, [i, *others]]).sum())
    return total / len(x)


@pytest.mark.parametrize("loss", ["mse", "huber"])
@pytest.mark.parametrize("guided", [False, True])
def test_the_loss_is_that_of_the_equations(loss, guided):
    settings = make(loss=loss, contrast="infonce_endpoint", loss_weight=0.7)
    if not guided:
        scales = {"user_guidance_scale": 0.0, "cosine_guidance_scale": 0.0}
        settings = dataclasses.replace(settings, **scales)
    target, condition = rows()
    params = start(settings).params
    rng = np.random.default_rng(1)
    x0, prior = rng.normal(size=(2, ROWS, WIDTH)).astype("f4")
    t = rng.uniform(size=ROWS).astype("f4")
    line = units.Line(jnp.asarray(x0), target, jnp.asarray(t))
    total, parts = objective(
        settings, params, target, condition, prior=jnp.asarray(prior), line=line
    )
    x1, t = np.asarray(target, "f8"), t[:, None].astype("f8")
    x_t = t * x1 + (1 - t) * x0
    arch = velocity.Architecture(WIDTH, sum(CONDITIONS), 16, 1, 0.0)
    v = np.asarray(
        velocity.apply(arch, params, jnp.float32(x_t), line.times, condition)
    )
    v = v.astype("f8")
    if guided:
        size = np.linalg.norm(x_t, axis=1, keepdims=True)
        a, b = x_t / size, x1 / np.linalg.norm(x1, axis=1, keepdims=True)
        towards = b / size - a * (a * b).sum(1, keepdims=True) / size
        v = v + 0.2 * (1 - t) ** 2 * prior + 0.1 * (1 - t) ** 2 * towards
    e = v - (x1 - x0)
    huber = np.where(abs(e) < 1, e**2 / 2, abs(e) - 0.5)
    wanted = (e**2 if loss == "mse" else huber).mean()
    np.testing.assert_allclose(parts["rf_loss"], wanted, rtol=1e-5)
    contrast = info_nce(x_t + (1 - t) * v, x1, 0.2, range(ROWS))
    np.testing.assert_allclose(parts["cl_loss"], contrast, rtol=1e-4)
    np.testing.assert_allclose(total, 0.7 * wanted + contrast, rtol=1e-4)
    assert total == parts["total_loss"]


@pytest.mark.parametrize("contrast", ["mse", "infonce_samples", "none"])
def test_the_contrast_reads_rows_generated_by_euler(contrast):
    settings = make(contrast=contrast, noise="zero", user_guidance_scale=0.0)
    target, condition = rows()
    params = start(settings).params
    _, parts = objective(settings, params, target, condition)
    arch = velocity.Architecture(WIDTH, sum(CONDITIONS), 16, 1, 0.0)
    x = jnp.zeros((ROWS, WIDTH))
    for i in range(3):
        x += velocity.apply(arch, params, x, jnp.full(1, i / 3), condition) / 3
    wanted = {
        "mse": lambda: np.mean((np.asarray(x) - target) ** 2),
        "infonce_samples": lambda: info_nce(
            np.asarray(x, "f8"), np.asarray(target, "f8"), 0.2, range(ROWS)
        ),
        "none": lambda: 0.0,
    }[contrast]()
    np.testing.assert_allclose(parts["cl_loss"], wanted, rtol=1e-4)
    given = objective(settings, params, target, condition, generated=x)[1]
    np.testing.assert_allclose(given["cl_loss"], parts["cl_loss"], rtol=1e-5)


@pytest.mark.parametrize("contrast", ["mse", "infonce_samples", "infonce_endpoint"])
@pytest.mark.parametrize("negatives", [0, 8])
def test_rows_of_weight_zero_do_not_count(contrast, negatives):
    settings = make(contrast=contrast, negatives=negatives, standardise=True)
    target, condition = rows()
    params = start(settings).params
    weights = jnp.asarray(np.arange(ROWS) % 3 > 0, "f4")
    moments = units.start(WIDTH, sum(CONDITIONS))

    def total(target, condition):
        seen = units.observe(settings, moments, target, condition, weights)
        key = jax.random.key(3)
        return generator.loss(
            settings, params, seen, target, condition, key, weights=weights
        )[0]

    filled = weights[:, None] > 0
    other = total(jnp.where(filled, target, 9.0), jnp.where(filled, condition, -9.0))
    np.testing.assert_allclose(other, total(target, condition), rtol=1e-5)


def test_compiled_and_eager_losses_agree():
    settings = make(dropout=0.2, condition_dropout=0.3, standardise=True)
    target, condition = rows()
    params = start(settings).params
    eager = objective(settings, params, target, condition)
    compiled = jax.jit(functools.partial(objective, settings))(
        params, target, condition
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), eager, compiled
    )


@pytest.mark.parametrize("name", ["attach_target", "attach_conditions"])
@pytest.mark.parametrize("attached", [False, True])
def test_gradients_reach_the_host_only_where_they_are_wanted(name, attached):
    settings = make("joint", attach_target=False, attach_conditions=False)
    settings = dataclasses.replace(settings, **{name: attached})
    target, condition = rows()
    params = start(settings).params
    grads = jax.grad(lambda t, c: objective(settings, params, t, c)[0], argnums=(0, 1))(
        target, condition
    )
    moved = dict(zip(("attach_target", "attach_conditions"), grads, strict=True))
    for argument, grad in moved.items():
        assert bool(np.any(grad)) == (attached and argument == name)


def test_the_gradient_through_the_solver_is_that_of_differences():
    settings = make("joint", loss_weight=0.0, contrast_weight=1.0)
    target, condition = rows()
    params = start(settings).params
    flat, unravel = flatten_util.ravel_pytree(params)
    total = jax.jit(lambda p: objective(settings, unravel(p), target, condition)[0])
    towards = jnp.asarray(np.random.default_rng(0).normal(size=len(flat)), "f4")
    slope = float(jax.grad(total)(flat) @ towards)
    step = 3e-3
    two = [float(total(flat + s * step * towards)) for s in (1, -1)]
    np.testing.assert_allclose((two[0] - two[1]) / 2 / step, slope, rtol=0.02)


def test_standardised_flows_do_not_see_the_scale_of_the_host():
    settings = make(standardise=True, user_guidance_scale=0.0)
    target, condition = rows()
    params = start(settings).params
    made = []
    for scale in (1.0, 1e-3):
        seen = units.observe(
            settings,
            units.start(WIDTH, sum(CONDITIONS)),
            scale * target + scale,
            scale * condition,
        )
        key = jax.random.key(0)
        args = (settings, params, seen, scale * target + scale, scale * condition, key)
        made.append(
            (
                generator.loss(*args)[1]["rf_loss"],
                generator.generate(settings, params, seen, scale * condition, key).x
                / scale,
            )
        )
    np.testing.assert_allclose(made[0][0], made[1][0], rtol=1e-3)
    np.testing.assert_allclose(made[0][1], made[1][1], rtol=1e-3, atol=1e-3)


def test_a_guided_sample_is_pushed_along_the_prior():
    settings = make(standardise=True, guided_sampling=True, guidance_decay_power=0.0)
    target, condition = rows()
    state = start(settings)
    moments = units.observe(settings, state.moments, target, condition)
    prior = jnp.asarray(np.random.default_rng(5).normal(size=target.shape), "f4")
    made = [
        generator.generate(
            settings,
            state.params,
            moments,
            condition,
            jax.random.key(0),
            steps=1,
            prior=p,
        ).x
        for p in (None, prior)
    ]
    np.testing.assert_allclose(made[1] - made[0], 0.2 * prior, atol=1e-5)


def test_mixing():
    rng = np.random.default_rng(0)
    original, made = jnp.asarray(rng.normal(size=(2, 5, 3)), "f4")
    settings = make(mix_ratio=0.1, inference_mix_ratio=0.25, warmup_epochs=2)
    residual = dataclasses.replace(settings, mixing="residual")
    cases = [
        (settings, True, 1, original),
        (settings, True, 2, 0.9 * original + 0.1 * made),
        (settings, False, 2, 0.75 * original + 0.25 * made),
        (settings, False, 1, original),
        (residual, True, 2, original + 0.1 * made),
        (residual, False, 9, original + 0.25 * made),
    ]
    for chosen, training, epoch, wanted in cases:
        mixed = functools.partial(
            generator.mix, chosen, original, made, training=training
        )
        np.testing.assert_allclose(mixed(epoch=epoch), wanted, rtol=1e-6)
        traced = jax.jit(lambda epoch, mixed=mixed: mixed(epoch=epoch))
        np.testing.assert_allclose(traced(jnp.int32(epoch)), wanted, rtol=1e-6)
        ratio = jnp.float32(0.25 if not training else 0.1)
        np.testing.assert_allclose(mixed(epoch=epoch, ratio=ratio), wanted, rtol=1e-6)


def test_rows_that_are_none_do_not_reach_a_host_that_takes_none_of_them():
    original = jnp.ones((2, 3))
    mixed = jax.jit(
        lambda ratio: generator.mix(
            make("improved"),
            original,
            jnp.full((2, 3), jnp.nan),
            training=False,
            epoch=0,
            ratio=ratio,
        )
    )
    np.testing.assert_array_equal(mixed(jnp.float32(0)), original)
    assert np.isnan(mixed(jnp.float32(0.1))).all()


def test_mixing_nothing_and_replacing_everything():
    rng = np.random.default_rng(0)
    original, made = jnp.asarray(rng.normal(size=(2, 5, 3)), "f4")
    none = generator.mix(make(mix_ratio=0.0), original, made, training=True, epoch=0)
    assert none is original
    joint = make("joint")

    def total(original, made):
        return generator.mix(joint, original, made, training=True, epoch=0).sum()

    grads = jax.grad(total, argnums=(0, 1))(original, made)
    assert not np.any(grads[0])
    np.testing.assert_array_equal(grads[1], 1.0)


def test_the_average_of_parameters():
    settings = make(ema_decay=0.5)
    state = start(settings)
    state = state._replace(ema=average.start(0.5, state.params))
    target, condition = rows()
    wanted = np.asarray(state.params["output"]["kernel"])
    for count in range(12):
        state, _ = generator.update(settings, state, target, condition)
        kept = min(0.5, (1 + count) / (10 + count))
        new = np.asarray(state.params["output"]["kernel"])
        wanted = kept * wanted + (1 - kept) * new
    np.testing.assert_allclose(state.ema["output"]["kernel"], wanted, rtol=1e-4)
    chosen = average.choose(0.5, state.ema, state.params)
    assert chosen is state.ema
    assert average.choose(0.0, {}, state.params) is state.params
    assert average.start(0.0, state.params) == {}


def test_own_steps_are_those_of_adamw_with_clipping():
    settings = make("improved", clip_norm=0.01, contrast="none", ema_decay=0.0)
    target, condition = rows()
    state = start(settings)
    new, parts = generator.update(settings, state, target, condition)
    moments = units.observe(settings, state.moments, target, condition)
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), 0)
    grads, told = jax.grad(
        lambda p: generator.loss(settings, p, moments, target, condition, key),
        has_aux=True,
    )(state.params)
    clipped, _ = optax.clip_by_global_norm(0.01).update(grads, optax.EmptyState())
    np.testing.assert_allclose(parts["total_loss"], told["total_loss"], rtol=1e-6)

    def first_step(w, g):
        return w - 1e-3 * (g / (jnp.abs(g) + 1e-8) + 0.01 * w)

    wanted = jax.tree.map(first_step, state.params, clipped)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), new.params, wanted
    )
    assert int(new.step) == 1
    np.testing.assert_array_equal(new.key, state.key)


def test_solvers_of_the_config_are_those_there_are():
    assert set(sample.SOLVERS)
    solver = generator.solver(make(rtol=0.01, atol=0.02, solver="Tsit5"), 7)
    assert solver == sample.Solver("Tsit5", 7, 0.01, 0.02)
    assert not generator.solver(make()).adaptive


def relative_error(made, target):
    return float(
        jnp.sqrt(jnp.sum((made - target) ** 2))
        / jnp.sqrt(jnp.sum((target - target.mean(0, keepdims=True)) ** 2))
    )


def test_improved_generates_rows_it_has_not_seen():
    # What conditions tell of the target is 90% of its variance: no error below .32.
    rng = np.random.default_rng(0)
    condition = jnp.asarray(0.01 * rng.normal(size=(1200, 7)), "f4")
    signal = np.tanh(100 * condition @ rng.normal(size=(7, WIDTH)) / 2)
    noise = rng.normal(size=signal.shape) * signal.std() / 3
    target = jnp.asarray(0.02 * (signal + noise) + 0.5, "f4")
    settings = switches.resolve(
        "improved", {"hidden_dim": 48, "lr": 3e-3, "negatives": 64}
    )
    state = generator.init(settings, WIDTH, (4, 3), 0)
    for i in range(400):
        few = slice(200 * (i % 5), 200 * (i % 5) + 200)
        state, _ = generator.update(settings, state, target[few], condition[few])
    made = generator.generate(
        settings, state.ema, state.moments, condition[1000:], jax.random.key(0)
    ).x
    assert relative_error(made, target[1000:]) < 0.5


def test_a_linear_skip_learns_linear_maps_of_conditions_of_any_size():
    # Rows differ a hundredfold in size, as nodes of a graph do.
    rng = np.random.default_rng(0)
    size = np.exp(rng.normal(size=(1200, 1)))
    condition = jnp.asarray(size * rng.normal(size=(1200, 7)), "f4")
    target = condition @ jnp.asarray(rng.normal(size=(7, WIDTH)), "f4")

    def error(linear_skip):
        chosen = {"hidden_dim": 16, "lr": 1e-2, "linear_skip": linear_skip}
        settings = switches.resolve("improved", chosen | {"contrast": "none"})
        state = generator.init(settings, WIDTH, (4, 3), 0)
        for _ in range(400):
            state, _ = generator.update(
                settings, state, target[:1000], condition[:1000]
            )
        made = generator.generate(
            settings, state.ema, state.moments, condition[1000:], jax.random.key(0)
        ).x
        return relative_error(made, target[1000:])

    with_skip, without = error(True), error(False)
    assert with_skip < 0.1
    assert without > 2 * with_skip


def test_a_path_needs_a_step():
    with pytest.raises(UserError, match="steps are 0: take at least 1"):
        generator.solver(make(), steps=0)
