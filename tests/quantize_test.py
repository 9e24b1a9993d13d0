# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The residual quantizer as a module of another model, by its equations."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfrec
from rfrec.config import UserError
from rfrec.quantize import ResidualQuantizer, init_codebooks

SIZES, WIDTH, ROWS = (7, 5), 4, 24


def latents(rows=ROWS, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(rows, WIDTH)), "f4")


def init(vq, seed=0):
    return jax.jit(vq.init)(jax.random.key(seed), latents())


def brute_force(z, codebook, sizes):
    """Codes and chosen vectors by a loop over levels, in float64."""
    residual, codes, chosen = np.asarray(z, "f8"), [], []
    for book, k in zip(np.asarray(codebook, "f8"), sizes, strict=True):
        d = ((residual[:, None] - book[None, :k]) ** 2).sum(axis=2)
        codes.append(d.argmin(axis=1))
        chosen.append(book[codes[-1]])
        residual = residual - chosen[-1]
    return np.stack(codes, axis=1), np.stack(chosen, axis=1)


class Autoencoder(nn.Module):
    """A user's model: the three lines with `vq` are all that quantization adds."""

    ema: bool = False

    @nn.compact
    def __call__(self, x, training=False):
        z = nn.Dense(WIDTH, name="encoder")(x)
        vq = ResidualQuantizer(sizes=SIZES, ema=self.ema, ema_decay=0.8, name="vq")
        out = vq(z, training=training)
        return nn.Dense(x.shape[1], name="decoder")(out.quantized), z, out.loss


@pytest.mark.parametrize("ema", [False, True])
def test_a_users_autoencoder_learns(ema):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(64, 6)), "f4")
    model = Autoencoder(ema)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    z = jax.jit(model.apply)(variables, x)[1]
    variables = init_codebooks(variables, z, SIZES, key=jax.random.key(1), path=("vq",))
    params, rest = (
        variables["params"],
        {k: variables[k] for k in variables if k != "params"},
    )
    optimizer = optax.adam(1e-2)

    def loss(params, rest):
        (y, _, extra), updated = model.apply(
            {"params": params, **rest}, x, training=True, mutable=["codebook"]
        )
        return jnp.mean((y - x) ** 2) + extra, updated

    @jax.jit
    def step(params, rest, state):
        (value, updated), grads = jax.value_and_grad(loss, has_aux=True)(params, rest)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), {**rest, **updated}, state, value

    state, values = optimizer.init(params), []
    for _ in range(60):
        params, rest, state, value = step(params, rest, state)
        values.append(float(value))
    assert np.mean(values[-5:]) < 0.7 * np.mean(values[:5])
    assert ("codebook" in rest) == ema


def test_codes_and_sum_equal_brute_force():
    vq = ResidualQuantizer(SIZES, beta=0.5)
    variables = init(vq)
    z = 0.2 * latents()
    out = jax.jit(vq.apply)(variables, z)
    codes, chosen = brute_force(z, variables["params"]["codebook"], SIZES)
    np.testing.assert_array_equal(out.codes, codes)
    np.testing.assert_allclose(out.quantized, chosen.sum(axis=1), atol=1e-6)
    rest = np.asarray(z)[:, None] - np.cumsum(chosen, axis=1)
    np.testing.assert_allclose(out.loss, 1.5 * np.mean(rest**2), rtol=1e-5)
    decoded = vq.apply(variables, out.codes, method="decode")
    np.testing.assert_allclose(decoded, chosen.sum(axis=1), atol=1e-6)


def test_straight_through_copies_the_gradient():
    vq = ResidualQuantizer(SIZES)
    variables, weights = init(vq), latents(seed=2)

    def value(z):
        return jnp.sum(weights * vq.apply(variables, z, training=True).quantized)

    np.testing.assert_allclose(jax.grad(value)(latents()), weights, atol=1e-6)


def test_rotation_turns_and_scales_the_gradient():
    # One level: gradient = |q|/|z| R^T w, with R the rotation of z onto q.
    vq = ResidualQuantizer((6,), estimator="rotation")
    variables, weights, z = init(vq), latents(seed=2), latents()
    gradient = jax.grad(
        lambda z: jnp.sum(weights * vq.apply(variables, z, training=True).quantized)
    )(z)
    _, chosen = brute_force(z, variables["params"]["codebook"], (6,))
    for row in range(ROWS):
        r, q = np.asarray(z[row], "f8"), chosen[row, 0]
        a, b = r / np.linalg.norm(r), q / np.linalg.norm(q)
        w = (a + b) / np.linalg.norm(a + b)
        rotation = np.eye(WIDTH) - 2 * np.outer(w, w) + 2 * np.outer(b, a)
        scale = np.linalg.norm(q) / np.linalg.norm(r)
        wanted = scale * rotation.T @ np.asarray(weights[row], "f8")
        np.testing.assert_allclose(gradient[row], wanted, rtol=1e-3, atol=1e-5)


