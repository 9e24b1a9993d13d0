# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Features and data sets are put together without losing what they are."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest

from rfrec.config import UserError
from rfrec.data import join as joining
from rfrec.data.features import Block, fingerprint, read_features
from rfrec.data.join import Feature, join, stack


def feature(
    name="text",
    rows=20,
    width=5,
    kind: Literal["dense", "multi_hot"] = "dense",
    dtype: npt.DTypeLike = np.float32,
    seed=0,
):
    x = np.random.default_rng(seed).standard_normal((rows, width)) * 3
    if kind == "multi_hot":
        x = x > 0
    return Feature(name, x.astype(dtype), kind, f"{name}.npy")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_single_file_stays_a_memory_map(tmp_path, dtype):
    np.save(tmp_path / "a.npy", feature(dtype=dtype).values)
    mapped = read_features(tmp_path / "a.npy")
    items = stack([join([Feature("text", mapped, "dense", "a.npy")], name="a")])
    assert items.values is mapped
    assert items.fingerprint == fingerprint(feature(dtype=dtype).values)


def test_double_and_foreign_byte_order_become_float32():
    for dtype in (np.float64, ">f4", ">f2"):
        items = join([feature(dtype=dtype)], name="a")
        assert items.values.dtype.str in ("<f4", "<f2")
        np.testing.assert_allclose(items.values, feature(dtype=dtype).values, rtol=1e-6)


@pytest.mark.parametrize(
    ("second", "joint"), [(np.float16, np.float16), (np.float32, np.float32)]
)
def test_features_stand_side_by_side(monkeypatch, second, joint):
    monkeypatch.setattr(joining, "CHUNK_ROWS", 6)
    a, b = feature(dtype=np.float16), feature("image", width=3, dtype=second, seed=1)
    titles = tuple("abcdefghijklmnopqrst")
    items = join([a, b], name="toy", titles=titles)
    np.testing.assert_array_equal(items.values, np.hstack([a.values, b.values]))
    assert items.values.dtype == joint
    assert items.blocks == (Block("text", 5, "dense"), Block("image", 3, "dense"))
    assert items.segments == (("toy", 20),)
    assert items.titles == titles


def test_scaled_blocks_have_mean_square_one_and_labels_stay():
    genres = feature("genres", width=4, kind="multi_hot", seed=2)
    image = feature("image", width=7, dtype=np.float16, seed=3)
    image.values[3] = 0
    items = join([genres, feature(), image], name="a", scale="mean_square")
    np.testing.assert_array_equal(items.values[:, :4], genres.values)
    assert np.square(items.values[:, 4:9]).mean() == pytest.approx(1, abs=1e-6)
    assert np.square(items.values[:, 9:]).mean() == pytest.approx(1, abs=1e-6)
    assert items.values.dtype == np.float32
    ratio = items.values[:, 4:9] / feature().values
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)


def test_input_is_not_changed_by_scaling():
    a = feature()
    join([a], name="a", scale="mean_square")
    np.testing.assert_array_equal(a.values, feature().values)


def test_unknown_scale_is_refused():
    with pytest.raises(UserError, match="data.scale is 'norm', expected one of none"):
        join([feature()], name="a", scale="norm")


def test_feature_of_zeros_cannot_be_scaled():
    zeros = feature()._replace(values=np.zeros((20, 5), np.float32))
    with pytest.raises(UserError, match=r"text\.npy: all values are zero"):
        join([zeros], name="a", scale="mean_square")
    (line,) = join([zeros], name="a").warnings
    assert "20 of 20 items have no vector" in line


def test_differing_rows_name_both_files():
    with pytest.raises(UserError, match=r"text\.npy has 20 rows but image\.npy has 19"):
        join([feature(), feature("image", rows=19)], name="a")


def test_nan_names_file_and_row():
    bad = feature("image")
    bad.values[11, 2] = np.nan
    with pytest.raises(UserError, match=r"image\.npy: 1 of 20 rows .*\(rows 11\)"):
        join([feature(), bad], name="a")


def test_items_without_a_vector_are_counted_per_feature_and_together():
    text, image = feature(), feature("image", seed=1)
    text.values[[2, 5]] = 0
    image.values[[5, 6, 7]] = 0
    lines = join([text, image], name="a").warnings
    assert [line.split(" (")[0] for line in lines] == [
        "text.npy: 2 of 20 items have no vector",
        "image.npy: 3 of 20 items have no vector",
        "text + image: 1 of 20 items have no vector",
    ]


def test_repeated_rows_count_only_if_all_features_repeat():
    text, image = feature(), feature("image", seed=1)
    text.values[4] = text.values[3]
    assert join([text, image], name="a").warnings == ()
    image.values[4] = image.values[3]
    (line,) = join([text, image], name="a").warnings
    assert line.startswith("text + image: 1 of 20 rows repeat an earlier row")


def test_fingerprint_follows_the_values():
    same = {join([feature()], name=n).fingerprint for n in "ab"}
    other = join([feature(seed=1)], name="a").fingerprint
    scaled = join([feature()], name="a", scale="mean_square").fingerprint
    assert len(same) == 1
    assert len({*same, other, scaled}) == 3


def test_data_sets_stand_one_below_the_other():
    a = join([feature()], name="a", titles=("x",) * 20)
    b = join([feature(rows=3, seed=1)], name="b", titles=("y",) * 3)
    both = stack([a, b])
    np.testing.assert_array_equal(both.values, np.vstack([a.values, b.values]))
    assert both.segments == (("a", 20), ("b", 3))
    assert both.titles == ("x",) * 20 + ("y",) * 3
    assert both.ids is None
    assert both.fingerprint == fingerprint(np.vstack([a.values, b.values]))


def test_stack_keeps_titles_only_if_all_have_them():
    a = join([feature()], name="a", titles=("x",) * 20)
    assert stack([a, join([feature(rows=3)], name="b")]).titles is None


def test_stack_numbers_items_without_ids():
    a = join([feature(rows=2)], name="a")
    b = join([feature(rows=2)], name="b", ids=("p", "q"))
    assert stack([a, b]).ids == ("0", "1", "p", "q")
    c = join([feature(rows=2)], name="c", ids=("1", "r"))
    with pytest.raises(UserError, match="item id '1' of 'c' occurs in another"):
        stack([a, c])


def test_stack_of_other_widths_names_both():
    a, b = join([feature()], name="a"), join([feature(width=6)], name="b")
    with pytest.raises(
        UserError, match="'text' is 5 wide in 'a' but 6 wide in 'b'; a shared"
    ):
        stack([a, b])


def test_stack_of_other_features_names_both():
    a, b = join([feature()], name="a"), join([feature("image")], name="b")
    with pytest.raises(UserError, match=r"'text', 5.* of 'a' differ .*'image', 5"):
        stack([a, b])
