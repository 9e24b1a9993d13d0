# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Requests and answers as JSON; the HTTP tests list all refusals."""

import json

import pytest

from rfrec.serving import requests
from rfrec.serving.requests import Accepted, Answer, Query, RefusedError

ACCEPTED = Accepted(
    rows={"a": 0, "b": 4}, max_items=3, max_k=8, default_k=5, requires_user=False
)


def test_a_request_becomes_a_query_with_defaults():
    query = requests.parse('{"items": ["b", "a"]}', ACCEPTED, default_user="7")
    assert query == Query("7", (4, 0), 5, False)
    text = '{"items": ["a"], "user": "u", "k": 8, "filter_seen": true}'
    assert requests.parse(text, ACCEPTED) == Query("u", (0,), 8, True)


def test_a_required_user_is_checked():
    accepted = ACCEPTED._replace(requires_user=True)
    with pytest.raises(RefusedError, match="user is required") as error:
        requests.parse('{"items": ["a"]}', accepted, default_user="7")
    assert error.value.status == 422


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"items": ["c"]}, 422),
        ({"items": ["a"] * 4}, 422),
        ({"items": ["a"], "k": 9}, 422),
        ({"items": "a"}, 400),
        ({"items": ["a"], "n": 1}, 400),
    ],
)
def test_limits_of_the_recommender_are_checked(content, status):
    with pytest.raises(RefusedError) as error:
        requests.parse(json.dumps(content), ACCEPTED)
    assert error.value.status == status


def test_an_answer_has_item_ids_where_there_are_some():
    query, answer = Query("u", (0,), 5, False), Answer((4, 0), (-0.5, -1.0))
    content = {"user": "u", "items": [4, 0], "scores": [-0.5, -1.0]}
    assert requests.as_json(query, answer, None) == content
    content["items"] = ["e", "a"]
    assert requests.as_json(query, answer, ("a", "b", "c", "d", "e")) == content
