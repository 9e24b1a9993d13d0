# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Histories are read in order, checked, split and written."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfrec.config import UserError
from rfrec.data import interactions


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def as_dict(inter):
    return {u: inter.history(i).tolist() for i, u in enumerate(inter.user_ids)}


HISTORIES = {"7": [4, 0, 2], "ann": [1], "3": [2, 4, 3, 0]}


def test_json_keeps_users_and_order(tmp_path):
    path = write(tmp_path / "a.inter.json", json.dumps(HISTORIES))
    inter = interactions.read_inter_json(path)
    assert as_dict(inter) == HISTORIES
    assert (inter.num_users, inter.num_items) == (3, 5)
    assert inter.items.dtype == np.int32
    assert interactions.read_inter_json(path, 9).num_items == 9


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.text(max_size=4),
        st.lists(st.integers(0, 30), min_size=1, unique=True),
        min_size=1,
    )
)
def test_json_round_trip(tmp_path_factory, histories):
    folder = tmp_path_factory.mktemp("json")
    first = write(folder / "a.inter.json", json.dumps(histories))
    inter = interactions.read_inter_json(first)
    interactions.write_inter_json(inter, folder / "b.inter.json")
    assert as_dict(interactions.read_inter_json(folder / "b.inter.json")) == histories
    assert sorted(p.name for p in folder.iterdir()) == ["a.inter.json", "b.inter.json"]
    assert " " not in (folder / "b.inter.json").read_text().split('"')[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"1": [1, 2],\n"2": [3', "not valid JSON at line 2 .*truncated"),
        ("", "not valid JSON at line 1"),
        ("[[1, 2]]", "expected an object {user"),
        ("{}", "expected an object {user"),
        ('{"1": 5}', "user '1': expected a list"),
        ('{"1": [2], "9": []}', "user '9' has an empty history"),
        ('{"1": [2, "3"]}', "user '1': item '3' is not an item row"),
        ('{"1": [2, 3.5]}', "user '1': item 3.5 is not an item row"),
        ('{"1": [2, true]}', "user '1': item True is not"),
        ('{"1": [2, null]}', "user '1': item None is not"),
        ('{"1": [99999999999999999999]}', "user '1': item 9+ is not an item row"),
        ('{"1": [2], "8": [0, -4]}', "item -4 of user '8' is out of range"),
        ('{"1": [2], "8": [0, 5]}', "item 5 of user '8' is out of range 0 to 4; 1 su"),
        ('{"1": [2, 3], "8": [1, 0, 1]}', "user '8' has item 1 more than once; 1 rep"),
        ('{"1": [2], "2": [1], "1": [3]}', "user '1' occurs more than once"),
    ],
)
def test_damaged_json_names_the_place(tmp_path, text, message):
    path = write(tmp_path / "a.inter.json", text)
    with pytest.raises(UserError, match=rf"a\.inter\.json: .*{message}") as error:
        interactions.read_inter_json(path, 5)
    assert "\n" not in str(error.value)


def test_item_beyond_int32_is_out_of_range(tmp_path):
    path = write(tmp_path / "a.inter.json", '{"1": [2147483648]}')
    with pytest.raises(UserError, match="item 2147483648 of user '1' is out of range"):
        interactions.read_inter_json(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match="a.inter.json: no such file"):
        interactions.read_inter_json(tmp_path / "a.inter.json")
    with pytest.raises(UserError, match="a.inter: no such file"):
        interactions.read_inter_tsv(tmp_path / "a.inter")


def test_binary_is_no_json(tmp_path):
    (tmp_path / "a.inter.json").write_bytes(b'{"\xff": [1]}')
    with pytest.raises(UserError, match="is not UTF-8"):
        interactions.read_inter_json(tmp_path / "a.inter.json")


MMREC = (
    "userID\titemID\trating\ttimestamp\tx_label\n"
    "2\t1\t3\t50\t0\n0\t4\t1\t9\t0\n2\t0\t5\t40\t2\n2\t3\t5\t50\t0\n0\t2\t4\t1\t1\n"
)


def test_mmrec_log_is_sorted_by_time_and_ties_keep_the_file(tmp_path):
    inter = interactions.read_inter_tsv(write(tmp_path / "a.inter", MMREC))
    assert as_dict(inter) == {"0": [2, 4], "2": [0, 1, 3]}
    assert inter.num_items == 5
    assert inter.item_ids is None


