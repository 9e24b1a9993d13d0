# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Metrics by their definitions, written out item by item."""

import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from rfrec.config import UserError
from rfrec.evaluation import metrics

CUTOFFS = (1, 2, 5, 10, 30)


def lists(num_users=40, num_items=60, length=12, most=7, seed=0):
    """Ranked lists without repeats, and one to `most` relevant items for each user."""
    rng = np.random.default_rng(seed)
    ranked = np.stack([rng.permutation(num_items)[:length] for _ in range(num_users)])
    relevant = np.full((num_users, most), -1)
    for row in relevant:
        number = rng.integers(1, most + 1)
        row[:number] = rng.choice(num_items, number, replace=False)
    return ranked, relevant


def oracle(name, row, wanted, k):
    """One user's metric, by the textbook."""
    wanted = {int(item) for item in wanted if item >= 0}
    hits = [int(item) in wanted for item in row[:k]]
    ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
    if name == "hr":
        return float(bool(ranks))
    if name == "recall":
        return len(ranks) / len(wanted)
    if name == "precision":
        return len(ranks) / k
    if name == "mrr":
        return 1 / ranks[0] if ranks else 0.0
    best = range(1, min(k, len(wanted)) + 1)
    if name == "ndcg":
        gain = sum(1 / math.log2(rank + 1) for rank in ranks)
        return gain / sum(1 / math.log2(rank + 1) for rank in best)
    precisions = [sum(hits[:rank]) / rank for rank in ranks]
    return sum(precisions) / len(best)


@pytest.mark.parametrize("name", ["hr", "recall", "precision", "ndcg", "map", "mrr"])
@pytest.mark.parametrize("most", [1, 7])
def test_metrics_follow_their_definitions(name, most):
    ranked, relevant = lists(most=most)
    found = metrics.match(ranked, relevant)
    for k in CUTOFFS:
        ours = metrics.per_user(found, (f"{name}@{k}",))[f"{name}@{k}"]
        wanted = [oracle(name, *pair, k) for pair in zip(ranked, relevant, strict=True)]
        np.testing.assert_allclose(ours, wanted, rtol=1e-12)


def test_ndcg_equals_that_of_scikit_learn():
    ranked, relevant = lists(length=60)
    found = metrics.match(ranked, relevant)
    truth = np.zeros((40, 60))
    scores = np.zeros((40, 60))
    for user in range(40):
        truth[user, relevant[user][relevant[user] >= 0]] = 1
        scores[user, ranked[user]] = np.arange(60, 0, -1)
    for k in (1, 5, 60):
        wanted = sklearn_metrics.ndcg_score(truth, scores, k=k)
        np.testing.assert_allclose(metrics.ndcg(found, k).mean(), wanted, rtol=1e-12)


def test_one_target_may_be_given_without_padding():
    ranked, relevant = lists(most=1)
    one, other = (metrics.match(ranked, r) for r in (relevant, relevant[:, 0]))
    np.testing.assert_array_equal(one.hit, other.hit)
    np.testing.assert_array_equal(one.relevant, other.relevant)


def test_entries_that_are_no_items_keep_their_rank_and_never_hit():
    ranked = np.array([[3, -1, 5], [3, 4, 5]])
    relevant = np.array([[5, -1], [5, 3]])
    valid = np.array([[True, True, True], [False, True, True]])
    found = metrics.match(ranked, relevant, valid)
    wanted = [[False, False, True], [False, False, True]]
    np.testing.assert_array_equal(found.hit, wanted)
    np.testing.assert_allclose(metrics.reciprocal_rank(found, 3), [1 / 3, 1 / 3])


def test_an_item_listed_twice_hits_once():
    found = metrics.match(np.array([[7, 7, 2]]), np.array([[7, 2, 7]]))
    np.testing.assert_array_equal(found.hit, [[True, False, True]])
    assert found.relevant.tolist() == [2]
    assert metrics.recall(found, 3).tolist() == [1.0]


def test_users_without_relevant_items_have_no_value():
    found = metrics.match(np.array([[1, 2], [1, 2]]), np.array([[-1], [2]]))
    for name, values in metrics.per_user(found, ("hr@2", "ndcg@2", "map@2")).items():
        assert np.isnan(values[0]), name
        assert values[1] > 0, name


