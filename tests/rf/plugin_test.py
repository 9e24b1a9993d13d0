# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The plug-in as its document describes it, in a NumPy host and in a JAX one."""

import inspect
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.rf import generator, reflow
from rfrec.rf.plugin import RFEmbeddingGenerator

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "api.md"
# The table of the constructor, "RF Module usage".
DOCUMENTED = {
    "hidden_dim": 256,
    "n_layers": 2,
    "dropout": 0.1,
    "learning_rate": 0.001,
    "sampling_steps": 10,
    "user_guidance_scale": 0.2,
    "guidance_decay_power": 2.0,
    "cosine_guidance_scale": 0.1,
    "cosine_decay_power": 2.0,
    "warmup_epochs": 0,
    "train_mix_ratio": 0.5,
    "inference_mix_ratio": 0.5,
    "contrast_temp": 0.2,
    "contrast_weight": 1.0,
}
TINY: dict[str, Any] = {"hidden_dim": 16, "n_layers": 1, "sampling_steps": 2}


def make(**others):
    return RFEmbeddingGenerator(4, **(TINY | others))


def rows(kind=np.asarray, count=12, seed=0):
    rng = np.random.default_rng(seed)
    target, image = rng.normal(size=(2, count, 4)).astype("f4")
    text = rng.normal(size=(count, 3)).astype("f4")
    return kind(target), [kind(image), kind(text)]


def test_the_constructor_is_that_of_the_document():
    signature = inspect.signature(RFEmbeddingGenerator)
    assert next(iter(signature.parameters)) == "embedding_dim"
    defaults = {name: signature.parameters[name].default for name in DOCUMENTED}
    assert defaults == DOCUMENTED
    made = RFEmbeddingGenerator(4).settings
    assert made == RFEmbeddingGenerator.from_preset(4, "plugin").settings
    assert made == RFEmbeddingGenerator(4, **DOCUMENTED).settings


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_three_steps_with_any_kind_of_array(kind):
    rf = make(train_mix_ratio=0.1, inference_mix_ratio=0.2)
    target, conditions = rows(kind)
    told = rf.compute_loss_and_step(target, conditions, user_prior=target, epoch=3)
    assert set(told) == {"rf_loss", "cl_loss", "total_loss"}
    assert all(isinstance(value, float) for value in told.values())
    assert rf.epoch == 3
    made = rf.generate(conditions)
    assert isinstance(made, np.ndarray if kind is np.asarray else jax.Array)
    for training, ratio in ((True, 0.1), (False, 0.2)):
        mixed = rf.mix_embeddings(target, made, training=training)
        assert isinstance(mixed, type(made))
        wanted = (1 - ratio) * target + ratio * made
        np.testing.assert_allclose(mixed, wanted, rtol=1e-5)


def test_losses_fall():
    rf = make(hidden_dim=32, learning_rate=0.01, dropout=0.0)
    target, conditions = rows(count=64)
    losses = [rf.compute_loss_and_step(target, conditions) for _ in range(60)]
    first, last = (
        np.mean([told["total_loss"] for told in part])
        for part in (losses[:5], losses[-5:])
    )
    assert last < 0.8 * first


def test_warmup_ends_with_its_last_epoch():
    rf = make(warmup_epochs=2)
    target, conditions = rows()
    made = rf.generate(conditions)
    for epoch, mixes in ((0, False), (1, False), (2, True)):
        rf.set_epoch(epoch)
        for training in (True, False):
            mixed = rf.mix_embeddings(target, made, training=training)
            assert np.array_equal(mixed, target) != mixes
    assert np.array_equal(rf.mix_embeddings(target, made, True, epoch=1), target)


def test_between_steps_the_same_conditions_give_the_same_rows():
    rf = make()
    target, conditions = rows()
    first = rf.generate(conditions)
    np.testing.assert_array_equal(rf.generate(conditions), first)
    assert np.any(rf.generate(conditions, n_steps=5) != first)
    rf.compute_loss_and_step(target, conditions)
    assert np.any(rf.generate(conditions) != first)


def test_made_at_once_or_with_the_first_conditions_it_is_the_same():
    target, conditions = rows()
    late, early = make(seed=3), make(seed=3, condition_dims=(4, 3))
    with pytest.raises(UserError, match="condition_dims"):
        _ = late.state
    jax.tree.map(
        np.testing.assert_array_equal,
        early.state,
        generator.init(early.settings, 4, (4, 3), 3),
    )
    told = [rf.compute_loss_and_step(target, conditions) for rf in (late, early)]
    assert told[0] == told[1]


def test_a_saved_generator_goes_on_where_it_stood(tmp_path):
    switches = {"ema_decay": 0.9, "clip_norm": 1.0, "standardise": True}
    rf, (target, conditions) = make(**switches), rows()
    for epoch in range(3):
        rf.compute_loss_and_step(target, conditions, epoch=epoch)
        rf.save(tmp_path / "rf")
    for again in (
        make(**switches, seed=8),
        make(**switches, condition_dims=(4, 3), sampling_steps=2),
    ):
        again.load(tmp_path / "rf")
        assert again.epoch == 2
        jax.tree.map(np.testing.assert_array_equal, again.state, rf.state)
        np.testing.assert_array_equal(
            again.generate(conditions), rf.generate(conditions)
        )
    told = [r.compute_loss_and_step(target, conditions) for r in (rf, again)]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "others, message",
    [
        ({"hidden_dim": 8}, "hidden_dim=16, this one has hidden_dim=8"),
        ({"standardise": True}, "standardise=False, this one has standardise=True"),
        ({"condition_dims": (4, 4)}, r"condition_dims=\(4, 3\), .*\(4, 4\)"),
    ],
)
def test_a_generator_of_other_settings_is_not_loaded(tmp_path, others, message):
    rf, (_, conditions) = make(), rows()
    rf.generate(conditions)
    rf.save(tmp_path)
    other = make(**others)
    with pytest.raises(UserError, match=message) as error:
        other.load(tmp_path)
    assert "\n" not in str(error.value)


