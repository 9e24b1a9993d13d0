# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The T5: equal to the recorded reference, however it is run."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfrec.retrieval import hf, layers, t5

GOLDEN = Path(__file__).parents[2] / "third_party/golden/t5_constrained_beam.npz"
SMALL = t5.Architecture(
    vocab_size=23,
    d_model=12,
    d_ff=20,
    d_kv=4,
    num_heads=3,
    num_layers=1,
    num_decoder_layers=2,
)
HISTORIES = np.array([[5, 9, 3, 1, 0, 0], [7, 2, 2, 8, 4, 1], [6, 1, 0, 0, 0, 0]])
LABELS = np.array([[4, 11, 1], [9, 12, 1], [3, 22, 1]])


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


@functools.cache
def _params(arch):
    return t5.init(arch, jax.random.key(3))


@functools.partial(jax.jit, static_argnums=0)
def _apply(arch, params, tokens, labels, keys):
    return t5.T5(arch).apply(
        {"params": params}, tokens, t5.shift_right(labels), keys=keys
    )


def _logits(arch, tokens=HISTORIES, labels=LABELS, keys=None, params=None):
    params = _params(arch) if params is None else params
    return _apply(arch, params, jnp.asarray(tokens), jnp.asarray(labels), keys)


def _mean_loss(arch, params, tokens, labels, keys=None):
    logits = _logits(arch, tokens, labels, keys, params)
    losses = optax.softmax_cross_entropy_with_integer_labels(
        jnp.asarray(logits), jnp.asarray(labels)
    )
    return losses.mean(), logits


_losses_and_gradients = jax.jit(
    jax.value_and_grad(_mean_loss, argnums=1, has_aux=True), static_argnums=0
)


def _error(ours, recorded):
    return np.abs(np.asarray(ours) - recorded).max() / np.abs(recorded).max()


# Against the recorded reference.


def test_logits_loss_and_every_gradient_equal_the_reference(recorded):
    config = json.loads(str(recorded["config"]))
    tensors = {n[3:]: a for n, a in recorded.items() if n.startswith("hf/")}
    arch, params = hf.build(config, tensors)
    tokens = recorded["input_ids"] * recorded["attention_mask"]
    labels = recorded["labels"]
    (loss, logits), gradient = _losses_and_gradients(arch, params, tokens, labels)
    assert _error(logits, recorded["logits"]) < 1e-5
    assert _error(loss, recorded["loss"]) < 1e-5
    ours = hf.to_tensors(hf.Weights(arch, jax.device_get(gradient)))
    wanted = {n[5:]: a for n, a in recorded.items() if n.startswith("grad/")}
    assert ours.keys() == wanted.keys()
    assert {n: _error(ours[n], a) for n, a in wanted.items() if a.any()} == (
        pytest.approx(dict.fromkeys(wanted, 0.0), abs=1e-4)
    )


# Relative positions.


def _hand_written(distance):
    """The 32 buckets of an encoder up to distance 128, by their first distance."""
    first = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91)
    bucket = sum(abs(distance) >= f for f in first) - 1
    return bucket + 16 * (distance > 0)


def test_buckets_are_those_of_a_hand_written_table():
    distance = np.arange(-300, 301)
    ours = layers.relative_bucket(distance, bidirectional=True, buckets=32, most=128)
    assert ours.tolist() == [_hand_written(int(d)) for d in distance]


def test_the_past_of_a_decoder_has_all_buckets_and_the_future_none():
    distance = np.arange(-200, 40)
    ours = layers.relative_bucket(distance, bidirectional=False, buckets=32, most=128)
    assert set(ours[distance >= 0].tolist()) == {0}
    assert ours[distance >= -15].tolist() == [max(-d, 0) for d in distance[185:]]
    assert set(ours.tolist()) == set(range(32))
    assert (np.diff(ours) <= 0).all()
    assert (ours[distance <= -128] == 31).all()


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "most"), [(32, 128), (16, 50), (64, 20), (8, 7)])
def test_buckets_equal_those_of_transformers(bidirectional, buckets, most):
    torch = pytest.importorskip("torch", reason="transformers computes them in torch")
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = np.arange(-400, 401)
    theirs = T5Attention._relative_position_bucket(
        torch.tensor(distance), bidirectional, buckets, most
    )
    ours = layers.relative_bucket(
        distance, bidirectional=bidirectional, buckets=buckets, most=most
    )
    np.testing.assert_array_equal(ours, theirs.numpy())


