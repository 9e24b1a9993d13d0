# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Residual quantization: a latent in, its codes and the sum of their vectors out.

Everything is written for one vector and mapped over the batch with
`jax.vmap(..., axis_name=BATCH)`; the levels are a `lax.scan`. Only the balanced
assignment reads other rows: it gathers the distances of the batch over that axis.

With residual r_1 = z, level l picks code k_l with vector q_l = C_l[k_l], and
r_{l+1} = r_l - q_l (Lee et al., Autoregressive Image Generation using Residual
Quantization, CVPR 2022, equation 3; Rajput et al., TIGER, NeurIPS 2023, section 3.1).
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from rfrec import config as cfg
from rfrec import numerics
from rfrec.tokenizer import sinkhorn

BATCH = "batch"


@dataclasses.dataclass(frozen=True)
class Quantization:
    """How vectors become codes, and what the code vectors are.

    Attributes:
      sizes: Number of codes of each level; levels may differ.
      estimator: Gradient through the choice of a code: `ste` straight-through,
        `rotation` (Fifty et al., Restructuring Vector Quantization with the Rotation
        Trick, ICLR 2025), `gumbel` softmax over the codes (Jang et al., ICLR 2017).
      distance: Squared `l2`, or `cosine` (1 - cosine similarity).
      residual_grad: What the next level receives. `stop`: the residual minus the output
        of the estimator; with `ste` its gradient is exactly zero, so the commitment
        loss reaches the encoder from the first level only (MQL4GRec, LETTER). `flow`:
        the residual minus the detached code vector, so that the commitment loss of
        every level reaches the encoder.
      sk_epsilons: Sinkhorn regularisation while training, one value for each level or
        one for all; 0 takes the nearest code.
      sk_iterations: Number of Sinkhorn iterations.
      learned_by: Codebooks are learned by `gradient` or by moving averages, `ema`.
      projection: SimVQ (Zhu et al., 2024): code vectors are a frozen codebook times a
        learned matrix, so that a gradient moves all of them.
      l2_normalize: Whether latents and first-level code vectors have length 1.
    """

    sizes: tuple[int, ...] = cfg.option((64,) * 4, cfg.each(cfg.whole(1), least=1))
    estimator: Literal["ste", "rotation", "gumbel"] = "ste"
    distance: Literal["l2", "cosine"] = "l2"
    residual_grad: Literal["stop", "flow"] = "stop"
    sk_epsilons: tuple[float, ...] = cfg.option(
        (0.0,), cfg.each(cfg.at_least(0), least=1)
    )
    sk_iterations: int = cfg.option(50, cfg.at_least(1))
    learned_by: Literal["gradient", "ema"] = "gradient"
    projection: bool = False
    l2_normalize: bool = False

    @property
    def epsilons(self) -> tuple[float, ...]:
        """Sinkhorn regularisation of each level."""
        one = len(self.sk_epsilons) == 1
        return self.sk_epsilons * len(self.sizes) if one else self.sk_epsilons

    @property
    def mask(self) -> Bool[np.ndarray, "Q K"] | None:
        """True where a code exists; None if all levels are equally large."""
        widest = max(self.sizes)
        if min(self.sizes) == widest:
            return None
        return np.arange(widest)[None, :] < np.array(self.sizes)[:, None]

    @property
    def balanced(self) -> bool:
        """Whether any level is assigned by Sinkhorn while training."""
        return any(epsilon > 0 for epsilon in self.sk_epsilons)


class Quantized(NamedTuple):
    """One quantized vector; with a leading batch axis after `vmap`.

    Attributes:
      codes: Code of each level.
      output: Input of the decoder: the sum of the code vectors, with the gradient of
        the estimator.
      codebook_loss: Mean over the width of (sg r - q)^2, for each level.
      commitment_loss: Mean over the width of (r - sg q)^2, for each level.
      residuals: Input of each level, without gradient.
    """

    codes: Int[Array, "*B Q"]
    output: Float[Array, "*B D"]
    codebook_loss: Float[Array, "*B Q"]
    commitment_loss: Float[Array, "*B Q"]
    residuals: Float[Array, "*B Q D"]


def code_distances(
    r: Float[Array, " D"], codebook: Float[Array, "K D"], distance: str
) -> Float[Array, " K"]:
    """Returns the distance of one vector to every code."""
    if distance == "l2":
        return jnp.sum(r**2) + jnp.sum(codebook**2, axis=1) - 2 * codebook @ r
    return 1 - unit(codebook) @ unit(r)


