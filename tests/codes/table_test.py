# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Statistics against counting by hand; index files there and back, and broken ones."""

import collections
import json
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from rfrec.codes import table
from rfrec.config import UserError


def random_codes(seed: int, items: int, sizes: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, sizes, (items, len(sizes))).astype(np.int32)


@pytest.mark.parametrize("sizes", [(5,), (4, 3), (7, 2, 3), (2,) * 9])
def test_statistics_equal_counting(sizes):
    codes = random_codes(0, 60, sizes)
    found = table.statistics(codes, sizes)
    groups = collections.Counter(map(tuple, codes.tolist()))
    assert (found.items, found.distinct) == (60, len(groups))
    assert found.conflict_items == sum(n - 1 for n in groups.values())
    assert found.collision_rate == (60 - len(groups)) / 60
    assert found.largest_group == max(groups.values())
    for level, entry in enumerate(found.levels):
        share = [n / 60 for n in collections.Counter(codes[:, level]).values()]
        entropy = -sum(p * math.log(p) for p in share)
        assert (entry.size, entry.used) == (sizes[level], len(share))
        np.testing.assert_allclose(entry.entropy, entropy)
        np.testing.assert_allclose(entry.perplexity, math.exp(entropy))


def test_perplexity_of_one_and_of_all_codes():
    codes = np.array([[0, 0], [0, 1], [0, 2], [0, 3]], np.int32)
    one, every = table.statistics(codes, (4, 4)).levels
    assert (one.used, one.entropy, one.perplexity) == (1, 0.0, 1.0)
    np.testing.assert_allclose([every.entropy, every.perplexity], [math.log(4), 4])


def test_statistics_as_dict_is_json():
    found = table.statistics(random_codes(0, 9, (3, 2)), (3, 2)).as_dict()
    assert json.loads(json.dumps(found)) == found
    assert set(found["levels"][0]) == {"size", "used", "perplexity", "entropy"}


@hypothesis.given(
    st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=9),
    st.integers(0, 2**32 - 1),
)
@hypothesis.settings(deadline=None)
def test_keys_order_as_tuples(sizes, seed):
    """Products up to 2^279: with and without ranking."""
    codes = random_codes(seed, 40, tuple(sizes))
    # Near-equal tuples, so that late levels decide.
    codes[10:20] = codes[:10]
    codes[20:30, :-1] = codes[:10, :-1]
    keys = table.tuple_keys(codes, sizes)
    rows = [tuple(row) for row in codes.tolist()]
    ranks = {row: rank for rank, row in enumerate(sorted(set(rows)))}
    expected = [ranks[row] for row in rows]
    np.testing.assert_array_equal(np.unique(keys, return_inverse=True)[1], expected)


def test_statistics_do_not_depend_on_how_keys_are_made():
    codes = random_codes(1, 500, (3,) * 8)
    plain = table.statistics(codes, (3,) * 8)
    ranked = table.statistics(codes, (2**31 - 1,) * 4 + (3,) * 4)
    assert ranked.distinct == plain.distinct
    assert ranked.largest_group == plain.largest_group


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_colliding_prefixes_equal_search(kept):
    codes = random_codes(2, 30, (4, 3, 3))
    expected = {}
    for row, code in enumerate(codes.tolist()):
        expected.setdefault(tuple(code[:kept]), []).append(row)
    expected = [
        rows
        for _, rows in sorted(expected.items())
        if len({tuple(codes[row]) for row in rows}) < len(rows)
    ]
    found = table.colliding_prefixes(codes, kept)
    assert [rows.tolist() for rows in found] == expected


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [
        ([[0, 1], [2, 5]], (3, 5), "row 1, level 1 is 5, out of range 0 to 4"),
        ([[0, 1], [-1, 0]], (3, 5), "row 1, level 0 is -1, out of range 0 to 2"),
        ([[0, 1]], (3,), "2 levels but there are 1 sizes"),
        (np.empty((0, 2), int), (3, 3), "contain no item"),
        (np.empty((2, 0), int), (), "contain no item"),
    ],
)
def test_statistics_refuse_codes_outside(codes, sizes, message):
    with pytest.raises(UserError, match=message):
        table.statistics(np.asarray(codes), sizes)


def test_level_prefixes_are_spreadsheet_columns():
    names = [table.level_prefix(level) for level in (0, 25, 26, 51, 52, 701, 702)]
    assert names == ["a", "z", "aa", "az", "ba", "zz", "aaa"]


