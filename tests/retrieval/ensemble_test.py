# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Merged lists, compared with dictionaries, and with MQL4GRec's recorded metrics."""

from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from rfrec.config import UserError
from rfrec.evaluation import metrics, ranking
from rfrec.retrieval import ensemble

GOLDEN = Path(__file__).parents[2] / "third_party" / "golden" / "mql4grec_ensemble.npz"


def lists(num_users=30, num_items=25, length=8, seed=0, ragged=True):
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(num_items)[:length] for _ in range(num_users)])
    scores = -np.sort(rng.random(items.shape), axis=1)
    if ragged:
        items[
            np.arange(length)[None] >= rng.integers(0, length + 1, (num_users, 1))
        ] = -1
    return ranking.Lists(items, scores)


def as_dicts(found):
    return [
        {int(i): float(s) for i, s in zip(items, scores, strict=True) if i >= 0}
        for items, scores in zip(*found, strict=True)
    ]


def oracle(first, second, rule, keep):
    """Items of each user by a dictionary and a stable sort."""
    merged = []
    for a, b in zip(as_dicts(first), as_dicts(second), strict=True):
        scores = {item: rule(a, b, item) for item in {**a, **b}}
        merged.append(sorted(scores, key=lambda item: -scores[item])[:keep])
    return merged


def trimmed(found):
    return [row[row >= 0].tolist() for row in found.items]


def test_mql4grec_equals_its_recorded_metrics():
    with np.load(GOLDEN, allow_pickle=False) as file:
        text, image = (
            ranking.Lists(file[f"{m}_items"], file[f"{m}_scores"])
            for m in ("text", "image")
        )
        names = [str(n).replace("hit", "hr") for n in file["metric_names"]]
        for found, key in (
            (ensemble.mql4grec(text, image), "metrics"),
            (text, "text_only_metrics"),
        ):
            values = metrics.per_user(metrics.match(found.items, file["target"]), names)
            ours = [values[name].mean() for name in names]
            np.testing.assert_allclose(ours, file[key], rtol=1e-12)


def test_mql4grec_puts_what_both_found_first():
    first, second = lists(seed=1), lists(seed=2)

    def rule(a, b, item):
        if item in a and item in b:
            return (a[item] + b[item]) / 2 + 1
        return a.get(item, b.get(item))

    merged = ensemble.mql4grec(first, second, keep=10)
    assert trimmed(merged) == oracle(first, second, rule, 10)


def test_weighted_scores_follow_their_formula():
    first, second = lists(seed=1), lists(seed=2)

    def rule(a, b, item):
        one = a.get(item, min(a.values(), default=0.0))
        two = b.get(item, min(b.values(), default=0.0))
        return 0.3 * one + 0.7 * two

    merged = ensemble.weighted(first, second, 0.3, keep=10)
    wanted = oracle(first, second, rule, 10)
    for user, (items, scores) in enumerate(zip(*merged, strict=True)):
        valid = items >= 0
        assert valid.sum() == len(wanted[user])
        a, b = as_dicts(first)[user], as_dicts(second)[user]
        # The last of a list and an item it lacks tie: scores decide, not the order.
        ours = [rule(a, b, int(item)) for item in items[valid]]
        np.testing.assert_allclose(ours, [rule(a, b, item) for item in wanted[user]])
        np.testing.assert_allclose(scores[valid], ours, rtol=1e-6)


def test_weighted_at_its_ends_begins_with_one_list():
    first, second = lists(seed=1), lists(seed=2)
    for alpha, whole in ((1.0, first), (0.0, second)):
        merged = trimmed(ensemble.weighted(first, second, alpha))
        for ours, own in zip(merged, trimmed(whole), strict=True):
            assert ours[: len(own)] == own


def test_reciprocal_ranks_follow_their_formula():
    first, second = lists(seed=1), lists(seed=2)

    def rule(a, b, item):
        return sum(1 / (60 + 1 + list(x).index(item)) for x in (a, b) if item in x)

    merged = ensemble.reciprocal_ranks(first, second, keep=10)
    assert trimmed(merged) == oracle(first, second, rule, 10)


