# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A catalogue that grows: codes that stay, files that are whole, models that fit."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rfrec.codes import catalogue, table, trie, trie_edit, trie_file
from rfrec.config import UserError
from rfrec.pipelines import catalogue as growing
from rfrec.pipelines import tokenizer
from rfrec.tokenizer import fitting
from rfrec.tokenizer import training as tokenizer_training
from rfrec.train.checkpoint import Checkpoints
from tests.support.commands import load_config

ROOT = Path(__file__).parents[2]
OLD, NEW, WIDTH = 120, 30, 8
SIZES = (6, 6, 6)


def tokenizer_config(data, **overrides):
    tiny = {
        "data.source": "folder",
        "data.path": str(data),
        "data.scale": "mean_square",
        "model.hidden": (16,),
        "model.latent_width": 4,
        "codebook.sizes": SIZES,
        "codebook.init_epoch": 1,
        "codebook.kmeans_restarts": 2,
        "train.batch_size": 32,
    }
    return load_config("rqvae", "smoke", **tiny | overrides)


def make_config(run, data=None, **overrides):
    values = {"run": str(run), "data.path": data and str(data)}
    return load_config("grow", **values | overrides)


def vectors(seed=0, rows=OLD + NEW):
    """Clusters, so that new items meet old ones."""
    rng = np.random.default_rng(seed)
    centers = 3 * rng.standard_normal((6, WIDTH))
    noise = 0.3 * rng.standard_normal((rows, WIDTH))
    return (centers[rng.integers(0, 6, rows)] + noise).astype("f4")


def write_data(folder, values):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "toys.text.npy", values)
    return folder


