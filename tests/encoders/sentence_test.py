# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The steps of sentence encoders, as their own files say."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from rfrec.config import UserError
from rfrec.encoders import sentence
from rfrec.encoders.folder import Folder
from tests.support.encoders import add_steps

MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


def recipe(path):
    listed = json.loads((path / "modules.json").read_text())
    steps = ((m["type"].rpartition(".")[2], path / m["path"]) for m in listed)
    return sentence.read_recipe(Folder(path, "bert", tuple(steps)))


def test_without_steps_it_is_the_plain_mean(tmp_path):
    assert sentence.read_recipe(Folder(tmp_path, "llama", None)) == sentence.Recipe()


def test_steps_and_settings_are_read(tmp_path):
    add_steps(tmp_path, ("Pooling", MEAN), ("Normalize", {}))
    (tmp_path / "sentence_bert_config.json").write_text(
        '{"max_seq_length": 7, "do_lower_case": true}'
    )
    (tmp_path / "config_sentence_transformers.json").write_text(
        '{"prompts": {"item": "item: "}, "default_prompt_name": "item"}'
    )
    assert recipe(tmp_path) == sentence.Recipe("mean", True, 7, True, "item: ")


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        (MEAN, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
    ],
)
def test_the_pooling_is_the_one_that_is_set(tmp_path, settings, pooling):
    add_steps(tmp_path, ("Pooling", settings))
    assert recipe(tmp_path).pooling == pooling


def test_a_dense_layer_is_applied_between_pooling_and_length(tmp_path):
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    settings = {"activation_function": "torch.nn.modules.activation.Tanh"}
    add_steps(tmp_path, ("Pooling", MEAN), ("Dense", settings), ("Normalize", {}))
    save_file(
        {"linear.weight": kernel.astype("f4"), "linear.bias": bias.astype("f4")},
        tmp_path / "2_Dense" / "model.safetensors",
    )
    read = recipe(tmp_path)
    pooled = rng.normal(size=(5, 4)).astype("f4")
    expected = np.tanh(np.einsum("oi,bi->bo", kernel, pooled) + bias)
    expected /= np.sqrt((expected**2).sum(1, keepdims=True))
    found = sentence.finish(pooled, read.layers, read.normalise)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_row_of_zeros_keeps_its_length():
    found = sentence.unit_length(np.asarray([[0, 0], [3, 4]], np.float32))
    np.testing.assert_allclose(found, [[0, 0], [0.6, 0.8]], rtol=1e-6)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([("CNN", {})], "step 'CNN' is unknown"),
        ([("Pooling", {"pooling_mode_max_tokens": True})], "pooling is not one of"),
        ([("Pooling", MEAN | {"pooling_mode_cls_token": True})], "is not one of"),
        ([("Dense", {"activation_function": "x.GELU"})], "'GELU' is unknown"),
        ([("Dense", {"activation_function": "x.Tanh"})], "pickles are never read"),
    ],
)
def test_unknown_steps_are_refused(tmp_path, steps, message):
    add_steps(tmp_path, *steps)
    with pytest.raises(UserError, match=message):
        recipe(tmp_path)


def test_prompts_that_pooling_leaves_out_are_refused(tmp_path):
    add_steps(tmp_path, ("Pooling", MEAN | {"include_prompt": False}))
    assert recipe(tmp_path).pooling == "mean"
    file = tmp_path / "config_sentence_transformers.json"
    file.write_text('{"prompts": {"a": "a: "}, "default_prompt_name": "a"}')
    with pytest.raises(UserError, match="include_prompt=false is not supported"):
        recipe(tmp_path)
    file.write_text('{"prompts": {}, "default_prompt_name": "a"}')
    with pytest.raises(UserError, match="'a' is not among its prompts"):
        recipe(tmp_path)