def unit(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Scales vectors to length 1; the zero vector stays, with a zero gradient."""
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    return x * lax.rsqrt(jnp.maximum(square, 1e-12))


def rotate(r: Float[Array, " D"], q: Float[Array, " D"]) -> Float[Array, " D"]:
    """Returns q as the rotated and rescaled r, both transformations held constant.

    q = |q|/|r| R r with R = I - 2 w w^T + 2 q^ r^T, where r^ and q^ are unit vectors
    and w = (r^ + q^) / |r^ + q^| (Fifty et al., equation 4 and section 4.3): the
    gradient reaching r is turned by R^T and scaled, not copied.
    """
    r_unit, q_unit = lax.stop_gradient(unit(r)), lax.stop_gradient(unit(q))
    w = lax.stop_gradient(unit(r_unit + q_unit))
    scale = jnp.linalg.norm(q) / jnp.maximum(jnp.linalg.norm(r), 1e-6)
    turned = r - 2 * w * (w @ r) + 2 * q_unit * (r_unit @ r)
    return lax.stop_gradient(scale) * turned


def _straight_through(r: Float[Array, " D"], q: Float[Array, " D"]):
    return r + lax.stop_gradient(q - r)


def _balanced_code(d: Float[Array, " K"], epsilon, columns, spec, axis_name):
    """Assigns one row by Sinkhorn over its batch, and over all devices."""
    rows = lax.all_gather(d, BATCH)
    codes = sinkhorn.assign(
        rows,
        epsilon=epsilon,
        iterations=spec.sk_iterations,
        columns=columns,
        axis_name=axis_name,
    )
    return codes[lax.axis_index(BATCH)]


def _choose(d: Float[Array, " K"], epsilon, columns, spec, axis_name):
    """Returns the code of one row from its (detached) distances."""

    def closest():
        return numerics.first_min(d)

    if columns is not None:
        d = jnp.where(columns, d, jnp.inf)
    if epsilon is None:
        return closest()
    return lax.cond(
        epsilon > 0,
        lambda: _balanced_code(d, epsilon, columns, spec, axis_name),
        closest,
    )


def _soft_code(d, codebook, columns, key, temperature):
    """Returns the Gumbel-softmax mixture of the code vectors."""
    logits = -d + jax.random.gumbel(key, d.shape, d.dtype)
    if columns is not None:
        logits = jnp.where(columns, logits, -jnp.inf)
    return jax.nn.softmax(logits / temperature) @ codebook


def _level_inputs(z, codebooks, spec, training, key) -> dict[str, Array]:
    """Returns what the scan over levels reads, one entry of each array per level."""
    levels = {"codebook": codebooks}
    if spec.mask is not None:
        levels["columns"] = jnp.asarray(spec.mask)
    if training and spec.balanced:
        levels["epsilon"] = jnp.asarray(spec.epsilons, z.dtype)
    if training and spec.estimator == "gumbel":
        assert key is not None, "gumbel draws noise while training"
        levels["key"] = jax.random.split(key, len(spec.sizes))
    return levels


def quantize(
    z: Float[Array, " D"],
    codebooks: Float[Array, "Q K D"],
    spec: Quantization,
    *,
    training: bool,
    key: PRNGKeyArray | None = None,
    temperature: float | Float[Array, ""] = 1.0,
    axis_name: str | None = None,
) -> Quantized:
    """Quantizes one vector level by level; call it under `vmap(axis_name=BATCH)`.

    Args:
      z: Latent vector.
      codebooks: Code vectors; levels smaller than K are padded.
      spec: How vectors become codes.
      training: Whether Sinkhorn and the Gumbel noise apply. Otherwise every level takes
        the nearest code.
      key: Key of this vector's noise for `gumbel`.
      temperature: Temperature of the Gumbel softmax, > 0.
      axis_name: Device axis over which the batch is spread.
    """
    soft = training and spec.estimator == "gumbel"
    estimator = rotate if spec.estimator == "rotation" else _straight_through

    def level(residual, inputs):
        codebook, columns = inputs["codebook"], inputs.get("columns")
        d = code_distances(residual, codebook, spec.distance)
        detached = lax.stop_gradient(d)
        code = _choose(detached, inputs.get("epsilon"), columns, spec, axis_name)
        if soft:
            q = _soft_code(d, codebook, columns, inputs["key"], temperature)
            estimate = q
        else:
            q = codebook[code]
            estimate = estimator(residual, q)
        losses = (
            jnp.mean((lax.stop_gradient(residual) - q) ** 2),
            jnp.mean((residual - lax.stop_gradient(q)) ** 2),
        )
        step = estimate if spec.residual_grad == "stop" else lax.stop_gradient(q)
        outputs = code, q, estimate, *losses, lax.stop_gradient(residual)
        return residual - step, outputs

    _, (codes, q, estimates, codebook_loss, commitment_loss, residuals) = lax.scan(
        level, z, _level_inputs(z, codebooks, spec, training, key)
    )
    if soft or spec.residual_grad == "stop":
        output = jnp.sum(estimates, axis=0)
    else:
        # Each level's estimate would carry the whole gradient to z: Q times too much.
        output = estimator(z, jnp.sum(q, axis=0))
    return Quantized(codes, output, codebook_loss, commitment_loss, residuals)


def quantize_batch(
    z: Float[Array, "B D"],
    codebooks: Float[Array, "Q K D"],
    spec: Quantization,
    *,
    training: bool,
    keys: Key[Array, " B"] | None = None,
    temperature: float | Float[Array, ""] = 1.0,
    axis_name: str | None = None,
) -> Quantized:
    """Applies `quantize` to each row of a batch; `keys` has one key for each row."""

    def one(z, key):
        return quantize(
            z,
            codebooks,
            spec,
            training=training,
            key=key,
            temperature=temperature,
            axis_name=axis_name,
        )

    in_axes = (0, None if keys is None else 0)
    return jax.vmap(one, in_axes=in_axes, axis_name=BATCH)(z, keys)
