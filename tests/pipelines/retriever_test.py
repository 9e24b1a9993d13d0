# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run of a T5: variants, exact resume, weights of another run, bad input."""

import json
import os
import signal
import subprocess
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from rfrec import config as cfg
from rfrec.codes import table
from rfrec.config import UserError
from rfrec.data.interactions import write_inter_json
from rfrec.data.synthetic import histories
from rfrec.pipelines import coded_histories, retriever
from rfrec.retrieval import builders, vocab_files
from rfrec.train import loop, writer
from tests.support import commands
from tests.support.commands import digest, load_config, load_module
from tests.support.runs import load_data as load

ROOT = Path(__file__).parents[2]
# Of the smoke variant, for runs of a few seconds, most of which is compiling.
TINY = {
    "data.num_items": 50,
    "data.num_users": 60,
    "task.names": ("seqrec",),
    "model.d_model": 16,
    "model.d_ff": 16,
    "model.num_heads": 2,
    "train.epochs": 4,
    "train.batch_size": 32,
    "train.buckets": (),
    "eval.users": 20,
    "eval.beams": 4,
    "eval.batch_size": 64,
}
LONG = {"train.epochs": 36, "train.eval_every": 3, "train.patience": 30}


def make_config(variant="smoke", **overrides):
    tiny = TINY if variant == "smoke" else {}
    return load_config("t5", variant, **(tiny | overrides))


