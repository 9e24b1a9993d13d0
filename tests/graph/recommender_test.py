# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The public class: lists against brute force, saving, resuming, errors."""

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.graph.recommender import GraphRecommender

USERS, ITEMS, COLD = 30, 25, 24
SMALL = {"width": 8, "epochs": 3, "batch_size": 32, "neighbours": 4}
FLOW = {"hidden_dim": 8, "rows": 16, "negatives": 4}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    has = rng.random((USERS, ITEMS)) < 0.3
    has[np.arange(USERS), np.arange(USERS) % 20] = True
    has[:, COLD] = False
    users, items = np.nonzero(has)
    features = {
        name: rng.standard_normal((ITEMS, width)).astype(np.float32)
        for name, width in (("text", 6), ("image", 5))
    }
    return users, items, features


@pytest.fixture(scope="module")
def plain(data):
    return GraphRecommender(**SMALL).fit(*data)


@pytest.fixture(scope="module")
def flow(data):
    return GraphRecommender(**SMALL, flow="improved", rf=FLOW).fit(*data)


def test_lists_are_the_best_products_of_the_embeddings(plain, data):
    rows = np.array([3, 0, 17, 3])
    scores = plain.user_embeddings[rows] @ plain.item_embeddings.T
    items, values = plain.recommend(rows, k=5, filter_seen=False)
    np.testing.assert_array_equal(items, np.argsort(-scores, axis=1)[:, :5])
    wanted = np.take_along_axis(scores, items, axis=1)
    np.testing.assert_allclose(values, wanted, rtol=1e-5)


def test_training_items_are_left_out_but_validation_items_are_not(data):
    users, items, features = data
    last = np.flatnonzero(np.r_[users[1:] != users[:-1], True])
    kept = np.setdiff1d(np.arange(len(users)), last)
    valid = users[last], items[last]
    model = GraphRecommender(**SMALL).fit(
        users[kept], items[kept], features, validation=valid
    )
    listed, scores = model.recommend(np.arange(USERS), k=ITEMS)
    for user in range(USERS):
        seen = items[kept][users[kept] == user]
        left = listed[user][listed[user] >= 0]
        assert set(left) == set(range(ITEMS)) - set(seen)
        assert np.isneginf(scores[user][listed[user] < 0]).all()
    ranks = np.argmax(listed == valid[1][:, None], axis=1)
    found = model.evaluate(*valid)
    np.testing.assert_allclose(found["recall@5"], np.mean(ranks < 5), rtol=1e-6)
    assert found["recall@20"] == pytest.approx(model.validation["recall@20"])


def test_a_ratio_of_zero_equals_plain_gume(plain, data):
    none = GraphRecommender(
        **SMALL, flow="improved", rf=FLOW | {"inference_mix_ratio": 0.0}
    ).fit(*data)
    np.testing.assert_array_equal(none.user_embeddings, plain.user_embeddings)
    np.testing.assert_array_equal(none.item_embeddings, plain.item_embeddings)


def test_behaviour_of_an_item_without_pairs_is_generated(plain, flow):
    known, mixed = plain.behaviour_embeddings(), flow.behaviour_embeddings()
    assert known.items.shape == mixed.items.shape == (ITEMS, 8)
    np.testing.assert_array_equal(known.items[:COLD], mixed.items[:COLD])
    assert np.abs(known.items[COLD] - mixed.items[COLD]).max() > 0


def test_a_saved_recommender_is_the_same(flow, tmp_path):
    flow.save(tmp_path / "saved")
    again = GraphRecommender.load(tmp_path / "saved")
    assert (again.options, again.flow) == (flow.options, flow.flow)
    assert again.validation == flow.validation
    assert repr(again) == repr(flow)
    for one, other in zip(
        flow.recommend(np.arange(USERS)), again.recommend(np.arange(USERS)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(
        flow.behaviour_embeddings(), again.behaviour_embeddings(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    (tmp_path / "saved" / "arrays.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="damaged"):
        GraphRecommender.load(tmp_path / "saved")


def test_a_workdir_resumes_to_the_same_result(plain, data, tmp_path):
    first = GraphRecommender(**SMALL).fit(*data, workdir=tmp_path)
    second = GraphRecommender(**SMALL).fit(*data, workdir=tmp_path)
    for model in (first, second):
        np.testing.assert_array_equal(model.item_embeddings, plain.item_embeddings)
    with pytest.raises(UserError, match="pairs, features or options"):
        GraphRecommender(**SMALL, seed=1).fit(*data, workdir=tmp_path)


@pytest.mark.parametrize("name", ["lightgcn", "popularity"])
def test_baselines_need_no_features(data, name):
    users, items, _ = data
    model = GraphRecommender(**SMALL, model=name).fit(users, items)
    listed, _ = model.recommend([0], k=3)
    assert listed.shape == (1, 3)
    assert name in repr(model)
    with pytest.raises(UserError, match="no behaviour embeddings"):
        model.behaviour_embeddings()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: GraphRecommender(epoch=3), "'epoch' does not exist.*epochs"),
        (lambda d: GraphRecommender(flow="best"), "'best' does not exist"),
        (lambda d: GraphRecommender(rf={"rows": 8}), "requires a flow"),
        (lambda d: GraphRecommender(model="knn"), "name='knn': must be one of"),
        (lambda d: GraphRecommender().recommend([0]), "not fitted"),
        (lambda d: GraphRecommender().fit(d[0], d[1]), "requires features"),
        (lambda d: GraphRecommender().fit(d[0] - 1, d[1], d[2]), "values from 0"),
        (
            lambda d: GraphRecommender().fit(d[0], d[1], {"text": d[2]["text"][:9]}),
            "has 9 rows",
        ),
    ],
)
def test_wrong_arguments_are_one_line(data, make, message):
    with pytest.raises(UserError, match=message) as error:
        make(data)
    assert "\n" not in str(error.value)


def test_wrong_queries_are_one_line(plain):
    with pytest.raises(UserError, match="user_rows"):
        plain.recommend([USERS])
    with pytest.raises(UserError, match="k=26"):
        plain.recommend([0], k=26)
