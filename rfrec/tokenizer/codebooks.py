# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Codebooks of a training run: how they start, and the annealed temperature."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from rfrec import config as cfg
from rfrec.codes import table
from rfrec.tokenizer import kmeans, quantizer, rqvae
from rfrec.train.state import TrainState

_TWO = cfg.Rule(
    lambda v: len(v) == 2 and min(v) > 0, "two values above 0, first and last"
)


@dataclasses.dataclass(frozen=True)
class Codebooks(quantizer.Quantization):
    """How codebooks are initialised and updated.

    Attributes:
      init: `uniform` in (-1/K, 1/K), or `kmeans` on the residuals of each level.
      init_epoch: Number of epochs before k-means: 0 initialises at the first step
        (MQL4GRec, TIGER), later epochs cluster latents of a trained encoder.
      bypass: Whether the decoder receives the latents themselves until k-means, without
        a loss of the codebook, so that k-means clusters the latents of an autoencoder.
      init_on: Vectors for k-means: the first `batch` of the epoch, or `all` items.
      kmeans_rows: Maximum number of items that `all` takes: a random sample of more
        (Faiss, Johnson et al., 2021, takes 256 for each centre). None takes all.
      kmeans_iterations: Maximum number of Lloyd iterations.
      kmeans_restarts: Number of seedings; the one with the fewest conflicts is kept.
      ema_decay: Decay of the moving averages of `learned_by=ema`.
      revive_below: Average number of uses in a batch below which an EMA code is moved
        to a random residual of the batch.
      temperature: Temperature of the Gumbel softmax at first and from the last annealed
        epoch on, exponential in between.
      temperature_epochs: Number of epochs over which the temperature is annealed.
      freeze: Whether only the decoder learns after k-means. Encoder and codebooks pull
        similar items together while they train, so codes collide least right after
        k-means.
    """

    init: Literal["kmeans", "uniform"] = "kmeans"
    init_epoch: int = cfg.option(30, cfg.at_least(0))
    bypass: bool = True
    init_on: Literal["all", "batch"] = "all"
    kmeans_rows: int | None = cfg.option(65_536, cfg.at_least(1))
    kmeans_iterations: int = cfg.option(100, cfg.at_least(1))
    kmeans_restarts: int = cfg.option(8, cfg.at_least(1))
    ema_decay: float = cfg.option(0.99, cfg.within(0, 1))
    revive_below: float = cfg.option(0.0, cfg.at_least(0))
    temperature: tuple[float, float] = cfg.option((1.0, 0.2), _TWO)
    temperature_epochs: float = cfg.option(50.0, cfg.above(0))
    freeze: bool = True


# Encoder, codebooks and decoder train together from the first step, as in MQL4GRec.
ONE_PHASE = {
    "init_epoch": 0,
    "bypass": False,
    "init_on": "batch",
    "kmeans_restarts": 1,
    "freeze": False,
}


def fit(
    key: PRNGKeyArray,
    latents: Float[Array, "N W"],
    sizes: tuple[int, ...],
    settings: Codebooks,
) -> Float[np.ndarray, "Q K W"]:
    """Fits code vectors to latents by residual k-means.

    Args:
      key: Source of the seedings.
      latents: Latents of the items to initialise on.
      sizes: Number of codes of each level.
      settings: Options: iterations and restarts.

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
    spec = arch.quantization
    if spec.learned_by == "gradient" and not spec.projection:
        params = {**state.params, "codebook": vectors}
        return state.replace(params=params)
    codebook = {**state.model_state["codebook"], "vectors": vectors}
    if spec.learned_by == "ema":
        codebook |= {"counts": np.ones(vectors.shape[:2], "f4"), "sums": vectors}
    if spec.projection:
        # What has been learned so far would move the new vectors.
        identity = np.tile(np.eye(vectors.shape[2], dtype="f4"), (len(vectors), 1, 1))
        state = state.replace(params={**state.params, "projection": identity})
    return state.replace(model_state={**state.model_state, "codebook": codebook})
