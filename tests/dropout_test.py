# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Dropout: its rate, its independence, its gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.dropout import dropout, random_words

ROWS, SHAPE = 64, (40, 50)


def _keys(seed=0, rows=ROWS):
    return jax.random.split(jax.random.key(seed), rows)


@functools.partial(jax.jit, static_argnames=("rate", "site"))
def _drop(x, keys, *, rate=0.1, site=0):
    return dropout(x, rate, keys=keys, site=site)


def _kept(*, rate=0.1, site=0, seed=0):
    ones = jnp.ones((ROWS, *SHAPE))
    return np.asarray(_drop(ones, _keys(seed), rate=rate, site=site)) > 0


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_is_kept_is_that_of_independent_coins(rate):
    kept = _kept(rate=rate)
    # Seven standard errors of the mean of so many coins, over all and along each axis.
    for axes in ((0, 1, 2), (1, 2), (0, 2), (0, 1)):
        shares = kept.mean(axis=axes)
        error = np.sqrt(rate * (1 - rate) * np.size(shares) / kept.size)
        assert np.abs(shares - (1 - rate)).max() < 7 * error


def test_masks_of_neighbours_rows_sites_and_seeds_are_unrelated():
    rate = 0.5
    mask = _kept(rate=rate).astype(float) - 0.5
    others = {
        "row": np.roll(mask, 1, axis=0),
        "next": np.roll(mask, 1, axis=2),
        "next but one": np.roll(mask, 2, axis=2),
        "below": np.roll(mask, 1, axis=1),
        "site": _kept(rate=rate, site=1) - 0.5,
        "far site": _kept(rate=rate, site=57) - 0.5,
        "seed": _kept(rate=rate, seed=1) - 0.5,
    }
    correlation = {n: float((mask * o).mean() * 4) for n, o in others.items()}
    assert max(map(abs, correlation.values())) < 6 / np.sqrt(mask.size), correlation


def test_words_are_uniform_in_their_upper_bits():
    words = np.asarray(random_words(_keys(), 3, SHAPE)) >> 24
    counts = np.bincount(words.ravel().astype(int), minlength=256)
    expected = words.size / 256
    # Chi-squared with 255 degrees of freedom: mean 255, standard deviation 23.
    assert ((counts - expected) ** 2 / expected).sum() < 255 + 6 * 23


def test_what_is_kept_is_scaled_so_that_the_mean_stays():
    x = jax.random.normal(jax.random.key(9), (ROWS, *SHAPE)) + 2
    dropped = np.asarray(_drop(x, _keys(), rate=0.3))
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], np.asarray(x)[kept] / 0.7, rtol=1e-6)
    assert abs(dropped.mean() - float(x.mean())) < 0.02


def test_a_mask_belongs_to_the_key_and_not_to_the_place_in_the_batch():
    x = jnp.ones((ROWS, *SHAPE))
    order = np.random.default_rng(0).permutation(ROWS)
    keys = _keys()
    np.testing.assert_array_equal(_drop(x, keys[order]), _drop(x, keys)[order])
    np.testing.assert_array_equal(_drop(x[:5], keys[:5]), _drop(x, keys)[:5])


def test_the_gradient_is_zero_where_dropped_and_scaled_elsewhere():
    x = jnp.ones((ROWS, *SHAPE))
    slope = jax.grad(lambda x: _drop(x, _keys(), rate=0.2).sum())(x)
    kept = _kept(rate=0.2)
    np.testing.assert_allclose(slope, np.where(kept, 1 / 0.8, 0.0), rtol=1e-6)


def test_no_keys_or_no_rate_leave_everything_as_it_is():
    x = jax.random.normal(jax.random.key(2), (ROWS, 3))
    np.testing.assert_array_equal(dropout(x, 0.4, keys=None, site=0), x)
    np.testing.assert_array_equal(dropout(x, 0.0, keys=_keys(), site=0), x)
