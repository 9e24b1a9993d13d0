# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Predictions written and read back."""

import json

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.evaluation import predictions, ranking


def lists():
    items = np.array([[2, 0, 1], [1, -1, -1], [-1, -1, -1]], np.int32)
    scores = np.array([[0.1, -1 / 3, -2e-7], [5, 0, 0], [0, 0, 0]], np.float32)
    return ranking.Lists(items, scores)


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "p.jsonl"
    predictions.write(path, ("a", "b", "c"), lists())
    users, found = predictions.read(path)
    assert users == ("a", "b", "c")
    np.testing.assert_array_equal(found.items, lists().items)
    valid = found.valid
    np.testing.assert_array_equal(found.scores[valid], lists().scores[valid])
    assert [p.name for p in tmp_path.iterdir()] == ["p.jsonl"]


def test_names_stand_for_numbers(tmp_path):
    path, names = tmp_path / "p.jsonl", ("x", "y", "z")
    predictions.write(path, ("a", "b", "c"), lists(), names)
    first = json.loads(path.read_text().splitlines()[0])
    assert first == {"user": "a", "items": ["z", "x", "y"], "scores": first["scores"]}
    assert first["scores"][0] == 0.1
    _, found = predictions.read(path, names)
    np.testing.assert_array_equal(found.items, lists().items)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"user": "a", "items": [1]}',
        '{"user": "a", "items": [1], "scores": [1, 2]}',
        '{"user": "a", "items": [-1], "scores": [1]}',
        '{"user": "a", "items": ["x"], "scores": [1]}',
        '{"user": "a", "items": [1], "scores": [NaN]}',
        '{"user": "a", "items": [1], "scores": ["high"]}',
        '{"user": 7, "items": [], "scores": []}',
    ],
)
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "p.jsonl"
    path.write_text('{"user": "b", "items": [], "scores": []}\n' + line + "\n")
    with pytest.raises(
        UserError, match=r"p.jsonl, line 2 is not the list of a user"
    ) as e:
        predictions.read(path)
    assert "\n" not in str(e.value)


def test_missing_empty_and_double_are_told(tmp_path):
    path = tmp_path / "p.jsonl"
    with pytest.raises(UserError, match="cannot be read"):
        predictions.read(path)
    path.write_text("")
    with pytest.raises(UserError, match="is empty"):
        predictions.read(path)
    path.write_text('{"user": "b", "items": [], "scores": []}\n' * 2)
    with pytest.raises(UserError, match="contains a user twice"):
        predictions.read(path)
