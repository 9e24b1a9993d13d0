# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Losses and their reductions, written out in float64 NumPy."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.tokenizer import loss, quantizer, rqvae

REDUCE = {"mean": np.mean, "sum": np.sum}


def batch(rows=5, width=7, levels=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width))
    x[:, -3:] = x[:, -3:] > 0
    prediction = rng.normal(size=(rows, width))
    book, commit = rng.random((2, rows, levels))
    quantized = quantizer.Quantized(
        codes=jnp.zeros((rows, levels), "i4"),
        output=jnp.zeros((rows, 2)),
        codebook_loss=jnp.asarray(book, "f4"),
        commitment_loss=jnp.asarray(commit, "f4"),
        residuals=jnp.zeros((rows, levels, 2)),
    )
    output = rqvae.Output(
        jnp.asarray(prediction, "f4"), jnp.zeros((rows, 2)), quantized
    )
    return jnp.asarray(x, "f4"), x, prediction, book, commit, output


@pytest.mark.parametrize("recon", ["mse", "l1"])
@pytest.mark.parametrize("recon_reduce", ["mean", "sum"])
@pytest.mark.parametrize("level_reduce", ["mean", "sum"])
def test_total_and_parts(recon, recon_reduce, level_reduce):
    x, wanted, prediction, book, commit, output = batch()
    objective = loss.Objective(
        recon=recon,
        recon_reduce=recon_reduce,
        level_reduce=level_reduce,
        recon_weight=0.7,
        quant_weight=1.3,
        codebook_weight=0.4,
        beta=9.0,
    )
    made = loss.row_losses(output, x, objective, beta=0.25)
    error = prediction - wanted
    error = error**2 if recon == "mse" else np.abs(error)
    error = REDUCE[recon_reduce](error, axis=1)
    levels = REDUCE[level_reduce](0.4 * book + 0.25 * commit, axis=1)
    np.testing.assert_allclose(made.reconstruction, error, rtol=1e-5)
    np.testing.assert_allclose(made.quantization, levels, rtol=1e-5)
    np.testing.assert_allclose(made.total, 0.7 * error + 1.3 * levels, rtol=1e-5)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_multi_hot_columns_are_logits_of_a_cross_entropy(reduce):
    x, wanted, prediction, *_, output = batch()
    columns = np.arange(7) >= 4
    objective = loss.Objective(recon_reduce=reduce)
    made = loss.reconstruction_loss(
        output.reconstruction, x, objective, multi_hot=columns
    )
    p = 1 / (1 + np.exp(-prediction))
    bce = -(wanted * np.log(p) + (1 - wanted) * np.log(1 - p))
    error = np.where(columns, bce, (prediction - wanted) ** 2)
    np.testing.assert_allclose(made, REDUCE[reduce](error, axis=1), rtol=1e-5)
    vectors = loss.reconstruct(output.reconstruction, objective, multi_hot=columns)
    np.testing.assert_allclose(vectors, np.where(columns, p, prediction), rtol=1e-5)


def test_dense_treats_multi_hot_columns_as_the_others():
    x, *_, output = batch()
    columns = np.arange(7) >= 4
    dense = loss.Objective(multi_hot="dense")
    with_mask = loss.row_losses(output, x, dense, beta=0.1, multi_hot=columns)
    without = loss.row_losses(output, x, dense, beta=0.1)
    np.testing.assert_array_equal(with_mask.total, without.total)
    same = loss.reconstruct(output.reconstruction, dense, multi_hot=columns)
    np.testing.assert_array_equal(same, output.reconstruction)


def test_extreme_logits_stay_finite():
    objective = loss.Objective()
    prediction = jnp.array([[200.0, -200.0, 200.0]])
    x = jnp.array([[1.0, 0.0, 0.0]])
    made = loss.reconstruction_loss(prediction, x, objective, multi_hot=np.ones(3, "?"))
    np.testing.assert_allclose(made, [200 / 3], rtol=1e-6)


@pytest.mark.parametrize("bypass", [True, False])
def test_bypassed_quantization_does_not_count(bypass):
    x, *_, output = batch()
    objective = loss.Objective()
    made = loss.row_losses(output, x, objective, beta=0.25, bypass=jnp.asarray(bypass))
    plain = loss.row_losses(output, x, objective, beta=0.25)
    if bypass:
        np.testing.assert_array_equal(made.quantization, 0)
        np.testing.assert_array_equal(made.total, plain.reconstruction)
    else:
        np.testing.assert_array_equal(made.total, plain.total)


def test_beta_grows_linearly_from_zero():
    objective = loss.Objective(beta=0.8, beta_warmup_epochs=20)
    wanted = {0: 0.0, 5: 0.2, 10.5: 0.42, 20: 0.8, 500: 0.8}
    for epoch, value in wanted.items():
        np.testing.assert_allclose(loss.beta_at(epoch, objective), value, rtol=1e-6)
    constant = dataclasses.replace(objective, beta_warmup_epochs=0)
    np.testing.assert_allclose(loss.beta_at(0, constant), 0.8)
