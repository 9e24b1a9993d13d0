# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Withheld items against loops over histories."""

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.data import cold_items, interactions
from rfrec.data.interactions import Interactions


def histories(num_users=40, num_items=30, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        rng.permutation(num_items - 2)[: rng.integers(3, 9)] for _ in range(num_users)
    ]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    names = tuple(f"u{user}" for user in range(num_users))
    return Interactions(indptr, np.concatenate(rows).astype(np.int32), num_items, names)


def test_withheld_items_stay_only_where_they_are_the_last():
    inter = histories()
    marks = cold_items.draw(inter, 0.3, seed=1)
    left = cold_items.withhold(inter, marks)
    expected = {}
    for user, name in enumerate(inter.user_ids):
        *before, last = inter.history(user).tolist()
        kept = [item for item in before if not marks[item]] + [last]
        if len(kept) >= 3:
            expected[name] = kept
    found = {n: left.history(row).tolist() for row, n in enumerate(left.user_ids)}
    assert found == expected and 0 < len(expected) < inter.num_users
    assert left.num_items == inter.num_items
    split = interactions.leave_one_out(left)
    assert not marks[split.train.items].any() and not marks[split.valid_items].any()
    assert marks[split.test_items].any()


def test_a_draw_is_of_used_items_and_goes_by_its_seed():
    inter = histories()
    used = np.unique(inter.items)
    marks = cold_items.draw(inter, 0.25, seed=3)
    assert marks.sum() == round(0.25 * len(used)) and set(np.flatnonzero(marks)) < set(
        used
    )
    np.testing.assert_array_equal(marks, cold_items.draw(inter, 0.25, seed=3))
    assert (marks != cold_items.draw(inter, 0.25, seed=4)).any()
    assert cold_items.draw(inter, 1e-9, seed=0).sum() == 1
    assert cold_items.draw(inter, 1 - 1e-9, seed=0).sum() == len(used) - 1


def test_withholding_too_much_is_refused():
    inter = histories()
    with pytest.raises(UserError, match="no user has 3 items left: withhold fewer"):
        cold_items.withhold(inter, np.ones(inter.num_items, bool))
