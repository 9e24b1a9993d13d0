# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""JSON lines: order of the answers, interactive use, errors."""

import json
import os

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.serving import lines
from rfrec.serving.requests import Query
from tests.support.served import draw_histories


def test_lines_are_answered_in_order_and_a_bad_one_ends_it(recommender):
    given = [{"items": items} for items in draw_histories(9)] + [{"items": [77]}]
    text = "\n\n".join(map(json.dumps, given)).splitlines(keepends=True)
    answers = []
    with pytest.raises(UserError, match=r"h.jsonl, line 19: item 77 is not one of"):
        for line in lines.answer_lines(recommender, text, "h.jsonl"):
            answers.append(json.loads(line))
    # Who is not named has the number of the line.
    assert [answer["user"] for answer in answers] == [str(n) for n in range(1, 19, 2)]
    for body, answer in zip(given, answers, strict=False):
        wanted = recommender.answer([Query("", tuple(body["items"]), 5, False)])[0]
        assert answer["items"] == list(wanted.items)
        np.testing.assert_allclose(answer["scores"], wanted.scores, rtol=1e-5)


def test_a_line_is_answered_before_the_next_one_comes(recommender):
    reading, writing = os.pipe()
    with os.fdopen(reading) as stream:
        answers = lines.answer_lines(recommender, stream, "-")
        for number in range(1, 4):
            # This line alone has been written when its answer comes.
            os.write(writing, b'{"items": [1, 2]}\n')
            assert json.loads(next(answers))["user"] == str(number)
        os.close(writing)
        assert list(answers) == []


def test_text_that_is_none_is_told(recommender, tmp_path):
    path = tmp_path / "h.jsonl"
    path.write_bytes(b'{"items": [1]}\n' * 3 + b"\xff\xfe\n")
    with (
        path.open(encoding="utf-8") as stream,
        pytest.raises(UserError, match="use UTF-8"),
    ):
        list(lines.answer_lines(recommender, stream, "h.jsonl"))
