# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Raw logs become prepared data, against a plain Python of the definitions."""

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.data import cleaning, sources
from rfrec.data.prepared import Prepared, is_prepared
from rfrec.pipelines.prepare import prepare
from tests.support.commands import digest, load_config

pytest.importorskip("duckdb", reason="needs rfrec[prepare]")


def make(tmp_path: Path, variant: str = "", out: str = "out", **overrides) -> Prepared:
    """Prepares a data set."""
    prepare(load_config("prepare", variant, **overrides), tmp_path / out)
    return Prepared(tmp_path / out)


def histories(data: Prepared) -> dict[str, list[str]]:
    """Returns the item ids of each user by id."""
    bounds = data.indptr
    return {
        user: [data.item_ids[i] for i in data.items[bounds[u] : bounds[u + 1]]]
        for u, user in enumerate(data.user_ids)
    }


def labels(data: Prepared) -> dict[str, list[int]]:
    """Returns the split of each interaction by user id."""
    bounds = data.indptr
    return {
        user: data.split[bounds[u] : bounds[u + 1]].tolist()
        for u, user in enumerate(data.user_ids)
    }


def write_csv(path: Path, rows, header="user_id,item_id,timestamp,rating") -> str:
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def random_rows(seed: int, count: int = 400) -> list[tuple]:
    draw = random.Random(seed)
    return [
        (
            f"u{draw.randrange(30)}",
            f"i{min(draw.randrange(40), draw.randrange(40))}",
            draw.randrange(60) * 1000,
            draw.randrange(1, 6),
        )
        for _ in range(count)
    ]


def oracle(
    rows, *, min_rating=0, repeats="keep", user_core=0, item_core=0, short=False
):
    """Returns the histories of a log by user, as the definitions say."""
    kept = [r for r in rows if r[3] >= min_rating]
    kept = sorted(enumerate(kept), key=lambda row: (row[1][0], row[1][2], row[0]))
    log = [(r[0], r[1]) for _, r in kept]
    if repeats != "keep":
        order = log if repeats == "first" else log[::-1]
        unique = list(dict.fromkeys(order))
        log = unique if repeats == "first" else unique[::-1]
    while True:
        users, items = Counter(u for u, _ in log), Counter(i for _, i in log)
        core = [
            (u, i) for u, i in log if users[u] >= user_core and items[i] >= item_core
        ]
        if len(core) == len(log):
            break
        log = core
    found: dict[str, list[str]] = {}
    for user, item in log:
        found.setdefault(user, []).append(item)
    return {u: h for u, h in found.items() if not short or len(h) >= 3}


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"min_rating": 3},
        {"repeats": "first"},
        {"repeats": "last"},
        {"user_core": 8, "item_core": 9},
        {"min_rating": 2, "repeats": "first", "user_core": 5, "item_core": 5},
        {"min_rating": 4, "repeats": "first", "short": True},
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_cleaning_is_the_definition(tmp_path, case, seed):
    rows = random_rows(seed)
    path = write_csv(tmp_path / "log.csv", rows)
    overrides = {f"clean.{k}": v for k, v in case.items() if k != "short"}
    if "min_rating" in case:
        overrides["clean.min_rating"] = float(case["min_rating"])
    if case.get("short"):
        overrides["clean.short_users"] = "drop"
    data = make(tmp_path, **{"log.path": path, "log.rating": "rating"}, **overrides)
    assert histories(data) == oracle(rows, **case)
    counts = data.manifest["counts"]
    assert counts["rows"] == len(rows)
    assert counts["rows"] - counts["interactions"] == sum(
        data.manifest["dropped"].values()
    )


def test_k_core_is_the_fixed_point_of_both_conditions():
    rng = np.random.default_rng(0)
    users = np.minimum(rng.integers(0, 60, 900), rng.integers(0, 60, 900))
    items = np.minimum(rng.integers(0, 70, 900), rng.integers(0, 70, 900))
    kept, rounds = cleaning.k_core(users, items, 10, 9)
    assert rounds > 1, "the example should need several rounds"
    assert kept.any()
    assert np.bincount(users[kept])[users[kept]].min() >= 10
    assert np.bincount(items[kept])[items[kept]].min() >= 9


