# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME's losses on a batch of users, positives and negatives, and their weights.

Lin et al., CIKM 2024. Rows that fill up the last batch have weight 0: they count
neither as rows nor as the negatives of others.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfrec.graph import gume
from rfrec.rf import contrast

# Draws of `perturb` in one loss: two of G, then two of Q.
DRAWS = 4
# Of PyTorch's `normalize`.
_FLOOR = 1e-12


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of the losses beside BPR, and their settings.

    Attributes:
      behaviour: Of the behaviour-modality alignment.
      behaviour_temperature: Its temperature.
      user: Of the user-modality enhancement.
      user_temperature: Its temperature.
      alignment: Of the alignment between modalities.
      embeddings: Of the squared embeddings Z.
      interest: Of the squared interest Q of the positives.
      batch_size: What the squares are divided by, also for a shorter last batch.
      noise: Length of the perturbation of a row.
      block: Rows compared at once by the contrastive losses, for memory; None for as
        many as fit 4 MiB of logits.
    """

    behaviour: float = 0.01
    behaviour_temperature: float = 0.4
    user: float = 0.01
    user_temperature: float = 0.1
    alignment: float = 0.1
    embeddings: float = 1e-5
    interest: float = 0.1
    batch_size: int = 2048
    noise: float = 0.1
    block: int | None = None


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
    """Returns how far modalities differ in mean and (unbiased) variance of F.

    Over all entries of all nodes. With more than two modalities it is the mean over
    pairs, with one it is 0.
    """
    parts = [side.explicit for side in propagated]
    modalities, width = parts[0].shape[1:]
    count = width * sum(map(len, parts))

    def total_of(arrays: list[Array]) -> Array:
        return jnp.stack([jnp.sum(a, axis=(0, 2)) for a in arrays]).sum(axis=0)

    means = total_of(parts) / count  # [M]
    gaps = [f - jnp.broadcast_to(means[None, :, None], f.shape) for f in parts]
    variances = total_of([gap**2 for gap in gaps]) / (count - 1)
    first, second = np.triu_indices(modalities, 1)
    apart = jnp.abs(means[first] - means[second])
    apart += jnp.abs(variances[first] - variances[second])
    return jnp.sum(apart) / max(len(first), 1)


def perturb(
    x: Float[Array, "B D"], draw: Float[Array, "B D"], length: float
) -> Float[Array, "B D"]:
    """Moves rows by `length` within their orthant, in a random direction.

    Args:
      x: Rows.
      draw: Uniform in 0 .. 1.
      length: Of the move.
    """
    norm = jnp.maximum(jnp.linalg.norm(draw, axis=1, keepdims=True), _FLOOR)
    return x + length * jnp.sign(x) * (draw / jnp.broadcast_to(norm, draw.shape))


def draw_noise(key: jax.Array, rows: int, width: int) -> Float[Array, "4 B D"]:
    """Draws what one loss needs for `perturb`."""
    return jax.random.uniform(key, (DRAWS, rows, width))


def behaviour_modality(
    settings: Weights,
    integration: Float[Array, "B2 D"],
    behaviour: Float[Array, "B2 D"],
    weights: Float[Array, " B"],
) -> Float[Array, ""]:
    """Aligns integration G with behaviour H: of users, and of positives."""

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
    """Aligns interest Q of users with G, and each of them, perturbed, with itself."""

    def compare(x, y):
        temperature, block = settings.user_temperature, settings.block
        return contrast.info_nce(x, y, temperature, weights=weights, block=block)

    g1, g2 = (perturb(integration, draw, settings.noise) for draw in noise[:2])
    q1, q2 = (perturb(interest, draw, settings.noise) for draw in noise[2:])
    return compare(interest, integration) + compare(g1, g2) + compare(q1, q2)


def squares(
    settings: Weights, x: Float[Array, "_ D"], weights: Float[Array, " _"]
) -> Float[Array, ""]:
    """Returns half the sum of squared rows by the batch size."""
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
      rows: Of the batch.
      propagated: Of all nodes.
      noise: Of `draw_noise`.
      weights: 1 for each row of the batch, 0 where it is filled up.
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