# One model, run in several ways.


@functools.partial(jax.jit, static_argnums=0)
def _grow(arch, params, histories, tokens, ancestors):
    """Runs a tree of rows level by level; returns the logits of each level."""
    model = functools.partial(t5.T5(arch).apply, {"params": params})
    encoded = model(model(histories, method="encode"), method="remember")
    past, made = [], []
    for here, above in zip(tokens, ancestors, strict=True):
        hidden, memory = model(
            here, encoded, t5.padding_bias(histories), past, above, method="grow"
        )
        past.append(memory)
        made.append(model(hidden, method="logits"))
    return made


def _tree(widths, seed=0):
    """Draws tokens of each level, and every row's ancestor at each level before."""
    rng, batch = np.random.default_rng(seed), len(HISTORIES)
    above = np.zeros((batch, widths[0], 0), int)
    tokens, ancestors = [np.zeros((batch, widths[0]), int)], [above]
    for before, width in zip(widths, widths[1:], strict=False):
        parent = rng.integers(before, size=(batch, width))
        above = np.take_along_axis(above, parent[..., None], axis=1)
        above = np.concatenate([above, parent[..., None]], axis=2)
        ancestors.append(above)
        tokens.append(rng.integers(2, 23, size=(batch, width)))
    return (
        [jnp.asarray(level, jnp.int32) for level in tokens],
        [jnp.asarray(level, jnp.int32) for level in ancestors],
    )


def test_each_row_of_a_tree_is_the_end_of_a_sequence_of_its_own():
    widths = (1, 2, 4)
    tokens, ancestors = _tree(widths)
    made = _grow(SMALL, _params(SMALL), jnp.asarray(HISTORIES), tokens, ancestors)
    for row in range(widths[-1]):
        rows = np.concatenate(
            [np.asarray(ancestors[-1][:, row]), np.full((3, 1), row)], axis=1
        )
        path = [
            np.asarray(t)[np.arange(3), r] for t, r in zip(tokens, rows.T, strict=True)
        ]
        labels = np.stack([*path[1:], path[0]], axis=1)
        whole = _logits(SMALL, labels=labels)
        for level, logits in enumerate(made):
            np.testing.assert_allclose(
                np.asarray(logits)[np.arange(3), rows[:, level]],
                whole[:, level],
                rtol=1e-4,
                atol=1e-5,
            )


def test_padding_changes_nothing():
    wider = np.pad(HISTORIES, ((0, 0), (0, 7)))
    np.testing.assert_allclose(
        _logits(SMALL, wider), _logits(SMALL), rtol=1e-5, atol=1e-5
    )


def test_the_order_of_a_batch_changes_nothing():
    order = np.array([2, 0, 1])
    np.testing.assert_allclose(
        _logits(SMALL, HISTORIES[order], LABELS[order]),
        _logits(SMALL)[order],
        rtol=1e-5,
        atol=1e-5,
    )


def test_a_position_does_not_see_later_labels():
    changed = LABELS.copy()
    changed[:, 1] += 5
    np.testing.assert_array_equal(
        _logits(SMALL, labels=changed)[:, :2], _logits(SMALL)[:, :2]
    )


def test_remat_changes_neither_logits_nor_gradients():
    keys = jax.random.split(jax.random.key(1), 3)
    small = dataclasses.replace(SMALL, num_decoder_layers=1)
    again = dataclasses.replace(small, remat=True)
    results = [
        _losses_and_gradients(arch, _params(small), HISTORIES, LABELS, keys)
        for arch in (small, again)
    ]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results
    )


@pytest.mark.parametrize("tied", [True, False])
def test_bfloat16_computes_float32_logits_close_to_those_of_float32(tied):
    full = dataclasses.replace(SMALL, tied=tied)
    arch = dataclasses.replace(full, dtype=jnp.bfloat16)
    logits = _logits(arch, params=_params(full))
    assert logits.dtype == jnp.float32
    exact = _logits(full)
    assert float(jnp.abs(logits - exact).mean() / exact.std()) < 0.02
    assert {a.dtype for a in jax.tree.leaves(t5.init(arch, jax.random.key(0)))} == {
        np.dtype("float32")
    }


