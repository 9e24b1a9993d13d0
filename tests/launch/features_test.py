# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that encodes items: a short run without torch, a wrong key, its help."""

import json
import subprocess
import sys

import numpy as np
import pytest

from rfrec.encoders import torch_image, torch_models, torch_text
from rfrec.launch import features
from tests.support.commands import ROOT, load_config

PIL = pytest.importorskip("PIL.Image", reason="needs pillow")


@pytest.fixture
def fake_encoders(monkeypatch):
    """Encoders whose vectors are computed from lengths and colours."""
    monkeypatch.setattr(torch_models, "require", lambda what: None)
    monkeypatch.setattr(torch_models, "pick_device", lambda name: "cpu")
    for module in (torch_text, torch_image):
        monkeypatch.setattr(module, "load", lambda *args, **options: None)
    monkeypatch.setattr(torch_text, "tokenize", lambda _, texts: (list(texts), 0))
    monkeypatch.setattr(torch_text, "pad", lambda _, batch: batch)
    monkeypatch.setattr(
        torch_text,
        "encode",
        lambda _, batch: np.asarray([[len(t), 1] for t in batch], np.float32),
    )
    monkeypatch.setattr(torch_image, "to_pixels", lambda _, picture: picture[:3])
    monkeypatch.setattr(
        torch_image,
        "encode",
        lambda _, pixels: np.asarray([list(p) for p in pixels], np.float32),
    )


def write_shop(folder):
    for kind, model in (("bert", "bert"), ("clip", "clip")):
        (folder / kind).mkdir()
        (folder / kind / "config.json").write_text(json.dumps({"model_type": model}))
        (folder / kind / "model.safetensors").write_bytes(b"weights")
    rows = [("id", "title", "brand", "image"), ("a", "tea", "moon", "a.png")]
    rows += [("b", "", "", "none.png"), ("c", "lamp", "", "")]
    text = "".join("\t".join(row) + "\n" for row in rows)
    (folder / "shop.items.tsv").write_text(text)
    (folder / "a.png").write_bytes(b"\x01\x02\x03")


def test_a_run_writes_vectors_masks_reasons_and_a_report(fake_encoders, tmp_path):
    write_shop(tmp_path)
    overrides = {
        "table.path": str(tmp_path / "shop.items.tsv"),
        "table.id": "id",
        "text.encoder": str(tmp_path / "bert"),
        "text.pieces": ("{title}.", "by {brand}"),
        "text.join": "mean",
        "image.encoder": str(tmp_path / "clip"),
    }
    out = tmp_path / "out"
    features.main(load_config("features", **overrides), out)
    text, image = (np.load(out / f"shop.{kind}.npy") for kind in ("text", "image"))
    # The mean over "tea." and "by moon"; "lamp." alone.
    np.testing.assert_array_equal(text, [[5.5, 1], [0, 0], [5, 1]])
    np.testing.assert_array_equal(image, [[1, 2, 3], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(np.load(out / "shop.text_mask.npy"), [1, 0, 1])
    missing = (out / "shop.image_missing.txt").read_text().splitlines()
    assert missing[1:] == ["1\tb\tno file none.png", "2\tc\tno picture named"]
    report = json.loads((out / "report.json").read_text())
    assert report["main"] == "features"
    assert report["features"]["text"]["distinct"] == 2
    # Cached vectors are reused, under other transient options too.
    more = overrides | {"text.batch_size": 1, "cache.seconds": 0.0}
    features.main(load_config("features", **more), out)
    np.testing.assert_array_equal(np.load(out / "shop.text.npy"), text)


@pytest.mark.parametrize(
    "arguments, code, line",
    [
        (["--config.text.encodr=x"], 2, "encodr"),
        ([], 2, "config.table.path is required"),
        (["--help"], 1, "--workdir"),
    ],
)
def test_wrong_keys_and_help(tmp_path, arguments, code, line):
    command = [sys.executable, "-m", "rfrec.launch.features", *arguments]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path / 'out'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert line in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()
