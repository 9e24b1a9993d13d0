# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pairs of user and item: read with MMRec's split, or split here; features beside."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfrec.config import UserError
from rfrec.data import interactions, pairs

HEADER = "userID\titemID\trating\ttimestamp\tx_label\n"
# User 7 has no training pair.
ROWS = [
    *((0, 3, 0), (0, 1, 0), (0, 4, 1), (0, 0, 2)),
    *((2, 5, 0), (2, 2, 2), (7, 1, 1), (7, 2, 2), (4, 0, 0), (4, 2, 1)),
]


def as_text(rows):
    return HEADER + "".join(f"{u}\t{i}\t5\t9\t{x}\n" for u, i, x in rows)


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "shop.inter").write_text(as_text(ROWS))
    rng = np.random.default_rng(0)
    for name, width in (("text", 4), ("image", 3)):
        np.save(tmp_path / f"{name}_feat.npy", rng.standard_normal((6, width)))
    return tmp_path


def as_sets(part):
    indptr = part.indptr
    return [part.items[a:b].tolist() for a, b in zip(indptr, indptr[1:], strict=False)]


def history(lengths, seed=0):
    rng = np.random.default_rng(seed)
    items = [rng.permutation(40)[:n] for n in lengths]
    return interactions.Interactions(
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate(items).astype(np.int32),
        40,
        tuple(f"u{i}" for i in range(len(lengths))),
    )


def test_mmrec_rows_are_sorted_and_untrained_users_left_out(shop):
    split = pairs.read_mmrec(shop / "shop.inter", 6)
    assert split.user_ids == ("0", "2", "4")
    assert (split.num_users, split.num_items) == (3, 6)
    assert as_sets(split.train) == [[1, 3], [5], [0]]
    assert as_sets(split.valid) == [[4], [], [2]]
    assert as_sets(split.test) == [[0], [2], []]
    assert split.train.users.tolist() == [0, 0, 1, 2]
    assert split.warnings == (
        f"{shop / 'shop.inter'}: 1 users without a training interaction were removed,"
        " with 2 interactions",
    )
    assert pairs.read_mmrec(shop / "shop.inter").num_items == 6


def test_the_fingerprint_tells_parts_apart(shop):
    one = pairs.read_mmrec(shop / "shop.inter", 6)
    assert one.fingerprint == pairs.read_mmrec(shop / "shop.inter", 6).fingerprint
    changed = [(u, i, {1: 2, 2: 1}.get(x, x)) for u, i, x in ROWS]
    (shop / "shop.inter").write_text(as_text(changed))
    assert pairs.read_mmrec(shop / "shop.inter", 6).fingerprint != one.fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            as_text([*ROWS, (4, 6, 0)]),
            "item 6 of user 4 is out of range 0 to 5, the fewest rows",
        ),
        (as_text([*ROWS, (4, -1, 0)]), "item -1 of user 4 is out of range"),
        (as_text([*ROWS, (4, 3, 3)]), "interaction 11 has x_label 3"),
        (as_text([*ROWS, (0, 3, 2)]), "user 0 has item 3 more than once; 1 repeats"),
        (as_text([row for row in ROWS if row[2] != 1]), "the valid part is empty"),
        (as_text([row for row in ROWS if row[2] != 2]), "the test part is empty"),
        (as_text([row for row in ROWS if row[2] != 0]), "the train part is empty"),
        (
            as_text(ROWS).replace("x_label", "label"),
            "lacks the untyped columns userID",
        ),
        (
            as_text(ROWS).replace("itemID", "item_id:token"),
            "lacks the untyped columns",
        ),
        (as_text(ROWS)[:-3] + "\n", "line 11 has too few fields"),
        (as_text(ROWS).replace("\t5\t9\t2", "\t5\t9\tx"), "'x' is not an integer"),
        (HEADER, "holds no rows"),
        (as_text(ROWS).removeprefix(HEADER), "the header is missing, the first line"),
    ],
)
def test_a_damaged_split_is_one_line(shop, content, message):
    (shop / "shop.inter").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        pairs.load(source="mmrec", path=shop, name="shop")
    assert "\n" not in str(error.value)
    assert "shop.inter" in str(error.value)


def test_a_log_that_ends_before_its_features_is_told(shop):
    for name in ("text", "image"):
        np.save(shop / f"{name}_feat.npy", np.random.default_rng(0).random((8, 3)))
    asked = {"source": "mmrec", "path": shop, "name": "shop"}
    found = pairs.load(**asked, features=("text", "image"))
    ending = "shop.inter: ends at item 5, .*text_feat.npy has 8 rows: .* row i must be"
    assert any(re.search(ending, line) for line in found.warnings)
    assert not any("ends at item" in line for line in pairs.load(**asked).warnings)


def test_a_log_without_times_is_told_where_they_count(shop):
    text = as_text([(0, i, 0) for i in range(6)]).replace("timestamp", "page")
    (shop / "shop.inter").write_text(text)
    asked = {"source": "mmrec", "path": shop, "name": "shop"}
    for split, told in (("time", True), ("leave_one_out", True), ("random", False)):
        lines = pairs.load(**asked, split=split).warnings
        assert any("has no column timestamp" in line for line in lines) == told


def test_the_fingerprint_of_all_data_tells_features_apart(shop):
    asked = {"source": "mmrec", "path": shop, "name": "shop", "features": ("text",)}
    one = pairs.load(**asked)
    # Before the file is another: vectors are read when they are needed.
    before = one.fingerprint
    assert before == pairs.load(**asked).fingerprint
    turned = np.load(shop / "text_feat.npy")[::-1]
    np.save(shop / "text_feat.npy", turned)
    other = pairs.load(**asked)
    assert other.split.fingerprint == one.split.fingerprint
    assert other.fingerprint != before