@pytest.mark.parametrize("modality", ["text", "image"])
@pytest.mark.parametrize("levels", [1, 3, 4, 26, 30])
def test_index_round_trip(tmp_path, modality, levels):
    codes = random_codes(levels, 12, (256,) * levels)
    path = tmp_path / "codes.json"
    table.write_index(path, codes, modality=modality)
    index = table.read_index(path)
    np.testing.assert_array_equal(index.codes, codes)
    assert index.codes.dtype == np.int32
    assert index.item_ids == tuple(map(str, range(12)))
    assert index.modality == modality
    assert [p.name for p in tmp_path.iterdir()] == ["codes.json"]


def test_index_has_the_published_form(tmp_path):
    path = tmp_path / "x.json"
    table.write_index(path, np.array([[1, 2, 3], [4, 5, 6]]))
    assert json.loads(path.read_text()) == {
        "0": ["<a_1>", "<b_2>", "<c_3>"],
        "1": ["<a_4>", "<b_5>", "<c_6>"],
    }
    table.write_index(path, np.array([[7, 8]]), modality="image")
    assert path.read_text() == '{"0":["<A_7>","<B_8>"]}'


def test_numbered_items_come_in_their_order(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"2": ["<a_2>"], "0": ["<a_0>"], "1": ["<a_1>"]}')
    index = table.read_index(path)
    assert index.codes.tolist() == [[0], [1], [2]]
    assert index.item_ids == ("0", "1", "2")


@pytest.mark.parametrize("ids", [("2", "1"), ("01", "0"), ("b", "a"), ("é", "")])
def test_other_ids_keep_the_order_of_the_file(tmp_path, ids):
    path = tmp_path / "x.json"
    table.write_index(path, np.array([[5], [3]]), item_ids=ids)
    index = table.read_index(path)
    assert index.item_ids == ids
    assert index.codes.tolist() == [[5], [3]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "is not an object"),
        ("{}", "contains no item"),
        ('{"7": []}', "item '7' is not a list of codes"),
        ('{"7": "<a_1>"}', "item '7' is not a list of codes"),
        ('{"7": {"a": 1}}', "item '7' is not a list of codes"),
        ('{"7": [["<a_1>"]]}', "item '7' has .* which is not a code"),
        ('{"7": [1]}', "item '7' has 1, which is not a code"),
        ('{"7": ["<a_1>"], "8": ["<a_1>", "<b_1>"]}', "item '8' has 2 levels.* 1"),
        ('{"7": ["<a_1>", "<c_1>"]}', "item '7' has '<c_1>' at level 1.*'b'"),
        ('{"7": ["<a_1>", "<B_1>"]}', "item '7' has the image code '<B_1>'"),
        ('{"7": ["<A_1>"], "8": ["<a_1>"]}', "item '8' has the text code '<a_1>'"),
        ('{"7": ["<a_-1>"]}', "item '7' has '<a_-1>'.*integer >= 0"),
        ('{"7": ["<a_1.5>"]}', "item '7' has '<a_1.5>'.*not a code"),
        ('{"7": ["<a_x>"]}', "item '7' has '<a_x>'.*not a code"),
        ('{"7": ["a_1"]}', "item '7' has 'a_1'.*not a code"),
        ('{"7": ["<a_9999999999>"]}', "item '7' has .*not a code"),
        ('{"7": ["<a_01>"]}', "item '7' has .*not a code"),
        ('{"7": ["<a_1>"], "7": ["<a_2>"]}', "item '7' occurs twice"),
    ],
)
def test_broken_index_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        table.read_index(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_unreadable_index_is_refused(tmp_path):
    with pytest.raises(UserError, match="missing.json: cannot be read: No such file"):
        table.read_index(tmp_path / "missing.json")
    (tmp_path / "latin.json").write_bytes(b'{"\xe9": ["<a_1>"]}')
    with pytest.raises(UserError, match="latin.json: is not valid JSON"):
        table.read_index(tmp_path / "latin.json")


@pytest.mark.parametrize(
    ("codes", "options", "message"),
    [
        ([[0], [-2]], {}, "row 1, level 0 is -2"),
        ([[0], [1]], {"modality": "audio"}, "modality is 'audio'"),
        ([[0], [1]], {"item_ids": ("a", "a")}, r"2 item ids \(1 distinct\) for 2 rows"),
        ([[0], [1]], {"item_ids": ("a",)}, r"1 item ids \(1 distinct\) for 2 rows"),
    ],
)
def test_write_refuses_what_it_could_not_read(tmp_path, codes, options, message):
    with pytest.raises(UserError, match=message):
        table.write_index(tmp_path / "x.json", np.asarray(codes), **options)
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    table.write_index(path, np.array([[1]]))

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table.os, "replace", fail)
    with pytest.raises(UserError, match="cannot be written: No space left"):
        table.write_index(path, np.array([[2]]))
    assert table.read_index(path).codes.tolist() == [[1]]
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(UserError, match="cannot be written: No such file"):
        table.write_index(tmp_path / "none" / "x.json", np.array([[2]]))
