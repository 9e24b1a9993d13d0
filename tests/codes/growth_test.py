# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Codes of new items against the definition: every free place is looked at."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfrec.codes import growth
from rfrec.config import UserError

SIZES = ((6,), (2, 3), (3, 2, 2), (4, 1, 3), (2, 2, 2, 2))


@st.composite
def cases(draw):
    """Draws codes in use, and more new items than there are nearest places."""
    sizes = draw(st.sampled_from(SIZES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    every = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), 1)
    old = draw(st.integers(1, len(every) - 1))
    new = draw(st.integers(1, len(every) - old))
    taken = rng.permutation(every)[:old].astype(np.int32)
    # Small whole numbers: equal distances are frequent, and exact.
    books = [rng.integers(-3, 4, (k, 2)).astype(np.float32) for k in sizes]
    latents = rng.integers(-4, 5, (new, 2)).astype(np.float32)
    # Few prefixes, so that they fill up.
    nearest = rng.integers(0, np.minimum(sizes, 2), (new, len(sizes))).astype(np.int32)
    return taken, nearest, latents, books


def brute_force(taken, nearest, latents, books):
    """Gives items the nearest free place, in order, by the definition."""
    used = set(map(tuple, taken.tolist()))
    every = list(itertools.product(*(range(len(book)) for book in books)))
    placed = []
    for codes, latent in zip(nearest.tolist(), latents.astype(float), strict=True):
        found = []
        for kept in range(len(codes), -1, -1):
            prefix = tuple(codes[:kept])
            found = [p for p in every if p[:kept] == prefix and p not in used]
            if found:
                break

        def cost(place, latent=latent):
            near = sum(book[code] for book, code in zip(books, place, strict=True))
            return float(((latent - near) ** 2).sum()), place

        placed.append(min(found, key=cost))
        used.add(placed[-1])
    return np.asarray(placed)


@settings(max_examples=300)
@given(cases())
def test_each_item_gets_the_nearest_free_place_in_order(case):
    taken, nearest, latents, books = case
    before = taken.copy()
    placed = growth.assign_new(taken, nearest, latents, books)
    np.testing.assert_array_equal(placed, brute_force(taken, nearest, latents, books))
    np.testing.assert_array_equal(taken, before)
    every = np.concatenate([taken, placed])
    assert len(np.unique(every, axis=0)) == len(every)


def test_nearest_codes_that_are_free_are_kept():
    rng = np.random.default_rng(0)
    nearest = np.asarray([[0, 1], [2, 2]], np.int32)
    books = [rng.standard_normal((3, 4)).astype("f4") for _ in range(2)]
    # Their latents lie elsewhere: it is not the distance that decides.
    latents = rng.standard_normal((2, 4)).astype("f4")
    taken = np.asarray([[0, 0], [0, 0], [1, 1]], np.int32)
    placed = growth.assign_new(taken, nearest, latents, books)
    np.testing.assert_array_equal(placed, nearest)


def test_codes_beyond_the_codebooks_take_no_place():
    taken = np.asarray([[0, 5], [7, 0], [0, 0]], np.int32)
    books = [np.zeros((1, 2), "f4"), np.eye(2, dtype="f4")]
    nearest, latents = np.zeros((1, 2), np.int32), np.zeros((1, 2), "f4")
    placed = growth.assign_new(taken, nearest, latents, books)
    np.testing.assert_array_equal(placed, [[0, 1]])
    with pytest.raises(UserError, match="full: 2 new items, 1 free tuples") as error:
        growth.assign_new(
            taken, np.repeat(nearest, 2, 0), np.repeat(latents, 2, 0), books
        )
    assert "\n" not in str(error.value)


def test_a_latent_that_is_not_finite_is_refused():
    books = [np.eye(2, dtype="f4")] * 2
    latents = np.asarray([[0, 0], [0, np.nan]], "f4")
    codes = np.zeros((2, 2), np.int32)
    with pytest.raises(UserError, match="latents: row 1 is not finite"):
        growth.assign_new(codes[:1], codes, latents, books)