def test_leave_one_out_takes_the_last_two_of_users_with_three(tmp_path):
    rows = [("a", i, i, 1) for i in range(5)] + [("b", 1, 1, 1), ("b", 2, 2, 1)]
    path = write_csv(tmp_path / "log.csv", rows)
    data = make(tmp_path, **{"log.path": path})
    assert labels(data) == {"a": [0, 0, 0, 1, 2], "b": [0, 0]}
    counts = data.manifest["counts"]
    assert (counts["train"], counts["valid"], counts["test"]) == (5, 1, 1)


def test_a_split_in_time_leaks_nothing_over_users(tmp_path):
    rows = random_rows(3)
    path = write_csv(tmp_path / "log.csv", rows)
    split = {"split.kind": "time", "split.ratios": (0.7, 0.2, 0.1)}
    data = make(tmp_path, **{"log.path": path}, **split)
    times, label = np.asarray(data.times), np.asarray(data.split)
    assert times[label == 0].max() < times[label == 1].min()
    assert times[label == 1].max() < times[label == 2].min()
    points = data.manifest["split"]
    assert (label == 0).sum() == (times < points["valid_from"]).sum()
    named = {"split.valid_from": "1970-01-01 05:33:20", "split.test_from": "40000"}
    data = make(tmp_path, out="b", **{"log.path": path}, **split, **named)
    assert data.manifest["split"]["valid_from"] == 20_000_000
    assert data.manifest["split"]["test_from"] == 40_000_000


def test_a_split_by_ratio_divides_each_history(tmp_path):
    rows = [(f"u{n}", i, i, 1) for n in (1, 2, 5, 10, 23) for i in range(n)]
    path = write_csv(tmp_path / "log.csv", rows)
    data = make(tmp_path, **{"log.path": path, "split.kind": "ratio"})
    for user, found in labels(data).items():
        number = int(user[1:])
        assert found == sorted(found)
        assert found[0] == 0
        test = int(number * 0.1 + 0.5)
        assert found.count(2) == min(test, number - 1)
        assert abs(found.count(1) - number * 0.1) <= 0.5 or number == 1


def test_ties_keep_the_order_of_the_file_or_are_drawn(tmp_path):
    rows = [("u", i, 7, 1) for i in (5, 3, 9, 1, 4, 8)]
    path = write_csv(tmp_path / "log.csv", rows)
    assert histories(make(tmp_path, **{"log.path": path}))["u"] == list("539148")
    drawn = make(tmp_path, out="r", **{"log.path": path, "ties": "random"})
    again = make(tmp_path, out="s", **{"log.path": path, "ties": "random"})
    assert histories(drawn) == histories(again)
    assert sorted(histories(drawn)["u"]) == list("134589")
    assert histories(drawn)["u"] != list("539148")


def test_ties_in_order_of_ids_cause_a_warning(tmp_path):
    rows = [(f"u{u}", i, 7, 1) for u in range(20) for i in range(8, 13)]
    path = write_csv(tmp_path / "log.csv", rows)
    data = make(tmp_path, **{"log.path": path})
    assert data.manifest["ties"] == {"share": 1.0, "ascending": 1.0}
    assert any("config.ties=random" in line for line in data.manifest["warnings"])


@pytest.mark.parametrize("factor", [1, 1000, 1_000_000])
def test_times_are_milliseconds_whatever_the_unit(tmp_path, factor):
    rows = [("u", i, (1_500_000_000 + i) * factor, 1) for i in range(3)]
    data = make(tmp_path, **{"log.path": write_csv(tmp_path / "log.csv", rows)})
    assert data.times.tolist() == [(1_500_000_000 + i) * 1000 for i in range(3)]


def test_missing_and_negative_times(tmp_path):
    rows = [("u", "a", 5, 1), ("u", "b", "", 1), ("u", "c", -3, 1), ("u", "d", "x", 1)]
    rows += [("u", "e", 1, 1)]
    path = write_csv(tmp_path / "log.csv", rows)
    data = make(tmp_path, **{"log.path": path})
    assert histories(data)["u"] == ["e", "a"]
    assert data.manifest["dropped"]["bad_time"] == 3
    first = make(tmp_path, out="f", **{"log.path": path, "clean.bad_times": "first"})
    assert histories(first)["u"] == ["b", "d", "c", "e", "a"]
    with pytest.raises(UserError, match=r"row 2 of the log.*clean\.bad_times"):
        make(tmp_path, out="g", **{"log.path": path, "clean.bad_times": "fail"})
    assert not (tmp_path / "g").exists()