def test_a_short_history_is_named_with_its_file(shop):
    asked = {"source": "mmrec", "path": shop, "name": "shop"}
    with pytest.raises(UserError, match=r"shop\.inter: user '2' has 2 items"):
        pairs.load(**asked, split="leave_one_out")


def test_leave_one_out_holds_the_last_two():
    inter = history([5, 3, 9])
    split = pairs.from_interactions(inter)
    for user in range(3):
        *first, before, last = inter.history(user).tolist()
        assert as_sets(split.train)[user] == sorted(first)
        assert as_sets(split.valid)[user] == [before]
        assert as_sets(split.test)[user] == [last]
    assert split.user_ids == inter.user_ids


def test_leave_one_out_refuses_a_short_history():
    with pytest.raises(UserError, match="user 'u1' has 2 items, leave-one-out"):
        pairs.from_interactions(history([5, 2]))


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12).filter(lambda n: max(n) > 2),
    st.sampled_from(["time", "random"]),
    st.integers(0, 3),
)
def test_shares_hold_for_every_user(lengths, how, seed):
    inter = history(lengths, seed)
    shares = (0.7, 0.1, 0.2)
    split = pairs.from_interactions(inter, how=how, shares=shares, seed=seed)
    parts = [as_sets(p) for p in (split.train, split.valid, split.test)]
    for user, length in enumerate(lengths):
        train, valid, test = (part[user] for part in parts)
        items = inter.history(user).tolist()
        assert sorted([*train, *valid, *test]) == sorted(items)
        held = [max(int(length * s), 1) if length > 2 else 0 for s in shares[1:]]
        assert [len(valid), len(test)] == held
        if how == "time":
            assert sorted(items[: len(train)]) == train
            assert sorted(items[length - len(test) :]) == test


def test_a_random_split_depends_on_the_seed_alone():
    inter = history([30, 20, 25])
    one, same, other = (
        pairs.from_interactions(inter, how="random", seed=s).fingerprint
        for s in (1, 1, 2)
    )
    assert one == same
    assert one != other


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"how": "time", "shares": (0.9, 0.1, 0.0)}, "three numbers above 0"),
        ({"how": "random", "shares": (0.5, 0.1, 0.1)}, "add up to 1"),
        ({"how": "label"}, "split 'label': expected one of leave_one_out"),
    ],
)
def test_a_split_that_does_not_exist_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        pairs.from_interactions(history([5, 5]), **settings)


def test_features_come_in_the_order_asked_for(shop):
    data = pairs.load(source="mmrec", path=shop, features=("text", "image"))
    assert [f.name for f in data.features] == ["text", "image"]
    assert [f.values.shape for f in data.features] == [(6, 4), (6, 3)]
    assert data.split.num_items == 6
    assert len(data.warnings) == 1
    assert pairs.load(source="mmrec", path=shop).features == ()


def _save(name, rows, bad=None):
    def change(shop):
        values = np.ones((rows, 3))
        if bad is not None:
            values[2, 1] = bad
        np.save(shop / f"{name}_feat.npy", values)

    return change


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (
            _save("image", 7),
            {},
            "text_feat.npy has 6 rows but .*image_feat.npy has 7; features",
        ),
        (
            _save("image", 5),
            {},
            "text_feat.npy has 6 rows but .*image_feat.npy has 5; features",
        ),
        (
            _save("image", 7),
            {"features": ("image",)},
            "image_feat.npy has 7 rows, the data set has 6 items",
        ),
        (
            _save("image", 5),
            {"features": ("image",)},
            "item 5 of user 2 is out of range 0 to 4, the fewest rows of",
        ),
        (_save("text", 6, np.nan), {}, "text_feat.npy: 1 of 6 rows hold NaN"),
        (None, {"features": ("video",)}, "no feature 'video'; .* has: image, text"),
        (None, {"split": "last"}, "data.split is 'last', expected one of label"),
        (None, {"source": "synthetic", "path": None}, "'label' requires data.source"),
        (None, {"name": "cup"}, "no data set 'cup'"),
    ],
)
def test_bad_input_is_one_line(shop, change, settings, message):
    if change is not None:
        change(shop)
    given = {"source": "mmrec", "path": shop, "features": ("text", "image"), **settings}
    with pytest.raises(UserError, match=message) as error:
        pairs.load(**given)
    assert "\n" not in str(error.value)


def test_other_sources_are_split_here():
    data = pairs.load(
        source="synthetic",
        features=("image", "text"),
        split="leave_one_out",
        num_items=60,
        num_users=20,
        text_width=5,
    )
    assert data.split.num_users == 20
    assert [f.values.shape for f in data.features] == [(60, 5)] * 2
    image, text = (f.values for f in data.features)
    assert not np.array_equal(image, text)
    assert len(data.split.test.items) == 20


@pytest.mark.realdata
def test_real_mmrec_counts():
    folder = Path(os.environ["RFREC_DATA"]) / "ml100k"
    if not folder.is_dir():
        pytest.skip("needs ml100k in RFREC_DATA")
    data = pairs.load(
        source="mmrec", path=folder, name="ml100k", features=("image", "text")
    )
    split = data.split
    assert (split.num_users, split.num_items) == (943, 1682)
    counts = [len(p.items) for p in (split.train, split.valid, split.test)]
    assert counts == [75_000, 12_000, 13_000]
    assert [int(np.sum(p.counts == 0)) for p in (split.valid, split.test)] == [43, 39]
    assert len(np.unique(split.train.items)) == 1643