def test_an_ema_update_follows_its_equation():
    vq = ResidualQuantizer(SIZES, ema=True, ema_decay=0.9)
    variables, z = init(vq), latents()
    out, updated = jax.jit(
        functools.partial(vq.apply, training=True, mutable=["codebook"])
    )(variables, z)
    before, after = variables["codebook"], updated["codebook"]
    codes = np.asarray(out.codes)
    for level, k in enumerate(SIZES):
        for code in range(k):
            rows = codes[:, level] == code
            count = 0.9 * before["counts"][level, code] + 0.1 * rows.sum()
            total = 0.9 * before["sums"][level, code] + 0.1 * np.sum(
                np.asarray(out.residuals)[rows, level], axis=0
            )
            np.testing.assert_allclose(after["counts"][level, code], count, rtol=1e-5)
            np.testing.assert_allclose(
                after["vectors"][level, code], total / count, rtol=1e-4, atol=1e-6
            )
    # The codebook loss is left out: only the commitment loss remains.
    rest = np.asarray(out.residuals) - brute_force(z, before["vectors"], SIZES)[1]
    np.testing.assert_allclose(out.loss, 0.25 * np.mean(rest**2), rtol=1e-5)
    # Without training, or if the collection is immutable, nothing changes.
    _, same = vq.apply(variables, z, mutable=["codebook"])
    np.testing.assert_array_equal(same["codebook"]["vectors"], before["vectors"])
    vq.apply(variables, z, training=True)


def test_unused_codes_are_revived_on_residuals():
    vq = ResidualQuantizer((5,), ema=True, ema_decay=0.4, revive_below=0.5)
    variables, z = init(vq), latents()
    far = variables["codebook"]["vectors"].at[0, 3].set(100.0)
    variables = {"codebook": {**variables["codebook"], "vectors": far}}
    _, updated = vq.apply(
        variables,
        z,
        training=True,
        mutable=["codebook"],
        rngs={"revive": jax.random.key(0)},
    )
    revived = np.asarray(updated["codebook"]["vectors"][0, 3])
    assert (np.abs(np.asarray(z) - revived).max(axis=1) < 1e-6).any()


def test_sinkhorn_balances_while_training():
    z = latents(rows=70)
    vq = ResidualQuantizer((7,), sk_epsilons=(0.01,))
    variables = init_codebooks(init(vq), z, (7,), key=jax.random.key(0))
    run = jax.jit(vq.apply, static_argnames="training")
    counts = [
        np.bincount(run(variables, z, training=training).codes[:, 0], minlength=7)
        for training in (False, True)
    ]
    assert counts[1].std() < counts[0].std() / 2


def test_gumbel_draws_and_cosine_measures_angles():
    z = latents()
    vq = ResidualQuantizer(SIZES, estimator="gumbel")
    variables = init(vq)
    one, other = (
        vq.apply(variables, z, training=True, rngs={"gumbel": jax.random.key(i)})
        for i in (0, 1)
    )
    assert np.abs(one.quantized - other.quantized).max() > 1e-3
    vq = ResidualQuantizer((6,), distance="cosine")
    book = np.asarray(variables["params"]["codebook"])[:1, :6]
    codes = vq.apply({"params": {"codebook": book}}, z).codes[:, 0]
    cosine = np.asarray(z) @ (book[0] / np.linalg.norm(book[0], axis=1)[:, None]).T
    np.testing.assert_array_equal(codes, cosine.argmax(axis=1))


@pytest.mark.parametrize("ema", [False, True])
def test_k_means_centres_are_means_of_their_rows(ema):
    vq, z = ResidualQuantizer(SIZES, ema=ema), latents()
    variables = init_codebooks(init(vq), z, SIZES, key=jax.random.key(0))
    out = vq.apply(variables, z)
    books = variables["codebook"]["vectors"] if ema else variables["params"]["codebook"]
    for level in range(2):
        for code in np.unique(out.codes[:, level]):
            rows = np.asarray(out.codes[:, level]) == code
            mean = np.asarray(out.residuals)[rows, level].mean(axis=0)
            np.testing.assert_allclose(books[level, code], mean, atol=1e-4)


def test_mistakes_are_one_line():
    z = latents()
    for vq, message in (
        (ResidualQuantizer(SIZES, sk_epsilons=(0.1,) * 3), "has 3 values for 2 levels"),
        (ResidualQuantizer(SIZES, estimator="gumbel", ema=True), "combined with ema"),
    ):
        with pytest.raises(UserError, match=message):
            vq.init(jax.random.key(0), z)
    variables = init(ResidualQuantizer(SIZES))
    with pytest.raises(UserError, match="requires as many latents"):
        init_codebooks(variables, z[:3], SIZES, key=jax.random.key(0))
    with pytest.raises(UserError, match="no codebook at a/b"):
        init_codebooks(variables, z, SIZES, key=jax.random.key(0), path=("a", "b"))


def test_the_module_is_public():
    assert rfrec.quantize.ResidualQuantizer is ResidualQuantizer