def test_without_a_cutoff_the_whole_list_counts():
    ranked, relevant = lists()
    values = metrics.per_user(metrics.match(ranked, relevant), ("mrr", "mrr@12"))
    np.testing.assert_array_equal(values["mrr"], values["mrr@12"])


@pytest.mark.parametrize("name", ["auc@3", "hr@0", "hr@", "ndcg@x", ""])
def test_an_unknown_metric_is_refused(name):
    found = metrics.match(*lists())
    with pytest.raises(UserError, match="does not exist: use one of hr, recall"):
        metrics.per_user(found, (name,))


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=25)
def test_values_lie_between_0_and_1_and_grow_with_what_is_found(seed):
    ranked, relevant = lists(num_users=5, seed=seed)
    found = metrics.match(ranked, relevant)
    for name in ("hr", "recall", "mrr"):
        columns = [metrics.per_user(found, (f"{name}@{k}",)) for k in CUTOFFS]
        table = np.stack([next(iter(column.values())) for column in columns])
        assert (np.diff(table, axis=0) >= 0).all()
        assert table.min() >= 0
        assert table.max() <= 1


def test_coverage_counts_distinct_items_of_all_lists():
    ranked = np.array([[0, 1, 2], [1, 0, -1]])
    assert metrics.coverage(ranked, 10, 2) == 0.2
    assert metrics.coverage(ranked, 10, 3) == 0.3


def test_vector_distance_is_the_mean_over_all_pairs(monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK", 7)
    ranked, _ = lists()
    ranked[0, 2:] = -1
    ranked[1, 1:] = -1
    vectors = np.random.default_rng(1).normal(size=(60, 5)).astype(np.float32)
    vectors[9] = 0
    ours = metrics.vector_distance(ranked, vectors, 6)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    for user, row in enumerate(ranked):
        items = row[:6][row[:6] >= 0]
        pairs = [
            1 - float(unit[a] @ unit[b])
            for i, a in enumerate(items)
            for b in items[i + 1 :]
        ]
        if pairs:
            np.testing.assert_allclose(ours[user], np.mean(pairs), atol=1e-6)
        else:
            assert np.isnan(ours[user])


def test_code_distance_is_the_mean_share_of_differing_levels(monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK", 7)
    ranked, _ = lists()
    ranked[0, 2:] = -1
    ranked[1, 1:] = -1
    codes = np.random.default_rng(1).integers(0, 3, size=(60, 4))
    ours = metrics.code_distance(ranked, codes, 6)
    for user, row in enumerate(ranked):
        items = row[:6][row[:6] >= 0]
        pairs = [
            np.mean(codes[a] != codes[b])
            for i, a in enumerate(items)
            for b in items[i + 1 :]
        ]
        if pairs:
            np.testing.assert_allclose(ours[user], np.mean(pairs))
        else:
            assert np.isnan(ours[user])


def test_rows_of_many_relevant_items_match_as_padded_ones_do():
    rng = np.random.default_rng(5)
    ranked = np.stack([rng.permutation(40)[:12] for _ in range(50)])
    ranked[:, -2:] = np.where(rng.random((50, 2)) < 0.5, -1, ranked[:, -2:])
    rows = [np.sort(rng.permutation(45)[: rng.integers(0, 9)]) for _ in range(50)]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    padded = np.full((50, 9), -1)
    for user, row in enumerate(rows):
        padded[user, : len(row)] = row
    wanted = metrics.match(ranked, padded)
    found = metrics.match_rows(ranked, indptr, np.concatenate(rows))
    np.testing.assert_array_equal(found.hit, wanted.hit)
    np.testing.assert_array_equal(found.relevant, wanted.relevant)


def test_nobody_hits_without_relevant_items():
    found = metrics.match_rows(np.array([[1, 0]]), np.array([0, 0]), np.zeros(0, int))
    assert not found.hit.any()
    assert np.isnan(metrics.recall(found, 2)).all()


def test_a_group_of_items_keeps_its_members():
    members = np.array([True, False, True, True])
    indptr, items = metrics.restrict(
        np.array([0, 2, 3, 3, 5]), np.array([0, 1, 1, 2, 3]), members
    )
    assert indptr.tolist() == [0, 1, 1, 1, 3]
    assert items.tolist() == [0, 2, 3]