def write_lines(path, lines):
    path.write_text("\n".join(map(str, lines)) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Data of old items, of old and new ones, and tokenizers of the old."""
    root = tmp_path_factory.mktemp("made")
    old = write_data(root / "old", vectors()[:OLD])
    write_data(root / "more", vectors())
    tokenizer.run(tokenizer_config(old), root / "rqvae")
    tokenizer.run(
        tokenizer_config(old, **{"model.method": "rkmeans"}), root / "rkmeans"
    )
    other = {"model.method": "rkmeans", "seed": 1}
    tokenizer.run(tokenizer_config(old, **other), root / "other")
    return root


def squared(latent, place, books):
    """Distance of a latent from the sum of code vectors."""
    near = sum(book[code] for book, code in zip(books, place, strict=True))
    return float(((latent - near) ** 2).sum())


def by_definition(taken, nearest, latents, books):
    """Gives items, in order, the nearest free place that keeps most first codes."""
    used = set(map(tuple, taken.tolist()))
    every = list(itertools.product(*(range(len(book)) for book in books)))
    for own, latent in zip(nearest.tolist(), latents.astype("f8"), strict=True):
        free = [tuple(own)] if tuple(own) not in used else []
        for kept in reversed(range(len(own))):
            free = free or [p for p in every if p[:kept] == tuple(own[:kept])]
            free = [place for place in free if place not in used]
        costs = [squared(latent, place, books) for place in free]
        used.add(free[int(np.argmin(costs))])
        yield free[int(np.argmin(costs))]


def tokenized_by_the_run(root):
    """Latents and nearest codes of all items, as an evaluation of the run has them."""
    config = tokenizer_config(root / "more")
    options = tokenizer.check(config)
    items = tokenizer.load_items(options, config.rf)
    trained = tokenizer.check(tokenizer_config(root / "old"))
    old = tokenizer.load_items(trained, config.rf)
    # The scale is that of the items that were trained on.
    factor = old.values[0, 0] / vectors()[0, 0]
    items = dataclasses.replace(items, values=vectors() * factor)
    trainer = tokenizer.build_trainer(options, items)
    checkpoints = Checkpoints(root / "rqvae", lowest=fitting.CRITERIA, read_only=True)
    step = checkpoints.best(config.codes.checkpoint)
    assert step is not None
    host = checkpoints.restore(step, trainer.init()).state
    checkpoints.close()
    run = tokenizer_training.Run(trainer)
    result = run.evaluate(trainer.engine.replicate(host), np.arange(OLD + NEW))
    books = fitting.make_encoder(host, trainer.arch).codebooks
    return result, [book.astype("f8") for book in books]


def test_growth_equals_the_definition_and_changes_no_code(made, tmp_path):
    first = json.loads((made / "rqvae" / "codes.json").read_text())
    growing.run(make_config(made / "rqvae"), tmp_path / "c")
    begun = catalogue.load(tmp_path / "c")
    assert begun.manifest.version == 1 and begun.manifest.items == OLD
    index = table.read_index(made / "rqvae" / "codes.json")
    np.testing.assert_array_equal(begun.codes, index.codes)
    growing.run(make_config(made / "rqvae", made / "more"), tmp_path / "c")
    grown = catalogue.load(tmp_path / "c")
    assert (grown.manifest.version, grown.manifest.items) == (2, OLD + NEW)
    np.testing.assert_array_equal(grown.codes[:OLD], begun.codes)
    assert len(np.unique(grown.codes, axis=0)) == OLD + NEW
    result, books = tokenized_by_the_run(made)
    wanted = by_definition(begun.codes, result.codes[OLD:], result.latents[OLD:], books)
    np.testing.assert_array_equal(grown.codes[OLD:], list(wanted))
    # Some were taken, so that the definition has been at work.
    assert (grown.codes[OLD:] != result.codes[OLD:]).any()
    built = trie.build(grown.codes, SIZES)
    for a, b in zip(
        (*built.pointers, *built.values),
        (*grown.trie.pointers, *grown.trie.values),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    # The run itself is as it was, and at once is the same as one after the other.
    assert json.loads((made / "rqvae" / "codes.json").read_text()) == first
    growing.run(make_config(made / "rqvae", made / "more"), tmp_path / "at_once")
    at_once = catalogue.load(tmp_path / "at_once")
    np.testing.assert_array_equal(at_once.codes, grown.codes)
    assert at_once.manifest.encoder == grown.manifest.encoder


@pytest.mark.parametrize("kind", ["rqvae", "rkmeans"])
def test_items_come_and_go_and_keep_their_numbers(made, tmp_path, kind):
    rng = np.random.default_rng(3)
    values, known = vectors(), {}
    alive: set[int] = set()
    for turn, rows in enumerate((OLD, OLD + 7, OLD + 7, OLD + NEW)):
        data = write_data(tmp_path / f"data{turn}", values[:rows])
        gone = rng.choice(sorted(alive), 9, replace=False).tolist() if alive else []
        removed = write_lines(tmp_path / "gone", gone) if gone else None
        growing.run(make_config(made / kind, data, removed=removed), tmp_path / "c")
        found = catalogue.load(tmp_path / "c")
        alive = (alive | set(range(rows if not turn else len(found.codes)))) - set(gone)
        alive -= set(found.removed.tolist())
        assert found.manifest.version == turn + 1
        assert set(found.trie.leaf_items.tolist()) == alive
        assert len(alive) + len(found.removed) == rows == found.manifest.items
        items = np.array(sorted(alive))
        leaves = trie_edit.find(found.trie, found.codes[items])
        np.testing.assert_array_equal(trie.leaf_of(found.trie)[items], leaves)
        for item, code in known.items():
            assert tuple(found.codes[item].tolist()) == code
        known = {i: tuple(c) for i, c in enumerate(found.codes.tolist())}
        assert len(set(known.values())) == rows
    # Without vectors nothing is added, and what is there can go.
    removed = write_lines(tmp_path / "gone", sorted(alive)[:2])
    growing.run(make_config(made / kind, removed=removed), tmp_path / "c")
    shrunk = catalogue.load(tmp_path / "c")
    assert len(shrunk.trie.leaf_items) == len(alive) - 2
    assert shrunk.manifest.encoder == found.manifest.encoder
    # The last two versions are there, and nothing half written.
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    versions = [f"{what}.00000{v}.npz" for what in ("codes", "trie") for v in (4, 5)]
    assert names == sorted(["catalogue.json", *versions])


def test_nothing_new_leaves_the_version(made, tmp_path):
    config = make_config(made / "rqvae", made / "more")
    growing.run(config, tmp_path / "c")
    before = (tmp_path / "c" / "catalogue.json").read_bytes()
    growing.run(config, tmp_path / "c")
    assert (tmp_path / "c" / "catalogue.json").read_bytes() == before
    assert len(list((tmp_path / "c").iterdir())) == 3


def refuse(message, config, workdir):
    with pytest.raises(UserError, match=message) as error:
        growing.run(config, workdir)
    assert "\n" not in str(error.value)


def test_what_cannot_be_is_one_line_and_changes_nothing(made, tmp_path):
    run, more = made / "rqvae", made / "more"
    refuse("config.run is required", load_config("grow"), tmp_path / "c")
    refuse("must be one of", make_config(run, checkpoint="first"), tmp_path / "c")
    message = "config.data.name='x': .*rqvae has the data sets toys, each"
    refuse(message, make_config(run, **{"data.name": "x"}), tmp_path / "c")
    values = vectors()
    values[OLD + 3, 1] = np.nan
    bad = write_data(tmp_path / "nan", values)
    message = rf"text.npy: 1 of {NEW} rows hold NaN .*rows {OLD + 3}\)"
    refuse(message, make_config(run, bad), tmp_path / "c")
    wide = write_data(tmp_path / "wide", np.ones((OLD + 1, WIDTH + 2), "f4"))
    message = "are 10 wide, the tokenizer of .*rqvae reads 8"
    refuse(message, make_config(run, wide), tmp_path / "c")
    other = write_data(tmp_path / "other", vectors(5))
    message = "vectors .* are not those that .*rqvae was trained on"
    refuse(message, make_config(run, other), tmp_path / "c")
    few = write_data(tmp_path / "few", vectors()[: OLD - 1])
    message = f"has {OLD - 1} rows, the catalogue {OLD}"
    refuse(message, make_config(run, few), tmp_path / "c")
    many = write_data(tmp_path / "many", np.concatenate([vectors(), vectors(7)]))
    message = f"code space is full: {OLD + 2 * NEW} new items, 96 free tuples"
    refuse(message, make_config(run, many), tmp_path / "c")
    assert not (tmp_path / "c").exists()
    growing.run(make_config(run, more), tmp_path / "c")
    kept = {p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()}
    for lines, message in (
        ([3, 150], "gone, line 2: item '150' does not exist, .* 0 to 149"),
        (["-1"], "line 1: item '-1' does not exist"),
        ([7, "", 7], "line 3: item 7 is also in line 1"),
        (range(150), "removing all 150 items"),
    ):
        removed = write_lines(tmp_path / "gone", lines)
        refuse(message, make_config(run, more, removed=removed), tmp_path / "c")
    other_name = make_config(run, **{"data.name": "games"})
    refuse("='games', but the catalogue is of 'toys'", other_name, tmp_path / "c")
    refuse("cannot be read", make_config(run, removed="/nowhere/x"), tmp_path / "c")
    refuse("has 120 rows, the catal", make_config(run, made / "old"), tmp_path / "c")
    refuse("first 150 rows are not", make_config(run, other), tmp_path / "c")
    wide = write_data(tmp_path / "wide", np.ones((OLD + NEW, WIDTH + 2), "f4"))
    refuse("are 10 wide", make_config(run, wide), tmp_path / "c")
    message = r"has the codes of the tokenizer .*rqvae, step .* but .*other, step"
    same = make_config(made / "other", more)
    refuse(message, same, tmp_path / "c")
    assert kept == {p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()}
    removed = write_lines(tmp_path / "gone", [4])
    growing.run(make_config(run, more, removed=removed), tmp_path / "c")
    message = "line 1: item 4 is already removed"
    refuse(message, make_config(run, more, removed=removed), tmp_path / "c")


def test_another_encoder_is_refused(made, tmp_path):
    run, more = made / "rqvae", made / "more"
    growing.run(make_config(run, encoder="minilm"), tmp_path / "c")
    message = "config.encoder='bert', but the catalogue has vectors of 'minilm'"
    refuse(message, make_config(run, more, encoder="bert"), tmp_path / "c")
    growing.run(make_config(run, more), tmp_path / "c")
    assert catalogue.read_manifest(tmp_path / "c").encoder.name == "minilm"


def test_codes_of_another_checkpoint_or_repair_are_refused(made, tmp_path):
    shutil.copytree(made / "rqvae", tmp_path / "run")
    tokenizer.export(load_config("codes", repair="suffix"), tmp_path / "run")
    message = r"codes.json has 4 codes of each item, the tokenizer 3 levels"
    refuse(message, make_config(tmp_path / "run"), tmp_path / "c")
    tokenizer.export(load_config("codes"), tmp_path / "run")
    with np.load(made / "other" / "latents.npz") as file:
        np.savez(tmp_path / "run" / "latents.npz", **file)
    message = "its codes .* were not made by its checkpoint collision_rate"
    refuse(message, make_config(tmp_path / "run"), tmp_path / "c")
    (tmp_path / "run" / "latents.npz").write_bytes(b"PK")
    refuse("latents.npz is damaged", make_config(tmp_path / "run"), tmp_path / "c")
    (tmp_path / "run" / "report.json").unlink()
    refuse("report.json: cannot be read", make_config(tmp_path / "run"), tmp_path / "c")
    (tmp_path / "run" / "config.json").write_text("{}")
    refuse("contains no run of rfrec.launch.rqvae", make_config(tmp_path / "run"), made)


def test_vectors_made_together_cannot_grow_but_have_a_catalogue(tmp_path):
    overrides = {"data.source": "synthetic", "data.path": None}
    overrides |= {"data.num_items": 60, "data.text_width": WIDTH}
    overrides |= {"model.method": "rkmeans"}
    tokenizer.run(tokenizer_config(tmp_path, **overrides), tmp_path / "run")
    refuse(
        "trained on vectors of 'synthetic', which are computed from all items together",
        make_config(tmp_path / "run", tmp_path),
        tmp_path / "c",
    )
    removed = write_lines(tmp_path / "gone", [5])
    growing.run(make_config(tmp_path / "run", removed=removed), tmp_path / "c")
    found = catalogue.load(tmp_path / "c")
    assert found.removed.tolist() == [5] and len(found.trie.leaf_items) == 59


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def swap_trie(path):
    """Another trie, whole, of as many items."""
    other = np.stack(np.unravel_index(np.arange(OLD), SIZES), 1).astype("i4")
    trie_file.save(trie.build(other, SIZES), path)


def other_format(path):
    path.write_text(path.read_text().replace("catalogue 1", "catalogue 2"))


def odd_key(path):
    path.write_text(path.read_text().replace('"items"', '"item"'))


def no_number(path):
    path.write_text(path.read_text().replace('"version": 1', '"version": "1"'))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("codes.000001.npz", cut, r"codes.000001.npz \(sha256 .* not the codes file"),
        ("trie.000001.npz", cut, r"trie.000001.npz \(sha256 .* is not the trie file"),
        ("trie.000001.npz", swap_trie, r"not the trie file of .* version 1 \("),
        ("trie.000001.npz", Path.unlink, "trie.000001.npz: cannot be read: No such"),
        ("catalogue.json", cut, "catalogue.json: is not valid JSON"),
        (
            "catalogue.json",
            other_format,
            "format is 'rfrec catalogue 2', but this rfrec reads 'rfrec catalogue 1'",
        ),
        ("catalogue.json", odd_key, "damaged: it lacks or should not have item, items"),
        ("catalogue.json", no_number, "damaged: version holds '1'"),
    ],
)  # fmt: skip
def test_damage_is_one_line(made, tmp_path, file, damage, message):
    growing.run(make_config(made / "rqvae"), tmp_path / "c")
    damage(tmp_path / "c" / file)
    with pytest.raises(UserError, match=message) as error:
        catalogue.load(tmp_path / "c")
    assert "\n" not in str(error.value)
    refuse(message, make_config(made / "rqvae"), tmp_path / "c")


def test_two_at_once_lose_nothing(made, tmp_path, monkeypatch):
    run = made / "rqvae"
    growing.run(make_config(run), tmp_path / "c")
    change = growing.change

    def slow(*args):
        monkeypatch.setattr(growing, "change", change)
        removed = write_lines(tmp_path / "gone", [4])
        growing.run(make_config(run, removed=removed), tmp_path / "c")
        return change(*args)

    monkeypatch.setattr(growing, "change", slow)
    message = "went from version 1 to 2 meanwhile"
    refuse(message, make_config(run, made / "more"), tmp_path / "c")
    assert catalogue.load(tmp_path / "c").removed.tolist() == [4]


# Kills itself when the files are there but not yet the manifest.
KILLED = """
import os, signal
from rfrec.launch import cli, grow
replace = os.replace
def watched(a, b):
    if str(b).endswith("catalogues/toys/catalogue.json"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(a, b)
os.replace = watched
cli.config_main(grow.main, "grow")
"""


@pytest.mark.slow
def test_a_killed_growth_leaves_the_catalogue_as_it_was(made, tmp_path):
    folder = tmp_path / "catalogues" / "toys"
    growing.run(make_config(made / "rqvae"), folder)
    args = [f"--config.run={made / 'rqvae'}", f"--config.data.path={made / 'more'}"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, *args, f"--workdir={folder}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-500:]
    assert (folder / "trie.000002.npz").exists()
    assert len(catalogue.load(folder).codes) == OLD
    command = [sys.executable, "-m", "rfrec.launch.grow", *args, f"--workdir={folder}"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert len(catalogue.load(folder).codes) == OLD + NEW
    assert len(list(folder.iterdir())) == 5
    growing.run(make_config(made / "rqvae", made / "more"), tmp_path / "whole")
    again = catalogue.load(tmp_path / "whole")
    np.testing.assert_array_equal(again.codes, catalogue.load(folder).codes)
    # A mistake is one line on the terminal.
    command.append("--config.removed=/nowhere/x")
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("rfrec: /nowhere/x: cannot be read")
