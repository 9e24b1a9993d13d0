# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME's losses, row by row in float64 NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.graph import gume, losses

BATCH, WIDTH, NODES = 7, 5, 11
SETTINGS = losses.Weights(
    behaviour=0.3,
    behaviour_temperature=0.4,
    user=0.2,
    user_temperature=0.25,
    alignment=0.7,
    embeddings=0.05,
    interest=0.6,
    batch_size=16,
)


def problem(modalities=2, seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    h, g, z = (draw(3 * BATCH, WIDTH) for _ in range(3))
    rows = gume.Rows(h, g, z, draw(2 * BATCH, WIDTH))
    noise = losses.draw_noise(jax.random.key(seed), BATCH, WIDTH)
    return rows, join([draw(NODES, WIDTH) * (i + 1) for i in range(modalities)]), noise


def join(explicit):
    """Returns what was propagated: F of some users and of the items."""
    f, nothing = jnp.stack(explicit, axis=1), jnp.zeros((NODES, 0, WIDTH))
    return gume.Propagated(gume.Side(nothing[:4], f[:4]), gume.Side(nothing[4:], f[4:]))


def info_nce(x, y, temperature):
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y)]
    values = []
    for i, row in enumerate(unit[0]):
        terms = [np.exp(row @ other / temperature) for other in unit[1]]
        values.append(-np.log(terms[i] / sum(terms)))
    return np.mean(values)


def perturbed(x, draw):
    return np.stack(
        [
            a + 0.1 * np.sign(a) * r / np.linalg.norm(r)
            for a, r in zip(x, draw, strict=True)
        ]
    )


def by_definition(s, rows, propagated, noise):
    rows = [np.asarray(a, np.float64) for a in rows]
    f = [np.asarray(a, np.float64) for a in propagated.explicit]
    noise = np.asarray(noise, np.float64)
    batch = noise.shape[1]
    h, g, z = (a.reshape(3, batch, -1) for a in rows[:3])
    q = rows[3].reshape(2, batch, -1)
    scores = [z[0, i] @ (z[1, i] - z[2, i]) for i in range(batch)]
    return {
        "bpr": np.mean([np.log(1 + np.exp(-score)) for score in scores]),
        "alignment": abs(f[0].var(ddof=1) - f[1].var(ddof=1))
        + abs(f[0].mean() - f[1].mean()),
        "behaviour_modality": info_nce(g[0], h[0], s.behaviour_temperature)
        + info_nce(g[1], h[1], s.behaviour_temperature),
        "user_modality": info_nce(q[0], g[0], s.user_temperature)
        + info_nce(
            perturbed(g[0], noise[0]), perturbed(g[0], noise[1]), s.user_temperature
        )
        + info_nce(
            perturbed(q[0], noise[2]), perturbed(q[0], noise[3]), s.user_temperature
        ),
        "embeddings": 0.5 * np.sum(z**2) / s.batch_size,
        "interest": 0.5 * np.sum(q[1] ** 2) / s.batch_size,
    }


@pytest.mark.parametrize("block", [None, 3])
def test_losses_equal_their_definition_jitted_and_eager(block):
    rows, propagated, noise = problem()
    settings = dataclasses.replace(SETTINGS, block=block)
    wanted = by_definition(settings, rows, propagated, noise)
    names = dataclasses.asdict(settings) | {
        "bpr": 1.0,
        "behaviour_modality": settings.behaviour,
        "user_modality": settings.user,
    }
    whole = sum(names[name] * value for name, value in wanted.items())
    ones = jnp.ones(BATCH)
    for run in (losses.total, jax.jit(losses.total, static_argnums=0)):
        total, parts = run(settings, rows, propagated, noise, ones)
        assert parts.keys() == wanted.keys()
        for name, value in parts.items():
            np.testing.assert_allclose(value, wanted[name], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(total, whole, rtol=1e-5)


def test_rows_that_fill_up_a_batch_change_nothing():
    rows, propagated, noise = problem()
    keep = BATCH - 3
    weights = (jnp.arange(BATCH) < keep).astype(jnp.float32)

    def short(a):
        parts = jnp.split(a, len(a) // BATCH)
        return jnp.concatenate([part[:keep] for part in parts])

    def run(rows, noise, weights):
        return jax.value_and_grad(
            lambda rows: losses.total(SETTINGS, rows, propagated, noise, weights)[0]
        )(rows)

    value, gradient = run(rows, noise, weights)
    fewer = gume.Rows(*map(short, rows))
    wanted, gradients = run(fewer, noise[:, :keep], jnp.ones(keep))
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    for ours, theirs in zip(gradient, gradients, strict=True):
        np.testing.assert_allclose(short(ours), theirs, rtol=1e-4, atol=1e-7)
        for part in jnp.split(ours, len(ours) // BATCH):
            np.testing.assert_array_equal(part[keep:], 0)


def test_alignment_takes_any_number_of_modalities():
    _, propagated, _ = problem(modalities=3)
    f = propagated.explicit
    assert losses.alignment(join(f[:1])) == 0
    pairs = [losses.alignment(join([f[i], f[j]])) for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(losses.alignment(propagated), np.mean(pairs), rtol=1e-5)


def test_a_perturbed_row_moves_by_the_length_and_keeps_its_signs():
    rows, _, noise = problem()
    x = rows.behaviour[:BATCH]
    moved = losses.perturb(x, noise[0], 0.1)
    np.testing.assert_allclose(jnp.linalg.norm(moved - x, axis=1), 0.1, rtol=1e-5)
    np.testing.assert_array_equal(jnp.sign(moved), jnp.sign(x))
    # Rows of zeros have no orthant; a draw of zeros no direction.
    assert not np.any(losses.perturb(jnp.zeros((2, 3)), jnp.ones((2, 3)), 0.1))
    assert np.isfinite(losses.perturb(x, jnp.zeros_like(x), 0.1)).all()


def test_extreme_scores_stay_finite():
    rows, propagated, noise = problem()
    large = gume.Rows(*(a * 1e4 for a in rows))
    settings = dataclasses.replace(
        SETTINGS, behaviour_temperature=1e-3, user_temperature=1e-3
    )

    def run(rows):
        return losses.total(settings, rows, propagated, noise, jnp.ones(BATCH))[0]

    value, gradient = jax.value_and_grad(run)(large)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in gradient)


def test_refuses_noise_of_another_batch():
    rows, propagated, noise = problem()
    with pytest.raises(Exception, match="noise|shape|incompatible"):
        losses.total(SETTINGS, rows, propagated, noise[:, :-1], jnp.ones(BATCH))
