# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME's main: its folder, seeds, comparisons, resume after a kill, refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.evaluation import metrics, predictions, report
from rfrec.graph import builders
from rfrec.launch import gume
from rfrec.pipelines import graph, graph_report, seeds
from rfrec.train import loop, writer
from tests.support import commands
from tests.support.commands import load_config, load_module, run_whole_and_killed

ROOT = Path(__file__).parents[2]
TINY = {
    "data.num_items": 80,
    "data.num_users": 90,
    "graph.neighbours": 4,
    "model.width": 8,
    "train.epochs": 6,
    "train.eval_every": 2,
    "eval.resamples": 50,
}


def make_config(variant="smoke", **overrides):
    tiny = TINY if variant == "smoke" else {}
    return load_config("gume", variant, **(tiny | overrides))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of two finished seeds of a run."""
    workdir = tmp_path_factory.mktemp("done") / "run"
    gume.main(make_config(), workdir, seeds=2)
    return workdir


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("variant", load_module("gume").VARIANTS)
def test_every_variant_passes_its_checks(variant):
    config = make_config(variant)
    graph.check(config)
    assert config.is_locked
    assert config.rf.use_rf is False
    assert (variant or "(default)") in load_module("gume").__doc__


def test_the_variants_of_the_authors_have_their_settings():
    rows = {
        "baby": (2, 0.4, 0.01, 0.1, 0.1),
        "sports": (1, 0.2, 0.01, 0.1, 0.01),
        "clothing": (1, 0.2, 0.1, 0.2, 0.001),
        "elec": (1, 0.2, 0.1, 0.2, 0.1),
    }
    for variant, row in rows.items():
        config = make_config(variant)
        loss, optim = config.loss, config.optim
        found = (loss.behaviour_temperature, loss.user, loss.user_temperature)
        assert (config.model.item_layers, *found, loss.alignment) == row
        assert (config.graph.neighbours, config.model.ui_layers) == (10, 3)
        assert (loss.behaviour, loss.embeddings, loss.interest) == (0.01, 1e-5, 0.1)
        assert (optim.name, optim.lr, optim.decay_rate) == ("adam", 1e-3, 0.96)
        assert config.train.batch_size == 2048


def test_movielens_100k_is_sports_with_another_rate_and_frozen_features():
    config, sports = make_config("ml100k"), make_config("sports")
    sports.optim.lr = 5e-3
    sports.model.freeze_features = True
    sports.data.update(name="ml100k", missing="mean")
    assert config == sports


@pytest.mark.parametrize("missing", ["zeros", "mean"])
def test_items_without_a_vector_are_as_the_config_says(missing):
    config = make_config(**{"data.missing": missing, "model.freeze_features": True})
    options = graph.check(config).options
    data = graph.load(options)
    values = np.array(data.features[0].values)
    values[5] = 0
    first = data.features[0]._replace(values=values)
    data = data._replace(features=(first, *data.features[1:]))
    values_of = graph.read_values(options, data)
    _, constants = builders.build_model(options, None, data.split, values_of)
    wanted = np.delete(values, 5, axis=0).mean(axis=0) * (missing == "mean")
    np.testing.assert_allclose(constants.features[0][5], wanted, atol=1e-5)
    np.testing.assert_array_equal(constants.features[0][6], values[6])


def test_the_learning_rate_falls_once_an_epoch():
    import optax

    config = make_config(**{"optim.name": "sgd", "optim.lr": 1.0})
    config.optim.decay_epochs = 2
    schedule = loop.Schedule(10, steps_per_epoch=3, steps_per_call=9, eval_every=1)
    optimizer = builders.build_optimizer(graph.check(config).options.optim, schedule)
    params = np.float32(1)
    state, made = optimizer.init(params), []
    for _ in range(8):
        updates, state = optimizer.update(np.float32(1), state, params)
        made.append(-float(updates))
    assert optax.tree.get(state, "count") == 8
    wanted = 0.96 ** (np.arange(8) // 3 / 2)
    np.testing.assert_allclose(made, wanted, rtol=1e-6)


def test_a_run_leaves_everything_in_its_folder(done):
    folder = done / "seed_1"
    names = {path.name for path in folder.iterdir()}
    assert {
        *("config.json", "metrics.jsonl", "checkpoints", "report.json"),
        *("predictions.jsonl", "per_user.npz"),
    } <= names
    told = read_json(folder / "report.json")
    rows = [
        r for r in writer.read_metrics(folder / "metrics.jsonl") if r["split"] == "eval"
    ]
    assert [row["epoch"] for row in rows] == [2, 4, 6]
    best = max(rows, key=lambda row: (row["recall@20"], row["step"]))
    assert told["best_step"] == best["step"]
    for name in report.PAIR_NAMES:
        mean = told["valid"]["metrics"]["all"][name]["mean"]
        np.testing.assert_allclose(mean, best[name], rtol=1e-6)
        cell = told["test"]["metrics"]["all"][name]
        assert cell["low"] <= cell["mean"] <= cell["high"]
    assert {"all", "cold", "tail", "head"} == set(told["test"]["metrics"])
    assert told["users"] == 90
    assert told["seed"] == 1
    assert told["config"] == read_json(folder / "config.json")


def test_predictions_and_values_by_user_have_the_metrics_of_the_report(done):
    folder = done / "seed_0"
    users, lists = predictions.read(folder / "predictions.jsonl")
    split = graph.load(graph.check(make_config()).options).split
    assert users == split.user_ids
    found = metrics.match_rows(lists.items, *split.test)
    stored = graph_report.read_per_user(folder / "per_user.npz")
    assert stored.users == users
    told = read_json(folder / "report.json")["test"]["metrics"]["all"]
    for name, values in metrics.per_user(found, report.PAIR_NAMES).items():
        np.testing.assert_allclose(told[name]["mean"], np.nanmean(values))
        np.testing.assert_array_equal(stored.values[name], values)


def test_a_run_of_another_number_of_seeds_reuses_what_is_there(done, tmp_path):
    before = (done / "seed_0/report.json").read_bytes()
    stamps = {p: p.stat().st_mtime_ns for p in done.glob("seed_*/checkpoints/*")}
    gume.main(make_config(), done, seeds=2)
    assert (done / "seed_0/report.json").read_bytes() == before
    assert {
        p: p.stat().st_mtime_ns for p in done.glob("seed_*/checkpoints/*")
    } == stamps
    alone = tmp_path / "alone"
    gume.main(make_config(seed=1), alone)
    one, other = (read_json(f / "report.json") for f in (alone, done / "seed_1"))
    assert one["test"] == other["test"]


def test_seeds_are_summarised_and_compared(done, tmp_path):
    told = read_json(done / "summary.json")
    assert told["runs"] == ["seed_0", "seed_1"]
    values = [
        read_json(done / run / "report.json")["test"]["metrics"]["all"]["ndcg@20"][
            "mean"
        ]
        for run in told["runs"]
    ]
    row = told["test"]["ndcg@20"]
    np.testing.assert_allclose(row["values"], values)
    np.testing.assert_allclose(row["mean"], np.mean(values))
    # The 97.5% quantile of Student's t with one degree of freedom.
    half = 12.7062 * np.std(values, ddof=1) / np.sqrt(2)
    np.testing.assert_allclose(row["half_width"], half, rtol=1e-4)
    floor = tmp_path / "floor"
    gume.main(make_config(**{"model.name": "popularity"}), floor, against=done)
    told = read_json(floor / "summary.json")
    gain = told["against"]["test"]["ndcg@20"]
    wanted = told["test"]["ndcg@20"]["mean"] - row["mean"]
    np.testing.assert_allclose(gain["mean"], wanted, atol=1e-9)
    assert 0 <= gain["p_t"] <= 1
    assert read_json(floor / "report.json")["warning"] is None


def test_a_lightgcn_that_learns_nothing_says_so(tmp_path):
    overrides = {"optim.lr": 1e-9, "train.patience": 2, "train.epochs": 40}
    overrides |= {"model.name": "lightgcn"}
    gume.main(make_config(**overrides), tmp_path / "run")
    told = read_json(tmp_path / "run/report.json")
    assert told["parameters"] == (90 + 80) * 8
    assert told["epochs"] == 6
    assert "ended on a plateau; raise config.optim.lr=1e-09" in told["warning"]


def rows_of(losses, scores):
    train = [{"split": "train", "loss": value} for value in losses]
    return train + [{"split": "eval", "recall@20": value} for value in scores]


def test_a_plateau_is_told_from_a_finished_training():
    schedule = loop.Schedule(100, 5, 5, eval_every=1, patience=3)

    def notice(losses, scores):
        return graph_report.notice_plateau(rows_of(losses, scores), schedule, 0.1, 1e-3)

    low = [0.05, 0.08, 0.06, 0.05, 0.04]
    flat = notice([0.69] * 5, low)
    assert "never exceeded" in flat
    assert "config.train.patience=3" in flat
    whole = notice([0.69] * 100, low * 20)
    assert "raise config.optim.lr=0.001 or config.train.epochs=100" in whole
    falling = notice([0.69, 0.6, 0.5, 0.4, 0.3], [0.2, 0.3, 0.2, 0.1, 0.1])
    assert "77% of its whole fall was in the last 3 epochs" in falling
    assert "config.optim.lr=0.001" in falling
    assert notice([0.69, 0.3, 0.299, 0.298, 0.298], [0.2, 0.3, 0.2, 0.1, 0.1]) is None
    assert notice([0.5, 0.4], [0.2, 0.3]) is None


@pytest.mark.slow
@pytest.mark.multidevice
def test_two_processes_equal_one(done, tmp_path):
    workdir = tmp_path / "two"
    commands.run_together("gume", workdir, tmp_path, devices=1, **TINY)
    report = read_json(workdir / "report.json")
    assert report["device"].endswith("x 2")
    rows = [
        writer.read_metrics(f / "metrics.jsonl") for f in (done / "seed_0", workdir)
    ]
    names = {"step", "loss", "recall@20"}
    assert names <= {name for row in rows[0] for name in row}
    for one, other in zip(*rows, strict=True):
        for name in names & one.keys():
            assert other[name] == pytest.approx(one[name], rel=1e-3), name


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path):
    changes = TINY | {"train.epochs": 24, "train.eval_every": 3, "train.patience": 99}
    changes |= {"train.steps_per_call": 4, "train.batch_size": 64}
    folders = run_whole_and_killed("gume", tmp_path, changes)
    for name in ("metrics.jsonl", "predictions.jsonl"):
        one, other = (folder / name for folder in folders)
        assert one.read_bytes() == other.read_bytes(), name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"eval.top_k": 20}, "config.eval.top_k=20: must be an integer of at least 50"),
        ({"data.shares": ("a", "b", "c")}, "config.data.shares=.*above 0"),
        ({"optim.momentum": 0.5}, "optim.momentum cannot be combined"),
        ({"optim.min_lr": 1.0}, "optim.min_lr=1.0 is above config.optim.lr"),
        (
            {"data.features": ()},
            r"model.name=gume cannot be combined with data.features=\(\)",
        ),
        ({"data.features": ("sound",)}, "has no feature 'sound'"),
        ({"rf.mix_ratio": 1.5}, "mix_ratio=1.5: must be"),
        ({"rf.solver": "magic"}, "config.rf.solver='magic': must be one of euler"),
        (
            {"rf.use_rf": True, "model.name": "lightgcn"},
            "rf.use_rf=True cannot be combined with model.name=lightgcn",
        ),
    ],
)
def test_a_refused_config_leaves_no_folder(tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        gume.main(make_config(**overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_runs_of_other_pairs_are_not_compared(done, tmp_path):
    # The same users, whose test items are others.
    other = make_config(**{"data.split": "random"})
    with pytest.raises(UserError, match="has other pairs or another split"):
        gume.main(other, tmp_path / "run", against=done)
    assert not (tmp_path / "run").exists()


def test_a_run_and_seeds_of_runs_do_not_share_a_folder(done, tmp_path):
    with pytest.raises(UserError, match="contains the folders of several seeds"):
        gume.main(make_config(), done)
    floor = make_config(**{"model.name": "popularity"})
    gume.main(floor, tmp_path / "one")
    with pytest.raises(UserError, match="contains a single run"):
        gume.main(floor, tmp_path / "one", seeds=2)
    shutil.copytree(tmp_path / "one", tmp_path / "one" / "seed_1")
    with pytest.raises(UserError, match="a single run and seed_1"):
        seeds.read(tmp_path / "one")


def test_a_summary_is_of_the_seeds_of_its_call_and_of_one_config(tmp_path):
    floor = {"model.name": "popularity"}
    gume.main(make_config(**floor), tmp_path, seeds=3)
    gume.main(make_config(**floor), tmp_path, seeds=2)
    assert read_json(tmp_path / "summary.json")["runs"] == ["seed_0", "seed_1"]
    other = make_config(**floor, **{"eval.resamples": 60})
    gume.main(other, tmp_path / "other")
    shutil.copytree(tmp_path / "other", tmp_path / "seed_7")
    with pytest.raises(UserError, match="not seeds of one config.*eval.resamples"):
        seeds.read(tmp_path)


def test_a_comparison_with_nothing_is_refused_before_training(tmp_path):
    with pytest.raises(UserError, match="contains no per_user.npz"):
        gume.main(make_config(), tmp_path / "run", against=tmp_path)
    assert not (tmp_path / "run").exists()
    (tmp_path / "per_user.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"per_user\.npz cannot be read"):
        gume.main(make_config(), tmp_path / "run", against=tmp_path)


@pytest.mark.realdata
def test_ml100k_loads_with_the_counts_of_its_split():
    split = graph.load(graph.check(make_config("ml100k")).options).split
    assert (split.num_users, split.num_items) == (943, 1682)
    counts = [len(part.items) for part in (split.train, split.valid, split.test)]
    assert counts == [75_000, 12_000, 13_000]
