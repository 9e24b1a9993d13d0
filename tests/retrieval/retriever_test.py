# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GenerativeRetriever: exact lists, resuming, saving, evaluation, refused input."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import log_softmax

import rfrec
from rfrec.config import UserError
from rfrec.evaluation import metrics, report
from rfrec.retrieval import builders, t5, vocab
from rfrec.train import loop

ITEMS, USERS = 12, 30
TINY = {
    "d_model": 8,
    "d_ff": 8,
    "d_kv": 4,
    "num_heads": 2,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "epochs": 4,
    "batch_size": 16,
    "max_history": 5,
    "steps_per_call": 2,
    "beams": ITEMS,
    "eval": {"batch_size": 16},
}


def make_codes(seed=0):
    keys = np.random.default_rng(seed).choice(27, ITEMS, replace=False)
    return np.stack(np.unravel_index(keys, (3, 3, 3)), axis=1)


def make_histories():
    """Walks around a ring of items."""
    rng = np.random.default_rng(1)
    walks = zip(rng.integers(ITEMS, size=USERS), rng.integers(4, 8, USERS), strict=True)
    return [[int(i) % ITEMS for i in range(start, start + n)] for start, n in walks]


def make_retriever(**options):
    return rfrec.GenerativeRetriever(make_codes(), **(TINY | options))


@pytest.fixture(scope="module")
def fitted():
    return make_retriever().fit(make_histories())


def score_all_items(retriever, history):
    """Scores every item by itself: mean log-probability of its codes and the end."""
    words = retriever.vocabulary
    table = vocab.item_tokens(words, "text", retriever.codes["text"])
    encoded = [*np.concatenate([table[i] for i in history[-5:]]), vocab.END]
    labels = np.pad(table, ((0, 0), (0, 1)), constant_values=vocab.END)
    arch = builders.build_architecture(retriever.options, words)
    tokens = jnp.tile(jnp.asarray(encoded, jnp.int32), (ITEMS, 1))
    logits = t5.T5(arch).apply(
        {"params": retriever.params}, tokens, t5.shift_right(jnp.asarray(labels))
    )
    logs = np.take_along_axis(np.asarray(log_softmax(logits)), labels[..., None], 2)
    return logs[..., 0].mean(axis=1)


def test_recommend_equals_scoring_all_items(fitted):
    histories = [[3, 4], [0, 1, 2, 3, 4, 5, 6, 7], [9]]
    items, scores = fitted.recommend(histories, k=ITEMS)
    for history, found, values in zip(histories, items, scores, strict=True):
        wanted = score_all_items(fitted, history)
        assert sorted(found.tolist()) == list(range(ITEMS))
        np.testing.assert_allclose(values, wanted[found], atol=1e-5)
        np.testing.assert_allclose(values, np.sort(wanted)[::-1], atol=1e-5)


def test_filters_remove_items_and_keep_the_order(fitted):
    history = [3, 4, 5]
    ranked = fitted.recommend([history], k=ITEMS)[0][0].tolist()
    items, scores = fitted.recommend(
        [history], k=ITEMS, filter_seen=True, allow=range(1, 10), deny=[7]
    )
    wanted = [i for i in ranked if 1 <= i < 10 and i not in (3, 4, 5, 7)]
    assert items[0].tolist() == wanted + [-1] * (ITEMS - len(wanted))
    assert np.isfinite(scores).all()


def test_evaluate_equals_metrics_of_recommended_lists(fitted):
    histories = make_histories()
    for which, held in (("test", 1), ("valid", 2)):
        items, _ = fitted.recommend([h[:-held] for h in histories], k=20)
        targets = np.array([h[-held] for h in histories])
        wanted = report.means(metrics.match(items, targets))
        assert fitted.evaluate(which) == pytest.approx(wanted)
        ranks = [row.tolist().index(t) for row, t in zip(items, targets, strict=True)]
        assert wanted["hr@5"] == pytest.approx(np.mean(np.array(ranks) < 5))


