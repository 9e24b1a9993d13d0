# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Repair against brute force: uniqueness, least distance, what stays untouched."""

import collections
import itertools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rfrec.codes import reassign, repair, table
from rfrec.config import UserError

METHODS = ("assign", "reassign", "suffix", "none")


def random_case(seed, items, sizes, used=None, width=3):
    """Draws codes from the first `used` codes of each level, so that they collide."""
    rng = np.random.default_rng(seed)
    used = used or sizes
    codes = rng.integers(0, used, (items, len(sizes))).astype(np.int32)
    latents = rng.standard_normal((items, width)).astype(np.float32)
    books = [rng.standard_normal((k, width)).astype(np.float32) for k in sizes]
    return codes, latents, books


def squared_distance(latent, place, books):
    rest = latent.astype(float)
    for book, code in zip(books, place, strict=True):
        rest = rest - book[code]
    return float((rest**2).sum())


def best_stay(rows, prefix, latents, books):
    """Tries every way to give distinct last codes to as many rows as there is room."""
    codes = range(len(books[-1]))
    cost = {
        (row, code): squared_distance(latents[row], (*prefix, code), books)
        for row in rows
        for code in codes
    }
    if len(rows) <= len(codes):
        ways = (
            tuple(zip(rows, way, strict=True))
            for way in itertools.permutations(codes, len(rows))
        )
    else:
        ways = (
            tuple(zip(way, codes, strict=True))
            for way in itertools.permutations(rows, len(codes))
        )
    return min(ways, key=lambda way: sum(cost[pair] for pair in way))


def brute_force(codes, latents, books):
    """Does `assign` by trying everything."""
    places = {}
    groups = collections.defaultdict(list)
    for row, code in enumerate(codes.tolist()):
        groups[tuple(code[:-1])].append(row)
    for prefix, rows in groups.items():
        own = {row: tuple(codes[row].tolist()) for row in rows}
        if len(set(own.values())) < len(rows):
            best = best_stay(rows, prefix, latents, books)
            own = {row: (*prefix, code) for row, code in best}
        places |= own
    taken = set(places.values())
    every = set(itertools.product(*(range(len(book)) for book in books)))
    for row in sorted(set(range(len(codes))) - set(places)):
        for kept in range(len(books) - 2, -1, -1):
            prefix = tuple(codes[row, :kept].tolist())
            free = [p for p in every - taken if p[:kept] == prefix]
            if free:
                break
        places[row] = min(
            free, key=lambda p: (squared_distance(latents[row], p, books), p)
        )
        taken.add(places[row])
    return np.array([places[row] for row in range(len(codes))])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("items", "sizes", "used"),
    [
        (6, (6,), (2,)),
        (8, (3, 5), (2, 3)),
        (12, (3, 2, 4), (3, 1, 2)),
        # Full prefixes: items move up one level, then more.
        (7, (4, 2), (1, 2)),
        (12, (4, 3), (2, 2)),
        (7, (3, 2, 2), (1, 1, 1)),
        (8, (2, 2, 2), (1, 1, 2)),
        (9, (2, 3, 1, 2), (1, 2, 1, 1)),
    ],
)
def test_assign_equals_brute_force(seed, items, sizes, used):
    codes, latents, books = random_case(seed, items, sizes, used)
    found = repair.repair(codes, latents, books)
    np.testing.assert_array_equal(found.codes, brute_force(codes, latents, books))


@st.composite
def cases(draw):
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    items = draw(st.integers(1, min(math.prod(sizes), 60)))
    used = [draw(st.integers(1, size)) for size in sizes]
    seed = draw(st.integers(0, 2**32 - 1))
    codes, _, _ = random_case(seed, items, sizes, used)
    # Small whole numbers: many exact ties and equal latents.
    values = st.integers(-2, 2).map(float)
    latents = draw(hnp.arrays(np.float32, (items, 2), elements=values))
    books = [draw(hnp.arrays(np.float32, (k, 2), elements=values)) for k in sizes]
    return codes, latents, books


