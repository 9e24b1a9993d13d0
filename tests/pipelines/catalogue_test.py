# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A T5 and the catalogue that grew after it was trained: what it lists, what it may."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rfrec import files
from rfrec.codes import catalogue, table
from rfrec.config import UserError
from rfrec.data.interactions import write_inter_json
from rfrec.data.synthetic import histories
from rfrec.evaluation import predictions
from rfrec.launch import grow, recommend, rqvae
from rfrec.retrieval import vocab_files
from tests.support.commands import load_config
from tests.support.runs import write_t5_run

ROOT = Path(__file__).parents[2]
OLD, NEW, USERS, SIZES = 50, 12, 16, (4, 4, 6)
GONE = (3, 11, OLD + 2)
ALL = {
    "search.beams": 64,
    "search.top_k": 64,
    "search.batch_size": 16,
    "eval.resamples": 20,
}


def make_t5(workdir, data, text, factor=1.7, **overrides):
    """Writes the folder of a run, as training leaves it but for its length."""
    values = {
        "data.source": "folder",
        "data.path": str(data),
        "data.names": ("toys",),
        "data.text": str(text),
        "task.names": ("seqrec",),
        "model.d_model": 16,
        "model.d_ff": 16,
        "model.num_heads": 2,
        "train.buckets": (),
    }
    config = load_config("t5", "smoke", **values | overrides)
    data = write_t5_run(config, workdir, factor=factor)
    files.write_json(workdir / "report.json", {"items": data.inter.num_items})
    return workdir


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Data, a tokenizer of the old items, T5s of its codes, catalogues."""
    root = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    values = rng.standard_normal((OLD + NEW, 5)).astype("f4")
    for name, rows in (("old", OLD), ("more", OLD + NEW)):
        (root / name).mkdir()
        np.save(root / name / "toys.text.npy", values[:rows])
    inter = histories(USERS, num_items=OLD, num_clusters=2, seed=0)
    write_inter_json(inter, root / "old" / "toys.inter.json")
    overrides = {"data.source": "folder", "data.path": str(root / "old")}
    overrides |= {"model.method": "rkmeans", "codebook.sizes": SIZES}
    rqvae.main(load_config("rqvae", "smoke", **overrides), root / "run")
    text = root / "run" / "codes.json"
    wide = {"vocab.codes": 6}
    make_t5(root / "t5", root / "old", text, **wide)
    make_t5(root / "t5_weights", root / "old", text, factor=1.5, **wide)
    make_t5(root / "t5_vocabulary", root / "old", text)
    gone = root / "gone"
    gone.write_text("\n".join(map(str, GONE)))
    grow_it(root, root / "bound", data=None, t5=str(root / "t5"))
    grow_it(root, root / "bound", removed=str(gone))
    grow_it(root, root / "free", removed=str(gone))
    return root


def grow_it(root, workdir, data: str | None = "more", **overrides):
    overrides["data.path"] = None if data is None else str(root / data)
    grow.main(load_config("grow", run=str(root / "run"), **overrides), workdir)


def ask(run, workdir, text=None, variant="", **overrides):
    values = {"run": str(run), "data.text": text and str(text), **ALL, **overrides}
    recommend.main(load_config("recommend", variant, **values), workdir)
    return predictions.read(workdir / "predictions.jsonl")[1]


def test_new_items_are_listed_and_removed_ones_never(made, tmp_path):
    lists = ask(made / "t5", tmp_path / "new", made / "bound" / "catalogue.json")
    live = set(range(OLD + NEW)) - set(GONE)
    # So many beams that each list holds the catalogue.
    for row in lists.items:
        assert set(row[row >= 0].tolist()) == live
    # Sequences that were there score as before; the rest of the vocabulary is the same.
    before = ask(made / "t5", tmp_path / "old")
    assert {*before.items[0].tolist()} - {-1} == {*range(OLD)}
    for user in range(USERS):
        now, then = (
            dict(zip(found.items[user].tolist(), found.scores[user], strict=True))
            for found in (lists, before)
        )
        kept = sorted(live & set(range(OLD)))
        np.testing.assert_allclose(
            [now[i] for i in kept], [then[i] for i in kept], atol=1e-5
        )
        # The new ones are ranked by their own scores, not put behind the rest.
        scores = lists.scores[user][lists.items[user] >= 0]
        assert (np.diff(scores) <= 0).all()


def test_histories_may_hold_removed_and_new_items(made, tmp_path, capsys):
    place = tmp_path / "histories.jsonl"
    lines = [{"user": "a", "items": [3, 5, 11]}, {"user": "b", "items": [OLD, OLD + 2]}]
    place.write_text("\n".join(map(json.dumps, lines)))
    text = made / "bound" / "catalogue.json"
    values = {"run": str(made / "t5"), "data.text": str(text), **ALL}
    recommend.main(load_config("recommend", **values), None, str(place))
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["user"] for answer in answers] == ["a", "b"]
    for answer in answers:
        assert not set(GONE) & set(answer["items"]) and OLD in answer["items"]


def refuse(message, act, *args, **kwargs):
    with pytest.raises(UserError, match=message) as error:
        act(*args, **kwargs)
    assert "\n" not in str(error.value)


def test_another_model_is_refused(made, tmp_path):
    text, out = made / "bound" / "catalogue.json", tmp_path / "out"
    message = r"bound, version 2, is bound to the T5 .*/t5, .*t5_weights, step 4, has"
    refuse(message + " the weights", ask, made / "t5_weights", out, text)
    message = r"bound, version 2, is bound to the T5 .* has the vocabulary"
    refuse(message, ask, made / "t5_vocabulary", out, text)
    free = made / "free" / "catalogue.json"
    message = r"free is not bound to a T5 yet, so .*/t5 .*rfrec.launch.grow"
    refuse(message, ask, made / "t5", out, free)
    damaged = tmp_path / "cat"
    shutil.copytree(made / "bound", damaged)
    (damaged / "trie.000002.npz").write_bytes(b"PK")
    message = r"trie.000002.npz .* is not the trie file"
    refuse(message, ask, made / "t5", out, damaged / "catalogue.json")
    assert not out.exists()


def test_a_model_of_other_codes_cannot_be_bound(made, tmp_path):
    codes = table.read_index(made / "run" / "codes.json").codes
    codes[[4, 5]] = codes[[5, 4]]
    table.write_index(tmp_path / "codes.json", codes)
    make_t5(tmp_path / "t5", made / "old", tmp_path / "codes.json")
    message = r"t5 was trained on the text codes \[.*\] of item 4, the catalogue has \["
    refuse(message, grow_it, made, tmp_path / "c", t5=str(tmp_path / "t5"))
    table.write_index(tmp_path / "codes.json", codes[::-1])
    message = "was trained on other histories or codes than there are now in"
    refuse(message, grow_it, made, tmp_path / "c", t5=str(tmp_path / "t5"))
    table.write_index(tmp_path / "image.json", codes, modality="image")
    image = {"data.image": str(tmp_path / "image.json"), "task.names": ("seqimage",)}
    make_t5(tmp_path / "t6", made / "old", tmp_path / "codes.json", **image)
    message = "was trained on image codes, the catalogue has text codes"
    refuse(message, grow_it, made, tmp_path / "c", t5=str(tmp_path / "t6"))
    assert not (tmp_path / "c").exists()


def test_new_codes_stay_within_the_vocabulary(made, tmp_path):
    """A model that was not told of all codes has no tokens for those above its own."""
    codes = table.read_index(made / "run" / "codes.json").codes
    keep = codes[:, 2] < 3
    assert 8 < keep.sum() < OLD
    rows = np.flatnonzero(keep)
    few = json.loads((made / "run" / "codes.json").read_text())
    few = {item: code for item, code in few.items() if keep[int(item)]}
    (tmp_path / "codes.json").write_text(json.dumps(few))
    (tmp_path / "data").mkdir()
    log = {f"u{i}": [int(r) for r in np.roll(rows, i)[:4]] for i in range(5)}
    (tmp_path / "data" / "toys.inter.json").write_text(json.dumps(log))
    make_t5(tmp_path / "t5", tmp_path / "data", tmp_path / "codes.json")
    sizes = vocab_files.read(tmp_path / "t5" / "vocab.json").sizes("text")
    assert sizes[2] == 3 < SIZES[2]
    message = r"has tokens for text codes of sizes .* the code . at level 2"
    refuse(message, grow_it, made, tmp_path / "c", t5=str(tmp_path / "t5"))
    # A catalogue whose codes it knows all grows within them.
    run = tmp_path / "run"
    shutil.copytree(made / "run", run)
    limits = (4, 4, 4)
    every = np.stack(np.unravel_index(np.arange(np.prod(limits)), limits), 1)
    table.write_index(run / "codes.json", every[-OLD:].astype(np.int32))
    make_t5(tmp_path / "t6", made / "old", run / "codes.json")
    config = {"run": str(run), "t5": str(tmp_path / "t6")}
    config["data.path"] = str(made / "more")
    grow.main(load_config("grow", **config), tmp_path / "d")
    found = catalogue.load(tmp_path / "d")
    assert found.codes.max() < 4 and len(found.codes) == OLD + NEW
    assert found.manifest.sizes == limits == found.trie.sizes


def test_a_model_trained_on_a_catalogue_goes_on_as_it_grows(made, tmp_path):
    grow_it(made, tmp_path / "c", data=None)
    run = make_t5(tmp_path / "t5", made / "old", tmp_path / "c" / "catalogue.json")
    # As it was, no binding is needed.
    first = ask(run, tmp_path / "first")
    assert first.items.max() == OLD - 1
    (tmp_path / "gone").write_text("5\n")
    grow_it(made, tmp_path / "c", data=None, removed=str(tmp_path / "gone"))
    grow_it(made, tmp_path / "c")
    refuse("c is not bound to a T5 yet", ask, run, tmp_path / "out")
    sizes = vocab_files.read(run / "vocab.json").sizes("text")
    codes = catalogue.load(tmp_path / "c").codes
    assert (codes < np.asarray(sizes)).all(), "choose another seed"
    grow_it(made, tmp_path / "c", t5=str(run))
    lists = ask(run, tmp_path / "second")
    live = set(range(OLD + NEW)) - {5}
    assert all(set(row[row >= 0].tolist()) == live for row in lists.items)
