# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""k-means with greedy k-means++ seeding, in one jitted program.

Vectors flow in, centres flow out. `fit_residual` clusters level by level the residuals
of the levels before: it initialises a residual quantizer or, alone, is one.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from rfrec import numerics


class KMeans(NamedTuple):
    """Centres, the sum of squared distances to them, and the iterations done."""

    centers: Float[Array, "K D"]
    inertia: Float[Array, ""]
    iterations: Int[Array, ""]


def squared_distances(
    x: Float[Array, "N D"], centers: Float[Array, "K D"]
) -> Float[Array, "N K"]:
    """Returns |x|^2 + |c|^2 - 2 x.c for all pairs, at least zero."""
    norms = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(centers**2, axis=1)[None, :]
    return jnp.maximum(norms - 2 * x @ centers.T, 0)


def cluster_sums(
    x: Float[Array, "N D"], codes: Int[Array, " N"], num_clusters: int
) -> tuple[Float[Array, "K D"], Float[Array, " K"]]:
    """Returns the sum and the number of the vectors of each cluster.

    A scatter is faster on a CPU; elsewhere it uses atomics, whose order, and so the
    rounding, changes from run to run: there it is a product with the one-hot codes.
    """
    if jax.default_backend() == "cpu":
        sums = jax.ops.segment_sum(x, codes, num_clusters)
        counts = jax.ops.segment_sum(jnp.ones_like(x[:, 0]), codes, num_clusters)
        return sums, counts
    one_hot = jax.nn.one_hot(codes, num_clusters, dtype=x.dtype)
    sums = jnp.einsum("nk,nd->kd", one_hot, x, precision=lax.Precision.HIGHEST)
    return sums, jnp.sum(one_hot, axis=0)


def _draw(
    key: PRNGKeyArray, shares: Float[Array, " N"], count: int
) -> Int[Array, " count"]:
    """Draws rows in proportion to their shares; the last one if all shares are 0.

    The cumulative distribution is inverted, so that each draw costs one random number;
    `jax.random.categorical` takes one for every row.
    """
    mass = jnp.cumsum(shares)
    drawn = jax.random.uniform(key, (count,), shares.dtype) * mass[-1]
    rows = jnp.searchsorted(mass, drawn, side="right")
    return jnp.minimum(rows, shares.shape[0] - 1)


def _seed(key: PRNGKeyArray, x: Float[Array, "N D"], k: int) -> Float[Array, "K D"]:
    """Picks k rows by greedy k-means++.

    Each new centre is the best of 2 + ln k candidates drawn in proportion to the
    squared distance to the centres so far (Arthur and Vassilvitskii, SODA 2007,
    section 5; scikit-learn seeds likewise).
    """
    trials = 2 + int(np.log(k))
    first_key, key = jax.random.split(key)
    first = x[jax.random.randint(first_key, (), 0, x.shape[0])]

    def add(closest, key):
        candidates = x[_draw(key, closest, trials)]
        after = jnp.minimum(closest[:, None], squared_distances(x, candidates))
        best = jnp.argmin(jnp.sum(after, axis=0))
        return after[:, best], candidates[best]

    closest = squared_distances(x, first[None])[:, 0]
    _, rest = lax.scan(add, closest, jax.random.split(key, k - 1))
    return jnp.concatenate([first[None], rest])


def _lloyd_step(
    x: Float[Array, "N D"], centers: Float[Array, "K D"]
) -> tuple[Float[Array, "K D"], Float[Array, ""]]:
    """Moves centres to the means of their rows, empty ones to the farthest rows."""
    d = squared_distances(x, centers)
    codes, closest = numerics.first_min(d), jnp.min(d, axis=1)
    sums, counts = cluster_sums(x, codes, centers.shape[0])
    empty = counts == 0
    # The r-th empty cluster takes the r-th farthest row.
    num_far = min(centers.shape[0], x.shape[0])
    _, far = lax.top_k(closest, num_far)
    rank = jnp.clip(jnp.cumsum(empty) - 1, 0, num_far - 1)
    means = sums / jnp.maximum(counts, 1)[:, None]
    return jnp.where(empty[:, None], x[far[rank]], means), jnp.sum(closest)


@partial(jax.jit, static_argnames=("k", "iterations"))
def fit(
    key: PRNGKeyArray,
    x: Float[Array, "N D"],
    k: int,
    *,
    iterations: int = 100,
    tolerance: float | Float[Array, ""] = 1e-4,
) -> KMeans:
    """Fits k centres by Lloyd's algorithm.

    Args:
      key: Source of the seeding.
      x: Vectors; with fewer than k distinct ones some centres coincide.
      k: Number of centres.
      iterations: Upper bound of Lloyd iterations.
      tolerance: Stops when the centres' summed squared movement falls below this
        share of the mean variance of the columns.
    """
    threshold = tolerance * jnp.mean(jnp.var(x, axis=0))

    def moved(carry):
        done, _, shift = carry
        return (done < iterations) & (shift > threshold)

    def iterate(carry):
        done, centers, _ = carry
        updated, _ = _lloyd_step(x, centers)
        return done + 1, updated, jnp.sum((updated - centers) ** 2)

    start = jnp.int32(0), _seed(key, x, k), jnp.asarray(jnp.inf, x.dtype)
    done, centers, _ = lax.while_loop(moved, iterate, start)
    inertia = jnp.sum(jnp.min(squared_distances(x, centers), axis=1))
    return KMeans(centers, inertia, done)


class ResidualKMeans(NamedTuple):
    """A codebook for each level, and the codes of the vectors they were fitted to."""

    codebooks: tuple[Float[Array, "_ D"], ...]
    codes: Int[Array, "N Q"]
    residual: Float[Array, "N D"]


def fit_residual(
    key: PRNGKeyArray,
    x: Float[Array, "N D"],
    sizes: Sequence[int],
    *,
    iterations: int = 100,
) -> ResidualKMeans:
    """Fits one codebook a level on the residuals of the levels before.

    Args:
      key: Source of the seedings.
      x: Vectors.
      sizes: Number of codes of each level.
      iterations: Upper bound of Lloyd iterations a level.
    """
    codebooks, codes, residual = [], [], x
    for level_key, k in zip(jax.random.split(key, len(sizes)), sizes, strict=True):
        centers = fit(level_key, residual, k, iterations=iterations).centers
        code = numerics.first_min(squared_distances(residual, centers))
        codebooks.append(centers)
        codes.append(code)
        residual = residual - centers[code]
    return ResidualKMeans(tuple(codebooks), jnp.stack(codes, axis=1), residual)