def test_folders_without_a_generator(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        make().load(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(UserError, match="contains no generator"):
        make().load(tmp_path)
    with pytest.raises(UserError, match="has no network yet"):
        make().save(tmp_path)


def broken(x, value):
    x = x.copy()
    x[5, 1] = value
    return x


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_named(kind, value):
    rf, (target, conditions) = make(), rows()
    rf.compute_loss_and_step(target, conditions)
    before = rf.state
    bad = [conditions[0], kind(broken(conditions[1], value))]
    for act in (
        lambda: rf.compute_loss_and_step(target, bad),
        lambda: rf.generate(bad),
    ):
        with pytest.raises(UserError, match=r"conditions\[1\] .* row 5") as error:
            act()
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"target_embeds .* row 5"):
        rf.compute_loss_and_step(kind(broken(target, value)), conditions)
    assert rf.state is before


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda rf, t, c: rf.generate([]), "conditions are empty"),
        (lambda rf, t, c: rf.generate(c[:1]), "1 conditions were passed, 2 are"),
        (lambda rf, t, c: rf.generate([c[0], c[1][:3]]), r"conditions\[1\] has shape"),
        (lambda rf, t, c: rf.generate([c[1], c[0]]), r"conditions\[0\] has shape"),
        (lambda rf, t, c: rf.generate(c, n_steps=0), "n_steps=0"),
        (lambda rf, t, c: rf.generate([x[:0] for x in c]), "has no rows"),
        (lambda rf, t, c: rf.generate(c, user_prior=t), "set guided_sampling=True"),
        (lambda rf, t, c: rf.compute_loss_and_step(t[:3], c), "target_embeds"),
        (lambda rf, t, c: rf.compute_loss_and_step(t, c, t[:, :2]), "user_prior"),
        (lambda rf, t, c: rf.mix_embeddings(t, t[:3], True), "differ in shape"),
        (lambda rf, t, c: make(train_mix_ratio=1.5), "rf.mix_ratio=1.5: must be"),
        (lambda rf, t, c: make(solver="rk5"), "rf.solver='rk5': must be one of euler"),
        (lambda rf, t, c: make(hiden=5), "'hiden' does not exist"),
        (lambda rf, t, c: RFEmbeddingGenerator(0), "embedding_dim=0"),
        (lambda rf, t, c: make(heldout_share=0.1), "heldout_share=0.1: only a host"),
        (
            lambda rf, t, c: RFEmbeddingGenerator.from_preset(4, "joint", rows=5),
            "rows=5: only a host",
        ),
    ],
)
def test_what_cannot_be_is_one_line(act, message):
    rf, (target, conditions) = make(condition_dims=(4, 3)), rows()
    with pytest.raises(UserError, match=message) as error:
        act(rf, target, conditions)
    assert "\n" not in str(error.value)


def test_a_prior_guides_generation_where_it_is_wanted():
    rf, (target, conditions) = make(guided_sampling=True), rows()
    rf.compute_loss_and_step(target, conditions, user_prior=target)
    plain = rf.generate(conditions, n_steps=1)
    pushed = rf.generate(conditions, n_steps=1, user_prior=target)
    # By Euler from time 0, where nothing has faded yet.
    np.testing.assert_allclose(pushed - plain, 0.2 * target, atol=1e-5)
    with pytest.raises(UserError, match="user_prior has shape"):
        rf.generate(conditions, user_prior=target[:3])


def test_evaluations_are_those_of_the_last_generation():
    rf, (_, conditions) = make(solver="heun"), rows()
    assert rf.evaluations == 0
    rf.generate(conditions)
    assert rf.evaluations == 4
    rf.generate(conditions, n_steps=5)
    assert rf.evaluations == 10


def test_a_generator_that_could_not_be_loaded_changes_nothing(tmp_path):
    stored, (target, conditions) = make(), rows()
    stored.compute_loss_and_step(target, conditions)
    stored.save(tmp_path / "rf")
    arrays = [
        p for p in (tmp_path / "rf").rglob("*") if p.is_file() and p.parent.name == "d"
    ]
    assert arrays
    for path in arrays:
        path.unlink()
    rf = make(condition_dims=(4, 3))
    rf.compute_loss_and_step(target, conditions)
    before = rf.state
    with pytest.raises(UserError, match="rf") as error:
        rf.load(tmp_path / "rf")
    assert "\n" not in str(error.value)
    assert rf.state is before


def test_a_student_takes_the_place_of_its_teacher():
    rf, (target, conditions) = make(), rows()
    rf.compute_loss_and_step(target, conditions)
    condition = generator.join([jnp.asarray(c) for c in conditions])
    pairs = reflow.make_pairs(rf.settings, rf.state, condition, jax.random.key(0))
    rf.state, _ = reflow.train(rf.settings, rf.state, pairs, steps=2, batch_size=4)
    assert rf.generate(conditions, n_steps=1).shape == target.shape


def test_the_example_of_the_api_page_runs_and_ranks():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    blocks = [block for block in blocks if "RFEmbeddingGenerator" in block]
    assert len(blocks) == 1, "the page shows the plug-in in one block of code"
    names = {}
    exec(compile(blocks[0], "api.md", "exec"), names)  # Our own file.
    scores, likes = names["scores"], names["likes"]
    assert np.mean(scores[likes > 0]) > np.mean(scores[likes == 0]) + 0.3
    assert names["losses"]["rf_loss"] > 0
