# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Balanced assignment against Sinkhorn's algorithm in linear float64."""

import functools
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.tokenizer import sinkhorn

GOLDEN = Path(__file__).parents[2] / "third_party" / "golden"
EPSILONS = (0.003, 0.01, 0.1)
# What one float32 rounding of d / .003, about 333, does to a logarithm, with room for
# the sums: rows whose best two shares are closer cannot be told apart.
TIE = 1e-3


def center(d):
    top, low = d.max(), d.min()
    middle = (top + low) / 2
    return (d - middle) / (top - middle + 1e-5)


def linear_plan(d, epsilon, iterations=50):
    """Alternates over rows, then columns, on exp(-d / epsilon) itself."""
    q = np.exp(-np.asarray(d, np.float64) / epsilon)
    b, k = q.shape
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(axis=1, keepdims=True)
        q /= b
        q /= q.sum(axis=0, keepdims=True)
        q /= k
    return q * b


def assert_follows(codes, d, epsilon, *, decided=0.9):
    """Codes are the plan's largest shares, wherever float32 can tell them."""
    share = linear_plan(center(np.asarray(d, np.float64)), epsilon)
    best = share.max(axis=1)
    chosen = share[np.arange(len(d)), np.asarray(codes)]
    np.testing.assert_array_less(best * (1 - TIE), chosen + 1e-300)
    second = np.sort(share, axis=1)[:, -2] if share.shape[1] > 1 else 0 * best
    clear = second < best * (1 - TIE)
    np.testing.assert_array_equal(np.asarray(codes)[clear], share.argmax(axis=1)[clear])
    assert clear.mean() >= decided


def distances(kind, rows=160, codes=24, seed=0):
    rng = np.random.default_rng(seed)
    if kind == "random":
        return rng.random((rows, codes))
    vectors = rng.normal(size=(codes, 6))
    if kind == "clustered":
        # Far more rows near some codes than near others.
        near = rng.choice(codes, size=rows, p=np.arange(1, codes + 1) / 300)
        x = vectors[near] + 0.2 * rng.normal(size=(rows, 6))
    else:
        vectors = vectors[rng.integers(3, size=codes)]
        vectors = vectors + 1e-2 * rng.normal(size=vectors.shape)
        x = rng.normal(size=(rows, 6))
    return ((x[:, None] - vectors[None]) ** 2).sum(axis=2)


@jax.jit
def jitted_assign(d, epsilon, columns):
    return sinkhorn.assign(d, epsilon=epsilon, columns=columns)


def assign(d, epsilon, columns=None):
    return np.asarray(
        jitted_assign(jnp.asarray(d, "f4"), jnp.float32(epsilon), columns)
    )


@functools.partial(jax.jit, static_argnames=("epsilon", "iterations"))
def plan(d, epsilon, iterations=50):
    return sinkhorn.plan(d, epsilon=epsilon, iterations=iterations)


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("kind", ["random", "clustered", "near-tied"])
def test_assignments_equal_linear_float64(kind, epsilon):
    d = distances(kind).astype(np.float32)
    assert_follows(assign(d, epsilon), d, epsilon)


