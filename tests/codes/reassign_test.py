# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""MQL4GRec's repair against its recorded results and a walk written out plainly."""

from pathlib import Path

import numpy as np
import pytest

from rfrec.codes import reassign

GOLDEN = Path(__file__).parents[2] / "third_party" / "golden"


@pytest.mark.parametrize("name", ["light", "heavy"])
def test_reassign_reproduces_recorded_codes(name):
    with np.load(GOLDEN / f"mql4grec_repair_{name}.npz", allow_pickle=False) as file:
        after = reassign.reassign(file["codes_before"], file["distances"])
        np.testing.assert_array_equal(after, file["codes_after"])
    assert len(after) - len(np.unique(after, axis=0)) == 27


def places_to_try(own, order_upper, order_last, rank):
    """Yields the places an item tries, entries as (code, whether it was written)."""
    *head, upper, last = own
    yield own
    for code in order_last[rank:]:
        yield (*head, upper, (code, True))
    for bumped in order_upper[1:]:
        yield (*head, (bumped, True), last)
        for code in order_last:
            yield (*head, (bumped, True), (code, True))


def walk(codes, upper, last, passes):
    """Does the procedure over all items, with one set of taken tuples."""
    items = [tuple((code, False) for code in row) for row in codes.tolist()]
    taken = set(items)
    for _ in range(passes):
        groups = {}
        for item, own in enumerate(items):
            groups.setdefault(own, []).append(item)
        for group in groups.values():
            group.sort(key=lambda item: last[item].min())
            for rank, item in list(enumerate(group))[1:]:
                for place in places_to_try(
                    items[item],
                    upper[item].argsort(kind="stable").tolist(),
                    last[item].argsort(kind="stable").tolist(),
                    rank,
                ):
                    if place not in taken:
                        break
                items[item] = place
                taken.add(place)
    return np.array([[code for code, _ in item] for item in items])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("sizes", [(2, 3), (4, 1), (1, 4), (3, 3, 3), (2, 3, 2, 5)])
def test_reassign_equals_plain_walk(seed, sizes):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, np.maximum(1, np.array(sizes) - 1), (40, len(sizes)))
    upper, last = rng.random((40, sizes[-2])), rng.random((40, sizes[-1]))
    for passes in (0, 1, 2, 3):
        found = reassign.reassign_with(
            codes, sizes[-2:], lambda rows: (upper[rows], last[rows]), passes=passes
        )
        np.testing.assert_array_equal(found, walk(codes, upper, last, passes))


def test_reassign_asks_only_for_items_in_conflict():
    codes = np.array([[0, 0], [1, 0], [1, 0], [2, 2], [1, 1]])
    asked = []

    def distances_of(rows):
        asked.extend(rows.tolist())
        return np.ones((len(rows), 3)), np.tile([0.1, 0.2, 0.3], (len(rows), 1))

    after = reassign.reassign_with(codes, (3, 3), distances_of)
    assert set(asked) == {1, 2}
    # The place (1, 1) is item 4's, but was never written: it counts as free.
    assert after.tolist() == [[0, 0], [1, 0], [1, 1], [2, 2], [1, 1]]


def test_reassign_of_one_level():
    codes = np.zeros((3, 1), np.int32)
    distances = np.array([[[0.0, 1, 2]], [[0.1, 2, 1]], [[0.2, 1, 2]]])
    # Item 2 starts at its neighbour 2, which item 1 took; the next pass settles it.
    once = reassign.reassign(codes, distances, passes=1)
    assert once.tolist() == [[0], [2], [2]]
    assert reassign.reassign(codes, distances).tolist() == [[0], [2], [1]]


def test_reassign_leaves_its_input_alone():
    codes = np.zeros((4, 2), np.int64)
    reassign.reassign(codes, np.random.default_rng(0).random((4, 2, 3)))
    assert not codes.any()