def test_a_saved_retriever_is_read_back(fitted, tmp_path):
    fitted.save(tmp_path)
    loaded = rfrec.GenerativeRetriever.load(tmp_path)
    assert loaded.options == fitted.options
    assert repr(loaded) == repr(fitted)
    for one, other in zip(
        loaded.recommend([[1, 2]], k=5), fitted.recommend([[1, 2]], k=5), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert loaded.evaluate() == fitted.evaluate()
    (tmp_path / "arrays.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"arrays\.npz cannot be read"):
        rfrec.GenerativeRetriever.load(tmp_path)


def test_an_interrupted_fit_resumes_with_the_same_result(fitted, tmp_path, monkeypatch):
    add, calls = loop.Progress.add, []

    def stop(self, found, schedule):
        calls.append(self.step)
        if self.step > schedule.steps_per_epoch * 2:
            raise KeyboardInterrupt
        return add(self, found, schedule)

    monkeypatch.setattr(loop.Progress, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        make_retriever().fit(make_histories(), workdir=tmp_path)
    monkeypatch.setattr(loop.Progress, "add", add)
    resumed = make_retriever().fit(make_histories(), workdir=tmp_path)
    for one, other in zip(
        resumed.recommend([[1, 2], [5]], k=5),
        fitted.recommend([[1, 2], [5]], k=5),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match="histories, codes or options are not those"):
        make_retriever(lr=0.1).fit(make_histories(), workdir=tmp_path)


def test_two_modalities_are_two_tasks():
    codes = {"text": make_codes(), "image": make_codes(1)}
    retriever = rfrec.GenerativeRetriever(codes, **TINY)
    assert retriever.options.task.names == ("seqrec", "seqimage")
    assert rfrec.GenerativeRetriever(
        {"image": make_codes()}, **TINY
    ).options.task.names == ("seqimage",)


def test_the_representation_is_one_line(fitted):
    assert repr(make_retriever()) == (
        "GenerativeRetriever(12 items, text codes of 3 levels, d_model=8, 1+1 layers,"
        " not fitted)"
    )
    assert "fitted on 30 users" in repr(fitted)


@pytest.mark.parametrize(
    ("codes", "options", "message"),
    [
        (np.zeros(3, int), {}, r"codes: expected an array \[items, levels\]"),
        (np.zeros((3, 2)), {}, "of integers, found shape .3, 2. of float64"),
        (np.array([[0, 1], [0, -1]]), {}, r"codes: row 1 is \[0, -1\]"),
        ({"sound": make_codes()}, {}, "codes of 'sound': use 'text' and 'image'"),
        (
            {"text": make_codes(), "image": make_codes()[:5]},
            {},
            "different numbers of items: text 12, image 5",
        ),
        (make_codes(), {"d_modle": 8}, "d_modle"),
        (make_codes(), {"epochs": 0}, "epochs=0: must be an integer of at least 1"),
        (make_codes(), {"names": ("seqimage",)}, "need image codes"),
        (make_codes(), {"min_lr": 1.0}, "min_lr=1.0 is above"),
    ],
)
def test_wrong_codes_and_options_are_refused_in_one_line(codes, options, message):
    with pytest.raises(UserError, match=message) as error:
        rfrec.GenerativeRetriever(codes, **options)
    assert "\n" not in str(error.value)


def test_wrong_histories_are_refused_by_name(fitted):
    for call, message in (
        (lambda: fitted.recommend([[1], [2, 99]]), "user '1': item 99 is not in"),
        (lambda: fitted.recommend([[]]), "user '0' has an empty history"),
        (lambda: fitted.recommend([[1]], k=0), "k=0"),
        (lambda: fitted.recommend([[1]], deny=[12]), "deny: item 12 is not in"),
        (lambda: fitted.recommend([[1]], allow=[]), "leave no item"),
        (lambda: fitted.evaluate("train"), "'train'"),
        (lambda: make_retriever().fit([[1, 2, 3], [1, 2]]), "history 1 has 2 items"),
        (lambda: make_retriever().recommend([[1]]), "not fitted; call fit first"),
        (lambda: make_retriever().evaluate(), "not fitted"),
    ):
        with pytest.raises(UserError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
    codes = make_codes()
    codes[4] = -1
    retriever = rfrec.GenerativeRetriever(codes, **TINY)
    with pytest.raises(UserError, match="user '1': item 4 has no codes"):
        retriever.fit([[1, 2, 3], [3, 4, 5]])
