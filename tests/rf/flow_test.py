# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Paths, laws of times, losses, guidance and moments against NumPy and autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rfrec.rf import flow


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def times(count, seed=1):
    return jnp.asarray(np.random.default_rng(seed).random(count), jnp.float32)


def test_a_path_runs_from_noise_to_the_embedding_and_its_velocity_leads_there():
    x0, x1, t = draw(6, 3), draw(6, 3, seed=2), times(6)
    np.testing.assert_array_equal(flow.interpolate(x0, x1, jnp.zeros(6)), x0)
    np.testing.assert_array_equal(flow.interpolate(x0, x1, jnp.ones(6)), x1)
    x_t = flow.interpolate(x0, x1, t)
    for i in range(6):
        wanted = float(t[i]) * x1[i] + (1 - float(t[i])) * x0[i]
        np.testing.assert_allclose(x_t[i], wanted, rtol=1e-5, atol=1e-6)
    # The velocity is the derivative of the path, and constant along it.
    _, speed = jax.jvp(lambda t: flow.interpolate(x0, x1, t), (t,), (jnp.ones(6),))
    np.testing.assert_allclose(speed, flow.target(x0, x1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(flow.endpoint(x_t, speed, t), x1, rtol=1e-5, atol=1e-5)


LAWS = {
    "uniform": lambda t: t,
    "logit_normal": lambda t: scipy.stats.norm.cdf(np.log(t / (1 - t))),
    # Half the mass grows as e^(4t), half falls as e^(-4t).
    "u_shaped": lambda t: (
        (np.expm1(4 * t) / np.expm1(4) + np.expm1(-4 * t) / np.expm1(-4)) / 2
    ),
}


@pytest.mark.parametrize("law", LAWS)
def test_times_follow_their_law(law):
    t = np.asarray(flow.draw_times(jax.random.key(3), 20000, law), np.float64)
    assert t.min() >= 0
    assert t.max() <= 1
    assert scipy.stats.kstest(t, LAWS[law]).pvalue > 1e-3


def test_an_unknown_law_or_loss_is_refused():
    with pytest.raises(Exception, match="u_shape"):
        flow.draw_times(jax.random.key(0), 3, "u_shape")  # type: ignore[arg-type]
    with pytest.raises(Exception, match="l2"):
        flow.regression(draw(2, 2), draw(2, 2), "l2")  # type: ignore[arg-type]


def row_error(kind, error):
    """Returns the loss of one row by definition."""
    if kind == "mse":
        return np.mean(error**2)
    if kind == "huber":
        return np.mean([e * e / 2 if abs(e) < 1 else abs(e) - 0.5 for e in error])
    c = 0.00054 * len(error) ** 0.5
    return np.sqrt(np.sum(error**2) + c * c) - c


@pytest.mark.parametrize("kind", ["mse", "huber", "pseudo_huber"])
def test_regression_is_the_weighted_mean_of_rows(kind):
    a, b = draw(5, 4), 2 * draw(5, 4, seed=7)
    weights = jnp.asarray([1.0, 0.0, 2.0, 0.5, 0.0])
    rows = [row_error(kind, np.asarray(a[i] - b[i], np.float64)) for i in range(5)]
    np.testing.assert_allclose(flow.regression(a, b, kind), np.mean(rows), rtol=1e-5)
    wanted = np.average(rows, weights=weights)
    got = jax.jit(flow.regression, static_argnums=2)(a, b, kind, weights)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert flow.regression(a, b, kind, jnp.zeros(5)) == 0


@pytest.mark.parametrize("kind", ["mse", "huber", "pseudo_huber"])
def test_regression_has_no_slope_where_it_is_right(kind):
    a = draw(3, 4)
    slope = jax.grad(lambda x: flow.regression(x, a, kind))(a)
    np.testing.assert_array_equal(slope, 0)


def test_the_cosines_gradient_is_that_of_autodiff():
    x, y = draw(7, 5), 3 * draw(7, 5, seed=4)

    def cosines(x):
        return jnp.sum(
            jnp.sum(x * y, 1) / jnp.linalg.norm(x, axis=1) / jnp.linalg.norm(y, axis=1)
        )

    got = jax.jit(flow.cosine_gradient)(x, y)
    np.testing.assert_allclose(got, jax.grad(cosines)(x), rtol=1e-4, atol=1e-6)
    # It turns a row towards the other and does not stretch it.
    np.testing.assert_allclose(jnp.sum(got * x, axis=1), 0, atol=1e-5)


def test_the_cosines_gradient_of_rows_without_a_direction_is_finite():
    x = jnp.stack([jnp.zeros(5), jnp.ones(5)])
    for a, b in ((x, x[::-1]), (x, x)):
        value, pull = jax.vjp(flow.cosine_gradient, a, b)
        assert jnp.isfinite(value).all()
        assert all(jnp.isfinite(g).all() for g in pull(jnp.ones((2, 5))))


def test_guidance_adds_both_pushes_as_they_fade():
    x, y, prior, t = draw(4, 3), draw(4, 3, seed=1), draw(4, 3, seed=2), times(4)
    scales = {"prior_scale": 0.3, "prior_power": 2.0}
    scales |= {"cosine_scale": 0.7, "cosine_power": 3.0}
    got = flow.guidance(x, y, t, prior, **scales)
    turn = flow.cosine_gradient(x, y)
    for i in range(4):
        left = 1 - float(t[i])
        wanted = 0.3 * left**2 * prior[i] + 0.7 * left**3 * turn[i]
        np.testing.assert_allclose(got[i], wanted, rtol=1e-5, atol=1e-6)
    alone = flow.guidance(x, y, t, None, **scales)
    fading = flow.prior_guidance(t, prior, 0.3, 2.0)
    np.testing.assert_allclose(alone + fading, got, rtol=1e-5, atol=1e-6)
    off = flow.guidance(x, y, t, prior, **(scales | dict.fromkeys(scales, 0.0)))
    np.testing.assert_array_equal(off, 0)
    at_the_end = flow.guidance(x, y, jnp.ones(4), prior, **scales)
    np.testing.assert_array_equal(at_the_end, 0)


def test_moments_in_pieces_are_those_of_all_rows():
    x = 0.01 * draw(60, 4) + jnp.asarray([[5.0, 0.0, -2.0, 1e-3]])
    weights = jnp.asarray(np.random.default_rng(1).integers(0, 2, 60), jnp.float32)
    weights = weights.at[20:30].set(0)
    moments, update = flow.start_moments(4), jax.jit(flow.update_moments)
    for start in range(0, 60, 10):
        piece = slice(start, start + 10)
        moments = update(moments, x[piece], weights[piece])
    seen = np.asarray(x, np.float64)[np.asarray(weights) > 0]
    assert moments.count == len(seen)
    np.testing.assert_allclose(moments.mean, seen.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moments.variance, seen.var(0), rtol=1e-3)
    flat = np.asarray(flow.standardise(moments, x))[np.asarray(weights) > 0]
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(flat.std(0), 1, rtol=1e-3)
    back = flow.restore(moments, flow.standardise(moments, x))
    np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-6)


def test_a_decay_forgets_what_has_moved_on():
    moments = flow.start_moments(2)
    rows, weights = [], []
    for step in range(5):
        x = draw(8, 2, seed=step) + step
        moments = flow.update_moments(moments, x, decay=0.5)
        weights = [w / 2 for w in weights] + [1.0] * 8
        rows.extend(np.asarray(x, np.float64))
    middle = np.average(rows, axis=0, weights=weights)
    spread = np.average((np.asarray(rows) - middle) ** 2, axis=0, weights=weights)
    np.testing.assert_allclose(moments.count, sum(weights), rtol=1e-6)
    np.testing.assert_allclose(moments.mean, middle, rtol=1e-5)
    np.testing.assert_allclose(moments.variance, spread, rtol=1e-4)


def test_moments_of_nothing_and_of_one_value_standardise_to_finite_rows():
    x = draw(3, 2)
    start = flow.start_moments(2)
    np.testing.assert_array_equal(flow.standardise(start, x), x)
    nothing = flow.update_moments(start, x, jnp.zeros(3))
    for before, after in zip(start, nothing, strict=True):
        np.testing.assert_array_equal(before, after)
    constant = flow.update_moments(start, jnp.full((3, 2), 4.0))
    np.testing.assert_array_equal(flow.standardise(constant, jnp.full((3, 2), 4.0)), 0)


def test_moments_have_no_gradient():
    def spread(x):
        moments = flow.update_moments(flow.start_moments(2), x)
        return jnp.sum(moments.variance + moments.mean)

    np.testing.assert_array_equal(jax.grad(spread)(draw(4, 2)), 0)
