# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""T5 models of others as runs, and runs as models for others."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.launch import convert
from rfrec.pipelines import exchange, retriever
from rfrec.retrieval import hf, hf_vocab, layers, tasks, vocab
from rfrec.retrieval import t5 as model
from tests.support.commands import load_config
from tests.support.runs import load_data

ROOT = Path(__file__).parents[2]
SIZES = {"text": (16, 16, 16), "image": (16, 16, 16)}
TASKS = ("seqrec", "item2image")
TINY_SHAPE = {
    "d_model": 8,
    "d_ff": 12,
    "d_kv": 4,
    "num_heads": 2,
    "num_layers": 1,
    "num_decoder_layers": 2,
    "dropout": 0.25,
}
TINY = {
    "data.num_items": 60,
    "data.num_users": 40,
    "task.names": TASKS,
    "vocab.codes": 16,
    "eval.users": 10,
    "train.batch_size": 16,
}


def make_config(**overrides):
    return load_config("t5", "smoke", **(TINY | overrides))


def make_model(size, **changes):
    arch = layers.Architecture(
        vocab_size=size,
        **(TINY_SHAPE | changes),
    )
    rng = np.random.default_rng(size)
    shapes = jax.eval_shape(lambda: model.init(arch, jax.random.key(0)))
    draw = jax.tree.map(lambda a: rng.normal(size=a.shape).astype("f4"), shapes)
    return hf.Weights(arch, draw)


