# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Balanced assignment of vectors to codes by Sinkhorn's algorithm.

Distances of a batch to one codebook flow in, one code per row flows out. The rows may
be spread over devices: give their `axis_name` and the result is that of the whole
batch. Nothing here is differentiated.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from rfrec import numerics

# While scalings stay within exp(+-_MAX_LOG_SCALE) a kernel serves. Kernel entries
# that underflow are below exp(-87), so what they would add stays below exp(-27).
_MAX_LOG_SCALE = 30.0


class Potentials(NamedTuple):
    """Dual potentials: the plan is proportional to exp(-d / epsilon - u - v)."""

    u: Float[Array, " B"]
    v: Float[Array, " K"]


def center(
    d: Float[Array, "B K"],
    *,
    columns: Bool[Array, " K"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "B K"]:
    """Maps distances to [-1, 1] by the extremes of the whole batch.

    (d - mid) / (max - mid + 1e-5) with mid = (max + min) / 2, as MQL4GRec does before
    Sinkhorn, so that one epsilon suits every level and stage of the training.

    Args:
      d: Distances of each row to each code.
      columns: False for codes that only pad a smaller codebook; None if there are none.
      axis_name: Device axis over which the rows are spread.
    """
    where = None if columns is None else columns[None, :]
    top = jnp.max(d, where=where, initial=-jnp.inf)
    low = jnp.min(d, where=where, initial=jnp.inf)
    if axis_name is not None:
        top, low = lax.pmax(top, axis_name), lax.pmin(low, axis_name)
    middle = (top + low) / 2
    return (d - middle) / (top - middle + 1e-5)


def potentials(
    d: Float[Array, "B K"],
    *,
    epsilon: float | Float[Array, ""],
    iterations: int = 50,
    columns: Bool[Array, " K"] | None = None,
    axis_name: str | None = None,
) -> Potentials:
    """Solves for the dual potentials of a plan with uniform marginals.

    Each iteration scales first the rows, then the columns (Cuturi, Sinkhorn Distances,
    NeurIPS 2013). exp(1 / .003) overflows even float64's useful range in float32, so
    the potentials live in the log domain and are absorbed into a kernel (Schmitzer,
    Stabilized Sparse Scaling Algorithms, SIAM J. Sci. Comput. 2019, section 3.1). With
    it an iteration is two matrix-vector products; when the scalings outgrow it, one
    iteration is done in the log domain and the kernel is formed anew.

    Args:
      d: Distances, see `center`.
      epsilon: Entropic regularisation, > 0, in units of `d`.
      iterations: Number of row-and-column scalings.
      columns: False for codes that do not exist.
      axis_name: Device axis over which the rows are spread.
    """
    logits = -d / epsilon
    if columns is not None:
        logits = jnp.where(columns[None, :], logits, jnp.finfo(d.dtype).min / 4)

    def psum(x):
        return x if axis_name is None else lax.psum(x, axis_name)

    def pmax(x):
        return x if axis_name is None else lax.pmax(x, axis_name)

    def spread(scaling):
        return jnp.max(jnp.abs(jnp.log(scaling)))

    def column_logsumexp(x):
        top = pmax(jnp.max(x, axis=0))
        return jnp.log(psum(jnp.sum(jnp.exp(x - top[None, :]), axis=0))) + top

    def log_iteration(potential):
        u = jax.nn.logsumexp(logits - potential.v[None, :], axis=1)
        v = column_logsumexp(logits - u[:, None])
        if columns is not None:
            v = jnp.where(columns, v, 0.0)
        return Potentials(u, v)

    def kernel_iterations(done, potential):
        kernel = jnp.exp(logits - potential.u[:, None] - potential.v[None, :])

        def iteration(carry):
            done, a, b, _ = carry
            new_a = 1 / (kernel @ b)
            new_b = 1 / psum(new_a @ kernel)
            if columns is not None:
                new_b = jnp.where(columns, new_b, 1.0)
            scale = jnp.maximum(spread(new_a), spread(new_b))
            # NaN compares false, so an iteration that broke down is not taken.
            good = pmax(scale) < _MAX_LOG_SCALE
            a, b = jnp.where(good, new_a, a), jnp.where(good, new_b, b)
            return done + good, a, b, good

        done, a, b, _ = lax.while_loop(
            lambda carry: (carry[0] < iterations) & carry[3],
            iteration,
            (done, jnp.ones_like(potential.u), jnp.ones_like(potential.v), True),
        )
        return done, Potentials(potential.u - jnp.log(a), potential.v - jnp.log(b))

    def absorb(carry):
        done, potential = kernel_iterations(*carry)
        return lax.cond(
            done < iterations,
            lambda: (done + 1, log_iteration(potential)),
            lambda: (done, potential),
        )

    start = Potentials(jnp.zeros_like(d[:, 0]), jnp.zeros_like(d[0]))
    start = log_iteration(start)
    _, potential = lax.while_loop(
        lambda carry: carry[0] < iterations, absorb, (jnp.int32(1), start)
    )
    return potential


def plan(
    d: Float[Array, "B K"], *, epsilon: float, iterations: int = 50
) -> Float[Array, "B K"]:
    """Returns the transport plan times B: every column sums to B / K."""
    u, v = potentials(d, epsilon=epsilon, iterations=iterations)
    share = jnp.log(d.shape[0] / d.shape[1])
    return jnp.exp(-d / epsilon - u[:, None] - v[None, :] + share)


def assign(
    d: Float[Array, "B K"],
    *,
    epsilon: float | Float[Array, ""],
    iterations: int = 50,
    columns: Bool[Array, " K"] | None = None,
    axis_name: str | None = None,
) -> Int[Array, " B"]:
    """Assigns each row the code with the largest share of its mass in the plan.

    Args and source as for `center` and `potentials`.
    """
    d = center(d, columns=columns, axis_name=axis_name)
    _, v = potentials(
        d, epsilon=epsilon, iterations=iterations, columns=columns, axis_name=axis_name
    )
    cost = d / epsilon + v[None, :]
    if columns is not None:
        cost = jnp.where(columns[None, :], cost, jnp.inf)
    return numerics.first_min(cost)
