# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cold and popular targets."""

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.evaluation import groups

COUNTS = np.array([0, 1, 1, 2, 3, 4, 5, 8, 9, 9])


def test_cold_and_popular_are_the_ends_of_the_catalogue():
    split = groups.by_popularity(np.arange(10), COUNTS, share=0.1)
    assert np.flatnonzero(split.cold).tolist() == [0]
    # The tie at 9 is taken whole.
    assert np.flatnonzero(split.popular).tolist() == [8, 9]
    assert (split.cold_most, split.popular_least) == (0, 9)


def test_cold_may_be_a_number_of_occurrences():
    split = groups.by_popularity(np.array([3, 3, 4, 9]), COUNTS, cold_below=3)
    assert split.cold.tolist() == [True, True, False, False]
    assert split.popular.tolist() == [False, False, False, True]


def test_nobody_is_in_both_groups():
    split = groups.by_popularity(np.arange(10), np.ones(10, int))
    assert split.cold.all()
    assert not split.popular.any()


def test_items_are_counted_up_to_the_last_of_the_catalogue():
    assert groups.count_items(np.array([1, 1, 0]), 4).tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize("settings", [{"share": 0.0}, {"share": 0.6}])
def test_a_share_out_of_range_is_refused(settings):
    with pytest.raises(UserError, match="above 0 and at most 0.5"):
        groups.by_popularity(np.arange(3), COUNTS, **settings)


def test_a_bound_that_makes_nothing_cold_is_refused():
    with pytest.raises(UserError, match="cold_below=0: must be at least 1"):
        groups.by_popularity(np.arange(3), COUNTS, cold_below=0)


def test_items_are_cold_tail_or_head():
    split = groups.of_items(COUNTS, share=0.2)
    assert np.flatnonzero(split.cold).tolist() == [0, 1, 2]
    assert np.flatnonzero(split.head).tolist() == [8, 9]
    np.testing.assert_array_equal(split.tail, ~split.head)
    assert (split.cold_most, split.head_least) == (1, 9)
    assert groups.of_items(COUNTS, cold_below=1).cold.tolist() == [True] + [False] * 9


def test_items_refuse_a_share_out_of_range():
    with pytest.raises(UserError, match="above 0 and at most 0.5"):
        groups.of_items(COUNTS, share=0.7)
