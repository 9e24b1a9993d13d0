# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rectified flow between noise and embeddings: paths, losses, guidance, moments.

Liu et al. 2022, "Flow Straight and Fast": noise x0 and an embedding x1 are joined by a
straight line, x_t = t x1 + (1 - t) x0, and a network learns its velocity x1 - x0.
Plain functions of rows [B D] with a time for each row.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

TimeLaw = Literal["uniform", "logit_normal", "u_shaped"]
Regression = Literal["mse", "huber", "pseudo_huber"]

# How strongly the U-shaped law prefers the ends; Lee et al. 2024.
_STEEPNESS = 4.0
# Width of the pseudo-Huber loss for one column; Song & Dhariwal 2023.
_PSEUDO_HUBER = 0.00054
# The least norm that a row is divided by.
_LEAST_NORM = 1e-8
# The least variance of a column that is scaled.
_LEAST_VARIANCE = 1e-12


def interpolate(
    x0: Float[Array, "B D"], x1: Float[Array, "B D"], t: Float[Array, " B"]
) -> Float[Array, "B D"]:
    """Returns the points at times t on the lines from x0 to x1."""
    return t[:, None] * x1 + (1.0 - t[:, None]) * x0


def target(x0: Float[Array, "B D"], x1: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """Returns the velocity of the lines from x0 to x1."""
    return x1 - x0


def endpoint(
    x_t: Float[Array, "B D"], v: Float[Array, "B D"], t: Float[Array, " B"]
) -> Float[Array, "B D"]:
    """Returns where a line through x_t at time t with velocity v ends at time 1."""
    return x_t + (1.0 - t[:, None]) * v


def draw_times(
    key: PRNGKeyArray, count: int, law: TimeLaw = "uniform"
) -> Float[Array, " {count}"]:
    """Draws times in [0, 1].

    Args:
      key: Random key.
      count: How many.
      law: `uniform`; `logit_normal`: the logistic function of a standard normal, most
        often in the middle (Esser et al. 2024); `u_shaped`: density proportional to
        e^(4t) + e^(4(1-t)), most often at the ends (Lee et al. 2024, for reflow).
    """
    if law == "logit_normal":
        return jax.nn.sigmoid(jax.random.normal(key, (count,)))
    if law == "u_shaped":
        place, end = jax.random.split(key)
        u = jax.random.uniform(place, (count,))
        t = jnp.log1p(u * jnp.expm1(_STEEPNESS)) / _STEEPNESS
        return jnp.where(jax.random.bernoulli(end, shape=(count,)), t, 1.0 - t)
    if law != "uniform":
        raise ValueError(f"there is no law of times {law!r}")
    return jax.random.uniform(key, (count,))


def mean(
    rows: Float[Array, " B"], weights: Float[Array, " B"] | None
) -> Float[Array, ""]:
    """Returns the mean of rows by weight; 0 where nothing weighs."""
    if weights is None:
        return jnp.mean(rows)
    total = jnp.sum(weights)
    return jnp.sum(weights * rows) / jnp.where(total > 0, total, 1.0)


def regression(
    prediction: Float[Array, "B D"],
    wanted: Float[Array, "B D"],
    kind: Regression = "mse",
    weights: Float[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """Returns the mean error of rows.

    Args:
      prediction: Rows.
      wanted: Target rows.
      kind: `mse`: the mean square over columns; `huber`: the mean over columns of
        e^2/2, from |e| = 1 on |e| - 1/2; `pseudo_huber`: sqrt(|e|^2 + c^2) - c of the
        row's norm, c = 0.00054 sqrt(D) (Song & Dhariwal 2023).
      weights: Weights of the rows; 0 for rows that only fill up. None for all equal.
    """
    error = prediction - wanted
    if kind == "mse":
        rows = jnp.mean(error**2, axis=1)
    elif kind == "huber":
        size = jnp.abs(error)
        rows = jnp.mean(jnp.where(size < 1, 0.5 * error**2, size - 0.5), axis=1)
    elif kind == "pseudo_huber":
        c = _PSEUDO_HUBER * error.shape[1] ** 0.5
        rows = jnp.sqrt(jnp.sum(error**2, axis=1) + c**2) - c
    else:
        raise ValueError(f"there is no loss {kind!r}")
    return mean(rows, weights)


def prior_guidance(
    t: Float[Array, " #B"], prior: Float[Array, "B D"], scale: float, power: float
) -> Float[Array, "B D"]:
    """Returns scale (1 - t)^power prior: a push that fades along the way."""
    return scale * (1.0 - t[:, None]) ** power * prior


def cosine_gradient(
    x_t: Float[Array, "B D"], x1: Float[Array, "B D"]
) -> Float[Array, "B D"]:
    """Returns the gradient of cos(x_t, x1) with respect to x_t, row by row.

    With unit vectors a of x_t and b of x1 it is (b - a cos) / |x_t|; norms below 1e-8
    count as 1e-8.
    """
    size = _norm(x_t)
    a, b = x_t / size, x1 / _norm(x1)
    cosine = jnp.sum(a * b, axis=1, keepdims=True)
    return (b - a * cosine) / size


def _norm(x: Float[Array, "B D"]) -> Float[Array, "B 1"]:
    square = jnp.sum(x**2, axis=1, keepdims=True)
    return jnp.sqrt(jnp.maximum(square, _LEAST_NORM**2))


def guidance(
    x_t: Float[Array, "B D"],
    x1: Float[Array, "B D"],
    t: Float[Array, " B"],
    prior: Float[Array, "B D"] | None,
    *,
    prior_scale: float,
    prior_power: float,
    cosine_scale: float,
    cosine_power: float,
) -> Float[Array, "B D"]:
    """Returns the guidance that training adds to the predicted velocity.

    It depends on x1 and therefore exists in training only: a network trained with it
    learns the velocity minus the guidance.

    Args:
      x_t: Points on the lines.
      x1: Ends of the lines.
      t: Times of the points.
      prior: Direction of each row; None for none.
      prior_scale: Scale of the prior.
      prior_power: Exponent of its decay (1 - t)^power.
      cosine_scale: Scale of the gradient of cos(x_t, x1).
      cosine_power: Exponent of its decay.
    """
    total = jnp.zeros_like(x_t)
    if cosine_scale:
        fading = cosine_scale * (1.0 - t[:, None]) ** cosine_power
        total = fading * cosine_gradient(x_t, x1)
    if prior is not None and prior_scale:
        total = total + prior_guidance(t, prior, prior_scale, prior_power)
    return total


class Moments(NamedTuple):
    """Weight, mean and variance of the rows seen, by column.

    The network learns embeddings in units of their deviation: those of a young host
    are a hundred times smaller than the noise they would start from.
    """

    count: Float[Array, ""]
    mean: Float[Array, " D"]
    variance: Float[Array, " D"]


def start_moments(width: int) -> Moments:
    """Returns the moments before any row; they standardise nothing."""
    return Moments(jnp.zeros(()), jnp.zeros(width), jnp.ones(width))


def update_moments(
    moments: Moments,
    x: Float[Array, "B D"],
    weights: Float[Array, " B"] | None = None,
    *,
    decay: float = 1.0,
) -> Moments:
    """Adds rows by Chan et al.'s merging of moments (1983), without gradients.

    Args:
      moments: So far.
      x: Rows.
      weights: Weights of the rows; 0 for rows that only fill up. None for all 1.
      decay: What the rows so far still weigh: 1 counts all rows of a run alike, less
        forgets those of an embedding that has moved on.
    """
    x = lax.stop_gradient(x)
    weights = jnp.ones(len(x)) if weights is None else lax.stop_gradient(weights)
    added = jnp.sum(weights)
    safe = jnp.where(added > 0, added, 1.0)
    middle = jnp.sum(weights[:, None] * x, axis=0) / safe
    spread = jnp.sum(weights[:, None] * (x - middle[None]) ** 2, axis=0) / safe
    kept = decay * moments.count
    share = added / jnp.where(kept + added > 0, kept + added, 1.0)
    shift = middle - moments.mean
    variance = (1 - share) * moments.variance + share * spread
    return Moments(
        count=kept + added,
        mean=moments.mean + share * shift,
        variance=variance + share * (1 - share) * shift**2,
    )


def standardise(moments: Moments, x: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """Returns rows less the mean, in units of the deviation of each column."""
    return (x - moments.mean[None]) / _deviation(moments)[None]


def restore(moments: Moments, x: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """Undoes `standardise`."""
    return x * _deviation(moments)[None] + moments.mean[None]


def _deviation(moments: Moments) -> Float[Array, " D"]:
    """Returns the deviation of each column, 1 where a column never varies."""
    varies = moments.variance > _LEAST_VARIANCE
    return jnp.sqrt(jnp.where(varies, moments.variance, 1.0))
