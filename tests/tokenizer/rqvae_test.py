# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The model against recorded PyTorch results and NumPy; moving averages of codes."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.tokenizer import mql4grec, quantizer, rqvae

GOLDEN = Path(__file__).parents[2] / "third_party" / "golden"
RECORDED = ("mql4grec_rqvae_equal", "mql4grec_rqvae_sinkhorn_all_levels")


def architecture(**changes):
    arch = rqvae.Architecture(
        input_width=10,
        hidden=(8,),
        latent_width=4,
        quantization=quantizer.Quantization((6, 3)),
    )
    names = {f.name for f in dataclasses.fields(quantizer.Quantization)}
    spec = {name: changes.pop(name) for name in names & changes.keys()}
    quantization = dataclasses.replace(arch.quantization, **spec)
    return dataclasses.replace(arch, quantization=quantization, **changes)


@functools.partial(jax.jit, static_argnames="arch")
def init(arch, seed=0):
    model = rqvae.RQVAE(arch)
    return model.init(jax.random.key(seed), jnp.zeros((1, arch.input_width)))


def inputs(rows=12, width=10, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(rows, width)), "f4")


def row_keys(rows=12, seed=5):
    return jax.random.split(jax.random.key(seed), rows)


@pytest.mark.parametrize("file", RECORDED)
def test_recorded_forward_pass(file):
    with np.load(GOLDEN / f"{file}.npz", allow_pickle=False) as data:
        golden = dict(data)
    start = {k[5:]: v for k, v in golden.items() if k.startswith("init/")}
    weights = mql4grec.read_state_dict(start)
    arch = rqvae.Architecture(
        input_width=weights.input_width,
        hidden=weights.hidden,
        latent_width=weights.latent_width,
        quantization=quantizer.Quantization(
            weights.sizes, sk_epsilons=tuple(golden["sk_epsilons"].tolist())
        ),
    )
    params = jax.tree.map(jnp.asarray, weights.params)
    run = jax.jit(
        functools.partial(rqvae.RQVAE(arch).apply, {"params": params}),
        static_argnames="training",
    )
    x = jnp.asarray(golden["x"])
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-6)
    nearest, balanced = run(x), run(x, training=True)
    near(nearest.latents, golden["z"])
    np.testing.assert_array_equal(nearest.quantized.codes, golden["nn/codes"])
    near(nearest.quantized.output, golden["nn/x_q"])
    np.testing.assert_array_equal(balanced.quantized.codes, golden["sk/codes"])
    near(balanced.reconstruction, golden["train/recon"])


def mlp(params, x, batch_norm=False):
    """Linear layers with ReLU between, in float64."""
    depth = sum(name.startswith("linear") for name in params)
    x = np.asarray(x, np.float64)
    for i in range(depth):
        layer = params[f"linear_{i}"]
        x = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        if i < depth - 1:
            if batch_norm:
                x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
            x = np.maximum(x, 0)
    return x


@pytest.mark.parametrize("hidden", [(), (8,), (9, 7)])
def test_encoder_and_decoder_mirror_each_other(hidden):
    arch = architecture(hidden=hidden)
    variables = init(arch)
    params = variables["params"]
    widths = [10, *hidden, 4]
    for part, sizes in (("encoder", widths), ("decoder", widths[::-1])):
        shapes = [
            params[part][f"linear_{i}"]["kernel"].shape for i in range(len(hidden) + 1)
        ]
        assert shapes == list(zip(sizes[:-1], sizes[1:], strict=True))
    x = inputs()
    out = jax.jit(rqvae.RQVAE(arch).apply)(variables, x)
    np.testing.assert_allclose(out.latents, mlp(params["encoder"], x), atol=1e-5)
    decoded = mlp(params["decoder"], out.quantized.output)
    np.testing.assert_allclose(out.reconstruction, decoded, atol=1e-5)


def test_initialisers():
    arch = architecture(input_width=300, hidden=(200,), latent_width=100)
    for name, deviation in (("xavier", np.sqrt(2 / 500)), ("normal", 0.02)):
        params = init(dataclasses.replace(arch, initializer=name))["params"]
        layer = params["encoder"]["linear_0"]
        np.testing.assert_allclose(np.std(layer["kernel"]), deviation, rtol=0.02)
        np.testing.assert_array_equal(layer["bias"], 0)
    book = np.asarray(params["codebook"])
    assert book.shape == (2, 6, 100)
    for level, k in enumerate((6, 3)):
        values = book[level, :k]
        assert np.abs(values).max() <= 1 / k
        np.testing.assert_allclose(values.std(), 2 / k / np.sqrt(12), rtol=0.1)
    np.testing.assert_array_equal(book[1, 3:], 0)


