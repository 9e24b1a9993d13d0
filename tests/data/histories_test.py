# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Histories to be answered: forms of the file, names of items, mistakes."""

import json

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.data import histories

NAMES = ("B07", "a b", "7")


def rows(found):
    return {u: found.history(i).tolist() for i, u in enumerate(found.user_ids)}


@pytest.mark.parametrize(
    "text",
    [
        '{"user": "a", "items": [3, 1, 3]}\n\n{"user": 5, "items": ["0"]}\n',
        '{"a": [3, 1, 3], "5": [0]}',
        '{"a": [3, 1, 3]}\r\n{"5": [0]}',
        json.dumps({"a": [3, 1, 3], "5": [0]}, indent=2),
    ],
)
def test_every_form_gives_the_same_histories(text):
    found = histories.read(text, 4)
    assert rows(found) == {"a": [3, 1, 3], "5": [0]}
    assert found.num_items == 4


def test_a_line_without_a_user_is_named_by_its_number():
    found = histories.read('{"items": [1]}\n{"items": [2]}', 4)
    assert rows(found) == {"1": [1], "2": [2]}


def test_a_user_may_ask_twice():
    found = histories.read('{"u": [1], "u": [2]}\n{"user": "u", "items": [3]}', 4)
    assert found.user_ids == ("u", "u", "u")
    assert found.items.tolist() == [1, 2, 3]


def test_items_go_by_their_names():
    found = histories.read('{"u": ["a b", "B07", 7]}', 3, item_ids=NAMES)
    assert found.items.tolist() == [1, 0, 2]
    with pytest.raises(UserError, match=r"file, line 1: user 'u': item 'x' is not one"):
        histories.read('{"u": ["x"]}', 3, item_ids=NAMES, origin="file")


@pytest.mark.parametrize("item", [4, -1, 1.0, True, None, "04", [1]])
def test_what_is_no_item_is_named_with_its_line(item):
    text = json.dumps({"user": "a", "items": [0]}) + "\n"
    text += json.dumps({"user": "b", "items": [1, item]})
    with pytest.raises(UserError) as error:
        histories.read(text, 4, origin="here")
    message = str(error.value)
    assert message.startswith(f"here, line 2: user 'b': item {item!r}")
    assert "\n" not in message


def test_items_without_codes_are_told():
    coded = np.array([True, False, True])
    with pytest.raises(UserError, match="line 1: user 'u': item 1 has no codes"):
        histories.read('{"u": [0, 1]}', 3, coded=coded)


@pytest.mark.parametrize("text", ["", "  \n\n"])
def test_nothing_is_told(text):
    with pytest.raises(UserError, match="here contains no history"):
        histories.read(text, 4, origin="here")
