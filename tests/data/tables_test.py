# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tables of raw items are read as they stand, or refused with their line."""

import pytest

from rfrec.config import UserError
from rfrec.data import folders, tables


def write(folder, name, *lines):
    path = folder / name
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def test_a_table_keeps_quotes_and_splits_lists(tmp_path):
    path = write(tmp_path, "t.tsv", "id\ttitle\tkinds", 'x\t"A" b\tp|q', "y\t\t")
    table = tables.read(path, id_column="id")
    assert table.ids == ("x", "y")
    assert table.columns == {
        "id": ("x", "y"),
        "title": ('"A" b', ""),
        "kinds": (("p", "q"), ""),
    }


def test_only_a_newline_ends_a_line(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_bytes("\ufefftitle\tbrand\r\na\u2028b\x0bc\td\r\n".encode())
    assert tables.read(path).columns == {"title": ("a\u2028b\x0bc",), "brand": ("d",)}


def test_json_lines_hold_texts_numbers_null_and_lists(tmp_path):
    path = write(
        tmp_path,
        "t.jsonl",
        '{"title": "a|b", "price": 3.5, "kinds": [["p", "q"], "r", null]}',
        '{"title": null, "price": NaN, "image": "x.png"}',
    )
    table = tables.read(path)
    assert table.ids == ("0", "1")
    assert table.columns == {
        "title": ("a|b", ""),
        "price": ("3.5", ""),
        "kinds": (("p", "q", "r"), ""),
        "image": ("", "x.png"),
    }


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("t.csv", ["title"], "recognised by the suffix"),
        ("t.tsv", [], "is empty"),
        ("t.tsv", ["title\tbrand"], "holds no items"),
        ("t.tsv", ["title\tbrand", "a\tb", "c"], "line 3 has 1 fields, the header"),
        ("t.tsv", ["title\tbrand", "a\tb\tc"], "line 2 has 3 fields, the header"),
        ("t.tsv", ["title\ttitle", "a\tb"], "column 'title' occurs twice"),
        ("t.jsonl", [], "holds no items"),
        ("t.jsonl", ['{"a": 1}', '{"a": }'], "line 2 is not JSON .* character 7"),
        ("t.jsonl", ['{"a": 1}', "", '{"a": 1}'], "line 2 is not JSON"),
        ("t.json", ["[", '{"a": 1}', "]"], "line 1 is not JSON"),
        ("t.jsonl", ['["a"]'], "line 1 holds no object"),
        ("t.jsonl", ["{}"], "no item has a column"),
        ("t.jsonl", ['{"a": true}'], "line 1: 'a' is bool"),
        ("t.jsonl", ['{"a": {"b": 1}}'], "line 1: 'a' is dict"),
        ("t.jsonl", ['{"a": "\\ud800"}'], "line 1: 'a' holds half of a surrogate"),
        ("t.jsonl", ["[" * 10**6], "line 1 is nested too deeply"),
    ],
)
def test_a_damaged_table_is_one_line(tmp_path, name, lines, message):
    path = write(tmp_path, name, *lines)
    with pytest.raises(UserError, match=message) as error:
        tables.read(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_line_that_is_not_utf_8_is_named(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_bytes(b"title\na\n\xff\n")
    with pytest.raises(UserError, match="line 3 is not UTF-8"):
        tables.read(path)


def test_a_missing_file_and_a_missing_column(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        tables.read(tmp_path / "t.tsv")
    path = write(tmp_path, "t.tsv", "title\tbrand", "a\tb")
    with pytest.raises(UserError, match=r"no column 'id', .*it has: title, brand"):
        tables.read(path, id_column="id")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["x", "y", "x"], "line 4: item 'x' is there already, on line 2"),
        (["x", ""], "line 3: 'id' is no name"),
        (["x", "y|z"], "line 3: 'id' is no name"),
        (["0", "2", "1"], "line 3 is item '2', expected 1"),
    ],
)
def test_names_of_items_are_checked(tmp_path, cells, message):
    rows = (f"{cell}\tt" for cell in cells)
    path = write(tmp_path, "t.tsv", "id\ttitle", *rows)
    with pytest.raises(UserError, match=message):
        tables.read(path, id_column="id")


def test_names_that_are_other_numbers_pass(tmp_path):
    path = write(tmp_path, "t.tsv", "id\ttitle", "3\ta", "1\tb")
    assert tables.read(path, id_column="id").ids == ("3", "1")


def test_what_is_written_is_read_again(tmp_path):
    path = write(
        tmp_path,
        "t.jsonl",
        '{"row": "x", "title": "a\\tb\\u2028c\\r\\n|d", "kinds": ["p|1", "q"]}',
        '{"row": "y", "title": "\\"e\\"", "kinds": []}',
    )
    out = tmp_path / "shop.items.tsv"
    tables.write_tsv(out, tables.read(path))
    found = folders.open_folder(tmp_path, "shop").table
    assert found.num_items == 2
    assert found.titles == ("a b c /d", '"e"')
    assert found.labels == {"kinds": (("p/1", "q"), ())}
    again = tables.read(out)
    assert again.columns["row_"] == ("0", "1")
    assert again.columns["row"] == ("x", "y")
    # A table whose first column numbers the rows stays as it is.
    tables.write_tsv(tmp_path / "copy.tsv", again)
    assert (tmp_path / "copy.tsv").read_bytes() == out.read_bytes()
