# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Image encoders against transformers itself, which gets one picture at a time."""

import io
import json

import numpy as np
import pytest
import transformers

from rfrec.config import UserError
from rfrec.encoders import folder as folders
from rfrec.encoders import torch_image
from tests.support import encoders

torch = pytest.importorskip("torch", reason="needs torch")
Image = pytest.importorskip("PIL.Image", reason="needs pillow")

PROCESSOR = {"clip": "CLIP", "siglip": "Siglip", "vit": "ViT", "dinov2": "Bit"}


def picture(seed=0, size=(40, 30), mode="RGB", form="PNG", **options):
    """Draws blocks of random colours; returns the file."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    made = Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)
    file = io.BytesIO()
    made.convert(mode).save(file, form, **options)
    return file.getvalue()


def load(path, **options):
    opened = folders.open_folder(path, torch_image.MODEL_TYPES, "config.image.encoder")
    options = {"normalise": False, "dtype": "float32", "device": "cpu"} | options
    return torch_image.load(opened, **options)


def run(encoder, files):
    pixels = [torch_image.to_pixels(encoder, file) for file in files]
    return torch_image.encode(encoder, pixels)


def direct(path, kind, file):
    """Encodes one picture as transformers' documentation does."""
    name = f"{PROCESSOR[kind]}ImageProcessorPil"
    processor = getattr(transformers, name).from_pretrained(path)
    model = transformers.AutoModel.from_pretrained(path).eval()
    image = transformers.image_utils.load_image(Image.open(io.BytesIO(file)))
    inputs = processor(images=image, return_tensors="pt")
    with torch.no_grad():
        if kind in ("clip", "siglip"):
            return model.get_image_features(**inputs).pooler_output[0].numpy()
        return model(**inputs).last_hidden_state[0, 0].numpy()


FILES = (
    picture(0),
    picture(1, (30, 70), "L"),
    picture(2, (25, 25), "P", "GIF"),
    picture(3, (60, 20), "RGBA"),
    picture(4, (50, 50), "CMYK", "JPEG"),
    picture(5, (3, 40)),
    picture(6, (1, 1)),
)


@pytest.mark.parametrize("kind", ["clip", "siglip", "vit", "dinov2"])
def test_vectors_are_those_of_transformers(tmp_path, kind):
    path = encoders.save_image(tmp_path, kind)
    expected = np.stack([direct(path, kind, file) for file in FILES])
    scale = np.abs(expected).max()
    gaps = np.abs(expected[:, None] - expected).max(-1) + np.eye(len(FILES)) * scale
    assert gaps.min() > 1e-3 * scale
    found = run(load(path), FILES)
    assert found.shape == (len(FILES), 12 if kind == "clip" else encoders.WIDTH)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * scale)
    lengths = np.linalg.norm(run(load(path, normalise=True), FILES), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def test_the_projection_of_clip_is_used(tmp_path):
    path = encoders.save_image(tmp_path, "clip")
    model = transformers.CLIPModel.from_pretrained(path).eval()
    encoder = load(path)
    pixels = torch_image.to_pixels(encoder, FILES[0])
    with torch.no_grad():
        pooled = model.vision_model(torch.tensor(pixels[None])).pooler_output
    expected = pooled.numpy() @ model.visual_projection.weight.detach().numpy().T
    found = torch_image.encode(encoder, [pixels])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_turned_photo_is_set_upright(tmp_path):
    encoder = load(encoders.save_image(tmp_path, "vit"))
    turned = Image.Exif()
    turned[0x0112] = 3  # by 180 degrees
    flipped = torch_image.to_pixels(encoder, picture(exif=turned))
    plain = torch_image.to_pixels(encoder, picture())
    np.testing.assert_array_equal(flipped, plain[:, ::-1, ::-1])


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"", "no picture that Pillow knows"),
        (b"<html>", "no picture that Pillow knows"),
        (picture(form="PNG")[:-60], "damaged picture"),
        (picture(form="JPEG", size=(400, 300))[:900], "damaged picture"),
    ],
)
def test_what_is_no_picture_is_told(tmp_path, file, reason):
    encoder = load(encoders.save_image(tmp_path, "vit"))
    with pytest.raises(torch_image.Unreadable, match=reason):
        torch_image.to_pixels(encoder, file)


def test_a_picture_beyond_all_measure_is_told(tmp_path, monkeypatch):
    encoder = load(encoders.save_image(tmp_path, "vit"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(torch_image.Unreadable, match="exceeds limit"):
        torch_image.to_pixels(encoder, picture())


def test_a_folder_without_preprocessing_is_one_line(tmp_path):
    path = encoders.save_image(tmp_path, "clip")
    (path / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"contains no preprocessor_config\.json"):
        load(path)


def test_weights_of_another_model_are_refused(tmp_path):
    path = encoders.save_image(tmp_path, "clip")
    config = json.loads((path / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 4
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"weights do not match its config\.json"):
        load(path)
