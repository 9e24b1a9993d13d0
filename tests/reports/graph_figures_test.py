# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a graph recommender: what its flow generates, drawn from its folder."""

import pathlib
import runpy

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.launch import gume
from rfrec.reports import graph_figures, run_figures

ROOT = pathlib.Path(__file__).parents[2]
TINY = {
    "data.num_items": 80,
    "data.num_users": 90,
    "graph.neighbours": 4,
    "model.width": 8,
    "train.epochs": 4,
    "train.eval_every": 2,
    "eval.resamples": 20,
    "rf.hidden_dim": 16,
    "rf.rows": 64,
}


def _config(name, variant, **values):
    file = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))
    config = file["get_config"](variant)
    config.update_from_flattened_dict(values)
    return config


def _drawing(**values):
    return _config("plots", "quick", **{"dpi": 40, "steps": (4, 1)} | values)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plots") / "run"
    gume.main(_config("gume", "smoke", **TINY, **{"rf.use_rf": True}), folder)
    return folder


def test_a_run_with_the_flow_gives_four_pictures(run, caplog):
    caplog.set_level("INFO", logger="absl")
    before = sorted(path.name for path in run.iterdir())
    run_figures.main(_drawing(), run)
    made = {path.name: path.read_bytes() for path in (run / "plots").iterdir()}
    assert sorted(made) == ["curves.png", "flow.png", "steps.png", "tsne.png"]
    assert all(content[:8] == b"\x89PNG\r\n\x1a\n" for content in made.values())
    assert sorted({*before, "plots"}) == sorted(path.name for path in run.iterdir())
    lines = [r.message for r in caplog.records if "steps: " in r.message]
    assert [line.split()[0] for line in lines] == ["1", "4"]


def test_a_run_without_the_flow_gives_its_curves(run, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    text = (run / "config.json").read_text()
    (tmp_path / "config.json").write_text(
        text.replace('"use_rf": true', '"use_rf": false')
    )
    with pytest.raises(UserError, match="has no metrics yet"):
        run_figures.main(_drawing(), tmp_path)
    (tmp_path / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text())
    run_figures.main(_drawing(), tmp_path)
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["curves.png"]
    assert "config.rf.use_rf is False" in caplog.text


def test_a_run_that_has_no_checkpoint_says_so(run, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / name).write_text((run / name).read_text())
    run_figures.main(_drawing(), tmp_path)
    assert "there is no checkpoint yet" in caplog.text
    assert (tmp_path / "plots" / "flow.png").exists()


def test_steps_are_refused_below_one(run):
    with pytest.raises(UserError, match="config.steps"):
        run_figures.main(_drawing(steps=(0, 1)), run)


def test_a_cloud_keeps_rows_together_and_tells_moments_of_all():
    rng = np.random.default_rng(0)
    target = rng.normal(size=(40, 5)) + 3 * np.eye(5)[np.arange(40) % 5] * 9
    cloud = graph_figures.map_cloud("items", target, target + 1e-3, 30, 8.0, 0)
    assert (cloud.name, cloud.count, cloud.target.shape) == ("items", 40, (30, 2))
    moments = [[x.mean(axis=0), x.std(axis=0)] for x in (target, target + 1e-3)]
    np.testing.assert_allclose(cloud.moments, moments)
    # A row and its near copy lie together.
    distance = np.linalg.norm(cloud.target[:, None] - cloud.generated[None], axis=-1)
    assert np.mean(np.diag(distance) <= np.quantile(distance, 0.1, axis=1)) > 0.9


def _rows():
    train = {"split": "train", "loss": 0.7, "rf_loss": 1.0, "cl_loss": 2.0}
    evaluated = {"split": "eval", "recall@20": 0.1, "rf_error": 0.5}
    evaluated |= {
        f"rf_{kind}_{moment}_{side}": 0.1
        for kind in ("target", "generated")
        for moment in ("mean", "std")
        for side in ("users", "items")
    }
    return [{"epoch": epoch, **row} for epoch in (1, 2) for row in (train, evaluated)]


def test_curves_draw_every_number_of_the_flow():
    losses, error, means, deviations = graph_figures.draw_flow(_rows()).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in losses.lines}
    assert drawn == {"flow": [[1, 1.0], [2, 1.0]], "contrastive": [[1, 2.0], [2, 2.0]]}
    assert [len(axis.lines) for axis in (error, means, deviations)] == [1, 4, 4]
    rows = [row | {"rf_error_heldout": 0.7} for row in _rows()]
    both = [
        line.get_ydata().tolist()
        for line in graph_figures.draw_flow(rows).axes[1].lines
    ]
    assert both == [[0.5, 0.5], [0.7, 0.7]]


def test_steps_are_drawn_beside_the_ranking_without():
    qualities = [
        graph_figures.Quality(n, {"recall@20": 0.1 * n}, 0.5 / n, "held-out rows")
        for n in (1, 2)
    ]
    ranking, error = graph_figures.draw_steps(qualities, {"recall@20": 0.15}, 0.1).axes
    assert ranking.lines[0].get_xydata().tolist() == [[1, 0.1], [2, 0.2]]
    assert set(ranking.lines[1].get_ydata()) == {0.15}
    assert error.lines[0].get_ydata().tolist() == [0.5, 0.25]
    assert error.lines[0].get_label() == "held-out rows"


def test_every_axis_is_labelled():
    zeros = np.zeros((6, 2))
    cloud = graph_figures.Cloud("users", zeros, zeros, np.ones((2, 2, 3)), 9)
    quality = graph_figures.Quality(1, {"recall@20": 0.1}, 0.5, "all rows")
    figures = [
        graph_figures.draw_training(_rows(), ("recall@20",)),
        graph_figures.draw_flow(_rows()),
        graph_figures.draw_clouds([cloud, cloud]),
        graph_figures.draw_steps([quality], {"recall@20": 0.1}, 0.1),
    ]
    for axis in (axis for figure in figures for axis in figure.axes):
        assert axis.get_xlabel() and axis.get_ylabel() and axis.get_title()
