# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The table of a report."""

import json

import numpy as np
import pytest

from rfrec.evaluation import metrics, ranking, report


def lists(num_users=60, num_items=30, length=12, seed=0):
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(num_items)[:length] for _ in range(num_users)])
    scores = -np.sort(rng.random(items.shape), axis=1)
    return ranking.Lists(items, scores), rng.integers(0, num_items, num_users)


@pytest.mark.parametrize("kind", ["cosine", "codes", None])
def test_a_report_holds_means_intervals_groups_coverage_and_diversity(kind):
    found, targets = lists()
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 20, 30)
    extra = {}
    if kind == "cosine":
        extra = {"vectors": rng.normal(size=(30, 4))}
    elif kind == "codes":
        extra = {"codes": rng.integers(0, 4, size=(30, 3))}
    table = report.evaluate(found, targets, counts=counts, resamples=50, **extra)
    json.dumps(table, allow_nan=False)
    groups = table["metrics"]
    assert set(groups) == {"all", "cold", "warm", "popular"}
    assert groups["all"]["users"] == 60
    values = metrics.per_user(metrics.match(found.items, targets), report.NAMES)
    for name, value in values.items():
        cell = groups["all"][name]
        np.testing.assert_allclose(cell["mean"], value.mean())
        assert cell["low"] <= cell["mean"] <= cell["high"]
        cold = counts[targets] <= table["groups"]["cold_most"]
        np.testing.assert_allclose(groups["cold"][name]["mean"], value[cold].mean())
        np.testing.assert_allclose(groups["warm"][name]["mean"], value[~cold].mean())
    assert 0 < table["coverage@10"] <= 1
    assert (table.get("diversity@10") or {}).get("distance") == kind


def test_cold_targets_can_be_those_that_training_hardly_saw():
    found, targets = lists()
    counts = np.arange(30) // 3
    table = report.evaluate(found, targets, counts=counts, cold_below=1, resamples=20)
    assert table["groups"]["cold_most"] == 0
    assert table["metrics"]["cold"]["users"] == (targets < 3).sum() > 0


def test_differences_are_those_of_each_user():
    (ours, targets), (theirs, _) = lists(), lists(seed=5)
    found = report.differences(ours, {"b": theirs}, targets, resamples=20)
    assert set(found) == {"b"} and set(found["b"]) == set(report.NAMES)
    for name, cell in found["b"].items():
        a, b = (
            metrics.per_user(metrics.match(x.items, targets), (name,))[name]
            for x in (ours, theirs)
        )
        np.testing.assert_allclose(cell["mean"], (a - b).mean(), atol=1e-12)


def test_a_group_without_users_has_no_means():
    found, targets = lists()
    values = metrics.per_user(metrics.match(found.items, targets), ("hr@5",))
    table = report.summarize(values, {"none": np.zeros(60, bool)}, resamples=20)
    assert table["none"] == {"users": 0, "hr@5": dict.fromkeys(("mean", "low", "high"))}


def test_means_leave_out_users_without_relevant_items():
    found = metrics.match(np.array([[1], [1], [1]]), np.array([1, 0, -1]))
    assert report.means(found, ("hr@1",)) == {"hr@1": 0.5}


def test_a_report_of_many_relevant_items_has_groups_of_items():
    found, _ = lists(num_users=40)
    rng = np.random.default_rng(2)
    rows = [np.sort(rng.permutation(30)[: rng.integers(0, 6)]) for _ in range(40)]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    counts = np.arange(30)
    table = report.evaluate_pairs(
        found, (indptr, np.concatenate(rows)), counts=counts, resamples=30
    )
    json.dumps(table, allow_nan=False)
    assert table["groups"]["items"] == {"cold": 6, "tail": 24, "head": 6}
    assert set(table["metrics"]) == {"all", "cold", "tail", "head"}
    # Recall@10 by hand, in all groups.
    bounds = {"all": (0, 30), "cold": (0, 6), "tail": (0, 24), "head": (24, 30)}
    for group, (low, high) in bounds.items():
        values = []
        for row, ranked in zip(rows, found.items, strict=True):
            wanted = {i for i in row.tolist() if low <= i < high}
            if wanted:
                hits = len(wanted.intersection(ranked[:10].tolist()))
                values.append(hits / len(wanted))
        told = table["metrics"][group]
        assert told["users"] == len(values)
        np.testing.assert_allclose(told["recall@10"]["mean"], np.mean(values))
    assert set(report.PAIR_NAMES) < set(table["metrics"]["all"])