def test_mmrec_log_without_times_keeps_the_file(tmp_path):
    text = "userID\titemID\r\n1\t5\r\n0\t2\r\n1\t3\r\n"
    inter = interactions.read_inter_tsv(write(tmp_path / "a.inter", text))
    assert as_dict(inter) == {"0": [2], "1": [5, 3]}


def test_recbole_tokens_are_numbered_in_order_of_value(tmp_path):
    text = (
        "item_id:token\tuser_id:token\trating:float\ttimestamp:float\n"
        "10\tu2\t3\t5.5\n9\tu2\t3\t4.5\n10\tu10\t1\t1\n100\tu2\t3\t7\n"
    )
    inter = interactions.read_inter_tsv(write(tmp_path / "a.inter", text))
    assert inter.item_ids == ("9", "10", "100")
    assert as_dict(inter) == {"u10": [1], "u2": [0, 1, 2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MMREC[:-7], "line 6 has too few fields"),
        (MMREC.replace("\t4\t1\t", "\tx\t1\t"), "line 3: 'x' is not an integer"),
        (MMREC.replace("\t9\t", "\tnoon\t"), "line 3: 'noon' is not a number"),
        (MMREC.replace("itemID", "movie"), "has no column itemID or item_id:token"),
        (MMREC.splitlines()[0], "holds no rows"),
        ("", "has no column userID"),
        (MMREC.replace("2\t3\t5", "2\t1\t5"), "user '2' has item 1 more than once"),
        (MMREC.replace("2\t3\t5", "2\t-3\t5"), "item -3 of user '2' is out of range"),
        (MMREC.replace("\t9\t", "\tnan\t"), "timestamp of interaction 2 is missing"),
    ],
)
def test_damaged_tsv_names_the_place(tmp_path, text, message):
    path = write(tmp_path / "a.inter", text)
    with pytest.raises(UserError, match=rf"a\.inter: .*{message}"):
        interactions.read_inter_tsv(path)


def test_repeated_token_is_named_as_in_the_file(tmp_path):
    text = "user_id:token\titem_id:token\nu\tcup\nv\tcup\nv\tbowl\nv\tcup\n"
    with pytest.raises(UserError, match="user 'v' has item 'cup' more than once"):
        interactions.read_inter_tsv(write(tmp_path / "a.inter", text))


@given(st.data())
def test_log_equals_sorted_python_lists(data):
    pairs = data.draw(
        st.lists(
            st.tuples(st.integers(-3, 5), st.integers(0, 9)),
            min_size=1,
            unique=True,
        )
    )
    times = data.draw(
        st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs))
    )
    users, items = np.array(pairs).T
    inter = interactions.from_log(users, items, np.array(times))
    expected = {}
    for _, (user, item) in sorted(
        zip(times, pairs, strict=True), key=lambda entry: entry[0]
    ):
        expected.setdefault(str(user), []).append(item)
    assert as_dict(inter) == expected
    assert list(inter.user_ids) == sorted(expected, key=int)


def test_empty_log_is_refused():
    none = np.zeros(0, int)
    with pytest.raises(UserError, match="log: holds no interaction"):
        interactions.from_log(none, none, none)


def test_leave_one_out_takes_the_last_two(tmp_path):
    histories = {"a": [4, 0, 2], "b": [1, 2, 3, 4, 0]}
    path = write(tmp_path / "a.inter.json", json.dumps(histories))
    inter = interactions.read_inter_json(path, 8)
    split = interactions.leave_one_out(inter)
    assert as_dict(split.train) == {"a": [4], "b": [1, 2, 3]}
    assert split.valid_items.tolist() == [0, 4]
    assert split.test_items.tolist() == [2, 0]
    assert split.train.num_items == 8
    assert as_dict(inter) == histories


def test_leave_one_out_names_a_short_history(tmp_path):
    path = write(tmp_path / "a.inter.json", '{"a": [4, 0, 2], "b": [1, 2]}')
    inter = interactions.read_inter_json(path)
    with pytest.raises(UserError, match="user 'b' has 2 items, .* at least 3"):
        interactions.leave_one_out(inter)
