# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Padded arrays of histories: the latest items, distinct seen items, users."""

import numpy as np

from rfrec.retrieval import queries

HISTORIES = [[5, 3, 5, 3, 9], [7], [1, 2]]


def test_the_latest_items_are_packed_and_padded():
    packed = queries.pack(HISTORIES, 3)
    inputs = queries.pad(packed, 4)
    assert inputs.keys() == {"histories", "lengths"}
    assert inputs["lengths"].tolist() == [3, 1, 2]
    assert inputs["histories"].tolist() == [
        [5, 3, 9, -1],
        [7, -1, -1, -1],
        [1, 2, -1, -1],
    ]
    assert {array.dtype for array in inputs.values()} == {np.dtype(np.int32)}


def test_seen_items_are_those_of_the_whole_history_each_once():
    inputs = queries.pad(queries.pack(HISTORIES, 1), 2, seen_width=6)
    assert inputs["seen"].shape == (3, 6)
    for row, history in zip(inputs["seen"], HISTORIES, strict=True):
        assert sorted(row[row >= 0].tolist()) == sorted(set(history))


def test_rows_and_users_are_taken_together():
    packed = queries.pack(HISTORIES, 3)._replace(users=np.array([4, 5, 6], np.int32))
    inputs = queries.pad(packed.take(np.array([2, 0])), 3)
    assert inputs["users"].tolist() == [6, 4]
    assert inputs["histories"].tolist() == [[1, 2, -1], [5, 3, 9]]