# Layouts that people download.


def test_amazon_2014(tmp_path):
    reviews = [
        {"reviewerID": f"A{u}", "asin": f"B{i:04d}", "overall": 5.0,
         "unixReviewTime": 100 + i, "helpful": [0, 1], "reviewText": "a\u2028b"}
        for u in range(6) for i in range(6)
    ]  # fmt: skip
    with gzip.open(tmp_path / "reviews.json.gz", "wt", encoding="utf-8") as file:
        for row in reviews:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    meta = [
        {"asin": f"B{i:04d}", "title": f"It's \"{i}\"", "categories": [["M", "G"]],
         "related": {"also_bought": ["x"]}}
        for i in range(5)
    ]  # fmt: skip
    (tmp_path / "meta.json").write_text("\n".join(map(repr, meta)))
    data = make(
        tmp_path,
        "amazon2014",
        **{
            "log.path": str(tmp_path / "reviews.json.gz"),
            "table.path": str(tmp_path / "meta.json"),
            "table.columns": ("title", "categories"),
        },
    )
    assert histories(data)["A3"] == [f"B{i:04d}" for i in range(6)]
    assert data.item_texts("title")[2] == 'It\'s "2"'
    assert data.item_texts("categories") == ("M|G",) * 5 + ("",)
    assert data.has_metadata.tolist() == [True] * 5 + [False]
    assert data.manifest["counts"]["items_with_metadata"] == 5


def test_amazon_2023_with_nested_columns(tmp_path):
    lines = [
        json.dumps(
            {"rating": 4.0, "title": "t", "images": [{"l": 1}], "asin": f"X{i}",
             "parent_asin": f"B{i}", "user_id": f"A{u}", "timestamp": 1588687728923 + i}
        )
        for u in range(5) for i in range(5)
    ]  # fmt: skip
    text = "\ufeff" + "\r\n\r\n".join(lines) + "\r\n"
    (tmp_path / "r.jsonl").write_bytes(text.encode())
    meta = {"title": "Howard", "images": [{"large": "u"}], "details": {"Brand": "H"},
            "description": [], "categories": ["a", "b"], "store": None}  # fmt: skip
    rows = [json.dumps(meta | {"parent_asin": f"B{i}"}) for i in (1, 0, 1)]
    (tmp_path / "m.jsonl").write_text("\n".join(rows))
    data = make(
        tmp_path,
        "amazon2023",
        **{
            "log.path": str(tmp_path / "r.jsonl"),
            "table.path": str(tmp_path / "m.jsonl"),
        },
    )
    assert histories(data)["A0"] == ["B0", "B1", "B2", "B3", "B4"]
    assert data.times[0] == 1588687728923
    assert data.item_texts("categories")[:2] == ("a|b", "a|b")
    assert data.item_texts("description")[0] == ""
    assert data.item_texts("store")[0] == ""
    assert any("1 of 3 rows repeat" in line for line in data.manifest["warnings"])


def test_movielens_1m_and_32m(tmp_path):
    (tmp_path / "ratings.dat").write_text("1::7::5::978300760\n1::3::3::978300761\n")
    (tmp_path / "movies.dat").write_bytes(
        "7::Café (1995)::Drama|War\n".encode("latin-1")
    )
    data = make(
        tmp_path,
        "ml1m",
        **{
            "log.path": str(tmp_path / "ratings.dat"),
            "table.path": str(tmp_path / "movies.dat"),
        },
    )
    assert histories(data) == {"1": ["7", "3"]}
    assert data.item_texts("title") == ("Café (1995)", "")
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n9,2,4.0,5\n"
    )
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n2,"A, ""B""",X|Y\n')
    data = make(
        tmp_path,
        "movielens",
        out="b",
        **{
            "log.path": str(tmp_path / "ratings.csv"),
            "table.path": str(tmp_path / "movies.csv"),
        },
    )
    assert data.item_texts("title") == ('A, "B"',)


