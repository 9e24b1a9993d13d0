# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Feature files are mapped, scanned and refused as documented."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from rfrec.config import UserError
from rfrec.data import features


def save(path, array, **kwargs):
    np.save(path, array, **kwargs)
    return path


@pytest.fixture
def vectors():
    return np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_file_is_mapped_with_its_values(tmp_path, vectors, dtype, order):
    wanted = np.asarray(vectors.astype(dtype), order=order)
    read = features.read_features(save(tmp_path / "a.npy", wanted))
    assert isinstance(read, np.memmap)
    assert not read.flags.writeable
    np.testing.assert_array_equal(read, wanted)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"b\.npy: no such file"):
        features.read_features(tmp_path / "b.npy")


def test_other_file_is_no_npy(tmp_path):
    (tmp_path / "a.npy").write_text("1 2 3\n")
    with pytest.raises(UserError, match=r"a\.npy: is not a \.npy file"):
        features.read_features(tmp_path / "a.npy")


def test_empty_file_is_no_npy(tmp_path):
    (tmp_path / "a.npy").touch()
    with pytest.raises(UserError, match="is not a .npy file"):
        features.read_features(tmp_path / "a.npy")


def test_pickle_is_never_read(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x80\x04]\x94.")
    with pytest.raises(UserError, match="is a pickle, which is never read"):
        features.read_features(tmp_path / "a.npy")


def test_object_array_is_never_read(tmp_path):
    array = np.array([["a", 1], ["b", None]], object)
    path = save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=r"a\.npy: holds pickled Python objects"):
        features.read_features(path)


def test_truncated_file_tells_sizes(tmp_path, vectors):
    path = save(tmp_path / "a.npy", vectors)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"truncated, 1318 of 1328 bytes.*\(50, 6\)"):
        features.read_features(path)


def test_truncated_header_is_damaged(tmp_path, vectors):
    path = save(tmp_path / "a.npy", vectors)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="header is damaged"):
        features.read_features(path)


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4), ()])
def test_other_rank_is_refused(tmp_path, shape):
    path = save(tmp_path / "a.npy", np.ones(shape, np.float32))
    with pytest.raises(UserError, match="expected two dimensions"):
        features.read_features(path)


@pytest.mark.parametrize("dtype", ["int32", "complex64", "bool", "U3"])
def test_other_type_is_refused(tmp_path, dtype):
    path = save(tmp_path / "a.npy", np.ones((2, 2)).astype(dtype))
    with pytest.raises(UserError, match=r"expected one of float16, float32, float64"):
        features.read_features(path)


@pytest.mark.parametrize("shape", [(0, 6), (6, 0)])
def test_file_without_vectors_is_refused(tmp_path, shape):
    path = save(tmp_path / "a.npy", np.ones(shape, np.float32))
    with pytest.raises(UserError, match="there is no vector in it"):
        features.read_features(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_counted_and_named(vectors, value):
    vectors[[3, 40], [0, 5]] = value
    with pytest.raises(UserError, match=r"a: 2 of 50 rows .* \(rows 3, 40\)"):
        features.check_features(vectors, "a", chunk_rows=7)


def test_value_beyond_float32_counts_as_infinite(vectors):
    wide = vectors.astype(np.float64)
    wide[8, 1] = 1e300
    with pytest.raises(UserError, match=r"\(rows 8\)"):
        features.check_features(wide, "a")


def test_many_bad_rows_are_abbreviated(vectors):
    vectors[:] = np.nan
    with pytest.raises(UserError, match=r"rows 0, 1, 2, 3, 4, 5, 6, 7, \.\.\.\)"):
        features.check_features(vectors, "a")


@given(
    x=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.integers(1, 3)),
        elements=st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0]),
    ),
    chunk_rows=st.integers(1, 13),
)
def test_report_equals_brute_force(x, chunk_rows):
    report = features.check_features(x, "x", chunk_rows)
    filled = [tuple(row) for row in x.tolist() if any(row)]
    assert report.rows == len(x)
    assert report.zero_rows.tolist() == [i for i, r in enumerate(x) if not r.any()]
    assert report.duplicate_rows == len(filled) - len(set(filled))
    constant = [j for j, c in enumerate(zip(*filled, strict=True)) if len(set(c)) == 1]
    assert report.constant_columns.tolist() == (constant if len(filled) > 1 else [])
    assert report.mean_square == pytest.approx(np.square(x, dtype=np.float64).mean())


