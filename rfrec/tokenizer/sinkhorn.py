# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Balanced assignment of vectors to codes by Sinkhorn's algorithm.

Distances of a batch to one codebook flow in, one code per row flows out. The rows may
be spread over devices: with their `axis_name` the result is that of the whole batch.
Nothing here is differentiated.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from rfrec import numerics

# A kernel is used while scalings are within exp(+-_MAX_LOG_SCALE). Kernel entries that
# underflow are below exp(-87), so their contributions are below exp(-27).
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


class _Problem(NamedTuple):
    """Scaled distances, columns that exist, and the axis over which rows are spread."""

    logits: Float[Array, "B K"]
    columns: Bool[Array, " K"] | None
    axis_name: str | None

    def sum(self, x):
        """Sums over devices."""
        return x if self.axis_name is None else lax.psum(x, self.axis_name)

    def max(self, x):
        """Returns the maximum over devices."""
        return x if self.axis_name is None else lax.pmax(x, self.axis_name)

    def iterate_logs(self, v: Float[Array, " K"]) -> Potentials:
        """Scales rows, then columns, in the log domain."""
        u = jax.nn.logsumexp(self.logits - v[None, :], axis=1)
        x = self.logits - u[:, None]
        top = self.max(jnp.max(x, axis=0))
        v = jnp.log(self.sum(jnp.sum(jnp.exp(x - top[None, :]), axis=0))) + top
        if self.columns is not None:
            v = jnp.where(self.columns, v, 0.0)
        return Potentials(u, v)

    def iterate_kernel(
        self, done: Int[Array, ""], start: Potentials, iterations: int
    ) -> tuple[Int[Array, ""], Potentials]:
        """Scales rows and columns of one kernel until the scalings outgrow it."""
        kernel = jnp.exp(self.logits - start.u[:, None] - start.v[None, :])

        def iteration(carry):
            done, a, b, _ = carry
            new_a = 1 / (kernel @ b)
            new_b = 1 / self.sum(new_a @ kernel)
            if self.columns is not None:
                new_b = jnp.where(self.columns, new_b, 1.0)
            scale = jnp.maximum(_spread(new_a), _spread(new_b))
            # NaN compares false: an iteration that broke down is discarded.
            good = self.max(scale) < _MAX_LOG_SCALE
            a, b = jnp.where(good, new_a, a), jnp.where(good, new_b, b)
            return done + good, a, b, good

        done, a, b, _ = lax.while_loop(
            lambda carry: (carry[0] < iterations) & carry[3],
            iteration,
            (done, jnp.ones_like(start.u), jnp.ones_like(start.v), True),
        )
        return done, Potentials(start.u - jnp.log(a), start.v - jnp.log(b))


def _spread(scaling: Float[Array, " _"]) -> Float[Array, ""]:
    return jnp.max(jnp.abs(jnp.log(scaling)))


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
    NeurIPS 2013). exp(1 / 0.003) overflows float32, so the potentials are kept in the
    log domain and absorbed into a kernel (Schmitzer, Stabilized Sparse Scaling
    Algorithms, SIAM J. Sci. Comput. 2019, section 3.1). With the kernel an iteration is
    two matrix-vector products; when the scalings outgrow it, one iteration is computed
    in the log domain, and the next kernel is built from its potentials.

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
    problem = _Problem(logits, columns, axis_name)

    def absorb(carry):
        done, potential = problem.iterate_kernel(*carry, iterations)
        return lax.cond(
            done < iterations,
            lambda: (done + 1, problem.iterate_logs(potential.v)),
            lambda: (done, potential),
        )

    start = problem.iterate_logs(jnp.zeros_like(d[0]))
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

    Arguments and source as for `center` and `potentials`.
    """
    d = center(d, columns=columns, axis_name=axis_name)
    _, v = potentials(
        d, epsilon=epsilon, iterations=iterations, columns=columns, axis_name=axis_name
    )
    cost = d / epsilon + v[None, :]
    if columns is not None:
        cost = jnp.where(columns[None, :], cost, jnp.inf)
    return numerics.first_min(cost)