def test_l2_normalisation_of_latents_and_first_codebook():
    arch = architecture(l2_normalize=True)
    variables = init(arch)
    out = jax.jit(rqvae.RQVAE(arch).apply)(variables, inputs())
    np.testing.assert_allclose(np.linalg.norm(out.latents, axis=1), 1, rtol=1e-5)
    vectors = rqvae.RQVAE(arch).apply(variables, method="code_vectors")
    np.testing.assert_allclose(np.linalg.norm(vectors[0], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors[1], variables["params"]["codebook"][1])


def test_projected_codes_are_a_frozen_codebook_times_a_matrix():
    arch = architecture(projection=True)
    variables = init(arch)
    assert "codebook" not in variables["params"]
    matrix = inputs(rows=8, width=4).reshape(2, 4, 4)
    params = {**variables["params"], "projection": matrix}
    changed = {**variables, "params": params}
    made = rqvae.RQVAE(arch).apply(changed, method="code_vectors")
    book = np.asarray(variables["codebook"]["vectors"])
    for level in range(2):
        np.testing.assert_allclose(made[level], book[level] @ matrix[level], atol=1e-6)


def test_dropout_noise_belongs_to_the_row():
    x, keys = jnp.ones((50, 40)), row_keys(50)
    dropped = np.asarray(rqvae.drop_rows(keys, x, 0.3))
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.7], rtol=1e-6)
    assert abs((dropped == 0).mean() - 0.3) < 0.03
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(rqvae.drop_rows(keys[order], x, 0.3), dropped[order])
    assert len(np.unique(dropped, axis=0)) == 50


def test_dropout_comes_before_every_linear_layer_and_only_in_training():
    arch = architecture(dropout=0.5, hidden=(64, 64))
    variables = init(arch)
    run = jax.jit(rqvae.RQVAE(arch).apply, static_argnames="training")
    x = inputs()
    plain = run(variables, x)
    np.testing.assert_array_equal(
        run(variables, x, keys=row_keys()).latents, plain.latents
    )
    noisy = run(variables, x, training=True, keys=row_keys())
    again = run(variables, x[::-1], training=True, keys=row_keys()[::-1])
    np.testing.assert_allclose(
        again.reconstruction[::-1], noisy.reconstruction, atol=1e-6
    )
    assert (np.abs(noisy.latents - plain.latents).max(axis=1) > 1e-3).all()
    # Zero weights of the last layer leave its bias: noise comes before, not after.
    params = jax.tree.map(jnp.copy, variables["params"])
    params["decoder"]["linear_2"] = {
        "kernel": jnp.zeros((64, 10)),
        "bias": jnp.ones(10),
    }
    made = run({**variables, "params": params}, x, training=True, keys=row_keys())
    np.testing.assert_allclose(made.reconstruction, 1)


def test_batch_norm_statistics():
    arch = architecture(batch_norm=True)
    variables = init(arch)
    model, x, params = rqvae.RQVAE(arch), inputs() * 3 + 1, variables["params"]
    out, updated = jax.jit(
        functools.partial(model.apply, training=True, mutable=["batch_stats"])
    )(variables, x)
    np.testing.assert_allclose(
        out.latents, mlp(params["encoder"], x, batch_norm=True), atol=1e-4
    )
    layer = params["encoder"]["linear_0"]
    hidden = np.asarray(x, "f8") @ np.asarray(layer["kernel"]) + np.asarray(
        layer["bias"]
    )
    stats = updated["batch_stats"]["encoder"]["norm_0"]
    np.testing.assert_allclose(stats["mean"], 0.1 * hidden.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * hidden.var(axis=0), rtol=1e-3)
    # Without training the stored statistics rule: a row does not depend on the others.
    run = jax.jit(model.apply)
    whole = run({**variables, **updated}, x).latents
    half = run({**variables, **updated}, x[:6]).latents
    np.testing.assert_allclose(whole[:6], half, atol=1e-5)


def test_normalised_inputs_and_their_way_back():
    arch = architecture(normalize_input=True, hidden=())
    variables = init(arch)
    mean, deviation = np.arange(10.0), np.arange(1.0, 11.0)
    stats = {"mean": jnp.asarray(mean, "f4"), "deviation": jnp.asarray(deviation, "f4")}
    model, x = rqvae.RQVAE(arch), inputs()
    changed = {**variables, "inputs": stats}
    out = jax.jit(model.apply)(changed, x)
    params = variables["params"]
    z = mlp(params["encoder"], (np.asarray(x) - mean) / deviation)
    np.testing.assert_allclose(out.latents, z, atol=1e-5)
    decoded = mlp(params["decoder"], out.quantized.output) * deviation + mean
    np.testing.assert_allclose(out.reconstruction, decoded, atol=1e-4)


def test_bfloat16_stays_close_and_returns_float32():
    arch = architecture(hidden=(64, 32))
    variables = init(arch)
    x = inputs(rows=64)
    full = jax.jit(rqvae.RQVAE(arch).apply)(variables, x)
    half_arch = dataclasses.replace(arch, dtype="bfloat16")
    half = jax.jit(rqvae.RQVAE(half_arch).apply)(variables, x)
    assert half.reconstruction.dtype == half.latents.dtype == jnp.float32
    scale = np.abs(full.latents).max()
    gap = np.abs(half.latents - full.latents).max() / scale
    assert 1e-5 < gap < 0.03
    assert jax.tree.all(
        jax.tree.map(lambda a: a.dtype == jnp.float32, init(half_arch)["params"])
    )


