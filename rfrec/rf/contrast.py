# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Contrast losses of rows against candidates: InfoNCE by log-sum-exp, mean square.

InfoNCE (van den Oord et al. 2018) of rows x and candidates y, y[i] the positive of
x[i]: -mean_i log(e^(cos(x_i, y_i)/T) / sum_j e^(cos(x_i, y_j)/T)).

Its gradient needs the same exponentials as its value. They are used for both as soon as
they are made, a block of rows at a time, so that no pass makes them twice and no matrix
of all rows times all candidates outlives its block.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from rfrec.rf import flow

# Logits of candidates that do not count; finite, so that no NaN comes of it.
_NEG = -1e30
# The least norm that a row is divided by, as PyTorch's `normalize`.
_LEAST_NORM = 1e-12
# Logits held at once where no block is given: 4 MiB, which stay in a cache, and several
# losses in one program do not push each other out of it.
_ENTRIES = 2**20


def normalise(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Scales rows to length 1; norms below 1e-12 count as 1e-12."""
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.maximum(square, _LEAST_NORM**2))


def info_nce(
    x: Float[Array, "B D"],
    y: Float[Array, "M D"],
    temperature: float,
    *,
    weights: Float[Array, " B"] | None = None,
    block: int | None = None,
) -> Float[Array, ""]:
    """Returns InfoNCE of rows against all candidates.

    Args:
      x: Anchors.
      y: Candidates, M >= B; y[i] is the positive of x[i].
      temperature: Above 0.
      weights: Weights of the anchors, without gradient; a row of weight 0 counts
        neither as an anchor nor as a candidate. None for all equal.
      block: Anchors at a time; None for as many as fit 4 MiB of logits.
    """
    rows = _rows(x, y)
    counts = jnp.ones(len(y), bool)
    if weights is not None:
        counts = counts.at[:rows].set(weights > 0)
    x, y = normalise(x), normalise(y)
    sides = _Sides(x, y[:rows], y, jnp.arange(rows), jnp.arange(len(y)), counts)
    return _info_nce(sides, temperature, weights, block)


def info_nce_sampled(
    x: Float[Array, "B D"],
    y: Float[Array, "M D"],
    temperature: float,
    negatives: Int[Array, " K"] | Int[Array, "B K"],
    *,
    weights: Float[Array, " B"] | None = None,
    block: int | None = None,
) -> Float[Array, ""]:
    """Returns InfoNCE of rows against their positive and some of the candidates.

    Args:
      x: Anchors.
      y: Candidates, M >= B; y[i] is the positive of x[i].
      temperature: Above 0.
      negatives: Rows of y, the same for all anchors or some for each. Those that are
        an anchor's own positive do not count.
      weights: As for `info_nce`.
      block: As for `info_nce`.
    """
    rows = _rows(x, y)
    counts = jnp.ones(negatives.shape, bool)
    if weights is not None:
        filled = jnp.concatenate([weights > 0, jnp.ones(len(y) - rows, bool)])
        counts = filled[negatives]
    x, y = normalise(x), normalise(y)
    own = jnp.arange(rows)
    if negatives.ndim == 1:
        sides = _Sides(x, y[:rows], y[negatives], own, negatives, counts)
        return _info_nce(sides, temperature, weights, block)
    # Candidates of each row's own share nothing between rows: autodiff does.
    counts &= negatives != own[:, None]
    size = block or max(1, _ENTRIES // negatives.shape[1] // x.shape[1])

    @jax.checkpoint
    def losses(row: tuple) -> Float[Array, ""]:
        anchor, positive, near, there = row
        logits = jnp.where(there, y[near] @ anchor / temperature, _NEG)
        first = jnp.sum(anchor * positive) / temperature
        return jax.nn.logsumexp(jnp.append(logits, first)) - first

    each = lax.map(losses, (x, y[:rows], negatives, counts), batch_size=size)
    return flow.mean(each, weights)


def squared(
    x: Float[Array, "B D"],
    y: Float[Array, "B D"],
    weights: Float[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """Returns the mean square of differences over rows and columns."""
    return flow.regression(x, y, "mse", weights)


def _rows(x: Float[Array, "B D"], y: Float[Array, "M D"]) -> int:
    """Returns the number of anchors, each of which has a positive."""
    if len(x) > len(y):
        raise ValueError(f"there are {len(x)} anchors, {len(y)} candidates")
    return len(x)


class _Sides(NamedTuple):
    """Rows of length 1 that are compared, and which pairs count.

    Attributes:
      anchors: Rows that are pulled to their positives.
      positives: One for each anchor.
      candidates: Negatives; those whose number is an anchor's own are none for it.
      own: Number of each anchor's positive.
      numbers: Numbers of the candidates.
      counts: False for candidates that are none.
    """

    anchors: Float[Array, "B D"]
    positives: Float[Array, "B D"]
    candidates: Float[Array, "K D"]
    own: Int[Array, " B"]
    numbers: Int[Array, " K"]
    counts: Bool[Array, " K"]


def _info_nce(
    sides: _Sides,
    temperature: float,
    weights: Float[Array, " B"] | None,
    block: int | None,
) -> Float[Array, ""]:
    """Returns the mean loss of anchors by weight, in even blocks."""
    rows = len(sides.anchors)
    weights = jnp.ones(rows) if weights is None else lax.stop_gradient(weights)
    total = jnp.sum(weights)
    weights = weights / jnp.where(total > 0, total, 1.0)
    most = block or max(1, _ENTRIES // max(1, len(sides.candidates)))
    blocks = max(1, -(-rows // most))
    missing = -(-rows // blocks) * blocks - rows

    def fill(x: Array) -> Array:
        """Adds rows of weight 0 and splits into blocks."""
        x = jnp.pad(x, ((0, missing), *((0, 0),) * (x.ndim - 1)))
        return x.reshape(blocks, -1, *x.shape[1:])

    anchors, positives, own, weights = map(
        fill, (sides.anchors, sides.positives, sides.own, weights)
    )
    kept = (sides.candidates, sides.numbers, sides.counts)
    return _total(temperature, anchors, positives, own, weights, *kept)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _total(temperature, anchors, positives, own, weights, candidates, numbers, counts):
    """Returns the weighted sum of losses; leading axes are blocks and rows."""
    rows = (anchors, positives, own, weights)
    return _forward(temperature, *rows, candidates, numbers, counts)[0]


def _forward(
    temperature, anchors, positives, own, weights, candidates, numbers, counts
):
    """Returns the sum and its slopes."""

    def one_block(carry, rows):
        anchors, positives, own, weights = rows
        total, slope = carry
        scaled = anchors / temperature
        first = jnp.sum(scaled * positives, axis=1)  # [R]
        logits = scaled @ candidates.T  # [R K]
        there = counts[None] & (own[:, None] != numbers[None])
        logits = jnp.where(there, logits, _NEG)
        top = jnp.maximum(first, jnp.max(logits, axis=1, initial=_NEG))
        shares = jnp.exp(logits - top[:, None])
        others = jnp.sum(shares, axis=1)
        mass = others + jnp.exp(first - top)
        total = total + jnp.sum(weights * (top + jnp.log(mass) - first))
        # d loss / d logit is the candidate's share of the mass; for the positive, less
        # 1: the others' share with a minus, without cancellation.
        rate = (weights / mass / temperature)[:, None]
        pull = rate * others[:, None]
        to_anchors = rate * (shares @ candidates) - pull * positives
        # The wide side on the right, and the turning kept apart: XLA's CPU compiler
        # takes more than twice as long for `shares.T @ ...`, and would make this it.
        turned = lax.optimization_barrier((rate * anchors).T @ shares)
        slope = slope + turned.T
        return (total, slope), (to_anchors, -pull * anchors)

    start = jnp.zeros((), anchors.dtype), jnp.zeros_like(candidates)
    rows = (anchors, positives, own, weights)
    if len(anchors) == 1:
        carry, slopes = one_block(start, jax.tree.map(lambda x: x[0], rows))
        slopes = jax.tree.map(lambda x: x[None], slopes)
    else:
        carry, slopes = lax.scan(one_block, start, rows)
    return carry[0], (*slopes, carry[1])


def _backward(temperature, slopes, gradient):
    del temperature
    to_anchors, to_positives, to_candidates = (gradient * s for s in slopes)
    return to_anchors, to_positives, None, None, to_candidates, None, None


_total.defvjp(_forward, _backward)
