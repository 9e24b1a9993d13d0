# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME's losses on a batch of users, positive and negative items, and their weights.

Lin et al., CIKM 2024. Rows that only fill up the last batch have weight 0: they count
neither as rows nor as negatives of other rows.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfrec import config as cfg
from rfrec.graph import gume
from rfrec.rf import contrast

# Draws of `perturb` in one loss: two of G, then two of Q.
DRAWS = 4
# The smallest norm that a row is divided by, as in PyTorch's `normalize`.
_LEAST_NORM = 1e-12


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of GUME's losses; the weight of BPR is 1.

    Attributes:
      behaviour: Weight of the behaviour-modality alignment.
      behaviour_temperature: Temperature of the behaviour-modality alignment.
      user: Weight of the user-modality enhancement.
      user_temperature: Temperature of the user-modality enhancement.
      alignment: Weight of the alignment between modalities.
      embeddings: Weight of the squared embeddings Z.
      interest: Weight of the squared interest Q of the positives.
      noise: Length of the perturbation of a row.
      block: Rows that the contrastive losses compare at once, to bound memory; None
        takes as many as fit 4 MiB of logits.
    """

    behaviour: float = cfg.option(0.01, cfg.at_least(0))
    behaviour_temperature: float = cfg.option(0.4, cfg.above(0))
    user: float = cfg.option(0.01, cfg.at_least(0))
    user_temperature: float = cfg.option(0.1, cfg.above(0))
    alignment: float = cfg.option(0.1, cfg.at_least(0))
    embeddings: float = cfg.option(1e-5, cfg.at_least(0))
    interest: float = cfg.option(0.1, cfg.at_least(0))
    noise: float = cfg.option(0.1, cfg.at_least(0))
    block: int | None = cfg.option(None, cfg.whole(1))


@dataclasses.dataclass(frozen=True)
class Weights(Options):
    """The options with the batch size, all that the losses depend on.

    Attributes:
      batch_size: Divisor of the squares, also for a shorter last batch.
    """

    batch_size: int = 2048


def bpr(
    users: Float[Array, "B D"],
    positives: Float[Array, "B D"],
    negatives: Float[Array, "B D"],
    weights: Float[Array, " B"],
) -> Float[Array, ""]:
    """Returns -mean log sigmoid(u.p - u.n) (Rendle et al. 2009)."""
    margin = jnp.sum(users * (positives - negatives), axis=1)
    return jnp.sum(weights * jax.nn.softplus(-margin)) / jnp.sum(weights)


def alignment(propagated: gume.Propagated) -> Float[Array, ""]:
    """Returns the differences between modalities in mean and unbiased variance of F.

    Mean and variance are over all entries of all nodes. The result is the mean over
    pairs of modalities; it is 0 if there is one modality.
    """
    parts = [side.explicit for side in propagated]
    modalities, width = parts[0].shape[1:]
    count = width * sum(map(len, parts))

    def sum_all(arrays: list[Array]) -> Array:
        return jnp.stack([jnp.sum(a, axis=(0, 2)) for a in arrays]).sum(axis=0)

    means = sum_all(parts) / count  # [M]
    gaps = [f - jnp.broadcast_to(means[None, :, None], f.shape) for f in parts]
    variances = sum_all([gap**2 for gap in gaps]) / (count - 1)
    first, second = np.triu_indices(modalities, 1)
    apart = jnp.abs(means[first] - means[second])
    apart += jnp.abs(variances[first] - variances[second])
    return jnp.sum(apart) / max(len(first), 1)


def perturb(
    x: Float[Array, "B D"], draw: Float[Array, "B D"], length: float
) -> Float[Array, "B D"]:
    """Moves rows by `length` in a random direction within their orthant.

    Args:
      x: Rows.
      draw: Uniform random numbers in [0, 1].
      length: Length of the move.
    """
    norm = jnp.maximum(jnp.linalg.norm(draw, axis=1, keepdims=True), _LEAST_NORM)
    return x + length * jnp.sign(x) * (draw / jnp.broadcast_to(norm, draw.shape))


def draw_noise(key: jax.Array, rows: int, width: int) -> Float[Array, "4 B D"]:
    """Draws the random numbers that `total` needs for `perturb`."""
    return jax.random.uniform(key, (DRAWS, rows, width))


def behaviour_modality(
    settings: Weights,
    integration: Float[Array, "B2 D"],
    behaviour: Float[Array, "B2 D"],
    weights: Float[Array, " B"],
) -> Float[Array, ""]:
    """Returns InfoNCE between integration G and behaviour H, of users and positives."""

    def compare(g, h):
        temperature, block = settings.behaviour_temperature, settings.block
        return contrast.info_nce(g, h, temperature, weights=weights, block=block)

    (g_users, g_items), (h_users, h_items) = (
        jnp.split(x, 2) for x in (integration, behaviour)
    )
    return compare(g_users, h_users) + compare(g_items, h_items)


def user_modality(
    settings: Weights,
    interest: Float[Array, "B D"],
    integration: Float[Array, "B D"],
    noise: Float[Array, "4 B D"],
    weights: Float[Array, " B"],
) -> Float[Array, ""]:
    """Returns InfoNCE between interest Q and G of users, and of each with itself.

    Rows are perturbed before they are compared with themselves.
    """

    def compare(x, y):
        temperature, block = settings.user_temperature, settings.block
        return contrast.info_nce(x, y, temperature, weights=weights, block=block)

    g1, g2 = (perturb(integration, draw, settings.noise) for draw in noise[:2])
    q1, q2 = (perturb(interest, draw, settings.noise) for draw in noise[2:])
    return compare(interest, integration) + compare(g1, g2) + compare(q1, q2)


def squares(
    settings: Weights, x: Float[Array, "_ D"], weights: Float[Array, " _"]
) -> Float[Array, ""]:
    """Returns half the sum of squared rows, divided by the batch size."""
    return 0.5 * jnp.sum(weights * jnp.sum(x**2, axis=1)) / settings.batch_size


def total(
    settings: Weights,
    rows: gume.Rows,
    propagated: gume.Propagated,
    noise: Float[Array, "4 B D"],
    weights: Float[Array, " B"],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Returns the weighted sum of all losses, and each without its weight.

    Args:
      settings: Weights and temperatures.
      rows: Rows of the batch, from `gume.batch_rows`.
      propagated: Embeddings of all nodes.
      noise: Random numbers from `draw_noise`.
      weights: 1 for each row of the batch, 0 for rows that only fill it up.
    """
    users, positives, negatives = jnp.split(rows.embeddings, 3)
    interest_users, interest_positives = jnp.split(rows.interest, 2)
    batch = len(weights)
    parts = {
        "bpr": bpr(users, positives, negatives, weights),
        "alignment": alignment(propagated),
        "behaviour_modality": behaviour_modality(
            settings,
            rows.integration[: 2 * batch],
            rows.behaviour[: 2 * batch],
            weights,
        ),
        "user_modality": user_modality(
            settings, interest_users, rows.integration[:batch], noise, weights
        ),
        "embeddings": squares(settings, rows.embeddings, jnp.tile(weights, 3)),
        "interest": squares(settings, interest_positives, weights),
    }
    factors = {
        "bpr": 1.0,
        "alignment": settings.alignment,
        "behaviour_modality": settings.behaviour,
        "user_modality": settings.user,
        "embeddings": settings.embeddings,
        "interest": settings.interest,
    }
    return sum((factors[name] * parts[name] for name in parts), jnp.float32(0)), parts
