# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Versions of a catalogue: read as they were written, whole at any moment."""

import itertools
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from rfrec.codes import catalogue, trie
from rfrec.config import UserError

SIZES = (4, 3, 300)
ENCODER = catalogue.EncoderRecord("minilm", ("text", "image"), (3, 5), (1.5, 0.1), "ab")
TOKENIZER = catalogue.TokenizerRecord("runs/a", 7, "cd")
T5 = catalogue.T5Record("runs/t5", 9, "ef", "01")


def store(folder, version, rows, removed=(), t5=T5):
    """Writes the first rows of one table of codes."""
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, k, rows) for k in SIZES], 1).astype(np.int32)
    gone = np.asarray(removed, np.int32)
    kept = np.setdiff1d(np.arange(rows), gone)
    index = trie.build(codes[kept], SIZES, kept, rows)
    manifest = catalogue.store(
        folder,
        codes,
        gone,
        index,
        version=version,
        name="toys",
        modality="text",
        encoder=ENCODER,
        tokenizer=TOKENIZER,
        t5=t5,
    )
    return manifest, codes, gone, index


@pytest.mark.parametrize("t5", [T5, None])
def test_what_is_read_is_what_was_written(tmp_path, t5):
    manifest, codes, removed, index = store(tmp_path, 1, 20, (3, 19), t5)
    found = catalogue.load(tmp_path)
    assert found.manifest == manifest == catalogue.read_manifest(tmp_path)
    assert (manifest.items, manifest.removed, manifest.t5) == (20, 2, t5)
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_array_equal(found.removed, removed)
    for a, b in zip(
        (*found.trie.pointers, *found.trie.values),
        (*index.pointers, *index.values),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    # The manifest is what its module says, for those who read it otherwise.
    content = json.loads((tmp_path / "catalogue.json").read_text())
    assert content["format"] == "rfrec catalogue 1"
    assert content["encoder"]["factors"] == [1.5, 0.1]
    assert content["trie"]["file"] == "trie.000001.npz"


def die_at_each_moment(root):
    """Stores version 3 over and over, dying before and after each file moves or goes.

    Forks, so that it needs a process that has not loaded JAX.
    """
    replace, unlink = os.replace, os.unlink
    for moment in itertools.count():
        folder = Path(root) / f"{moment:02d}"
        folder.mkdir()
        store(folder, 1, 8)
        store(folder, 2, 12)
        child = os.fork()
        if not child:
            left = [moment]

            def step(function, left=left):
                def counted(*args, **kwargs):
                    for act in (lambda *args, **kwargs: None, function):
                        act(*args, **kwargs)
                        left[0] -= 1
                        if left[0] < 0:
                            os.kill(os.getpid(), signal.SIGKILL)

                return counted

            os.replace, os.unlink = step(replace), step(unlink)
            store(folder, 3, 20, (4,))
            os._exit(0)
        if os.WIFEXITED(os.waitpid(child, 0)[1]):
            return


def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path, run_python):
    run_python(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import catalogue_test as t; t.die_at_each_moment({str(tmp_path)!r})"
    )
    versions = []
    for folder in sorted(tmp_path.iterdir()):
        found = catalogue.load(folder)
        rows = {2: 12, 3: 20}[found.manifest.version]
        assert len(found.codes) == found.manifest.items == rows
        versions.append(found.manifest.version)
        # The next version removes what the kill left.
        store(folder, 4, 21)
        assert catalogue.load(folder).manifest.version == 4
        assert not list(folder.glob("*.000001.npz")) + list(folder.glob(".*"))
    assert versions == sorted(versions)
    assert versions.count(2) > 4 and versions.count(3) > 2


def test_the_version_before_stays_for_its_readers(tmp_path):
    for version in (1, 2, 3):
        store(tmp_path, version, 5 + version)
    names = {path.name for path in tmp_path.iterdir()}
    kept = {f"{what}.00000{v}.npz" for what in ("codes", "trie") for v in (2, 3)}
    assert names == kept | {"catalogue.json"}


def line_of(check, *told):
    with pytest.raises(UserError) as error:
        check(*told)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_tokenizer_is_one_line_that_names_both(tmp_path):
    manifest = store(tmp_path, 1, 8)[0]
    catalogue.check_tokenizer(tmp_path, manifest, TOKENIZER._replace(run="moved"))
    other = TOKENIZER._replace(run="runs/b", sha256="ce")
    line = line_of(catalogue.check_tokenizer, tmp_path, manifest, other)
    assert all(each in line for each in (str(tmp_path), "runs/a", "runs/b", "cd", "ce"))


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"vocabulary": "00"}, ("runs/t5", "vocabulary ef", "vocabulary 00")),
        ({"weights": "02"}, ("runs/t5", "weights 01", "weights 02")),
    ],
)
def test_another_model_is_one_line_that_names_both(tmp_path, change, wanted):
    manifest = store(tmp_path, 1, 8)[0]
    catalogue.check_t5(tmp_path, manifest, T5._replace(run="moved"))
    other = T5._replace(run="runs/u", step=3, **change)
    line = line_of(catalogue.check_t5, tmp_path, manifest, other)
    assert all(each in line for each in (str(tmp_path), "runs/u", *wanted))
    none = manifest._replace(t5=None)
    assert "not bound to a T5 yet" in line_of(catalogue.check_t5, tmp_path, none, T5)


def test_fingerprints_tell_names_shapes_and_types_apart():
    a = np.arange(6, dtype=np.int32)
    sums = [
        catalogue.fingerprint(arrays)
        for arrays in (
            {"a": a},
            {"b": a},
            {"a": a.reshape(2, 3)},
            {"a": a.astype(np.float32)},
            {"a": a + 1},
            {"a": a, "b": a},
        )
    ]
    assert len(set(sums)) == len(sums)
    assert sums[-1] == catalogue.fingerprint({"b": a, "a": a})
