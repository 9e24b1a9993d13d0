# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""k-means against scikit-learn and plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.cluster import KMeans

from rfrec.tokenizer import kmeans


def blobs(rows=1500, clusters=40, width=8, noise=0.4, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(clusters, width))
    x = centers[rng.integers(clusters, size=rows)]
    return (x + noise * rng.normal(size=x.shape)).astype(np.float32)


def inertia(x, centers):
    """Brute force in float64."""
    d = ((x[:, None].astype("f8") - np.asarray(centers, "f8")[None]) ** 2).sum(axis=2)
    return d.min(axis=1).sum()


@pytest.mark.parametrize("noise", [0.05, 0.4])
def test_inertia_is_not_worse_than_scikit_learns(noise):
    x = blobs(noise=noise)
    ours, theirs = [], []
    for seed in range(4):
        made = kmeans.fit(jax.random.key(seed), jnp.asarray(x), 32)
        np.testing.assert_allclose(made.inertia, inertia(x, made.centers), rtol=1e-3)
        ours.append(inertia(x, made.centers))
        theirs.append(KMeans(32, n_init=1, max_iter=100, random_state=seed).fit(x))
    assert np.mean(ours) <= 1.02 * np.mean([t.inertia_ for t in theirs])


def test_offset_data_are_clustered_as_well():
    x = blobs(rows=600, noise=0.1) + np.float32(50)
    ours, theirs = [], []
    for seed in range(6):
        made = kmeans.fit(jax.random.key(seed), jnp.asarray(x), 32)
        ours.append(inertia(x, made.centers))
        theirs.append(KMeans(32, n_init=1, random_state=seed).fit(x).inertia_)
    assert np.mean(ours) <= 1.05 * np.mean(theirs)


def test_the_result_is_a_fixed_point_of_lloyds_algorithm():
    x = blobs(rows=400)
    made = kmeans.fit(jax.random.key(1), jnp.asarray(x), 12, tolerance=0.0)
    d = ((x[:, None] - np.asarray(made.centers)[None]) ** 2).sum(axis=2)
    codes = d.argmin(axis=1)
    means = np.stack([x[codes == k].mean(axis=0) for k in range(12)])
    np.testing.assert_allclose(made.centers, means, atol=1e-5)


def test_iterations_are_bounded():
    made = kmeans.fit(jax.random.key(1), jnp.asarray(blobs()), 32, iterations=2)
    assert made.iterations == 2


def test_the_key_decides_the_result():
    x = jnp.asarray(blobs(rows=300))
    first, again, other = (kmeans.fit(jax.random.key(k), x, 16) for k in (0, 0, 1))
    np.testing.assert_array_equal(first.centers, again.centers)
    assert np.abs(first.centers - other.centers).max() > 1e-3


def test_empty_clusters_take_the_farthest_rows():
    x = np.array([[0.0], [1.0], [2.0], [10.0], [7.0]], np.float32)
    # All rows belong to the first centre; the others are far beyond.
    centers = np.array([[1.0], [500.0], [900.0]], np.float32)
    moved, energy = kmeans._lloyd_step(jnp.asarray(x), jnp.asarray(centers))
    np.testing.assert_allclose(moved[0], x.mean(axis=0))
    assert sorted(np.ravel(moved[1:])) == [7.0, 10.0]
    np.testing.assert_allclose(energy, ((x - 1) ** 2).sum())


def test_more_clusters_than_distinct_rows():
    rows = np.array([[0.0, 0], [3, 4], [-2, 5]], np.float32)
    x = jnp.asarray(np.repeat(rows, 5, axis=0))
    for k in (3, 20):
        made = kmeans.fit(jax.random.key(0), x, k)
        assert made.centers.shape == (k, 2)
        assert np.isfinite(made.centers).all()
        np.testing.assert_allclose(made.inertia, 0, atol=1e-8)


def test_rows_are_drawn_in_proportion_to_their_shares():
    shares = np.array([0.0, 3.0, 0.0, 1.0, 0.5, 5.5, 0.0], np.float32)
    rows = kmeans._draw(jax.random.key(3), jnp.asarray(shares), 20_000)
    seen = np.bincount(rows, minlength=7)
    assert not seen[shares == 0].any()
    there = shares > 0
    expected = 20_000 * shares[there] / shares.sum()
    assert stats.chisquare(seen[there], expected).pvalue > 0.01


def test_without_shares_the_last_row_is_drawn():
    rows = kmeans._draw(jax.random.key(0), jnp.zeros(5), 3)
    np.testing.assert_array_equal(rows, [4, 4, 4])


def test_one_cluster_is_the_mean():
    x = blobs(rows=50)
    made = kmeans.fit(jax.random.key(0), jnp.asarray(x), 1)
    np.testing.assert_allclose(made.centers[0], x.mean(axis=0), atol=1e-6)


def test_squared_distances_of_all_pairs():
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=(9, 4)), rng.normal(size=(5, 4))
    wanted = ((x[:, None] - c[None]) ** 2).sum(axis=2)
    made = kmeans.squared_distances(jnp.asarray(x, "f4"), jnp.asarray(c, "f4"))
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_cluster_sums_equal_a_loop(monkeypatch, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(30, 4)), rng.integers(5, size=30)
    sums, counts = kmeans.cluster_sums(
        jnp.asarray(x, "f4"), jnp.asarray(codes, "i4"), 6
    )
    np.testing.assert_array_equal(counts, np.bincount(codes, minlength=6))
    for k in range(6):
        np.testing.assert_allclose(sums[k], x[codes == k].sum(axis=0), atol=1e-5)


def test_each_level_clusters_what_the_levels_before_left():
    x = blobs(rows=500)
    sizes = (16, 8, 4)
    made = kmeans.fit_residual(jax.random.key(0), jnp.asarray(x), sizes)
    assert tuple(map(len, made.codebooks)) == sizes
    residual, energy = x, [(x**2).sum()]
    for level, book in enumerate(made.codebooks):
        best = inertia(residual, book)
        other = KMeans(len(book), n_init=1, random_state=0).fit(residual)
        assert best <= 1.05 * other.inertia_
        d = ((residual[:, None] - np.asarray(book)[None]) ** 2).sum(axis=2)
        np.testing.assert_array_equal(made.codes[:, level], d.argmin(axis=1))
        residual = residual - np.asarray(book)[made.codes[:, level]]
        energy.append((residual**2).sum())
        np.testing.assert_allclose(energy[-1], best, rtol=1e-3)
    assert (np.diff(energy) < -0.05 * np.array(energy[:-1])).all()
    np.testing.assert_allclose(made.residual, residual, atol=1e-5)
