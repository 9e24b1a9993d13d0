# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Results of a run next to the published ones, as text."""

import json
import pathlib

import pytest

from rfrec.config import UserError
from rfrec.reports import published

REPORT = {
    "items": 3883,
    "codes": {
        "before": {"distinct": 3840, "conflict_items": 43},
        "after": {"distinct": 3883, "conflict_items": 0},
    },
    "levels": [{"size": 64, "used": 63, "perplexity": 51.25, "entropy": 3.9}],
}
NUMBERS = pathlib.Path(__file__).parents[2] / "third_party" / "reference_numbers.json"


def test_a_run_is_shown_beside_the_published_numbers(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    lines = published.compare_run(tmp_path, NUMBERS).splitlines()
    rows = [line.split() for line in lines]
    assert ["this", "run,", "before", "repair", "3,883", "3,840", "43", "51.25"] in rows
    assert ["this", "run,", "after", "repair", "3,883", "3,883", "0", "–"] in rows
    assert ["1", "64", "63", "98.4%", "51.25", "3.9"] in rows
    assert ["random", "initialisation", "–", "1", "3,881", "–"] in rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "report.json"),
        ("[]", "report.json"),
        ("\udcff", "report.json"),
        ('{"items": 1}', "levels.0.perplexity"),
        (json.dumps(REPORT | {"items": "many"}), "items is 'many', not a int"),
        (json.dumps(REPORT | {"codes": []}), "codes.before.distinct"),
        (json.dumps(REPORT | {"levels": {}}), "levels"),
    ],
)
def test_a_damaged_report_is_one_line(tmp_path, text, message):
    path = tmp_path / "report.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=message) as error:
        published.compare_run(tmp_path, NUMBERS)
    assert "\n" not in str(error.value)


def test_a_missing_report_names_the_remedy(tmp_path):
    with pytest.raises(UserError, match=r"report.json: cannot be read.*finish the"):
        published.compare_run(tmp_path, NUMBERS)
