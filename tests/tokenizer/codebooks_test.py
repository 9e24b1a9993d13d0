# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""How codebooks start: the best of several seedings, where they are put."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfrec.tokenizer import codebooks, quantizer, rqvae
from rfrec.train import state


def conflicts(latents, books, sizes):
    residual, codes = np.asarray(latents, "f8"), []
    for book, k in zip(books.astype("f8"), sizes, strict=True):
        d = ((residual[:, None] - book[None, :k]) ** 2).sum(axis=2)
        codes.append(d.argmin(axis=1))
        residual = residual - book[codes[-1]]
    return len(codes[0]) - len(np.unique(np.stack(codes, axis=1), axis=0))


def test_of_several_seedings_the_one_with_fewest_conflicts_is_kept():
    latents = jnp.asarray(np.random.default_rng(0).normal(size=(60, 3)), "f4")
    sizes, found = (6, 4), []
    for restarts in (1, 8):
        settings = codebooks.Codebooks(kmeans_restarts=restarts)
        books = codebooks.fit(jax.random.key(0), latents, sizes, settings)
        assert books.shape == (2, 6, 3)
        np.testing.assert_array_equal(books[1, 4:], 0)
        found.append(conflicts(latents, books, sizes))
    assert found[1] < found[0]


def test_temperature_falls_exponentially_and_stays():
    settings = codebooks.Codebooks(temperature=(2.0, 0.5), temperature_epochs=10)
    for epoch, wanted in {0: 2.0, 5: 1.0, 10: 0.5, 99: 0.5}.items():
        made = codebooks.temperature_at(jnp.float32(epoch), settings)
        np.testing.assert_allclose(made, wanted, rtol=1e-6)


@pytest.mark.parametrize("learned_by", ["gradient", "ema"])
def test_a_replaced_codebook_is_the_one_in_use(learned_by):
    arch = rqvae.Architecture(
        input_width=4,
        hidden=(),
        latent_width=3,
        quantization=quantizer.Quantization((5, 5), learned_by=learned_by),
    )
    variables = jax.jit(rqvae.RQVAE(arch).init)(jax.random.key(0), jnp.zeros((1, 4)))
    before = state.create(
        params=variables.pop("params"),
        model_state=variables,
        optimizer=optax.sgd(1.0),
        seed=0,
    )
    vectors = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("f4")
    after = codebooks.replace(before, vectors, arch)
    tree = {"params": after.params, **after.model_state}
    model = rqvae.RQVAE(arch)
    used = model.apply(jax.tree.map(jnp.asarray, tree), method="code_vectors")
    np.testing.assert_array_equal(used, vectors)
    if learned_by == "ema":
        # The averages are of these vectors: without new rows they stay.
        averages = after.model_state["codebook"]
        np.testing.assert_allclose(
            averages["sums"] / averages["counts"][..., None], vectors
        )