def test_recbole_atomic_files_with_typed_headers(tmp_path):
    (tmp_path / "x.inter").write_text(
        "user_id:token\titem_id:token\ttimestamp:float\n"
        + "".join(f"u{u}\tB0{i}\t{i}.5\n" for u in range(3) for i in range(4))
    )
    (tmp_path / "x.item").write_text(
        'item_id:token\ttitle:token_seq\nB01\tSay "hi" now\n'
    )
    data = make(
        tmp_path,
        "recbole",
        **{
            "log.path": str(tmp_path / "x.inter"),
            "table.path": str(tmp_path / "x.item"),
            "table.columns": ("title",),
        },
    )
    assert histories(data)["u2"] == ["B00", "B01", "B02", "B03"]
    assert data.item_texts("title")[1] == 'Say "hi" now'


def test_mmrec_keeps_rows_and_split(tmp_path):
    (tmp_path / "d.inter").write_text(
        "userID\titemID\trating\ttimestamp\tx_label\n"
        "0\t4\t5\t9\t0\n0\t1\t5\t8\t2\n1\t4\t5\t1\t1\n"
    )
    data = make(tmp_path, "mmrec", **{"log.path": str(tmp_path / "d.inter")})
    assert data.num_items == 5
    assert data.item_ids == ("0", "1", "2", "3", "4")
    assert data.items.tolist() == [4, 1, 4]
    assert labels(data) == {"0": [0, 2], "1": [1]}


def test_yelp(tmp_path):
    rows = [
        {"review_id": "r", "user_id": f"u{u}", "business_id": f"b{i}", "stars": 5.0,
         "date": f"2018-07-07 22:0{i}:30"}
        for u in range(5) for i in range(5)
    ]  # fmt: skip
    (tmp_path / "review.json").write_text("\n".join(map(json.dumps, rows)))
    shop = {"business_id": "b1", "name": "N", "city": "C", "categories": "a, b",
            "is_open": 1, "attributes": {"WiFi": "u'free'"}, "hours": None}  # fmt: skip
    (tmp_path / "business.json").write_text(json.dumps(shop))
    data = make(
        tmp_path,
        "yelp",
        **{
            "log.path": str(tmp_path / "review.json"),
            "table.path": str(tmp_path / "business.json"),
        },
    )
    assert histories(data)["u4"] == [f"b{i}" for i in range(5)]
    assert data.times[0] == np.datetime64("2018-07-07T22:00:30", "ms").astype(int)
    assert data.item_texts("name") == ("", "N", "", "", "")


