# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tables over seeds."""

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from rfrec.config import UserError
from rfrec.pipelines import graph_report
from rfrec.reports import seed_table
from tests.support import commands

TOKENIZER = seed_table.KINDS["rqvae"]


def report(conflicts: int, seed: int) -> dict:
    return {
        "main": "rqvae",
        "seed": seed,
        "device": "cpu x 1",
        "seconds": 1.0,
        "energy_left": 0.5,
        "codes": {
            "before": {"conflict_items": conflicts, "collision_rate": conflicts / 100},
            "after": {"conflict_items": 0},
        },
        "levels": [
            {"size": 8, "used": 8, "perplexity": 7.0},
            {"size": 8, "used": 6, "perplexity": 5.0},
        ],
        "config": {"codes": {"checkpoint": "loss"}},
    }


def test_interval_is_that_of_students_t():
    values = [3, 5, 10]
    row = seed_table.summarise(
        [report(v, i) for i, v in enumerate(values)], 0.9, TOKENIZER
    )
    low, high = stats.t.interval(
        0.9, 2, loc=np.mean(values), scale=np.std(values, ddof=1) / np.sqrt(3)
    )
    assert row["conflict_items"]["mean"] == pytest.approx(6)
    assert row["conflict_items"]["half_width"] == pytest.approx((high - low) / 2)
    assert row["least_used_percent"]["mean"] == 75


def test_one_seed_has_no_interval():
    row = seed_table.summarise([report(3, 0)], 0.95, TOKENIZER)
    assert row["conflict_items"] == {"mean": 3, "half_width": None}
    text = seed_table.as_markdown({"a": row}, TOKENIZER)
    assert "| a | 1 | 3.0 |" in text


def test_damaged_report_is_named(tmp_path):
    folder = tmp_path / "seed_0"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report(1, 0))[:-5])
    with pytest.raises(UserError, match="seed_0/report.json: is not valid JSON"):
        seed_table.read_reports(tmp_path)


def graph_run(folder, seed, recall, pairs="one"):
    """Writes what the table reads of a run of a graph recommender."""
    names = ("recall@10", "ndcg@10", "ndcg@20")
    values = {"recall@20": recall, **dict.fromkeys(names, recall / 2)}
    users = tuple("abcdef")
    folder = folder / f"seed_{seed}"
    folder.mkdir(parents=True)
    found = graph_report.PerUser(users, values)
    graph_report.write_per_user(folder / graph_report.PER_USER, found)
    means = {name: {"mean": float(value.mean())} for name, value in values.items()}
    config = folder / "config.json"
    config.write_text(json.dumps({"seed": seed, "model": folder.parent.name}))
    told = {
        "main": "gume",
        "seed": seed,
        "data": {"sha256": pairs},
        "device": "cpu x 1",
        "test": {"metrics": {"all": means}},
        "valid": {"metrics": {"all": means}},
        "choice": {"ratio": 0.1, "tried": [0.2]},
        "numbers": {"rf_error_heldout": 0.4},
        "best_epoch": 3.0,
    }
    (folder / "report.json").write_text(json.dumps(told))


def table(folder, *flags):
    args = [sys.executable, "-m", "rfrec.launch.summary", f"--runs={folder}", *flags]
    return subprocess.run(args, capture_output=True, text=True, cwd=commands.ROOT)


def test_recommenders_are_tested_user_by_user(tmp_path):
    rng = np.random.default_rng(0)
    recalls = {name: rng.random((2, 6)) for name in ("alone", "flow")}
    for name, runs in recalls.items():
        for seed, recall in enumerate(runs):
            graph_run(tmp_path / "runs" / name, seed, recall)
    out = tmp_path / "table.json"
    done = table(tmp_path / "runs", f"--out={out}", "--against=alone")
    assert done.returncode == 0, done.stderr
    assert "| flow | 2 | " in done.stdout and "error held out" in done.stdout
    assert "s/epoch" not in done.stdout
    rows = json.loads(out.read_text())
    wanted = recalls["flow"].mean()
    assert rows["flow"]["recall@20"]["mean"] == pytest.approx(wanted)
    assert "against" not in rows["alone"]
    tested = rows["flow"]["against"]["test"]["recall@20"]
    ours, theirs = (recalls[name].mean(axis=0) for name in ("flow", "alone"))
    assert tested["mean"] == pytest.approx((ours - theirs).mean())
    assert tested["p_t"] == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert tested["p_wilcoxon"] == pytest.approx(stats.wilcoxon(ours, theirs).pvalue)


def test_tables_that_cannot_be_made_are_refused(tmp_path):
    graph_run(tmp_path / "alone", 0, np.ones(6))
    done = table(tmp_path, "--against=flow")
    assert done.returncode and "--against=flow: the rows are alone" in done.stderr
    graph_run(tmp_path / "split", 0, np.ones(6), pairs="another")
    done = table(tmp_path, "--against=alone")
    assert done.returncode and "split has other pairs" in done.stderr
    other = tmp_path / "tokenizer" / "seed_0"
    other.mkdir(parents=True)
    (other / "report.json").write_text(json.dumps(report(1, 0)))
    done = table(tmp_path)
    assert done.returncode and "runs of gume, rqvae: a table is made" in done.stderr
