# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The most popular items come first, for everybody who does not have them."""

import jax
import numpy as np

from rfrec.data import pairs
from rfrec.evaluation import ranking
from rfrec.graph import popularity


def test_everybody_gets_the_most_popular_items_not_yet_had():
    users = np.array([0, 0, 1, 1, 2, 2, 2])
    items = np.array([3, 1, 3, 4, 3, 4, 0])
    train = pairs.select(users, items, 3)
    model = popularity.model(3)
    constants = popularity.constants(train.items, 6)
    found = model.encode(*model.init(jax.random.key(0)), constants, 0)
    assert found.items.shape == (6, 1)
    seen = (train.indptr, train.items)
    lists = ranking.rank_products(found.users, found.items, k=3, seen=seen)
    np.testing.assert_array_equal(lists.items, [[4, 0, 2], [0, 1, 2], [1, 2, 5]])
    loss, (parts, state) = model.loss({}, {}, constants, None, None, 0)
    assert (float(loss), parts, state) == (0.0, {}, {})
