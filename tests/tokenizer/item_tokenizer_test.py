# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer as a library, from its definitions."""

import json

import numpy as np
import pytest

import rfrec
from rfrec.config import Preempted, UserError
from rfrec.tokenizer import training
from rfrec.tokenizer.item_tokenizer import ItemTokenizer

ITEMS, NEW, WIDTH, SIZES = 90, 20, 10, (8, 8, 8)
TINY = {
    "hidden": (16,),
    "latent_width": 4,
    "init_epoch": 1,
    "kmeans_restarts": 2,
    "epochs": 4,
    "batch_size": 32,
    "eval_every": 2,
}


def item_vectors(rows=ITEMS, seed=0):
    """Clusters, so that codes collide."""
    rng = np.random.default_rng(seed)
    centers = 5 * rng.normal(size=(9, WIDTH))
    return centers[rng.integers(9, size=rows)] + 0.2 * rng.normal(size=(rows, WIDTH))


@pytest.fixture(scope="module", params=["rqvae", "rkmeans"])
def fitted(request):
    return ItemTokenizer(SIZES, method=request.param, **TINY).fit(item_vectors())


def test_codes_are_unique_integers_within_their_levels(fitted):
    codes = fitted.codes
    assert codes.shape == (ITEMS, 3) and codes.dtype == np.int32
    assert (codes >= 0).all() and (codes < SIZES).all()
    assert len(np.unique(codes, axis=0)) == ITEMS
    before = len(np.unique(fitted.codes_before_repair, axis=0))
    assert before < ITEMS, "choose vectors that collide"
    assert fitted.report["codes"]["before"]["distinct"] == before
    assert fitted.report["codes"]["after"]["distinct"] == ITEMS
    moved = (codes != fitted.codes_before_repair).any(axis=1).sum()
    assert fitted.report["codes"]["moved"] == moved
    json.dumps(fitted.report)


def test_encoding_the_fitted_vectors_gives_the_codes_before_repair(fitted):
    codes = fitted.encode(item_vectors(), repair=False)
    np.testing.assert_array_equal(codes, fitted.codes_before_repair)


def test_new_items_get_codes_that_nobody_has(fitted):
    # Copies of known items: their nearest codes are taken.
    codes = fitted.encode(item_vectors()[:NEW])
    together = np.concatenate([fitted.codes, codes])
    assert len(np.unique(together, axis=0)) == ITEMS + NEW


def test_the_reconstruction_misses_what_the_report_states(fitted):
    x = item_vectors()
    decoded = fitted.decode(fitted.codes_before_repair)
    np.testing.assert_allclose(fitted.reconstruct(x), decoded, rtol=1e-5)
    left = ((decoded - x) ** 2).sum() / (x**2).sum()
    np.testing.assert_allclose(fitted.report["energy_left"], left, rtol=1e-3)


def test_a_saved_tokenizer_is_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "saved")
    loaded = ItemTokenizer.load(tmp_path / "saved")
    new = item_vectors(seed=3)[:NEW]
    np.testing.assert_array_equal(loaded.codes, fitted.codes)
    np.testing.assert_array_equal(
        loaded.codes_before_repair, fitted.codes_before_repair
    )
    np.testing.assert_array_equal(loaded.encode(new), fitted.encode(new))
    np.testing.assert_array_equal(
        loaded.decode(fitted.codes), fitted.decode(fitted.codes)
    )
    assert loaded.options == fitted.options
    assert loaded.report == json.loads(json.dumps(fitted.report))
    assert repr(loaded) == repr(fitted)
    assert [path.name for path in (tmp_path / "saved").iterdir()] == [
        "tokenizer.safetensors"
    ]


def test_codes_are_written_as_an_index(fitted, tmp_path):
    fitted.save_codes(tmp_path / "codes.json")
    table = json.loads((tmp_path / "codes.json").read_text())
    numbers = [[int(token[3:-1]) for token in table[str(i)]] for i in range(ITEMS)]
    np.testing.assert_array_equal(numbers, fitted.codes)


def test_the_scale_of_vectors_does_not_matter():
    # A power of two, so that nothing is rounded.
    one, other = (
        ItemTokenizer(SIZES, method="rkmeans").fit(scale * item_vectors())
        for scale in (1, 1024)
    )
    np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_allclose(
        other.reconstruct(1024 * item_vectors()),
        1024 * one.reconstruct(item_vectors()),
        rtol=1e-6,
    )


