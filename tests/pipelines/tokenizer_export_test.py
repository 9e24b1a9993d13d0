# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Codes exported again from a finished run."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.pipelines import tokenizer
from tests.support.commands import load_config

ROOT = Path(__file__).parents[2]


def run_config(**overrides):
    tiny = {
        "data.num_items": 120,
        "data.text_width": 8,
        "data.val_ratio": 0.1,
        "model.hidden": (16,),
        "model.latent_width": 4,
        "codebook.sizes": (8, 8, 8),
        "codebook.init_epoch": 1,
        "codebook.kmeans_restarts": 2,
        "codebook.freeze": False,
        "train.batch_size": 32,
    }
    return load_config("rqvae", "smoke", **tiny | overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    tokenizer.run(run_config(), folder / "rqvae")
    tokenizer.run(run_config(**{"model.method": "rkmeans"}), folder / "rkmeans")
    return folder


@pytest.fixture(params=["rqvae", "rkmeans"])
def workdir(request, finished, tmp_path):
    shutil.copytree(finished / request.param, tmp_path / "run")
    return tmp_path / "run"


def read(workdir):
    report = json.loads((workdir / "report.json").read_text())
    return json.loads((workdir / "codes.json").read_text()), report


def test_another_repair_starts_from_the_same_codes(workdir):
    assigned, before = read(workdir)
    tokenizer.export(load_config("codes", repair="none"), workdir)
    bare, report = read(workdir)
    with np.load(workdir / "latents.npz", allow_pickle=False) as file:
        nearest = file["codes"]
    letters = [[int(token[3:-1]) for token in code] for code in bare.values()]
    np.testing.assert_array_equal(letters, nearest)
    assert report["codes"]["repair"] == "none"
    assert report["codes"]["before"] == report["codes"]["after"]
    assert report["codes"]["before"] == before["codes"]["before"]
    assert report["seconds"] == before["seconds"]

    tokenizer.export(load_config("codes", repair="suffix"), workdir)
    suffixed, report = read(workdir)
    assert {len(code) for code in suffixed.values()} == {4}
    assert [code[:3] for code in suffixed.values()] == list(bare.values())
    assert len({tuple(code) for code in suffixed.values()}) == 120

    tokenizer.export(load_config("codes"), workdir)
    again, report = read(workdir)
    assert again == assigned
    assert report["codes"] == before["codes"]


def test_image_prefixes(workdir):
    text, _ = read(workdir)
    tokenizer.export(load_config("codes", modality="image"), workdir)
    image, _ = read(workdir)
    assert image != text
    upper = [[token.upper() for token in code] for code in text.values()]
    assert [[token.upper() for token in code] for code in image.values()] == upper


def test_another_checkpoint(finished, tmp_path):
    shutil.copytree(finished / "rqvae", tmp_path / "run")
    models = read(tmp_path / "run")[1]["models"]
    for name in ("last", "loss", "collision_rate"):
        tokenizer.export(load_config("codes", checkpoint=name), tmp_path / "run")
        report = read(tmp_path / "run")[1]
        assert report["energy_left"] == models[name]["energy_left"]
        assert report["codes"]["before"]["distinct"] == models[name]["distinct"]


def test_what_cannot_be_exported_is_told(finished, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="config.json does not exist"):
        tokenizer.export(load_config("codes"), tmp_path)
    shutil.copytree(finished / "rqvae", tmp_path / "run")
    with pytest.raises(UserError, match="config.repair='fix': must be one of"):
        tokenizer.export(load_config("codes", repair="fix"), tmp_path / "run")
    load = tokenizer.load_items

    def other(options, rf):
        return load(dataclasses.replace(options, seed=5), rf)

    monkeypatch.setattr(tokenizer, "load_items", other)
    with pytest.raises(UserError, match="item vectors are not those"):
        tokenizer.export(load_config("codes"), tmp_path / "run")
    (tmp_path / "run" / "report.json").unlink()
    with pytest.raises(UserError, match="report.json: cannot be read"):
        tokenizer.export(load_config("codes"), tmp_path / "run")
