# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Finished runs ranked once more, with other sampling or mixing."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.pipelines import finished_graph, graph, graph_report
from tests.support.commands import load_config

TINY = {
    "data.num_items": 80,
    "data.num_users": 90,
    "graph.neighbours": 4,
    "model.width": 8,
    "train.eval_every": 2,
    "train.epochs": 4,
    "eval.resamples": 50,
}
FLOW = {"rf.use_rf": True, "rf.preset": "improved"}


def make_config(**overrides):
    return load_config("gume", "smoke", **(TINY | overrides))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished run with the flow, two seeds."""
    workdir = tmp_path_factory.mktemp("again") / "flow"
    graph.run(make_config(**FLOW), workdir, seeds=2)
    return workdir


def values_of(folder):
    return graph_report.read_per_user(folder / graph_report.PER_USER).values


def report_of(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_the_same_config_gives_the_same_numbers(trained, tmp_path):
    graph.run(make_config(**FLOW), tmp_path / "same", seeds=2, trained=trained)
    for seed in ("seed_0", "seed_1"):
        first, second = trained / seed, tmp_path / "same" / seed
        wanted, found = values_of(first), values_of(second)
        for name in wanted:
            np.testing.assert_array_equal(found[name], wanted[name])
        told, again = report_of(first), report_of(second)
        assert again["choice"] == told["choice"]
        assert again["best_step"] == told["best_step"]
        assert not (second / "checkpoints").exists()


def test_without_mixing_it_is_the_host_alone(trained, tmp_path):
    alone = make_config()
    graph.run(alone, tmp_path / "host")
    zero = make_config(**FLOW, **{"rf.inference_mix_ratio": 0.0})
    graph.run(zero, tmp_path / "zero", trained=trained / "seed_0")
    wanted, found = values_of(tmp_path / "host"), values_of(tmp_path / "zero")
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])


def test_more_steps_generate_other_rows(trained, tmp_path):
    more = make_config(**FLOW, **{"rf.sampling_steps": 10})
    graph.run(more, tmp_path / "ten", trained=trained / "seed_0")
    found = report_of(tmp_path / "ten")["numbers"]["rf_error"]
    assert found != report_of(trained / "seed_0")["numbers"]["rf_error"]


@pytest.mark.parametrize("kind", ["reflow", "distil"])
def test_a_finished_flow_is_straightened_afterwards(trained, tmp_path, kind):
    more = {"rf.reflow": kind, "rf.reflow_steps": 50}
    config = make_config(**FLOW, **more)
    graph.run(config, tmp_path / "again", trained=trained / "seed_0")
    told, first = report_of(tmp_path / "again"), report_of(trained / "seed_0")
    assert told["numbers"]["rf_error"] != first["numbers"]["rf_error"]
    # The host is the same, so the ratio 0 ranks as before.
    assert told["choice"]["tried"][0] == first["choice"]["tried"][0]
    if kind == "reflow":
        # A run that trains does the same once it has trained.
        graph.run(config, tmp_path / "whole")
        whole = report_of(tmp_path / "whole")
        assert whole["numbers"] == told["numbers"]
        made, _ = finished_graph.open_run(tmp_path / "whole").generated_and_behaviour()
        mean = told["numbers"]["rf_generated_mean_users"]
        np.testing.assert_allclose(made.users.mean(), mean, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim.lr": 0.5}, "optim.lr"),
        ({"rf.hidden_dim": 32}, "rf.hidden_dim"),
        ({"seed": 1}, "seed"),
    ],
)
def test_another_training_is_refused(trained, tmp_path, changes, message):
    config = make_config(**FLOW, **changes)
    with pytest.raises(UserError, match=f"differs in {message}: use its values"):
        graph.run(config, tmp_path / "other", trained=trained / "seed_0")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("what", ["pairs", "features"])
def test_other_data_is_refused(trained, tmp_path, monkeypatch, what):
    data = graph.load(graph.check(make_config(**FLOW)).options)
    if what == "features":
        first = data.features[0]
        turned = first._replace(values=np.array(first.values)[::-1])
        data = data._replace(features=(turned, *data.features[1:]))
    else:
        split = dataclasses.replace(data.split, valid=data.split.test)
        data = data._replace(split=split)
    monkeypatch.setattr(graph, "load", lambda options: data)
    with pytest.raises(UserError, match="pairs or features are not those that"):
        graph.run(make_config(**FLOW), tmp_path / "new", trained=trained / "seed_0")
    assert not (tmp_path / "new").exists()
    copy = shutil.copytree(trained / "seed_0", tmp_path / "copy")
    before = (copy / "report.json").read_bytes()
    with pytest.raises(UserError, match="features are not those on which this run"):
        graph.run(make_config(**FLOW), copy)
    assert (copy / "report.json").read_bytes() == before


def test_a_trained_run_and_one_ranked_again_do_not_share_a_folder(trained, tmp_path):
    config = make_config(**FLOW)
    copy = shutil.copytree(trained / "seed_0", tmp_path / "copy")
    with pytest.raises(UserError, match="contains a trained run"):
        graph.run(config, copy, trained=copy)
    graph.run(config, tmp_path / "again", trained=trained / "seed_0")
    with pytest.raises(UserError, match="results of --again"):
        graph.run(config, tmp_path / "again")
    (copy / "report.json").write_text("{")
    with pytest.raises(UserError, match=r"report\.json: is not valid JSON"):
        graph.run(config, copy)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist: pass the folder"):
        graph.run(make_config(**FLOW), tmp_path / "new", trained=tmp_path)
    assert not (tmp_path / "new").exists()
