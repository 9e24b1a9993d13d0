# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Codebooks of a training run: how they start, and the annealed temperature."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from rfrec.codes import table
from rfrec.tokenizer import kmeans, rqvae
from rfrec.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Codebooks:
    """How codebooks start and are updated.

    Attributes:
      init: `uniform` in (-1/K, 1/K), or `kmeans` on the residuals of each level.
      init_epoch: Epochs done before k-means: 0 at the first step (MQL4GRec, TIGER),
        1 after one epoch, when latents mean something.
      bypass: Until k-means the decoder gets the latents themselves and the codebook
        no loss, so that the vectors clustered are those of a trained autoencoder; else
        the random codebook is trained with.
      init_on: `batch`: the first batch of that epoch; `all`: every training item.
      kmeans_rows: Most items that `all` takes; of more, a sample drawn by the seed.
        None takes all. Faiss (Johnson et al., 2021) samples too, 256 a centre.
      kmeans_iterations: Most Lloyd iterations.
      kmeans_restarts: Seedings to try; the one with the fewest conflict items is kept.
      ema_decay: Of the moving averages, for `learned_by=ema`.
      revive_below: Average uses in a batch below which an EMA code is revived.
      temperature: Gumbel softmax temperature at the first and from the last annealed
        epoch on, exponentially in between.
      temperature_epochs: Epochs over which the temperature is annealed.
      freeze: After k-means only the decoder learns. Encoder and codebooks pull similar
        items together while they train, so codes collide least right after k-means.
    """

    init: Literal["uniform", "kmeans"] = "kmeans"
    init_epoch: int = 0
    bypass: bool = False
    init_on: Literal["batch", "all"] = "batch"
    kmeans_rows: int | None = 65_536
    kmeans_iterations: int = 100
    kmeans_restarts: int = 1
    ema_decay: float = 0.99
    revive_below: float = 0.0
    temperature: tuple[float, float] = (1.0, 1.0)
    temperature_epochs: float = 1.0
    freeze: bool = False


def fit(
    key: PRNGKeyArray,
    latents: Float[Array, "N W"],
    sizes: tuple[int, ...],
    settings: Codebooks,
) -> Float[np.ndarray, "Q K W"]:
    """Fits code vectors to latents by residual k-means.

    Args:
      key: Source of the seedings.
      latents: Of the items to initialise on.
      sizes: Number of codes of each level.
      settings: Iterations and restarts.

    Returns:
      The codebooks of the restart with the fewest conflict items, padded.
    """
    fits = [
        kmeans.fit_residual(
            jax.random.fold_in(key, i),
            latents,
            sizes,
            iterations=settings.kmeans_iterations,
        )
        for i in range(settings.kmeans_restarts)
    ]
    conflicts = [
        table.statistics(np.asarray(one.codes), sizes).conflict_items for one in fits
    ]
    best = fits[int(np.argmin(conflicts))].codebooks
    return np.asarray(rqvae.pad_codebooks(best, max(sizes)))


def temperature_at(epoch: Float[Array, ""], settings: Codebooks) -> Float[Array, ""]:
    """Returns the Gumbel temperature at a (fractional) epoch."""
    first, last = settings.temperature
    share = jnp.minimum(epoch / settings.temperature_epochs, 1.0)
    return first * (last / first) ** share


def replace(
    state: TrainState, vectors: Float[np.ndarray, "Q K W"], arch: rqvae.Architecture
) -> TrainState:
    """Replaces the codebook of a host state."""
    if arch.learned_by == "gradient" and not arch.projection:
        params = {**state.params, "codebook": vectors}
        return state.replace(params=params)
    codebook = {**state.model_state["codebook"], "vectors": vectors}
    if arch.learned_by == "ema":
        codebook |= {"counts": np.ones(vectors.shape[:2], "f4"), "sums": vectors}
    if arch.projection:
        # What has been learned so far would move the new vectors.
        identity = np.tile(np.eye(vectors.shape[2], dtype="f4"), (len(vectors), 1, 1))
        state = state.replace(params={**state.params, "projection": identity})
    return state.replace(model_state={**state.model_state, "codebook": codebook})