def test_alpha_is_the_best_of_those_tried():
    first, second = lists(seed=1, ragged=False), lists(seed=2, ragged=False)
    targets = first.items[:, 0]
    choice = ensemble.choose_alpha(first, second, targets)
    assert choice.value == max(choice.values)
    for alpha, value in zip(choice.alphas, choice.values, strict=True):
        found = metrics.match(ensemble.weighted(first, second, alpha).items, targets)
        np.testing.assert_allclose(metrics.ndcg(found, 10).mean(), value)
    assert choice.alpha > 0.5
    assert ensemble.choose_alpha(first, second, second.items[:, 0]).alpha < 0.5


def test_of_equally_good_weights_the_middle_is_chosen():
    found = lists(ragged=False)
    assert ensemble.choose_alpha(found, found, found.items[:, 0]).alpha == 0.5


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=30)
def test_merged_lists_hold_each_item_of_either_list_once(seed):
    first = lists(num_users=6, length=5, num_items=9, seed=seed)
    second = lists(num_users=6, length=7, num_items=9, seed=seed + 1)
    for merged in (
        ensemble.mql4grec(first, second),
        ensemble.weighted(first, second, 0.5),
        ensemble.reciprocal_ranks(first, second),
    ):
        for ours, a, b in zip(
            trimmed(merged), trimmed(first), trimmed(second), strict=True
        ):
            assert len(ours) == len(set(ours))
            assert set(ours) == set(a) | set(b)
        assert np.isfinite(merged.scores).all()
        for items, scores in zip(*merged, strict=True):
            assert (np.diff(scores[items >= 0]) <= 0).all()
            assert (np.diff((items < 0).astype(int)) >= 0).all()


def test_an_item_listed_twice_counts_at_its_better_rank():
    twice = ranking.Lists(np.array([[4, 4, 5]]), np.array([[-0.1, -0.2, -0.3]]))
    other = ranking.Lists(np.array([[5, -1, -1]]), np.array([[-0.1, 0.0, 0.0]]))
    merged = ensemble.mql4grec(twice, other)
    assert trimmed(merged) == [[5, 4]]
    np.testing.assert_allclose(merged.scores[0, :2], [0.8, -0.1], rtol=1e-6)


def test_lists_of_other_users_are_refused():
    with pytest.raises(UserError, match="of lists of 3 and 4 users"):
        ensemble.reciprocal_ranks(lists(num_users=3), lists(num_users=4))


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_a_weight_out_of_range_is_refused(alpha):
    with pytest.raises(UserError, match="must be from 0 to 1"):
        ensemble.weighted(lists(), lists(), alpha)


def test_rescoring_sorts_candidates_by_the_other_scores():
    found = lists(seed=3)
    other = np.random.default_rng(4).normal(size=found.items.shape)
    made = ensemble.rescored(found, other, keep=5)
    for u, row in enumerate(trimmed(made)):
        scores = {
            int(i): s for i, s in zip(found.items[u], other[u], strict=True) if i >= 0
        }
        assert row == sorted(scores, key=lambda item: -scores[item])[:5]
        np.testing.assert_allclose(
            made.scores[u, : len(row)], [scores[item] for item in row], rtol=1e-6
        )


def test_standardized_scores_have_mean_0_and_deviation_1_in_each_list():
    found = lists(seed=6)
    made = ensemble.standardized(found)
    np.testing.assert_array_equal(made.items, found.items)
    for u, valid in enumerate(found.valid):
        scores = made.scores[u, valid]
        if valid.sum() > 1:
            np.testing.assert_allclose(scores.mean(), 0, atol=1e-9)
            np.testing.assert_allclose(scores.std(), 1, rtol=1e-9)
            assert (np.argsort(-scores) == np.argsort(-found.scores[u, valid])).all()
        else:
            assert not scores.any()
    assert np.isfinite(made.scores).all()
    # A weight then means the same whatever the scale of a system's scores.
    second = lists(seed=7)
    scaled = ranking.Lists(second.items, 1000 * second.scores + 5)
    both = [ensemble.standardized(x) for x in (second, scaled)]
    np.testing.assert_allclose(both[0].scores, both[1].scores, atol=1e-9)
