# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Records of MMRec's metrics: ours pass, wrong numbers fail, wrong forms are named."""

import pathlib

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.launch import compare
from rfrec.parity import arrays

FILE = (
    pathlib.Path(__file__).parents[2] / "third_party" / "golden" / "mmrec_metrics.npz"
)


def _record(**changes):
    return {**arrays.read(FILE), **changes}


def test_the_record_passes_at_all_cutoffs():
    checks = compare.check_arrays(_record())
    names = {f"{name}@1..50" for name in ("recall", "ndcg", "precision", "map")}
    assert {check.name for check in checks} == names
    assert all(check.ok and check.error < 1e-12 for check in checks)


@pytest.mark.parametrize("name", ["recall", "ndcg", "precision", "map"])
def test_a_changed_metric_fails_alone(name):
    changed = arrays.read(FILE)[name].copy()
    changed[30] *= 1.001
    failed = [
        c.name for c in compare.check_arrays(_record(**{name: changed})) if not c.ok
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
    assert all(check.ok for check in compare.check_arrays(record))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top": np.ones((60, 50))}, "float64 holds no items"),
        ({"recall": np.ones(49)}, r"'recall' has shape \(49,\)"),
        ({"pos": np.array(["1", "2"])}, "no line of items for each of 60 users"),
        ({"pos": np.array(["1"] * 59 + ["x"])}, "a line without items"),
        ({"more": np.ones(1)}, "'more' is not understood"),
    ],
)
def test_what_is_not_understood_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        compare.check_arrays(_record(**changes))
