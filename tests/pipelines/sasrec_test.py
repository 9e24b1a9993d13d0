# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run of SASRec: its folder, resuming after a kill, refused configs."""

import json
from pathlib import Path

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.evaluation import metrics, predictions, report
from rfrec.pipelines import sasrec
from rfrec.train import writer
from tests.support.commands import load_config, load_module, run_whole_and_killed

ROOT = Path(__file__).parents[2]
TINY = {
    "data.num_items": 80,
    "data.num_users": 90,
    "model.width": 8,
    "model.hidden": 8,
    "model.layers": 1,
    "train.epochs": 6,
    "train.eval_every": 2,
    "eval.resamples": 50,
}


def make_config(variant="smoke", **overrides):
    tiny = TINY if variant == "smoke" else {}
    return load_config("sasrec", variant, **(tiny | overrides))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a finished run."""
    workdir = tmp_path_factory.mktemp("done") / "run"
    sasrec.run(make_config(), workdir)
    return workdir


@pytest.mark.parametrize("variant", load_module("sasrec").VARIANTS)
def test_every_variant_passes_its_checks(variant):
    config = make_config(variant)
    sasrec.check(config)
    assert config.is_locked
    config.rf.sampling_steps = 1
    assert (variant or "(default)") in load_module("sasrec").__doc__


def test_a_run_leaves_everything_in_its_folder(done):
    names = {path.name for path in done.iterdir()}
    assert {
        *("config.json", "metrics.jsonl", "checkpoints"),
        *("report.json", "predictions.jsonl"),
    } <= names
    told = json.loads((done / "report.json").read_text())
    rows = [
        r for r in writer.read_metrics(done / "metrics.jsonl") if r["split"] == "eval"
    ]
    assert [row["epoch"] for row in rows] == [2, 4, 6]
    best = max(rows, key=lambda row: (row["ndcg@10"], row["step"]))
    assert told["best_step"] == best["step"]
    for name in report.NAMES:
        np.testing.assert_allclose(told["valid"][name], best[name], rtol=1e-6)
        cell = told["test"]["metrics"]["all"][name]
        assert cell["low"] <= cell["mean"] <= cell["high"]
    assert told["users"] == 90
    assert told["seconds"] > 0
    assert told["seed"] == 0
    assert told["config"] == json.loads((done / "config.json").read_text())


def test_predictions_have_the_metrics_of_the_report(done):
    users, lists = predictions.read(done / "predictions.jsonl")
    inter = sasrec.load(sasrec.check(make_config()))
    assert users == inter.user_ids
    targets = inter.items[inter.indptr[1:] - 1]
    means = report.means(metrics.match(lists.items, targets))
    told = json.loads((done / "report.json").read_text())["test"]["metrics"]["all"]
    for name, value in means.items():
        np.testing.assert_allclose(told[name]["mean"], value)


def test_a_finished_run_gives_the_same_report_again(done):
    before = json.loads((done / "report.json").read_text())
    lists = (done / "predictions.jsonl").read_bytes()
    sasrec.run(make_config(), done)
    after = json.loads((done / "report.json").read_text())
    assert after == before
    assert (done / "predictions.jsonl").read_bytes() == lists


def test_early_stopping_ends_a_run_that_no_longer_improves(tmp_path):
    overrides = {"optim.lr": 1e-12, "train.patience": 2, "train.epochs": 40}
    sasrec.run(make_config(**overrides), tmp_path / "run")
    told = json.loads((tmp_path / "run/report.json").read_text())
    assert told["epochs"] == 6
    assert told["valid"]["ndcg@10"] >= 0


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path):
    changes = TINY | {"train.epochs": 24, "train.eval_every": 3, "train.patience": 99}
    changes |= {"train.steps_per_call": 4}
    folders = run_whole_and_killed("sasrec", tmp_path, changes)
    for name in ("metrics.jsonl", "predictions.jsonl"):
        one, other = (folder / name for folder in folders)
        assert one.read_bytes() == other.read_bytes(), name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.heads": 3}, "config.model.width=8 is not a multiple"),
        ({"eval.top_k": 5}, "config.eval.top_k=5: must be at least 10"),
        ({"eval.cold_share": 0.9}, "config.eval.cold_share=0.9: must be above 0 and"),
        ({"optim.min_lr": 1.0}, "config.optim.min_lr=1.0 is above"),
        ({"optim.momentum": 0.5}, "config.optim.momentum cannot be combined"),
        ({"model.dropout": 1.0}, "config.model.dropout=1.0"),
    ],
)
def test_a_refused_config_leaves_no_folder(tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        sasrec.run(make_config(**overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_histories_that_are_too_short_are_told(tmp_path):
    (tmp_path / "x.inter.json").write_text('{"u": [0, 1], "v": [1, 2, 0]}')
    overrides = {"data.source": "folder", "data.path": str(tmp_path)}
    with pytest.raises(UserError, match="user 'u' has 2 items, leave-one-out needs"):
        sasrec.run(make_config(**overrides), tmp_path / "run")


def test_another_log_under_the_same_config_is_refused(tmp_path):
    log = tmp_path / "x.inter.json"
    histories = {f"u{i}": [(i + j) % 12 for j in range(6)] for i in range(30)}
    log.write_text(json.dumps(histories))
    overrides = {"data.source": "folder", "data.path": str(tmp_path)}
    sasrec.run(make_config(**overrides), tmp_path / "run")
    histories["u0"] = histories["u0"][::-1]
    log.write_text(json.dumps(histories))
    with pytest.raises(UserError, match="not those on which this run was trained"):
        sasrec.run(make_config(**overrides), tmp_path / "run")


@pytest.mark.realdata
def test_instruments_loads_with_its_published_counts():
    trainer_data = sasrec.load(sasrec.check(make_config("instruments")))
    assert (trainer_data.num_users, trainer_data.num_items) == (17_112, 6_250)
    data = sasrec.training.prepare(trainer_data, 50, 0)
    assert (data.rows.histories > 0).sum() == 84_890