def arrays(workdir, step=None):
    """Every array of a checkpoint, the last by default, read by orbax alone."""
    folder = workdir / "checkpoints"
    steps = sorted(int(path.name) for path in folder.iterdir())
    step = steps[-1] if step is None else step
    with ocp.StandardCheckpointer() as reader:
        tree = reader.restore((folder / str(step) / "state").absolute())
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    assert len(leaves) > 20
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a finished run."""
    workdir = tmp_path_factory.mktemp("done") / "run"
    retriever.run(make_config(), workdir)
    return workdir


@pytest.mark.parametrize("variant", load_module("t5").VARIANTS)
def test_every_variant_passes_its_checks(variant):
    config = make_config(variant)
    retriever.check(config)
    assert config.is_locked
    config.rf.sampling_steps = 1
    assert (variant or "(default)") in load_module("t5").__doc__


def test_finetuning_has_the_settings_of_the_reference():
    config = make_config("finetune")
    wanted = {
        "task.names": (
            "seqrec",
            "seqimage",
            "item2image",
            "image2item",
            "fusionseqrec",
        ),
        "task.prompt_tokens": 4,
        "data.max_history": 20,
        "data.mode": 0,
        "model.d_model": 128,
        "model.d_ff": 1024,
        "model.d_kv": 64,
        "model.num_heads": 6,
        "model.num_layers": 4,
        "model.num_decoder_layers": 4,
        "model.feed_forward": "relu",
        "model.dropout": 0.1,
        "model.tied": True,
        "optim.name": "adamw",
        "optim.lr": 5e-4,
        "optim.schedule": "cosine",
        "optim.warmup_share": 0.01,
        "optim.weight_decay": 0.01,
        "train.epochs": 200,
        "train.patience": 10,
        "eval.beams": 20,
    }
    for key, value in wanted.items():
        assert cfg.value_at(config, key) == value, key
    first = make_config("pretrain")
    assert first.optim.lr == 1e-3
    assert first.train.epochs * first.optim.warmup_share == pytest.approx(1)
    assert first.train.batch_size * first.optim.accumulate == 8192
    assert first.vocab.codes == config.vocab.codes == 256


def test_a_run_leaves_everything_in_its_folder(done):
    names = {path.name for path in done.iterdir()}
    assert {"config.json", "vocab.json", "metrics.jsonl", "report.json"} <= names
    assert "checkpoints" in names
    report = json.loads((done / "report.json").read_text())
    assert report["main"] == "t5"
    assert (report["users"], report["items"]) == (60, 50)
    assert report["seconds"] > 0
    data = load(make_config())
    assert report["data"] == {"names": ["synthetic"], "sha256": data.fingerprint}
    vocabulary = vocab_files.read(done / "vocab.json")
    assert report["vocabulary"] == vocabulary.size == 2 + 3 * 8
    found = arrays(done)
    params = {k: v for k, v in found.items() if k.startswith("['params']")}
    assert report["parameters"] == sum(v.size for v in params.values())
    assert params["['params']['embedding']"].shape == (vocabulary.size, 16)
    # One bucket, as long as the validation histories: training ones are one shorter.
    assert -0.1 < report["padding"]["saved"] <= 0
    rows = writer.read_metrics(done / "metrics.jsonl")
    evaluated = [row for row in rows if row["split"] == "eval"]
    assert [row["epoch"] for row in evaluated] == [2, 4]
    best = min(evaluated, key=lambda row: row["loss"])
    assert report["models"]["loss"]["loss"] == pytest.approx(best["loss"], rel=1e-6)
    best = max(evaluated, key=lambda row: row["ndcg@10"])
    assert report["models"]["ndcg@10"]["ndcg@10"] == best["ndcg@10"]
    assert report["models"].keys() == {"last", "loss", "ndcg@10"}


def test_a_finished_run_says_the_same_again(done):
    before = {k: v for k, v in digest(done).items() if "report" not in k.name}
    retriever.run(make_config(), done)
    after = digest(done)
    for path in before:
        if "tfevents" not in path.name:
            assert after[path] == before[path], path


def test_another_config_or_other_data_are_refused(done, monkeypatch):
    before = digest(done)
    with pytest.raises(UserError, match=r"differs in optim\.lr"):
        retriever.run(make_config(**{"optim.lr": 0.1}), done)
    synthetic = coded_histories.synthetic
    monkeypatch.setattr(
        coded_histories, "synthetic", lambda u, n, seed: synthetic(u, n, 7)
    )
    with pytest.raises(UserError, match="histories or codes are not those"):
        retriever.run(make_config(), done)
    assert digest(done) == before


def test_a_model_is_read_back_and_nothing_changes(done):
    before = digest(done)
    for name in ("last", "loss", "ndcg@10"):
        model = retriever.read_model(done, name)
        report = json.loads((done / "report.json").read_text())
        assert model.step == report["models"][name]["step"]
        wanted = arrays(done, model.step)["['params']['embedding']"]
        np.testing.assert_array_equal(model.params["embedding"], wanted)
    assert model.vocabulary == vocab_files.read(done / "vocab.json")
    assert digest(done) == before


GROWN = {
    "task.names": ("seqrec", "seqimage", "item2image"),
    "init.checkpoint": "last",
    "train.epochs": 1,
}


def test_weights_of_another_run_grow_with_the_vocabulary(done, tmp_path):
    config = make_config(**GROWN, **{"init.workdir": str(done)})
    data = load(config)
    options = retriever.check(config)
    start = retriever.begin(options, data)
    earlier = retriever.read_model(done, "last")
    old = earlier.vocabulary.size
    # Three levels of image codes and one prompt are new, behind all there was.
    assert start.vocabulary.size == old + 3 * 8 + 4
    assert start.vocabulary.blocks[:3] == earlier.vocabulary.blocks
    trainer = builders.build_trainer(options, data, start.vocabulary, start.weights)
    state = trainer.init()
    np.testing.assert_array_equal(
        state.params["embedding"][:old], earlier.params["embedding"]
    )
    fresh = state.params["embedding"][old:]
    assert fresh.std() > 0.5
    for name in ("encoder", "decoder"):
        pairs = zip(
            jax.tree.leaves(state.params[name]),
            jax.tree.leaves(earlier.params[name]),
            strict=True,
        )
        for a, b in pairs:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.d_model": 8}, r"shape \(.*; use its config.model"),
        ({"model.tied": False}, "lacks the parameter output"),
        ({"model.num_layers": 2}, "lacks the parameter encoder"),
        ({"vocab.layout": "t5"}, "compact layout; set config.vocab.layout=compact"),
        ({"vocab.codes": 9}, r"code text level 0.*has 8 tokens, 9 are wanted"),
        ({"init.workdir": "/nowhere"}, "/nowhere/config.json does not exist"),
    ],
)
def test_what_does_not_extend_a_run_is_one_line(done, changes, message):
    config = make_config(**GROWN | {"init.workdir": str(done)} | changes)
    with pytest.raises(UserError, match=message) as error:
        retriever.begin(retriever.check(config), load(config))
    assert "\n" not in str(error.value)


def test_a_run_of_another_main_is_no_start(tmp_path):
    (tmp_path / "config.json").write_text('{"model": {}}')
    with pytest.raises(UserError, match="contains no run of rfrec.launch.t5"):
        retriever.read_model(tmp_path, "last")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task.weights": (1.0, 2.0)}, "task.weights has 2 values for 1"),
        ({"eval.task": "seqimage"}, "eval.task='seqimage' is not trained"),
        ({"task.names": ("item2image",)}, "'item2image' continues no history"),
        (
            {"train.tensor": 2, "train.engine": "pmap"},
            "tensor>1 cannot be combined with",
        ),
        ({"train.buckets": (8, 4)}, r"train.buckets=\(8, 4\): must ascend"),
        ({"train.patience": 0}, "train.patience=0: must be an integer of at least 1"),
        (
            {"model.level_heads": True, "task.names": ("seqrec", "seqimage")},
            "level_heads cannot be combined with tasks of two target",
        ),
        ({"task.names": ("seqrec", "seqrec")}, "'seqrec' occurs twice"),
    ],
)
def test_settings_that_cannot_be_are_one_line(changes, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        retriever.run(make_config(**changes), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def unique_codes(num_items, seed=0):
    keys = np.random.default_rng(seed).choice(512, num_items, replace=False)
    return np.stack(np.unravel_index(keys, (8, 8, 8)), axis=1)


def write_set(root, name, *, num_items=50, change=None, modality="text", seed=0):
    """Writes a data set: histories and codes, which `change` may spoil."""
    inter = histories(30, num_items=num_items, num_clusters=2, seed=seed)
    index = {"codes": unique_codes(num_items, seed), "item_ids": None}
    log = root / f"{name}.inter.json"
    write_inter_json(inter, log)
    if change:
        change(index, log)
    path = root / f"{name}.index_{'lemb' if modality == 'text' else 'vitemb'}.json"
    table.write_index(path, modality=modality, **index)
    return inter


def folder_config(root, *names, **changes):
    folder = {"data.source": "folder", "data.path": str(root), "data.names": names}
    return make_config(**folder | changes)


def twins(index, log):
    index["codes"][3] = index["codes"][7]


def test_codes_that_are_not_unique_are_told_or_refused(tmp_path):
    write_set(tmp_path, "toy", change=twins)
    data = load(folder_config(tmp_path, "toy"))
    assert len(data.warnings) == 1
    assert "text codes are not unique, 1 conflict items" in data.warnings[0]
    with pytest.raises(UserError, match="not unique, 1 conflict items.*repair them"):
        load(folder_config(tmp_path, "toy", **{"data.unique": True}))


def drop_item(index, log):
    used = json.loads(log.read_text())["0"][0]
    kept = [i for i in range(50) if i != used]
    index |= {"codes": index["codes"][kept], "item_ids": [str(i) for i in kept]}


def name_items(index, log):
    index["item_ids"] = [f"B{i:03}" for i in range(50)]


def unknown_item(index, log):
    users = json.loads(log.read_text())
    users["1"][-1] = 777
    log.write_text(json.dumps(users))


def empty_history(index, log):
    log.write_text(json.dumps(json.loads(log.read_text()) | {"4": []}))


def short_history(index, log):
    log.write_text(json.dumps(json.loads(log.read_text()) | {"4": [3]}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_item, r"index_lemb\.json: item \d+ of user '0' has no codes"),
        (name_items, "item 'B000' is unknown to the histories"),
        (unknown_item, "item 777 of user '1' has no codes"),
        (empty_history, "user '4' has an empty history"),
        (short_history, "user '4' has 1 items"),
    ],
)
def test_bad_data_are_one_line_and_leave_no_folder(tmp_path, change, message):
    write_set(tmp_path, "toy", change=change)
    with pytest.raises(UserError, match=message) as error:
        retriever.run(folder_config(tmp_path, "toy"), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.text": None}, "need text codes; set config.data.text"),
        ({"data.text": "none"}, "toy.index_none.json: cannot be read"),
        ({"data.text": "{name}.json"}, "toy.json: cannot be read"),
        ({"data.text": "vitemb"}, "contains image codes"),
        ({"vocab.codes": 5}, "vocab.codes=5: the text codes go up to 7"),
    ],
)
def test_codes_that_are_missing_or_misplaced(tmp_path, changes, message):
    write_set(tmp_path, "toy")
    write_set(tmp_path, "toy", modality="image")
    with pytest.raises(UserError, match=message):
        retriever.run(folder_config(tmp_path, "toy", **changes), tmp_path / "run")


def test_items_that_only_the_codes_know_can_be_found(tmp_path):
    def more(index, log):
        index["codes"] = unique_codes(60)

    inter = write_set(tmp_path, "toy", change=more)
    data = load(folder_config(tmp_path, "toy"))
    assert inter.items.max() < 50
    assert data.inter.num_items == len(data.codes["text"]) == 60


def test_data_sets_share_tokens_and_keep_their_catalogues(tmp_path):
    first = write_set(tmp_path, "one", num_items=50)
    second = write_set(tmp_path, "two", num_items=60, seed=1)
    config = folder_config(tmp_path, "one", "two")
    data = load(config)
    assert data.inter.num_items == 110
    assert data.inter.num_users == 60
    np.testing.assert_array_equal(
        data.inter.items, np.concatenate([first.items, 50 + second.items])
    )
    options = retriever.check(config)
    vocabulary = builders.build_vocabulary(options, data)
    assert vocabulary.size == 2 + 24
    corpus = builders.build_corpus(options, data, vocabulary)
    assert [c.name for c in corpus.catalogues] == ["one", "two"]
    ranges = [(0, 50), (50, 110)]
    for catalogue, (low, high) in zip(corpus.catalogues, ranges, strict=True):
        assert sorted(catalogue.trie.leaf_items.tolist()) == list(range(low, high))
        assert len(catalogue.examples.target) == 10
        assert catalogue.examples.target.min() >= low
        assert catalogue.examples.target.max() < high
    with pytest.raises(UserError, match="3 levels|levels; use data sets of one"):
        table.write_index(tmp_path / "two.index_lemb.json", unique_codes(60)[:, :2])
        load(config)


@pytest.mark.realdata
def test_the_published_codes_give_the_published_counts():
    for folder in Path(os.environ["RFREC_DATA"]).glob("**/Instruments.inter.json"):
        config = make_config("", **{"data.path": str(folder.parent)})
        data = load(config)
        options = retriever.check(config)
        vocabulary = builders.build_vocabulary(options, data)
        corpus = builders.build_corpus(options, data, vocabulary)
        assert len(corpus.examples(seed=0, epoch=0).task) == 84_890
        assert "262 conflict items" in data.warnings[0]
        assert vocabulary.size <= 2 + 4 * 256


@pytest.mark.slow
def test_tiger_runs(tmp_path):
    changes = {
        "model.level_heads": True,
        "task.separator": True,
        "task.user_buckets": 7,
        "train.epochs": 2,
    }
    retriever.run(make_config(**changes), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["vocabulary"] == 2 + 3 * 8 + 1 + 7
    assert "['params']['heads']" in arrays(tmp_path)


@pytest.mark.slow
def test_patience_ends_a_run(tmp_path, monkeypatch):
    judge = loop.Progress.judge
    monkeypatch.setattr(
        loop.Progress, "judge", lambda self, value, better: judge(self, 0.0, better)
    )
    changes = {"train.epochs": 40, "train.eval_every": 1, "train.patience": 2}
    retriever.run(make_config(**changes), tmp_path)
    rows = writer.read_metrics(tmp_path / "metrics.jsonl")
    assert [r["epoch"] for r in rows if r["split"] == "eval"] == [1, 2, 3]
    assert (tmp_path / "report.json").exists()


def command(workdir, **overrides):
    return commands.command("t5", workdir, **(TINY | overrides))


@pytest.mark.slow
def test_killed_and_preempted_runs_equal_the_uninterrupted_one(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    retriever.run(make_config(**LONG), whole)
    for number, sent in enumerate([signal.SIGKILL, signal.SIGTERM]):
        log = tmp_path / f"{number}.log"
        process = commands.begin(command(broken, **LONG), log)
        commands.wait_for_rows(broken, process, more=6)
        process.send_signal(sent)
        code = process.wait(timeout=60)
        if sent == signal.SIGTERM:
            assert code == 143, log.read_text()
            line = log.read_text().splitlines()[-1]
            assert line.startswith("rfrec: stopped by SIGTERM at step"), line
        else:
            assert code == -signal.SIGKILL
        assert not (broken / "report.json").exists()
    retriever.run(make_config(**LONG), broken)
    assert (whole / "metrics.jsonl").read_text() == (
        broken / "metrics.jsonl"
    ).read_text()
    reports = [json.loads((f / "report.json").read_text()) for f in (whole, broken)]
    for key in ("models", "steps", "padding", "vocabulary"):
        assert reports[0][key] == reports[1][key], key
    for step in (path.name for path in (whole / "checkpoints").iterdir()):
        one, other = arrays(whole, int(step)), arrays(broken, int(step))
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(other[name], array, err_msg=name)


@pytest.mark.slow
@pytest.mark.multidevice
def test_two_processes_equal_one(done, tmp_path):
    workdir = tmp_path / "two"
    commands.run_together("t5", workdir, tmp_path, devices=1, **TINY)
    report = json.loads((workdir / "report.json").read_text())
    assert report["device"].endswith("x 2")
    single, double = arrays(done), arrays(workdir)
    assert single.keys() == double.keys()
    for name, array in single.items():
        np.testing.assert_allclose(double[name], array, atol=1e-4, err_msg=name)
    rows = [writer.read_metrics(f / "metrics.jsonl") for f in (done, workdir)]
    names = {"step", "loss", "ndcg@10"}
    assert names <= {name for row in rows[0] for name in row}
    for one, other in zip(*rows, strict=True):
        for name in names & one.keys():
            assert other[name] == pytest.approx(one[name], rel=1e-4), name


@pytest.mark.slow
def test_a_mistake_is_one_line_on_the_terminal(tmp_path):
    args = command(tmp_path / "run", **{"task.names": ("seqrec", "seqimgae")})
    done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("rfrec: config.task.names=")
