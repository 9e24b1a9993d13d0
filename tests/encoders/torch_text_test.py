# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Text encoders against transformers itself, which gets one text at a time."""

import json
from typing import Any

import numpy as np
import pytest
import transformers

from rfrec.config import UserError
from rfrec.encoders import folder as folders
from rfrec.encoders import sentence, torch_text
from tests.support import encoders

torch = pytest.importorskip("torch", reason="needs torch")

# Of different lengths, with words that no tokenizer here knows.
TEXTS = ("tea", "the green cup of tea, and the old moon", "war", "Red xyzzy: star.")
# Of a random network whose values are near 1.
CLOSE: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-5}


def load(path, *, max_tokens=None, dtype="float32", **recipe):
    opened = folders.open_folder(path, torch_text.MODEL_TYPES, "config.text.encoder")
    return torch_text.load(
        opened,
        sentence.read_recipe(opened)._replace(**recipe),
        max_tokens=max_tokens,
        dtype=dtype,
        device="cpu",
    )


def run(encoder, texts=TEXTS):
    tokens, _ = torch_text.tokenize(encoder, texts)
    return torch_text.encode(encoder, torch_text.pad(encoder, tokens))


def states(path, text, longest=64):
    """Returns the last hidden state of one text without padding, [T D]."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    kind = json.loads((path / "config.json").read_text())["model_type"]
    name = "T5EncoderModel" if kind == "t5" else "AutoModel"
    model = getattr(transformers, name).from_pretrained(path).eval()
    ids = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
    with torch.no_grad():
        return model(input_ids=ids["input_ids"]).last_hidden_state[0].numpy()


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama", "gpt2", "t5"])
def test_the_vector_is_the_mean_over_the_tokens(tmp_path, kind):
    path = encoders.save_text(tmp_path, kind)
    expected = np.stack([states(path, t, 12).mean(0) for t in TEXTS])
    # Else a wrong mask or neighbour could pass.
    gaps = np.abs(expected[:, None] - expected).max(-1) + np.eye(len(TEXTS))
    assert gaps.min() > 1e-3
    found = run(load(path, max_tokens=12))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize(("pooling", "place"), [("cls", 0), ("last", -1)])
def test_the_vector_is_the_first_or_the_last_token(tmp_path, pooling, place):
    path = encoders.save_text(tmp_path, "bert")
    expected = np.stack([states(path, text)[place] for text in TEXTS])
    np.testing.assert_allclose(run(load(path, pooling=pooling)), expected, **CLOSE)


def test_steps_of_a_sentence_encoder_are_followed(tmp_path):
    path = encoders.save_text(tmp_path, "bert")
    encoders.add_steps(
        path, ("Pooling", {"pooling_mode_mean_tokens": True}), ("Normalize", {})
    )
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
    (path / "config_sentence_transformers.json").write_text(
        '{"prompts": {"p": "story: "}, "default_prompt_name": "p"}'
    )
    means = np.stack([states(path, f"story: {text}", 6).mean(0) for text in TEXTS])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    encoder = load(path)
    np.testing.assert_allclose(run(encoder), expected, **CLOSE)
    tokens, cut = torch_text.tokenize(encoder, TEXTS)
    assert [len(ids) for ids in tokens] == [5, 6, 5, 6]
    assert cut == 2
    # The end of a text that was cut is still [SEP].
    assert {ids[-1] for ids in tokens} == {3}


@pytest.mark.parametrize("kind", ["roberta", "llama"])
def test_the_longest_input_fits_the_model(tmp_path, kind):
    path = encoders.save_text(tmp_path, kind)
    encoder = load(path)
    # Position numbers of this RoBERTa end at 13 and begin behind padding's, at 1.
    assert encoder.max_tokens == {"roberta": 13, "llama": 64}[kind]
    assert np.isfinite(run(encoder, ["tea " * 100, "tea"])).all()
    with pytest.raises(UserError, match=r"max_tokens=99: .* allows at most \d+"):
        load(path, max_tokens=99)
    with pytest.raises(UserError, match=r"max_tokens=1: .* needs at least \d"):
        load(path, max_tokens=1)


def test_half_precision_is_near(tmp_path):
    path = encoders.save_text(tmp_path, "llama")
    exact, rough = run(load(path)), run(load(path, dtype="bfloat16"))
    assert 0 < np.abs(exact - rough).max() < 0.2


def shuffle_config(path):
    values = json.loads((path / "config.json").read_text())
    values["num_hidden_layers"] = 3
    (path / "config.json").write_text(json.dumps(values))
    return "its weights are not those of its config.json"


def widen(path):
    values = json.loads((path / "config.json").read_text())
    values["intermediate_size"] = 48
    (path / "config.json").write_text(json.dumps(values))
    return "config.json|cannot be loaded"


def cut_weights(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    return "cannot be loaded"


def drop_tokenizer(path):
    for file in path.glob("tokenizer*"):
        file.unlink()
    return "contains no tokenizer"


def grow_tokenizer(path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    tokenizer.add_tokens([f"new{n}" for n in range(9)])
    tokenizer.save_pretrained(path)
    return "tokenizer has 38 tokens and its model 32"


@pytest.mark.parametrize(
    "spoil", [shuffle_config, widen, cut_weights, drop_tokenizer, grow_tokenizer]
)
def test_a_damaged_checkpoint_is_one_line(tmp_path, spoil):
    path = encoders.save_text(tmp_path, "bert")
    message = spoil(path)
    with pytest.raises(UserError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)