# Dropout.


def _keys(count=3, seed=5):
    return jax.random.split(jax.random.key(seed), count)


def test_noise_depends_on_a_rows_key_and_not_on_its_place():
    arch = dataclasses.replace(SMALL, dropout=0.3)
    order = np.array([1, 2, 0])
    keys = _keys()
    noisy = _logits(arch, keys=keys)
    moved = _logits(arch, HISTORIES[order], LABELS[order], keys[order])
    np.testing.assert_allclose(moved, noisy[order], rtol=1e-4, atol=1e-4)
    assert not np.allclose(noisy, _logits(arch), atol=1e-2)
    assert not np.allclose(noisy, _logits(arch, keys=_keys(seed=6)), atol=1e-2)


def test_without_keys_or_without_a_rate_nothing_is_dropped():
    none = dataclasses.replace(SMALL, dropout=0.0)
    np.testing.assert_array_equal(_logits(none, keys=_keys()), _logits(SMALL))


# Parameters.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tied": False, "feed_forward": "gated-gelu"},
        {"level_heads": (8, 9, 4)},
    ],
)
def test_every_parameter_has_a_named_axis_for_each_dimension(changes):
    arch = dataclasses.replace(SMALL, **changes)
    names = t5.logical_axes(arch)
    shapes = jax.eval_shape(lambda: t5.init(arch, jax.random.key(0)))
    known = {"vocab", "embed", "heads", "mlp", "buckets", "heads_count", "level"}

    def check(axes, shape):
        assert len(axes) == len(shape.shape)
        assert set(axes) <= known

    jax.tree.map(check, names, shapes, is_leaf=lambda x: isinstance(x, tuple))


def test_initial_logits_have_the_scale_of_a_uniform_guess():
    arch = dataclasses.replace(SMALL, d_model=64, d_ff=128, d_kv=16)
    loss, _ = _mean_loss(arch, _params(arch), HISTORIES, LABELS)
    assert abs(float(loss) - np.log(arch.vocab_size)) < 2.0


def test_level_heads_give_the_codes_of_each_level_and_nothing_beyond():
    arch = dataclasses.replace(SMALL, level_heads=(8, 9, 4))
    logits = _logits(arch)
    assert logits.shape == (3, 3, 9)
    real = np.arange(9) < np.array(arch.level_heads)[:, None]
    assert (np.asarray(logits)[:, ~real] == t5.NEG).all()
    assert np.abs(np.asarray(logits)[:, real]).max() < 100
    # The last level's head alone decides the last level.
    params = dict(_params(arch))
    params["heads"] = params["heads"].at[2].add(1.0)
    moved = _logits(arch, params=params)
    np.testing.assert_array_equal(moved[:, :2], logits[:, :2])
    assert not np.array_equal(moved[:, 2], logits[:, 2])


def test_logits_of_some_tokens_are_columns_of_those_of_all():
    model: Any = t5.T5(SMALL).bind({"params": _params(SMALL)})
    hidden = jax.random.normal(jax.random.key(0), (2, 5, 12))
    some = jnp.array([3, 20, 1])
    np.testing.assert_allclose(
        model.logits(hidden, some),
        model.logits(hidden)[..., some],
        rtol=1e-5,
        atol=1e-6,
    )


def test_normaliser_in_pieces_equals_that_of_all_logits():
    arch = t5.Architecture(
        vocab_size=9001, d_model=8, d_ff=8, d_kv=4, num_heads=1, num_layers=1,
        num_decoder_layers=1,
    )  # fmt: skip
    variables = {"params": t5.init(arch, jax.random.key(0))}
    hidden = 3 * jax.random.normal(jax.random.key(1), (2, 5, 8))
    model = t5.T5(arch)
    pieces = model.apply(variables, hidden, method="log_normaliser")
    logits = np.asarray(model.apply(variables, hidden, method="logits"), np.float64)
    np.testing.assert_allclose(pieces, np.log(np.exp(logits).sum(-1)), rtol=1e-6)