@pytest.mark.parametrize("bypass", [True, False])
def test_bypass_decodes_the_latents(bypass):
    arch = architecture()
    variables, x = init(arch), inputs()
    out = jax.jit(rqvae.RQVAE(arch).apply)(variables, x, bypass=jnp.asarray(bypass))
    source = out.latents if bypass else out.quantized.output
    decoded = mlp(variables["params"]["decoder"], source)
    np.testing.assert_allclose(out.reconstruction, decoded, atol=1e-5)


def test_tokenize_gives_the_codes_of_the_pass():
    arch = architecture()
    variables, x = init(arch), inputs()
    codes = rqvae.RQVAE(arch).apply(variables, x, method="tokenize")
    out = rqvae.RQVAE(arch).apply(variables, x)
    np.testing.assert_array_equal(codes, out.quantized.codes)


def averages_of(seed=0, mask=None):
    rng = np.random.default_rng(seed)
    counts = 1 + rng.random((2, 5))
    sums = rng.normal(size=(2, 5, 3))
    if mask is not None:
        counts, sums = counts * mask, sums * mask[..., None]
    return rqvae.Averages(jnp.asarray(counts, "f4"), jnp.asarray(sums, "f4"))


def move(averages, residuals, codes, **changes):
    settings = {"decay": 0.9, "revive_below": 0.0, "mask": None} | changes
    return rqvae.update_averages(
        averages,
        jnp.asarray(residuals, "f4"),
        jnp.asarray(codes, "i4"),
        key=jax.random.key(0),
        **settings,
    )


def test_moving_averages_equal_numpy():
    rng = np.random.default_rng(1)
    residuals, codes = rng.normal(size=(40, 2, 3)), rng.integers(5, size=(40, 2))
    before = averages_of()
    made, vectors = move(before, residuals, codes)
    for level in range(2):
        for k in range(5):
            rows = residuals[codes[:, level] == k, level]
            count = 0.9 * before.counts[level, k] + 0.1 * len(rows)
            total = 0.9 * before.sums[level, k] + 0.1 * rows.sum(axis=0)
            np.testing.assert_allclose(made.counts[level, k], count, rtol=1e-5)
            np.testing.assert_allclose(made.sums[level, k], total, atol=1e-5)
            np.testing.assert_allclose(vectors[level, k], total / count, atol=1e-5)


def test_dead_codes_take_a_residual_of_their_level_and_are_not_pulled_back():
    rng = np.random.default_rng(2)
    residuals = rng.normal(size=(40, 2, 3))
    codes = rng.integers(3, size=(40, 2))  # 3 and 4 are not used
    mask = np.ones((2, 5), bool)
    mask[1, 4] = False
    made, vectors = move(
        averages_of(mask=mask), residuals, codes, decay=0.3, revive_below=0.9, mask=mask
    )
    for level, k in ((0, 3), (0, 4), (1, 3)):
        gap = np.abs(residuals[:, level] - np.asarray(vectors[level, k])).max(axis=1)
        assert gap.min() < 1e-6, (level, k)
    # The code that does not exist is not revived.
    np.testing.assert_array_equal(vectors[1, 4], 0)
    # Unused once more, but not below the bound: it stays where it was put.
    after, again = move(made, residuals, codes, decay=0.95, revive_below=0.9, mask=mask)
    for level, k in ((0, 3), (0, 4), (1, 3)):
        np.testing.assert_allclose(again[level, k], vectors[level, k], atol=1e-5)
        np.testing.assert_allclose(after.counts[level, k], 0.95, rtol=1e-5)


def test_an_unused_code_stays_where_it_is():
    # Its sum and count shrink alike, so their quotient is constant.
    made, wanted = averages_of(), None
    rng = np.random.default_rng(3)
    residuals, codes = rng.normal(size=(8, 2, 3)), np.zeros((8, 2))
    step = jax.jit(functools.partial(move, decay=0.5))
    for _ in range(40):
        made, vectors = step(made, residuals, codes)
        wanted = np.asarray(vectors[:, 1:]) if wanted is None else wanted
    np.testing.assert_allclose(vectors[:, 1:], wanted, rtol=1e-4)


def test_averages_of_rows_spread_over_an_axis_are_those_of_the_batch():
    rng = np.random.default_rng(4)
    residuals = rng.normal(size=(4, 6, 2, 3)).astype("f4")
    codes = rng.integers(4, size=(4, 6, 2)).astype("i4")
    before = averages_of()
    settings = {"decay": 0.5, "revive_below": 0.8}
    whole = move(before, residuals.reshape(24, 2, 3), codes.reshape(24, 2), **settings)
    spread = jax.vmap(
        lambda r, c: move(before, r, c, axis_name="x", **settings), axis_name="x"
    )(residuals, codes)
    for one, parts in zip(jax.tree.leaves(whole), jax.tree.leaves(spread), strict=True):
        for part in parts:
            np.testing.assert_allclose(part, one, atol=1e-5)