def test_parquet_with_64_bit_ids(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    big = 2**63 - 1
    table = pyarrow.table(
        {"user_id": [big, big - 1], "item_id": [big, big], "timestamp": [1.0, 2.0]}
    )
    parquet.write_table(table, tmp_path / "log.parquet")
    data = make(tmp_path, **{"log.path": str(tmp_path / "log.parquet")})
    assert data.user_ids == (str(big), str(big - 1))
    assert data.item_ids == (str(big),)


def test_csv_with_quotes_byte_order_mark_and_crlf(tmp_path):
    text = '\ufeffuser_id,item_id,timestamp\r\n"a, b","x ""y""",1\r\nc,z,2\r\n'
    (tmp_path / "log.csv").write_bytes(text.encode())
    data = make(tmp_path, **{"log.path": str(tmp_path / "log.csv")})
    assert histories(data) == {"a, b": ['x "y"'], "c": ["z"]}


def test_a_glob_of_compressed_files_is_read_in_order(tmp_path):
    for part in range(3):
        with gzip.open(tmp_path / f"log-{part}.tsv.gz", "wt") as file:
            file.write(f"user_id\titem_id\nu\ti{part}\n")
    overrides = {"log.path": str(tmp_path / "log-*.tsv.gz"), "log.time": None}
    data = make(tmp_path, **overrides)
    assert histories(data) == {"u": ["i0", "i1", "i2"]}
    assert data.times is None
    assert len(data.manifest["sources"]) == 3


def test_unused_items_of_the_table_can_be_kept(tmp_path):
    path = write_csv(tmp_path / "log.csv", [("u", "b", 1, 1)])
    table = write_csv(tmp_path / "items.csv", [("a", 1), ("b", 2)], "item_id,title")
    overrides = {"log.path": path, "table.path": table, "table.columns": ("title",)}
    assert make(tmp_path, **overrides).item_ids == ("b",)
    data = make(tmp_path, out="k", **overrides, **{"table.unused": "keep"})
    assert data.item_ids == ("b", "a")
    assert data.item_texts("title") == ("2", "1")


# What is wrong is one line, and leaves nothing behind.


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, r"config\.log\.path is required"),
        ({"log.path": "nothing.csv"}, r"config\.log\.path=nothing\.csv: no such file"),
        ({"log.path": "log.xyz"}, r"log\.xyz: unknown format '\.xyz'.*config\.log"),
        ({"log.path": "log.csv", "log.user": "who"}, r"no column 'who'; it has 'user"),
        ({"log.path": "bad.csv"}, r"bad\.csv: .*Line: 3"),
        ({"log.path": "bad.jsonl"}, r"bad\.jsonl: Malformed JSON.*line 3"),
        ({"log.path": "empty.csv"}, r"empty\.csv: is empty"),
        ({"log.path": "log.csv", "clean.min_rating": 9.0}, r"log\.rating=None"),
        ({"log.path": "log.csv", "clean.user_core": 99}, "no interaction is left"),
        ({"log.path": "log.csv", "split.kind": "label"}, r"log\.label=None"),
        ({"log.path": "log.csv", "split.kind": "time", "split.ratios": (1.0,)}, "sum"),
        (
            {"log.path": "log.csv", "clean.start": "soon"},
            r"config\.clean\.start='soon'",
        ),
        ({"log.path": "log.csv", "engine.memory": "much"}, r"engine\.memory='much'"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, monkeypatch, overrides, message):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "log.csv", [("u", "b", 1, 1), ("u", "c", 2, 1)])
    (tmp_path / "log.xyz").write_text("x")
    (tmp_path / "bad.csv").write_text("user_id,item_id,timestamp\na,b,1\na,b\n")
    (tmp_path / "bad.jsonl").write_text(
        '{"user_id": "a", "item_id": "b", "timestamp": 1}\n{"user_id": \n'
    )
    (tmp_path / "empty.csv").write_text("")
    before = digest(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        make(tmp_path, **overrides)
    assert "\n" not in str(error.value)
    assert digest(tmp_path) == before


def test_the_same_command_again_does_nothing_and_another_is_refused(tmp_path):
    path = write_csv(tmp_path / "log.csv", random_rows(0))
    make(tmp_path, **{"log.path": path})
    before = digest(tmp_path)
    make(tmp_path, **{"log.path": path})
    assert digest(tmp_path) == before
    with pytest.raises(UserError, match=r"another clean\.user_core: use another"):
        make(tmp_path, **{"log.path": path, "clean.user_core": 2})
    moved = tmp_path / "moved.csv"
    (tmp_path / "log.csv").rename(moved)
    with pytest.raises(UserError, match="other files"):
        make(tmp_path, **{"log.path": str(moved)})
    assert is_prepared(tmp_path / "out")


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    path = write_csv(tmp_path / "log.csv", random_rows(0))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="is not a prepared data set"):
        make(tmp_path, **{"log.path": path})
    assert (tmp_path / "out" / "mine.txt").read_text() == "x"


def test_every_command_can_read_prepared_data(tmp_path):
    rows = [(f"u{u}", f"i{(u + n) % 7}", n, 1) for u in range(12) for n in range(4)]
    path = write_csv(tmp_path / "log.csv", rows)
    titles = [
        (f"i{n}", f"word{n % 3} other{n}", "x|y" if n % 2 else "x") for n in range(7)
    ]
    table = write_csv(tmp_path / "items.csv", titles, "item_id,title,genres")
    overrides = {"log.path": path, "table.path": table}
    data = make(tmp_path, **overrides, **{"table.columns": ("title", "genres")})
    where = {"source": "prepared", "path": tmp_path / "out"}
    inter = sources.load_interactions(**where)
    assert inter.item_ids == data.item_ids
    assert inter.user_ids == data.user_ids
    np.testing.assert_array_equal(inter.items, data.items)
    items = sources.load_items(**where, features=("genres", "text"), text_width=3)
    assert items.values.shape == (7, 5)
    assert items.ids == data.item_ids
    assert items.titles == data.item_texts("title")
    np.save(tmp_path / "out" / "image.npy", np.ones((7, 2), np.float32))
    (feature,), _ = sources.load_features(**where, features=("image",))
    assert feature.values.shape == (7, 2)
    with pytest.raises(UserError, match="no column 'colour'; it has title, genres"):
        sources.load_items(**where, features=("colour",))
    with pytest.raises(UserError, match="written by rfrec.launch.prepare"):
        sources.load_interactions(source="prepared", path=tmp_path)
