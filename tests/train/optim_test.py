# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Optimisers against their update rules in float64, with PyTorch's constants."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfrec.train import optim


def adam(w, g, memory, t, s, decoupled):
    if not decoupled:
        g = g + s.weight_decay * w
    m, v = memory or (0.0, 0.0)
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    decay = s.weight_decay * w if decoupled else 0.0
    return w - s.lr * (step + decay), (m, v)


def adagrad(w, g, memory, t, s):
    g = g + s.weight_decay * w
    total = g**2 if memory is None else memory + g**2
    return w - s.lr * g / (np.sqrt(total) + 1e-10), total


def sgd(w, g, memory, t, s):
    g = g + s.weight_decay * w
    velocity = g if memory is None else s.momentum * memory + g
    return w - s.lr * velocity, velocity


RULES = {
    "adamw": lambda *a: adam(*a, decoupled=True),
    "adam": lambda *a: adam(*a, decoupled=False),
    "adagrad": adagrad,
    "sgd": sgd,
}


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", RULES)
def test_ten_steps_follow_the_rule(name, decay):
    momentum = 0.7 if name == "sgd" else 0.0
    settings = optim.Optimizer(name, lr=0.02, weight_decay=decay, momentum=momentum)
    optimizer = optim.build(settings, 10)
    rng = np.random.default_rng(0)
    w = rng.normal(size=6)
    params, memory = jnp.asarray(w, "f4"), None
    state = optimizer.init(params)
    for t in range(1, 11):
        g = rng.normal(size=6) * 10.0 ** rng.integers(-3, 2)
        w, memory = RULES[name](w, g, memory, t, settings)
        updates, state = optimizer.update(jnp.asarray(g, "f4"), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, w, rtol=1e-4, atol=1e-5)


def test_cosine_falls_to_the_least_rate_at_the_last_step():
    settings = optim.Optimizer(lr=1.0, schedule="cosine", min_lr=0.1, warmup_steps=4)
    rate = optim.learning_rate(settings, 24)
    made = [float(rate(step)) for step in range(26)]
    np.testing.assert_allclose(made[:5], [0, 0.25, 0.5, 0.75, 1], rtol=1e-6)
    after = 0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(21) / 20)) / 2
    np.testing.assert_allclose(made[4:25], after, rtol=1e-5)
    np.testing.assert_allclose(made[24:], 0.1, rtol=1e-6)


def test_constant_rate_with_and_without_warmup():
    plain = optim.learning_rate(optim.Optimizer(lr=0.5), 10)
    assert [float(plain(step)) for step in (0, 9)] == [0.5, 0.5]
    warm = optim.learning_rate(optim.Optimizer(lr=0.5, warmup_steps=2), 10)
    made = [float(warm(step)) for step in range(4)]
    np.testing.assert_allclose(made, [0, 0.25, 0.5, 0.5])


def test_clipping_bounds_the_global_norm():
    settings = optim.Optimizer("sgd", lr=1.0, clip_norm=2.0)
    optimizer = optim.build(settings, 1)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    for scale, wanted in ((10.0, 2.0), (0.1, 0.3)):
        grads = {"a": scale * jnp.array([1.0, 2.0]), "b": scale * jnp.array([2.0])}
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        np.testing.assert_allclose(optax.tree.norm(updates), wanted, rtol=1e-5)
        for name, grad in grads.items():
            assert float(np.dot(updates[name], grad)) < 0


def test_warmup_as_a_share_of_the_updates():
    settings = optim.Optimizer(lr=1.0, warmup_share=0.031, weight_decay=0.0)
    rate = optim.learning_rate(settings, 100)
    np.testing.assert_allclose(
        [float(rate(i)) for i in range(6)], [0, 0.25, 0.5, 0.75, 1, 1]
    )
    both = optim.learning_rate(
        optim.Optimizer(lr=1.0, warmup_share=0.02, warmup_steps=4), 100
    )
    assert float(both(2)) == 0.5


def test_accumulated_steps_are_one_update_of_their_mean_gradient():
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(12, 5)).astype("f4")
    settings = {
        "lr": 0.05,
        "weight_decay": 0.1,
        "schedule": "cosine",
        "warmup_steps": 1,
    }
    whole = optim.build(optim.Optimizer(**settings), 4)
    parts = optim.build(optim.Optimizer(**settings, accumulate=3), 12)
    made = []
    for optimizer, rows in (
        (whole, grads.reshape(4, 3, 5).mean(axis=1)),
        (parts, grads),
    ):
        params = jnp.ones(5)
        state = optimizer.init(params)
        for i, row in enumerate(rows):
            updates, state = optimizer.update(jnp.asarray(row), state, params)
            if optimizer is parts and i % 3 < 2:
                assert not np.any(updates)
            params = optax.apply_updates(params, updates)
        made.append(params)
    np.testing.assert_allclose(made[1], made[0], rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_decay_may_leave_out_gains_and_biases(name):
    settings = optim.Optimizer(name, lr=0.1, weight_decay=0.5, decay="matrices")
    optimizer = optim.build(settings, 1)
    params = {"matrix": jnp.ones((2, 2)), "gain": jnp.ones(2)}
    grads = {"matrix": jnp.zeros((2, 2)), "gain": jnp.zeros(2)}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(updates["matrix"], -0.05)
    np.testing.assert_array_equal(updates["gain"], 0)


def test_a_staircase_falls_once_a_stair():
    settings = optim.Optimizer(
        lr=0.5, schedule="staircase", stair=3, stair_factor=0.9, warmup_steps=0
    )
    rate = optim.learning_rate(settings, 10)
    made = [float(rate(jnp.int32(step))) for step in range(8)]
    wanted = [0.5] * 3 + [0.45] * 3 + [0.405] * 2
    np.testing.assert_allclose(made, wanted, rtol=1e-6)