@hypothesis.given(cases())
@hypothesis.settings(deadline=None, max_examples=150)
def test_assign_leaves_no_duplicate_and_touches_only_collisions(case):
    codes, latents, books = case
    sizes = tuple(map(len, books))
    found = repair.repair(codes, latents, books)
    assert len(set(map(tuple, found.codes.tolist()))) == len(codes)
    assert (found.codes >= 0).all() and (found.codes < sizes).all()
    assert (found.sizes, found.duplicates_left) == (sizes, 0)
    tuples = collections.Counter(map(tuple, codes.tolist()))
    colliding = {t[:-1] for t, count in tuples.items() if count > 1}
    kept = [tuple(code[:-1]) not in colliding for code in codes.tolist()]
    np.testing.assert_array_equal(found.codes[kept], codes[kept])
    assert found.moved == (found.codes != codes).any(1).sum()
    # A tuple can keep one item at most.
    assert found.moved >= len(codes) - len(tuples)
    again = repair.repair(found.codes, latents, books)
    assert again.moved == 0
    np.testing.assert_array_equal(again.codes, found.codes)


@hypothesis.given(cases(), st.sampled_from(METHODS))
@hypothesis.settings(deadline=None, max_examples=60)
def test_repair_is_deterministic_and_leaves_its_input_alone(case, method):
    codes, latents, books = case
    before = codes.copy()
    first = repair.repair(codes, latents, books, method)
    np.testing.assert_array_equal(codes, before)
    second = repair.repair(codes.astype(np.int64), latents.copy(), books, method)
    np.testing.assert_array_equal(first.codes, second.codes)
    assert first[1:] == second[1:]
    assert first.codes.dtype == np.int32


def test_assign_does_not_depend_on_the_order_of_items():
    codes, latents, books = random_case(0, 80, (4, 4, 16), (4, 3, 4))
    order = np.random.default_rng(1).permutation(80)
    plain = repair.repair(codes, latents, books)
    shuffled = repair.repair(codes[order], latents[order], books)
    np.testing.assert_array_equal(shuffled.codes, plain.codes[order])
    np.testing.assert_allclose(shuffled.cost_after, plain.cost_after)


def test_ties_go_to_the_lowest_items_and_codes():
    latents = np.zeros((5, 2), np.float32)
    books = [np.zeros((k, 2), np.float32) for k in (2, 2, 2)]
    found = repair.repair(np.zeros((5, 3), np.int32), latents, books)
    expected = [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0]]
    assert found.codes.tolist() == expected


def test_costs_are_mean_squared_distances():
    codes, latents, books = random_case(3, 40, (3, 4, 5), (2, 2, 2))
    for method in METHODS:
        found = repair.repair(codes, latents, books, method)
        for cost, table_ in ((found.cost_before, codes), (found.cost_after, found[0])):
            each = [
                squared_distance(z, row[:3], books)
                for z, row in zip(latents, table_, strict=True)
            ]
            np.testing.assert_allclose(cost, np.mean(each), rtol=1e-12)


def test_one_block_or_many_give_the_same(monkeypatch):
    codes, latents, books = random_case(4, 200, (6, 6, 20), (6, 4, 6))
    whole = repair.repair(codes, latents, books)
    monkeypatch.setattr(repair.assignment, "_BLOCK", 64)
    monkeypatch.setattr(repair.assignment, "_CHUNK", 7)
    parts = repair.repair(codes, latents, books)
    np.testing.assert_array_equal(whole.codes, parts.codes)
    np.testing.assert_allclose(whole.cost_after, parts.cost_after)


def test_all_items_at_one_place_are_spread():
    _, latents, books = random_case(5, 800, (12, 12, 12), width=8)
    found = repair.repair(np.zeros((800, 3), np.int32), latents, books)
    assert found.duplicates_left == 0
    assert found.moved == 799
    # The first 144 places keep the first code; the rest had to change it.
    assert (found.codes[:, 0] == 0).sum() == 144


def test_every_place_can_be_filled():
    _, latents, books = random_case(6, 60, (3, 4, 5))
    found = repair.repair(np.zeros((60, 3), np.int32), latents, books)
    assert len(np.unique(found.codes, axis=0)) == 60


def test_thirty_levels_are_repaired():
    """The product of sizes does not fit an integer key."""
    codes, latents, books = random_case(7, 60, (8,) * 30)
    codes[:] = codes[0]
    found = repair.repair(codes, latents, books)
    assert found.duplicates_left == 0
    assert (found.codes[:, :28] == codes[:, :28]).all()