@pytest.mark.parametrize("size", ["64x64", "128x32"])
def test_recorded_plans_and_codes(size):
    with np.load(GOLDEN / f"mql4grec_sinkhorn_{size}.npz", allow_pickle=False) as file:
        d, centered = file["d"], file["centered"]
        plans = {epsilon: file[f"Q_eps{epsilon}"] for epsilon in EPSILONS}
    np.testing.assert_allclose(
        sinkhorn.center(jnp.asarray(d, jnp.float32)), centered, rtol=1e-5, atol=1e-6
    )
    for epsilon, recorded in plans.items():
        np.testing.assert_array_equal(assign(d, epsilon), recorded.argmax(axis=1))
        np.testing.assert_allclose(linear_plan(centered, epsilon), recorded, rtol=1e-9)
        made = plan(jnp.asarray(centered, jnp.float32), epsilon)
        # 333 has an ulp of 3e-5: the plan cannot be better in float32.
        np.testing.assert_allclose(made, recorded, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("shape", [(160, 24), (24, 160), (1, 5), (7, 1)])
def test_columns_of_the_plan_share_rows_evenly(shape, epsilon):
    d = jnp.asarray(center(np.random.default_rng(1).random(shape)), jnp.float32)
    total = np.asarray(plan(d, epsilon)).sum(axis=0)
    np.testing.assert_allclose(total, shape[0] / shape[1], rtol=1e-3)


def test_assignment_balances_what_nearest_codes_do_not():
    d = distances("clustered", rows=240, codes=24)
    nearest = np.bincount(d.argmin(axis=1), minlength=24)
    balanced = np.bincount(assign(d, 0.003), minlength=24)
    assert nearest.max() > 20
    assert balanced.std() < nearest.std() / 2
    assert balanced.min() > nearest.min()


@hypothesis.given(
    shape=st.sampled_from([(12, 8, 3), (3, 9, 1)]),
    epsilon=st.sampled_from(EPSILONS),
    seed=st.integers(0, 100),
)
@hypothesis.settings(max_examples=30)
def test_absent_columns_are_as_if_dropped(shape, epsilon, seed):
    rows, codes, absent = shape
    rng = np.random.default_rng(seed)
    d = rng.random((rows, codes)).astype(np.float32)
    present = rng.permutation(np.arange(codes + absent) < codes)
    # What stands in an absent column, smaller or larger than the rest, is no matter.
    padded = rng.choice([-5.0, 0.0, 9.0], size=(rows, codes + absent))
    padded[:, present] = d
    made = assign(padded, epsilon, columns=jnp.asarray(present))
    assert present[made].all()
    dropped = np.flatnonzero(present)
    np.testing.assert_array_equal(made, dropped[assign(d, epsilon)])


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_extreme_inputs(epsilon):
    rng = np.random.default_rng(2)
    equal = assign(np.full((8, 4), 3.0), epsilon)
    assert ((equal >= 0) & (equal < 4)).all()
    outlier = rng.random((40, 8))
    outlier[0] += 1e4
    assert_follows(assign(outlier, epsilon), outlier.astype("f4"), epsilon, decided=0)
    wide = rng.random((5, 40))
    assert_follows(assign(wide, epsilon), wide.astype("f4"), epsilon, decided=0)
    # One row fills all columns evenly: any code is right, as long as it is one.
    assert 0 <= assign(rng.random((1, 6)), epsilon)[0] < 6
    np.testing.assert_array_equal(assign(rng.random((6, 1)), epsilon), np.zeros(6))


def test_clusters_that_exclude_each_other_do_not_overflow():
    # Rows 0..7 are next to code 0 alone, by the whole range: scalings of exp(+-600).
    d = np.full((8, 8), 1.0)
    d[:, 0] = 0.0
    d += 1e-3 * np.random.default_rng(3).random((8, 8))
    codes = assign(d, 0.003)
    assert_follows(codes, d.astype("f4"), 0.003, decided=0)
    assert sorted(codes) == sorted(
        linear_plan(center(d.astype("f4").astype("f8")), 0.003).argmax(axis=1)
    )


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("columns", [None, np.arange(24) < 20])
def test_rows_spread_over_an_axis_are_assigned_as_one_batch(epsilon, columns):
    d = distances("clustered").astype(np.float32)
    columns = None if columns is None else jnp.asarray(columns)

    def part(d):
        return sinkhorn.assign(d, epsilon=epsilon, columns=columns, axis_name="x")

    spread = jax.vmap(part, axis_name="x")(jnp.asarray(d.reshape(8, 20, 24)))
    whole = assign(d, epsilon, columns=columns)
    np.testing.assert_array_equal(np.ravel(spread), whole)
    alone = jax.vmap(lambda d: sinkhorn.assign(d, epsilon=epsilon, columns=columns))
    assert (np.ravel(alone(jnp.asarray(d.reshape(8, 20, 24)))) != whole).mean() > 0.05


@pytest.mark.parametrize("iterations", [1, 2, 50])
def test_the_number_of_iterations_counts(iterations):
    d = jnp.asarray(center(distances("clustered")), jnp.float32)
    made = plan(d, 0.05, iterations)
    np.testing.assert_allclose(
        made, linear_plan(d, 0.05, iterations), rtol=1e-3, atol=1e-6
    )