def test_an_interrupted_fit_resumes_to_the_same_result(tmp_path, monkeypatch):
    x = item_vectors()
    whole = ItemTokenizer(SIZES, **TINY).fit(x)
    broken = ItemTokenizer(SIZES, **TINY)
    evaluate = training.Run._metrics

    def stop_later(run, state):
        metrics = evaluate(run, state)
        if int(np.asarray(state.step).ravel()[0]) > 6:
            raise Preempted("stopped")
        return metrics

    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "_metrics", stop_later)
        with pytest.raises(Preempted):
            broken.fit(x, tmp_path / "run")
    assert "not fitted" in repr(broken)
    assert (tmp_path / "run" / "checkpoints").is_dir()
    broken.fit(x, tmp_path / "run")
    np.testing.assert_array_equal(broken.codes, whole.codes)
    np.testing.assert_array_equal(broken.encode(x[:NEW]), whole.encode(x[:NEW]))
    without_time = [
        {k: v for k, v in tokenizer.report.items() if k != "seconds"}
        for tokenizer in (broken, whole)
    ]
    assert without_time[0] == without_time[1]
    # The same folder with other options or vectors is refused.
    for tokenizer, vectors in (
        (ItemTokenizer(SIZES, **(TINY | {"lr": 0.01})), x),
        (ItemTokenizer(SIZES, **TINY), 2 * item_vectors(seed=1)),
    ):
        with pytest.raises(UserError, match="item vectors or options"):
            tokenizer.fit(vectors, tmp_path / "run")


def test_a_seed_determines_the_codes():
    x = item_vectors()
    one, again, other = (
        ItemTokenizer(SIZES, seed=seed, **TINY).fit(x).codes for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_a_suffix_is_one_more_level_and_cannot_grow():
    tokenizer = ItemTokenizer(SIZES, method="rkmeans", repair="suffix")
    tokenizer.fit(item_vectors())
    assert tokenizer.codes.shape == (ITEMS, 4)
    np.testing.assert_array_equal(tokenizer.codes[:, :3], tokenizer.codes_before_repair)
    with pytest.raises(UserError, match="suffix cannot grow"):
        tokenizer.encode(item_vectors()[:2])
    assert tokenizer.encode(item_vectors()[:2], repair=False).shape == (2, 3)


def with_nan():
    x = item_vectors()
    x[7, 2] = np.nan
    return x


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (lambda t: t.fit(item_vectors()[0]), r"shape \(10,\)"),
        (lambda t: t.fit(with_nan()), "row 7 contains NaN"),
        (lambda t: t.fit(np.array([["a"]])), "pass numbers"),
        (lambda t: t.fit(np.zeros((20, 4))), "all values are zero"),
        (lambda t: t.fit(item_vectors()[:7]), "7 items are fewer than the 8 codes"),
        (lambda t: t.fit(item_vectors(rows=600)), "only 512 tuples"),
        (lambda t: t.encode(item_vectors()), "not fitted"),
        (lambda t: t.codes, "not fitted"),
        (lambda t: t.save("nowhere"), "not fitted"),
        (lambda t: t.load("/nowhere"), "does not exist"),
        (lambda t: ItemTokenizer(epoch=3), "did you mean 'epochs'"),
        (lambda t: ItemTokenizer(estimator="rotate"), "one of ste, rotation, gumbel"),
        (
            lambda t: ItemTokenizer(init="uniform"),
            "codebook.freeze=True cannot be combined",
        ),
    ],
)
def test_mistakes_are_one_line(fit, message):
    with pytest.raises(UserError, match=message) as error:
        fit(ItemTokenizer(SIZES, **TINY))
    assert "\n" not in str(error.value)


def test_vectors_of_another_width_and_a_damaged_file_are_refused(fitted, tmp_path):
    with pytest.raises(UserError, match="width 3, the tokenizer was fitted on"):
        fitted.encode(np.ones((2, 3)))
    with pytest.raises(UserError, match="code space is full"):
        fitted.encode(item_vectors(rows=500))
    fitted.save(tmp_path)
    path = tmp_path / "tokenizer.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="is damaged") as error:
        ItemTokenizer.load(tmp_path)
    assert "\n" not in str(error.value)


def test_the_class_is_public():
    assert rfrec.ItemTokenizer is ItemTokenizer
