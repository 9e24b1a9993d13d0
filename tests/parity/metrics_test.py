# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Records of MMRec's metrics: ours pass, changed numbers fail."""

import pathlib

import numpy as np
import pytest

from rfrec.parity import checks, metrics

FILE = (
    pathlib.Path(__file__).parents[2] / "third_party" / "golden" / "mmrec_metrics.npz"
)


def _record(**changes):
    return {**checks.read(FILE), **changes}


def test_the_record_passes_at_all_cutoffs():
    checks = metrics.check_metrics(_record())
    names = {f"{name}@1..50" for name in ("recall", "ndcg", "precision", "map")}
    assert {check.name for check in checks} == names
    assert all(check.ok and check.error < 1e-12 for check in checks)


@pytest.mark.parametrize("name", ["recall", "ndcg", "precision", "map"])
def test_a_changed_metric_fails_alone(name):
    changed = checks.read(FILE)[name].copy()
    changed[30] *= 1.001
    failed = [
        c.name for c in metrics.check_metrics(_record(**{name: changed})) if not c.ok
    ]
    assert failed == [f"{name}@1..50"]


def test_lists_of_another_length_pass_by_hand():
    record = {
        "top": np.array([[3, 1], [0, 2]]),
        "pos": np.array(["1,7", "0"]),
        "recall": np.array([0.5, 0.75]),
        "precision": np.array([0.5, 0.5]),
        "map": np.array([0.5, (0.25 + 1) / 2]),
        "ndcg": np.array([0.5, (1 / np.log2(3) / (1 + 1 / np.log2(3)) + 1) / 2]),
    }
    assert all(check.ok for check in metrics.check_metrics(record))
