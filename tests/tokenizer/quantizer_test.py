# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Residual quantization against a loop over levels and recorded PyTorch results."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.tokenizer import mql4grec, quantizer

GOLDEN = Path(__file__).parents[2] / "third_party" / "golden"
RECORDED = ("mql4grec_rqvae_equal", "mql4grec_rqvae_sinkhorn_all_levels")
SIZES = (7, 5, 9)


@functools.partial(jax.jit, static_argnames=("spec", "training"))
def run(z, books, spec, training=False, keys=None, temperature=1.0):
    return quantizer.quantize_batch(
        z, books, spec, training=training, keys=keys, temperature=temperature
    )


def latents(rows=40, width=6, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype("f4")


def codebooks(sizes=SIZES, width=6, seed=1):
    """Padded with vectors near the data, which must never be chosen."""
    rng = np.random.default_rng(seed)
    books = [rng.normal(size=(k, width)) / (level + 1) for level, k in enumerate(sizes)]
    pad = max(sizes)
    return np.stack([np.pad(b, ((0, pad - len(b)), (0, 0))) for b in books]).astype(
        "f4"
    )


def loop(z, books, sizes, distance):
    """Levels one by one, in float64."""
    residual, codes, chosen, residuals = z.astype("f8"), [], [], []
    for book, k in zip(books.astype("f8"), sizes, strict=True):
        book = book[:k]
        if distance == "l2":
            d = ((residual[:, None] - book[None]) ** 2).sum(axis=2)
        else:
            lengths = np.linalg.norm(residual, axis=1)[:, None]
            d = 1 - residual @ book.T / lengths / np.linalg.norm(book, axis=1)
        codes.append(d.argmin(axis=1))
        chosen.append(book[codes[-1]])
        residuals.append(residual)
        residual = residual - chosen[-1]
    return np.stack(codes, 1), np.stack(chosen, 1), np.stack(residuals, 1)


@pytest.mark.parametrize("distance", ["l2", "cosine"])
@pytest.mark.parametrize("sizes", [SIZES, (6, 6)])
@pytest.mark.parametrize("estimator", ["ste", "rotation"])
def test_codes_vectors_and_losses_equal_a_loop_over_levels(distance, sizes, estimator):
    z, books = latents(), codebooks(sizes)
    spec = quantizer.Quantization(sizes, estimator=estimator, distance=distance)
    codes, chosen, residuals = loop(z, books, sizes, distance)
    made = run(z, books, spec, training=True)
    np.testing.assert_array_equal(made.codes, codes)
    np.testing.assert_allclose(made.output, chosen.sum(axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(made.residuals, residuals, rtol=1e-5, atol=1e-5)
    losses = ((residuals - chosen) ** 2).mean(axis=2)
    np.testing.assert_allclose(made.codebook_loss, losses, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made.commitment_loss, losses, rtol=1e-5, atol=1e-6)


def test_one_vector_is_a_row_of_the_batch():
    z, books = jnp.asarray(latents(rows=3)), jnp.asarray(codebooks())
    spec = quantizer.Quantization(SIZES)
    batch = run(z, books, spec)
    for i in range(3):
        one = quantizer.quantize(z[i], books, spec, training=False)
        np.testing.assert_array_equal(one.codes, batch.codes[i])
        np.testing.assert_allclose(one.output, batch.output[i], atol=1e-6)
        np.testing.assert_allclose(one.residuals, batch.residuals[i], atol=1e-6)


def test_distances_of_zero_vectors_are_defined():
    books = jnp.zeros((3, 4)).at[1].set(1.0)
    for distance in ("l2", "cosine"):
        d = quantizer.code_distances(jnp.zeros(4), books, distance)
        assert np.isfinite(d).all()
    np.testing.assert_allclose(quantizer.unit(jnp.zeros((2, 4))), 0)
    made = jax.grad(lambda x: jnp.sum(quantizer.unit(x)))(jnp.zeros(4))
    assert np.isfinite(made).all()


@pytest.mark.parametrize("file", RECORDED)
def test_recorded_quantization(file):
    with np.load(GOLDEN / f"{file}.npz", allow_pickle=False) as data:
        golden = dict(data)
    start = {k[5:]: v for k, v in golden.items() if k.startswith("init/")}
    weights = mql4grec.read_state_dict(start)
    spec = quantizer.Quantization(
        weights.sizes, sk_epsilons=tuple(golden["sk_epsilons"].tolist())
    )
    books = jnp.asarray(weights.params["codebook"])
    for part, training in (("nn", False), ("sk", True)):
        made = run(golden["z"], books, spec, training=training)
        np.testing.assert_array_equal(made.codes, golden[f"{part}/codes"])
        np.testing.assert_allclose(
            made.output, golden[f"{part}/x_q"], rtol=1e-5, atol=1e-6
        )
        levels = made.codebook_loss + 0.25 * made.commitment_loss
        np.testing.assert_allclose(
            jnp.mean(levels), golden[f"{part}/rq_loss"], rtol=1e-5
        )
        if part == "nn":
            d = jax.vmap(  # over rows, then levels
                lambda r: jax.vmap(lambda r, b: quantizer.code_distances(r, b, "l2"))(
                    r, books
                )
            )(made.residuals)
            np.testing.assert_allclose(d, golden["nn/distances"], rtol=1e-5, atol=1e-5)
    assert (golden["nn/codes"] != golden["sk/codes"]).any()


def test_recorded_rotation_trick():
    with np.load(GOLDEN / "rotation_trick.npz", allow_pickle=False) as golden:
        out, vjp = jax.vjp(jax.vmap(quantizer.rotate), golden["x"], golden["code"])
        grad_x, _ = vjp(jnp.asarray(golden["cotangent"]))
        np.testing.assert_allclose(out, golden["out"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(grad_x, golden["grad_x"], rtol=1e-4, atol=1e-6)


def test_rotation_lands_on_the_code_and_keeps_angles():
    rng = np.random.default_rng(4)
    r, q = jnp.asarray(rng.normal(size=(2, 5)), "f4")
    np.testing.assert_allclose(quantizer.rotate(r, q), q, atol=1e-6)
    turn = np.asarray(jax.jacobian(quantizer.rotate)(r, q), np.float64)
    scale = np.linalg.norm(q) / np.linalg.norm(r)
    np.testing.assert_allclose(turn.T @ turn, scale**2 * np.eye(5), atol=1e-5)
    assert np.linalg.det(turn) > 0
    # Directions orthogonal to both stay where they are.
    free = np.linalg.svd(np.stack([r, q]))[2][2:]
    np.testing.assert_allclose(turn @ free.T, scale * free.T, atol=1e-5)


@pytest.mark.parametrize("case", ["opposite", "zero", "equal"])
def test_rotation_of_degenerate_pairs(case):
    q = jnp.array([1.0, 2.0, -2.0])
    r = {"opposite": -2 * q, "zero": 0 * q, "equal": q}[case]
    out, vjp = jax.vjp(quantizer.rotate, r, q)
    if case != "zero":
        np.testing.assert_allclose(out, q, atol=1e-5)
    assert np.isfinite(out).all()
    assert np.isfinite(vjp(jnp.ones(3))[0]).all()


@pytest.mark.parametrize("residual_grad", ["stop", "flow"])
def test_which_gradients_reach_the_latent(residual_grad):
    z, books = latents(rows=1)[0], codebooks()
    spec = quantizer.Quantization(SIZES, residual_grad=residual_grad)

    @jax.jit
    @jax.jacobian
    def jacobians(z):
        made = quantizer.quantize(z, jnp.asarray(books), spec, training=True)
        return made.output, made.commitment_loss, made.codebook_loss

    output, commitment, codebook = jacobians(jnp.asarray(z))
    np.testing.assert_allclose(output, np.eye(6), atol=1e-6)
    np.testing.assert_array_equal(codebook, 0)
    _, chosen, residuals = loop(z[None], books, SIZES, "l2")
    wanted = 2 * (residuals - chosen)[0] / 6
    if residual_grad == "stop":
        wanted[1:] = 0
        np.testing.assert_array_equal(commitment[1:], 0)
    np.testing.assert_allclose(commitment, wanted, atol=1e-5)


@pytest.mark.parametrize("residual_grad", ["stop", "flow"])
@pytest.mark.parametrize("estimator", ["ste", "rotation"])
def test_only_chosen_codes_are_moved(residual_grad, estimator):
    z, books = latents(), codebooks()
    spec = quantizer.Quantization(SIZES, estimator, residual_grad=residual_grad)

    @jax.jit
    @jax.grad
    def gradient(books):
        made = quantizer.quantize_batch(jnp.asarray(z), books, spec, training=True)
        # The commitment loss and the output may not move a code.
        others = jnp.sum(made.output**2) + jnp.sum(made.commitment_loss)
        return jnp.sum(made.codebook_loss) + others

    codes, chosen, residuals = loop(z, books, SIZES, "l2")
    wanted = np.zeros(books.shape)
    for level in range(3):
        pull = 2 * (chosen - residuals)[:, level] / 6
        np.add.at(wanted[level], codes[:, level], pull)
    np.testing.assert_allclose(gradient(jnp.asarray(books)), wanted, atol=2e-5)


def gumbel(temperature, *, scale, rows=40, sizes=SIZES):
    z, books = scale * latents(rows), scale * codebooks(sizes)
    spec = quantizer.Quantization(sizes, "gumbel")
    keys = jax.random.split(jax.random.key(0), rows)
    return z, books, run(z, books, spec, True, keys, temperature)


def test_gumbel_at_low_temperature_takes_the_nearest_code():
    # Distances are far above the noise.
    z, books, made = gumbel(1e-3, scale=100)
    codes, chosen, _ = loop(z, books, SIZES, "l2")
    same = (made.codes == codes).all(axis=1)
    assert same.mean() > 0.9
    np.testing.assert_allclose(made.output[same], chosen.sum(1)[same], rtol=1e-4)


def test_gumbel_draws_codes_by_their_distance():
    rows = 4000
    z = np.repeat(latents(rows=1), rows, axis=0)
    books = codebooks((5,))
    spec = quantizer.Quantization((5,), "gumbel")
    keys = jax.random.split(jax.random.key(1), rows)
    made = run(z, books, spec, True, keys, 1e-4)
    drawn = ((np.asarray(made.output)[:, None] - books[0]) ** 2).sum(2).argmin(1)
    d = ((z[0] - books[0]) ** 2).sum(axis=1)
    share = np.exp(-d) / np.exp(-d).sum()
    deviation = np.sqrt(share * (1 - share) / rows)
    found = np.bincount(drawn, minlength=5) / rows
    assert (np.abs(found - share) < 4 * deviation + 1e-3).all()


def test_gumbel_mixes_existing_codes_with_a_finite_gradient():
    z, books = jnp.asarray(latents()), jnp.asarray(codebooks())
    # A padding so near that it would be taken if it existed.
    books = books.at[1, 5:].set(z.mean(axis=0))
    spec = quantizer.Quantization(SIZES, "gumbel")
    keys = jax.random.split(jax.random.key(0), len(z))

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradient(z, books, temperature):
        made = quantizer.quantize_batch(
            z, books, spec, training=True, keys=keys, temperature=temperature
        )
        return jnp.sum(made.output**2) + jnp.sum(made.commitment_loss)

    for temperature in (1e-3, 0.2, 5.0):
        for made in gradient(z, books, temperature):
            assert np.isfinite(made).all()
    grad_z, grad_books = gradient(z, books, 1.0)
    assert (np.abs(grad_z).max(axis=1) > 0).all()
    np.testing.assert_array_equal(grad_books[1, 5:], 0)


def test_gumbel_without_training_is_nearest_and_has_no_noise():
    z, books = latents(), codebooks()
    made = run(z, books, quantizer.Quantization(SIZES, "gumbel"))
    codes, chosen, _ = loop(z, books, SIZES, "l2")
    np.testing.assert_array_equal(made.codes, codes)
    np.testing.assert_allclose(made.output, chosen.sum(axis=1), atol=1e-5)


def test_sinkhorn_only_balances_its_levels_while_training():
    z, books = latents(rows=90), codebooks()
    spec = quantizer.Quantization(SIZES, sk_epsilons=(0.0, 0.01, 0.0))
    nearest, balanced = run(z, books, spec), run(z, books, spec, training=True)
    codes, _, _ = loop(z, books, SIZES, "l2")
    np.testing.assert_array_equal(nearest.codes, codes)
    np.testing.assert_array_equal(balanced.codes[:, 0], codes[:, 0])
    counts = [np.bincount(q.codes[:, 1], minlength=5) for q in (nearest, balanced)]
    assert counts[1].std() < counts[0].std() / 2
    assert len(counts[1]) == 5  # no code that only pads


def test_a_batch_is_one_product_a_level():
    z, books = jnp.zeros((96, 6)), jnp.asarray(codebooks())
    spec = quantizer.Quantization(SIZES)
    text = run.lower(z, books, spec).compile().as_text()
    shapes = re.findall(r"= f32\[([\d,]+)\]\S* (?:dot|custom-call)\(", text)
    products = [s for s in shapes if sorted(s.split(",")) == ["9", "96"]]
    assert len(products) == 1, shapes
    # The loop over levels is the only one: nothing runs row by row.
    trips = re.findall(r'known_trip_count":\{"n":"(\d+)"', text)
    assert set(trips) <= {"3"}, trips
