# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the network sees: rows in units of their deviation, if the settings say so.

Host's rows flow in, rows of the network out, and back.
"""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from rfrec.rf import flow
from rfrec.rf.settings import Settings

# What the rows of a step leave of the weight of those before: the host's embeddings
# move on, and so do their moments.
_DECAY = 0.99


class Moments(NamedTuple):
    """Of target and conditions; they stay as they start unless `standardise` is set."""

    target: flow.Moments
    condition: flow.Moments


class Line(NamedTuple):
    """Points between which the velocity is learned at some times; network's units."""

    start: Float[Array, "B D"]
    end: Float[Array, "B D"]
    times: Float[Array, " B"]


def start(width: int, condition_width: int) -> Moments:
    """Returns the moments before any row."""
    return Moments(flow.start_moments(width), flow.start_moments(condition_width))


def observe(
    settings: Settings,
    moments: Moments,
    target: Float[Array, "B D"],
    condition: Float[Array, "B C"],
    weights: Float[Array, " B"] | None = None,
) -> Moments:
    """Adds the rows of a step to the moments."""
    if not settings.standardise:
        return moments
    pairs = zip(moments, (target, condition), strict=True)
    return Moments(
        *(flow.update_moments(m, x, weights, decay=_DECAY) for m, x in pairs)
    )


def enter(
    settings: Settings, moments: flow.Moments, x: Float[Array, "B D"]
) -> Float[Array, "B D"]:
    """Returns the host's rows as the network sees them."""
    return flow.standardise(moments, x) if settings.standardise else x


def leave(
    settings: Settings, moments: flow.Moments, x: Float[Array, "B D"]
) -> Float[Array, "B D"]:
    """Undoes `enter`."""
    return flow.restore(moments, x) if settings.standardise else x


def direction(
    settings: Settings, moments: flow.Moments, x: Float[Array, "B D"] | None
) -> Float[Array, "B D"] | None:
    """Returns directions as the network sees them: they have a length and no place."""
    if x is None or not settings.standardise:
        return x
    return flow.standardise(moments, x + moments.mean[None])


def draw_line(
    settings: Settings,
    moments: Moments,
    target: Float[Array, "B D"],
    key: PRNGKeyArray,
) -> Line:
    """Draws noise and times for rows of the target."""
    keys, end = jax.random.split(key), enter(settings, moments.target, target)
    noise = settings.noise_scale * jax.random.normal(keys[0], target.shape)
    return Line(noise, end, flow.draw_times(keys[1], len(target), settings.time_law))
