# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Folders of checkpoints: what is missing is told, what changes a vector is hashed."""

import json

import pytest

from rfrec.config import UserError
from rfrec.encoders import folder as folders

KEY = "config.text.encoder"


@pytest.fixture
def made(tmp_path):
    path = tmp_path / "encoder"
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "bert"}')
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "vocab.txt").write_text("a")
    return path


def look(path):
    return folders.open_folder(path, ("bert", "llama"), KEY)


def test_a_folder_tells_its_type_and_steps(made):
    assert look(made) == (made, "bert", None)
    steps = [{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
    (made / "modules.json").write_text(json.dumps(steps))
    assert look(made).modules == (("Pooling", made / "1_Pooling"),)


def break_missing(path):
    return path / "nowhere", "no such folder; put a Hugging Face checkpoint there"


def break_config(path):
    (path / "config.json").unlink()
    return path, "contains no config.json"


def break_json(path):
    (path / "config.json").write_text("{")
    return path, "config.json: is not valid JSON"


def break_type(path):
    (path / "config.json").write_text('{"model_type": "resnet"}')
    return path, "model_type is 'resnet', which .* cannot use; known: bert, llama"


def break_list(path):
    (path / "config.json").write_text("[]")
    return path, "config.json: is not a JSON object"


def break_weights(path):
    (path / "model.safetensors").unlink()
    return path, "contains no weights"


def break_modules(path):
    (path / "modules.json").write_text('[{"type": "x"}]')
    return path, "modules.json: expected a list of modules"


@pytest.mark.parametrize(
    "spoil",
    [
        break_missing,
        break_config,
        break_json,
        break_type,
        break_list,
        break_weights,
        break_modules,
    ],
)
def test_an_unfit_folder_is_one_line(made, spoil):
    path, message = spoil(made)
    with pytest.raises(UserError, match=message) as error:
        look(path)
    assert "\n" not in str(error.value)


def test_the_hash_follows_what_decides_a_vector_and_nothing_else(made, tmp_path):
    before = folders.identity(look(made))
    (made / "README.md").write_text("changed")
    (made / "pytorch_model.bin").write_bytes(b"the same in another format")
    assert folders.identity(look(made)) == before
    moved = made.rename(tmp_path / "elsewhere")
    assert folders.identity(look(moved)) == before
    seen = {before}
    for name in ("model.safetensors", "vocab.txt", "tokenizer.json"):
        (moved / name).write_text("changed")
        seen.add(folders.identity(look(moved)))
    (moved / "model.safetensors").unlink()
    seen.add(folders.identity(look(moved)))
    assert len(seen) == 5


def test_the_steps_of_a_sentence_encoder_are_hashed(made):
    (made / "1_Dense").mkdir()
    steps = [{"type": "sentence_transformers.models.Dense", "path": "1_Dense"}]
    (made / "modules.json").write_text(json.dumps(steps))
    before = folders.identity(look(made))
    (made / "1_Dense" / "model.safetensors").write_bytes(b"layer")
    assert folders.identity(look(made)) != before