def test_clean_features_give_no_warning(vectors):
    assert features.check_features(vectors, "a").warnings("a.npy") == []


def test_each_finding_gives_one_line(vectors):
    vectors[:, 2] = 7
    vectors[4] = vectors[5]
    vectors[[0, 9]] = 0
    lines = features.check_features(vectors, "a").warnings("a.npy")
    assert [line.split(";")[0] for line in lines] == [
        "a.npy: 2 of 50 items have no vector (rows of zeros: 0, 9)",
        "a.npy: 1 columns are constant (2)",
        "a.npy: 1 of 50 rows repeat an earlier row",
    ]


def test_multi_hot_marks_each_label_once():
    hot = features.multi_hot([("b", "a"), (), ("c", "b", "b")])
    assert hot.vocabulary == ("a", "b", "c")
    np.testing.assert_array_equal(hot.matrix, [[1, 1, 0], [0, 0, 0], [0, 1, 1]])
    assert hot.matrix.dtype == np.float32


def test_multi_hot_needs_a_label():
    with pytest.raises(UserError, match="no item has a label"):
        features.multi_hot([(), ()])


TITLES = [
    "The Green Harbour (1981)",
    "Green Harbour II (1984)",
    "Midnight at the Mill (1950)",
    "A Mill at Midnight (1951)",
    "Zebra Crossing (1999)",
    "",
]


def test_text_vectors_depend_on_nothing_but_text_and_seed():
    first = features.tfidf_svd(TITLES, 3, 5)
    assert first.tobytes() == features.tfidf_svd(TITLES, 3, 5).tobytes()
    assert first.shape == (6, 3)
    assert first.dtype == np.float32


def test_full_width_keeps_the_similarities_of_tfidf():
    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 4), strip_accents="unicode"
    )
    expected = cosine_similarity(vectorizer.fit_transform(TITLES))
    x = features.tfidf_svd(TITLES, 6, 0)
    np.testing.assert_allclose(x @ x.T, expected, atol=1e-5)
    assert not np.abs(x[5]).max() > 1e-6


@pytest.mark.parametrize("width", [0, 7])
def test_impossible_text_width_is_refused(width):
    with pytest.raises(UserError, match=rf"text width {width} .*from 1 to 6"):
        features.tfidf_svd(TITLES, width, 0)


def test_empty_texts_are_refused():
    with pytest.raises(UserError, match="all texts are empty"):
        features.tfidf_svd(["", " "], 1, 0)


def test_fingerprint_hashes_shape_type_and_bytes(vectors, monkeypatch):
    expected = hashlib.sha256(b"(50, 6) <f4" + vectors.tobytes()).hexdigest()
    monkeypatch.setattr(features, "CHUNK_ROWS", 7)
    assert features.fingerprint(vectors) == expected
    assert features.fingerprint(np.asfortranarray(vectors)) == expected
    assert features.fingerprint(vectors.astype(np.float16)) != expected
    assert features.fingerprint(vectors.reshape(25, 12)) != expected


def test_items_without_a_vector_get_the_mean_of_the_others(vectors):
    missing = vectors.copy()
    missing[[3, 17]] = 0
    filled = features.fill_missing(missing)
    kept = np.delete(vectors, [3, 17], axis=0)
    np.testing.assert_allclose(filled[[3, 17]], [kept.mean(axis=0)] * 2, rtol=1e-5)
    np.testing.assert_array_equal(np.delete(filled, [3, 17], axis=0), kept)
    assert filled.dtype == vectors.dtype
    assert not missing[3].any(), "the given array has changed"
    assert features.fill_missing(vectors) is vectors
    nothing = np.zeros_like(vectors)
    assert features.fill_missing(nothing) is nothing
