# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bootstrap intervals: determinism, coverage, pairs."""

import time

import numpy as np
import pytest
from scipy import stats

from rfrec.config import UserError
from rfrec.evaluation import significance


def test_an_interval_is_decided_by_the_seed():
    values = np.random.default_rng(0).random(500)
    one, same, other = (significance.interval(values, seed=s) for s in (1, 1, 2))
    assert one == same
    assert one != other
    assert one.low < one.mean < one.high
    assert one.users == 500


def test_an_interval_is_as_wide_as_the_normal_approximation():
    values = (np.random.default_rng(0).random(4000) < 0.1).astype(float)
    found = significance.interval(values, resamples=4000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    np.testing.assert_allclose(found.high - found.mean, half, rtol=0.1)
    np.testing.assert_allclose(found.mean - found.low, half, rtol=0.1)


def test_intervals_hold_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        found = significance.interval(
            rng.normal(2.0, 1.0, 60), resamples=300, seed=trial, level=0.9
        )
        held += found.low <= 2.0 <= found.high
    assert 0.83 <= held / 200 <= 0.95


def test_a_paired_difference_sees_what_separate_intervals_hide():
    rng = np.random.default_rng(0)
    theirs = rng.normal(size=800)
    ours = theirs + 0.05 + 0.1 * rng.normal(size=800)
    found = significance.difference(ours, theirs)
    assert found.low > 0
    np.testing.assert_allclose(found.mean, (ours - theirs).mean())
    alone = [significance.interval(x) for x in (ours, theirs)]
    assert alone[0].low < alone[1].high


def test_the_values_of_a_pair_belong_to_the_same_users():
    with pytest.raises(UserError, match="3 with 4 users: both systems need the same"):
        significance.difference(np.zeros(3), np.zeros(4))


def test_undefined_values_are_left_out():
    found = significance.interval(np.array([1.0, np.nan, 3.0]))
    assert (found.mean, found.users) == (2.0, 2)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([], (None, None, None, 0)), ([0.5], (0.5, None, None, 1))],
)
def test_too_few_users_have_no_interval(values, wanted):
    assert significance.interval(np.array(values)) == wanted


def test_equal_values_have_an_interval_of_no_width():
    assert significance.interval(np.ones(9)) == (1.0, 1.0, 1.0, 9)


def test_seventeen_thousand_users_take_a_moment():
    values = (np.random.default_rng(0).random(17_112) < 0.1).astype(float)
    start = time.process_time()
    significance.interval(values)
    assert time.process_time() - start < 5


def test_a_paired_test_gives_the_values_of_scipy():
    rng = np.random.default_rng(1)
    theirs = rng.random(80)
    ours = theirs + np.where(rng.random(80) < 0.5, 0, rng.normal(0.1, 0.2, 80))
    ours[3] = np.nan
    found = significance.paired(ours, theirs)
    kept = ~np.isnan(ours)
    t = stats.ttest_rel(ours[kept], theirs[kept]).pvalue
    moved = kept & (ours != theirs)
    w = stats.wilcoxon(ours[moved], theirs[moved]).pvalue
    np.testing.assert_allclose(np.array(found[4:]), (t, w))
    assert found[:4] == significance.difference(ours, theirs)
    assert found.users == 79


@pytest.mark.parametrize("cutoff", [1, 7, 50])
def test_means_over_seeds_are_ranked_as_the_counts_that_they_are_of(cutoff):
    """Differences of thirds, equal but for their last bit, are ties."""
    rng = np.random.default_rng(2)
    chances = rng.random((600, 1))
    theirs, ours = (
        (rng.random((600, 3)) < chances + gain) / cutoff for gain in (0, 0.04)
    )
    found = significance.paired(ours.mean(axis=1), theirs.mean(axis=1))
    counts = np.round((ours - theirs).sum(axis=1) * cutoff).astype(int)
    wanted = stats.wilcoxon(counts[counts != 0]).pvalue
    assert 1e-6 < wanted < 0.5
    np.testing.assert_allclose(found.p_wilcoxon, wanted)
    t = stats.ttest_1samp(counts, 0).pvalue
    np.testing.assert_allclose(found.p_t, t, rtol=1e-6)


def test_equal_systems_do_not_differ():
    found = significance.paired(np.ones(9), np.ones(9))
    assert found == (0.0, 0.0, 0.0, 9, 1.0, 1.0)
    assert significance.paired(np.ones(9), np.zeros(9)).p_t == 0.0
    assert significance.paired(np.ones(1), np.ones(1)).p_t is None


def test_a_mean_over_seeds_has_the_interval_of_students_t():
    values = np.array([0.21, 0.24, 0.2, 0.25])
    mean, half = significance.over_seeds(values, level=0.9)
    low, high = stats.t.interval(0.9, 3, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose([mean - half, mean + half], [low, high])
    assert significance.over_seeds(values[:1]) == (0.21, None)