def equal(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A model in the T5 layout as MQL4GRec's training leaves it, with spare rows."""
    folder = tmp_path_factory.mktemp("published") / "model"
    words = vocab.build(SIZES, layout="t5")
    hf.write(folder, make_model(words.size + 4), words)
    for path in (hf_vocab.FILE, "tokenizer.json", "tokenizer_config.json"):
        (folder / path).unlink()
    strings = vocab.token_strings(words)
    added = {n: {"content": s} for n, s in enumerate(strings) if n >= vocab.T5_PIECES}
    config = json.dumps({"added_tokens_decoder": added})
    (folder / "tokenizer_config.json").write_text(config)
    (folder / "spiece.model").write_bytes(b"pieces")
    return folder


def test_a_compact_run_has_the_rows_of_codes_and_prompts(published, tmp_path):
    exchange.import_folder(make_config(), published, tmp_path / "run")
    found = retriever.read_model(tmp_path / "run", "ndcg@10")
    prompts = tasks.prompt_sizes(TASKS)
    small = vocab.build(SIZES, prompts=prompts)
    large = vocab.build(SIZES, prompts=prompts, layout="t5")
    assert found.vocabulary == small
    assert found.config.model.d_model == 8
    assert found.config.model.dropout == 0.25
    rows = hf.read(published).params
    for modality in SIZES:
        pairs = zip(
            small.code_tokens(modality), large.code_tokens(modality), strict=True
        )
        for here, there in pairs:
            np.testing.assert_array_equal(
                found.params["embedding"][here], rows["embedding"][there]
            )
    # The prompt of the second task is pieces 200 to 203.
    np.testing.assert_array_equal(
        found.params["embedding"][small.prompt("item2image")],
        rows["embedding"][200:204],
    )
    assert equal(found.params["decoder"], rows["decoder"])


def test_a_run_in_the_same_layout_has_all_rows_with_a_token(published, tmp_path):
    config = make_config(**{"vocab.layout": "t5"})
    exchange.import_folder(config, published, tmp_path / "run")
    found = retriever.read_model(tmp_path / "run", "last")
    assert found.vocabulary == vocab.build(SIZES, layout="t5")
    wanted = hf.trim(hf.read(published), found.vocabulary.size)
    assert equal(found.params, wanted.params)
    exchange.export_run(tmp_path / "run", tmp_path / "out", checkpoint=None, base=None)
    again = hf.read(tmp_path / "out")
    assert equal(again.params, wanted.params) and again.arch == wanted.arch


def test_training_starts_from_an_imported_model(published, tmp_path):
    exchange.import_folder(make_config(), published, tmp_path / "run")
    imported = retriever.read_model(tmp_path / "run", "last")
    shape = {f"model.{name}": imported.config.model[name] for name in exchange.SHAPE}
    config = make_config(
        **shape,
        **{"init.workdir": str(tmp_path / "run"), "init.checkpoint": "last"},
        **{"task.names": (*TASKS, "fusionseqrec")},
    )
    start = retriever.begin(retriever.check(config), load_data(config))
    old = imported.vocabulary.size
    assert start.vocabulary.size == old + 4
    np.testing.assert_array_equal(
        start.weights["embedding"][:old], imported.params["embedding"]
    )
    assert equal(start.weights["encoder"], imported.params["encoder"])


def test_a_compact_run_goes_back_into_the_vocabulary_it_came_from(published, tmp_path):
    exchange.import_folder(make_config(), published, tmp_path / "run")
    exchange.export_run(
        tmp_path / "run", tmp_path / "out", checkpoint="loss", base=published
    )
    there, back = hf.read(published), hf.read(tmp_path / "out")
    assert there.arch == back.arch
    assert equal(there.params, back.params)
    assert (tmp_path / "out" / "spiece.model").read_bytes() == b"pieces"


def test_a_compact_run_is_exported_and_imported_as_it_is(published, tmp_path):
    exchange.import_folder(make_config(), published, tmp_path / "run")
    exchange.export_run(
        tmp_path / "run", tmp_path / "out", checkpoint="last", base=None
    )
    exchange.import_folder(make_config(), tmp_path / "out", tmp_path / "again")
    one, two = (
        retriever.read_model(tmp_path / name, "last") for name in ("run", "again")
    )
    assert equal(one.params, two.params)
    assert one.vocabulary == two.vocabulary
    with pytest.raises(UserError, match="compact vocabulary; set config.vocab.layout"):
        config = make_config(**{"vocab.layout": "t5"})
        exchange.import_folder(config, tmp_path / "out", tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_nothing_is_overwritten(published, tmp_path):
    exchange.import_folder(make_config(), published, tmp_path / "run")
    with pytest.raises(UserError, match="contains a run; use another --workdir"):
        exchange.import_folder(make_config(), published, tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(UserError, match="out is not empty; use a new folder"):
        exchange.export_run(
            tmp_path / "run", tmp_path / "out", checkpoint=None, base=None
        )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def _changed(published, tmp_path, **config):
    folder = shutil.copytree(published, tmp_path / "changed")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def test_a_shape_that_runs_cannot_have_is_one_line(published, tmp_path):
    folder = _changed(published, tmp_path, layer_norm_epsilon=1e-5)
    with pytest.raises(UserError, match="its epsilon is 1e-05; only"):
        exchange.import_folder(make_config(), folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_without_codes_cannot_become_compact(published, tmp_path):
    folder = _changed(published, tmp_path)
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match="has no codes, .* config.vocab.layout=t5"):
        exchange.import_folder(make_config(), folder, tmp_path / "run")
    config = make_config(**{"vocab.layout": "t5"})
    exchange.import_folder(config, folder, tmp_path / "run")
    found = retriever.read_model(tmp_path / "run", "last")
    assert len(found.params["embedding"]) == found.vocabulary.size == vocab.T5_PIECES


def test_a_tokenizer_of_another_model_is_one_line(published, tmp_path):
    folder = _changed(published, tmp_path)
    hf_vocab.write(folder, vocab.build({"text": (99, 99)}, layout="t5"))
    with pytest.raises(UserError, match="tokenizer has 32298 tokens, its model 32200"):
        exchange.import_folder(make_config(), folder, tmp_path / "run")


def test_a_base_of_another_shape_or_other_codes_is_one_line(published, tmp_path):
    exchange.import_folder(make_config(), published, tmp_path / "run")
    words = vocab.build(SIZES, layout="t5")
    hf.write(tmp_path / "wide", make_model(words.size, d_ff=13), words)
    words = vocab.build({"text": SIZES["text"]}, layout="t5")
    hf.write(tmp_path / "text", make_model(words.size), words)
    for base, message in (
        ("wide", "its d_ff is 13, the run's 12"),
        ("text", "block 'code image level 0' has 16 tokens, the other vocabulary 0"),
    ):
        with pytest.raises(UserError, match=message):
            exchange.export_run(
                tmp_path / "run",
                tmp_path / "out",
                checkpoint=None,
                base=tmp_path / base,
            )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one of --checkpoint=FILE.pth, --import_t5=FOLDER and --export_t5"),
        ({"IMPORT": "a", "EXPORT": "b"}, "one of --checkpoint"),
        ({"IMPORT": "a", "BEST": "last"}, "--best and --base can only be combined"),
        ({"EXPORT": "a", "BEST": "hr"}, "--best=hr: use ndcg@10, loss or last"),
        ({"EXPORT": "a"}, "nowhere/config.json does not exist"),
        ({"IMPORT": "nowhere"}, r"importing a T5 requires --config=configs/t5.py"),
        ({"CHECKPOINT": "a.pth"}, "a.pth does not exist|convert needs torch"),
    ],
)
def test_wrong_flags_are_reported_in_one_line(given, message, monkeypatch):
    for name in ("CHECKPOINT", "IMPORT", "EXPORT", "BEST", "BASE"):
        flag = SimpleNamespace(value=given.get(name))
        monkeypatch.setattr(convert, f"_{name}", flag)
    with pytest.raises(UserError, match=message):
        convert.main(exchange.ConfigDict({"model": {}}), Path("nowhere"))
