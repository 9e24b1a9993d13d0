# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The RQ-VAE's losses: reconstruction, codebook and commitment, and their weights."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from rfrec import config as cfg
from rfrec.tokenizer import rqvae


@dataclasses.dataclass(frozen=True)
class Objective:
    """Weights and reductions of the loss.

    total = recon_weight * recon + quant_weight * R_l(codebook_weight * codebook_l
    + beta * commitment_l), R the mean or the sum over levels.

    Attributes:
      recon: Loss of the dense columns, `mse` or `l1`.
      multi_hot: Loss of the columns of multi-hot features: `bce` treats outputs as
        logits of a binary cross-entropy, `dense` treats them as the other columns.
      recon_reduce: Reduction over the columns, `mean` or `sum`.
      level_reduce: Reduction over the levels, `mean` or `sum`.
      recon_weight: Weight of the reconstruction.
      quant_weight: Weight of the codebook and commitment losses together.
      codebook_weight: Weight of the codebook loss; no effect if codebooks are learned
        by moving averages.
      beta: Weight of the commitment loss.
      beta_warmup_epochs: Number of epochs over which beta grows linearly from 0.
    """

    recon: Literal["mse", "l1"] = "mse"
    multi_hot: Literal["bce", "dense"] = "bce"
    recon_reduce: Literal["mean", "sum"] = "mean"
    level_reduce: Literal["mean", "sum"] = "mean"
    recon_weight: float = cfg.option(1.0, cfg.at_least(0))
    quant_weight: float = cfg.option(1.0, cfg.at_least(0))
    codebook_weight: float = cfg.option(1.0, cfg.at_least(0))
    beta: float = cfg.option(0.25, cfg.at_least(0))
    beta_warmup_epochs: float = cfg.option(0.0, cfg.at_least(0))


class Losses(NamedTuple):
    """The total of each row and its parts, reduced but unweighted."""

    total: Float[Array, "*B"]
    reconstruction: Float[Array, "*B"]
    quantization: Float[Array, "*B"]


_REDUCE = {"mean": jnp.mean, "sum": jnp.sum}


def reconstruction_loss(
    prediction: Float[Array, "B D"],
    x: Float[Array, "B D"],
    objective: Objective,
    *,
    multi_hot: Bool[np.ndarray, " D"] | None = None,
) -> Float[Array, " B"]:
    """Returns the reconstruction loss of each row.

    Args:
      prediction: The decoder's output.
      x: Item vectors.
      objective: Names the loss and its reduction.
      multi_hot: True for the columns of multi-hot features; None if there are none.
    """
    error = prediction - x
    loss = error**2 if objective.recon == "mse" else jnp.abs(error)
    if multi_hot is not None and objective.multi_hot == "bce":
        bce = optax.sigmoid_binary_cross_entropy(prediction, x)
        loss = jnp.where(multi_hot[None, :], bce, loss)
    return _REDUCE[objective.recon_reduce](loss, axis=1)


def reconstruct(
    prediction: Float[Array, "B D"],
    objective: Objective,
    *,
    multi_hot: Bool[np.ndarray, " D"] | None = None,
) -> Float[Array, "B D"]:
    """Turns the decoder's output into item vectors: logits become probabilities."""
    if multi_hot is None or objective.multi_hot != "bce":
        return prediction
    return jnp.where(multi_hot[None, :], jax.nn.sigmoid(prediction), prediction)


def row_losses(
    output: rqvae.Output,
    x: Float[Array, "B D"],
    objective: Objective,
    *,
    beta: float | Float[Array, ""],
    multi_hot: Bool[np.ndarray, " D"] | None = None,
    bypass: Bool[Array, ""] | None = None,
) -> Losses:
    """Combines the losses of one pass; the loss of a batch is the mean of its rows.

    Args:
      output: Output of the model for x.
      x: Item vectors.
      objective: Weights and reductions.
      beta: Weight of the commitment loss at this step.
      multi_hot: As for `reconstruction_loss`.
      bypass: If true, the quantization loss is 0.
    """
    recon = reconstruction_loss(
        output.reconstruction, x, objective, multi_hot=multi_hot
    )
    levels = (
        objective.codebook_weight * output.quantized.codebook_loss
        + beta * output.quantized.commitment_loss
    )
    quantization = _REDUCE[objective.level_reduce](levels, axis=1)
    if bypass is not None:
        quantization = jnp.where(bypass, 0.0, quantization)
    total = objective.recon_weight * recon + objective.quant_weight * quantization
    return Losses(total, recon, quantization)


def beta_at(epoch: float | Float[Array, ""], objective: Objective) -> Float[Array, ""]:
    """Returns the commitment weight at a (fractional) epoch."""
    warmup = objective.beta_warmup_epochs
    share = 1.0 if warmup <= 0 else jnp.minimum(epoch / warmup, 1.0)
    return jnp.asarray(objective.beta * share, jnp.float32)