def test_assign_costs_no_more_than_reassign():
    codes, latents, books = random_case(8, 300, (8, 8, 32), (8, 6, 8))
    best = repair.repair(codes, latents, books)
    other = repair.repair(codes, latents, books, "reassign")
    assert best.duplicates_left == 0
    assert best.cost_after <= other.cost_after


@pytest.mark.parametrize("sizes", [(4, 4, 4), (3, 4, 6), (9,)])
def test_reassign_uses_distances_along_the_own_residuals(sizes):
    codes, latents, books = random_case(9, 50, sizes, width=4)
    distances = []
    for level in range(len(sizes)):
        rest = latents.astype(float)
        for earlier in range(level):
            rest -= books[earlier][codes[:, earlier]]
        distances.append(((rest[:, None] - books[level][None]) ** 2).sum(2))
    upper = distances[-2] if len(sizes) > 1 else np.zeros((50, 1))
    expected = reassign.reassign_with(
        codes, sizes[-2:], lambda rows: (upper[rows], distances[-1][rows])
    )
    found = repair.repair(codes, latents, books, "reassign")
    np.testing.assert_array_equal(found.codes, expected)
    assert found.duplicates_left == 50 - len(np.unique(expected, axis=0))


def test_suffix_counts_earlier_equals():
    codes = np.array([[1, 0], [0, 0], [1, 0], [1, 1], [1, 0]], np.int32)
    _, latents, books = random_case(10, 5, (2, 2))
    found = repair.repair(codes, latents, books, "suffix")
    assert found.codes[:, 2].tolist() == [0, 0, 1, 0, 2]
    np.testing.assert_array_equal(found.codes[:, :2], codes)
    assert (found.sizes, found.moved, found.duplicates_left) == ((2, 2, 3), 2, 0)
    assert found.cost_after == found.cost_before


@hypothesis.given(cases())
@hypothesis.settings(deadline=None, max_examples=40)
def test_suffix_is_unique_and_fills_its_level(case):
    codes, latents, books = case
    found = repair.repair(codes, latents, books, "suffix")
    sizes = tuple(map(len, books))
    assert len(np.unique(found.codes, axis=0)) == len(codes)
    largest = table.statistics(codes, sizes).largest_group
    assert found.sizes == (*sizes, largest)


def test_none_changes_nothing():
    codes, latents, books = random_case(11, 30, (2, 3))
    found = repair.repair(codes, latents, books, "none")
    np.testing.assert_array_equal(found.codes, codes)
    assert found.moved == 0
    assert found.duplicates_left == 30 - len(np.unique(codes, axis=0))


def test_too_small_a_space_is_refused_with_the_remedy():
    codes, latents, books = random_case(12, 7, (2, 3))
    message = r"7 items .* sizes \(2, 3\) give 6 tuples; use larger codebooks or one"
    with pytest.raises(UserError, match=message):
        repair.repair(codes, latents, books)
    assert repair.repair(codes, latents, books, "suffix").duplicates_left == 0


def broken(name):
    codes, latents, books = random_case(13, 6, (3, 3))
    match name:
        case "method":
            return codes, latents, books, "greedy"
        case "latent":
            latents[4, 1] = np.nan
        case "codebook":
            books[1][0, 0] = np.inf
        case "code":
            codes[2, 1] = 3
    return codes, latents, books, "assign"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("method", "'greedy' is unknown; use assign, reassign, suffix or none"),
        ("latent", "latents: row 4 is not finite"),
        ("codebook", "codebook 1 contains a NaN"),
        ("code", "row 2, level 1 is 3, out of range 0 to 2"),
    ],
)
def test_broken_input_is_refused(name, message):
    codes, latents, books, method = broken(name)
    with pytest.raises(UserError, match=message):
        repair.repair(codes, latents, books, method)


def test_arrays_of_other_shapes_are_refused():
    """Without type checks, as in a program that is not under test."""
    codes, latents, books = random_case(13, 6, (3, 3))
    with pytest.raises(UserError, match="5 latents for 6 rows"):
        repair.check_vectors(codes, latents[:5], books)
    with pytest.raises(UserError, match="codebook 1 has width 2, the latents 3"):
        repair.check_vectors(codes, latents, [books[0], books[1][:, :2]])
