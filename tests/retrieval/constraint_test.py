# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The memory that masks of seen items take; their results are the search's tests."""

import jax
import jax.numpy as jnp
import numpy as np

from rfrec.codes import trie
from rfrec.retrieval import constraint


def test_users_with_thousands_of_seen_items_take_little_memory():
    items, users, beams = 4096, 64, 4
    codes = np.stack(np.divmod(np.arange(items), 64), axis=1)
    index = trie.build(codes, (64, 64))
    # All items but those of the first branch; of the last user, no item at all.
    seen = np.tile(np.arange(items), (users, 1))
    seen[:, :64] = -1
    seen[-1] = -1
    allowed = constraint.make_filter(index, seen=seen)
    table = trie.tables(index)[0]

    def legal(allowed, table):
        nodes = jnp.zeros((users, beams), jnp.int32)
        children, _, there = constraint.children_of(table, nodes, 64)
        return there & constraint.mask_children(allowed, 0, table, nodes, children)

    compiled = jax.jit(legal).lower(allowed, table).compile()
    found = np.asarray(compiled(allowed, table))
    wanted = [[1] * beams] * (users - 1) + [[64] * beams]
    np.testing.assert_array_equal(found.sum(axis=2), wanted)
    # One bit for each pair of a user's seen items would be 128 MiB.
    sizes = compiled.memory_analysis()
    assert sizes is not None
    assert sizes.temp_size_in_bytes < 100 * 2**20
