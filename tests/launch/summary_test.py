# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tables over seeds."""

import json

import numpy as np
import pytest
from scipy import stats

from rfrec.config import UserError
from rfrec.launch import summary


def report(conflicts: int, seed: int) -> dict:
    return {
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
    row = summary.summarise([report(v, i) for i, v in enumerate(values)], 0.9)
    low, high = stats.t.interval(
        0.9, 2, loc=np.mean(values), scale=np.std(values, ddof=1) / np.sqrt(3)
    )
    assert row["conflict_items"]["mean"] == pytest.approx(6)
    assert row["conflict_items"]["half_width"] == pytest.approx((high - low) / 2)
    assert row["least_used_percent"]["mean"] == 75


def test_one_seed_has_no_interval():
    text = summary.as_markdown({"a": summary.summarise([report(3, 0)], 0.95)})
    assert "| a | 1 | 3.0 |" in text


def test_damaged_report_is_named(tmp_path):
    folder = tmp_path / "seed_0"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report(1, 0))[:-5])
    with pytest.raises(UserError, match="seed_0/report.json is not JSON"):
        summary.read_reports(tmp_path)
