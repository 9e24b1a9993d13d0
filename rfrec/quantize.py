# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Residual quantization for your own Flax model.

    vq = rfrec.quantize.ResidualQuantizer(sizes=(256, 256, 256), estimator="rotation")
    out = vq(z, training=True)            # z: [B, W] latents
    out.quantized, out.codes, out.loss    # [B, W], [B, 3], scalar

Inside a module that line is all that changes: feed `out.quantized` to the decoder and
add `out.loss` to the loss. `init_codebooks` replaces random codebooks by k-means of a
batch of latents. The mathematics is that of `rfrec.ItemTokenizer`.
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from rfrec.config import UserError
from rfrec.tokenizer import kmeans, quantizer, rqvae
from rfrec.typing import PyTree

__all__ = ["Output", "ResidualQuantizer", "init_codebooks"]


class Output(NamedTuple):
    """Quantized latents.

    Attributes:
      quantized: Sum of the chosen code vectors, with the gradient of the estimator.
      codes: Chosen code of each level.
      loss: Codebook loss plus `beta` times the commitment loss, mean over rows, width
        and levels.
      residuals: What each level quantized, without gradient.
    """

    quantized: Float[Array, "B W"]
    codes: Int[Array, "B Q"]
    loss: Float[Array, ""]
    residuals: Float[Array, "B Q W"]


class ResidualQuantizer(nn.Module):
    """Approximates latents by a sum of code vectors, one of each level.

    Level l chooses the code nearest to the residual r_l and leaves r_{l+1} = r_l - q_l
    (Lee et al., Autoregressive Image Generation using Residual Quantization, CVPR 2022,
    equation 3).

    The codebooks are the parameter `codebook` [Q, K, W]. With `ema=True` they are the
    variables `vectors`, `counts` and `sums` of the collection `codebook`, which a
    training step updates if it is mutable: `apply(..., mutable=["codebook"])`.

    Attributes:
      sizes: Number of codes of each level.
      estimator: Gradient through the choice: `ste` (straight-through), `rotation`
        (Fifty et al., ICLR 2025) or `gumbel` (Jang et al., ICLR 2017), which draws
        noise from the random stream `gumbel` while training.
      distance: Squared `l2`, or `cosine`.
      residual_grad: `stop` or `flow`: whether the commitment loss of later levels
        reaches the encoder, see `rfrec.tokenizer.quantizer.Quantization`.
      sk_epsilons: Sinkhorn regularisation of each level, or one for all; with values
        above 0 codes are assigned in balance over the batch while training.
      sk_iterations: Number of Sinkhorn iterations.
      beta: Weight of the commitment loss.
      ema: Whether codebooks are learned by moving averages instead of the gradient.
      ema_decay: Decay of the moving averages.
      revive_below: Average number of uses in a batch below which an EMA code is moved
        to a random residual of the batch, drawn from the random stream `revive`.
      axis_name: Device axis over which the batch is spread under `pmap`.
    """

    sizes: tuple[int, ...]
    estimator: Literal["ste", "rotation", "gumbel"] = "ste"
    distance: Literal["l2", "cosine"] = "l2"
    residual_grad: Literal["stop", "flow"] = "stop"
    sk_epsilons: tuple[float, ...] = (0.0,)
    sk_iterations: int = 50
    beta: float = 0.25
    ema: bool = False
    ema_decay: float = 0.99
    revive_below: float = 0.0
    axis_name: str | None = None

    @property
    def spec(self) -> quantizer.Quantization:
        """The options of the quantization."""
        return quantizer.Quantization(
            sizes=tuple(self.sizes),
            estimator=self.estimator,
            distance=self.distance,
            residual_grad=self.residual_grad,
            sk_epsilons=tuple(self.sk_epsilons),
            sk_iterations=self.sk_iterations,
            learned_by="ema" if self.ema else "gradient",
        )

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "B W"],
        *,
        training: bool = False,
        temperature: float | Float[Array, ""] = 1.0,
    ) -> Output:
        """Quantizes a batch of latents.

        Args:
          z: Latents.
          training: Whether Sinkhorn, the Gumbel noise and the EMA update apply.
          temperature: Temperature of the Gumbel softmax.

        Raises:
          UserError: `sk_epsilons` has neither one value nor one for each level, or the
            options cannot be combined.
        """
        self._check()
        spec, keys = self.spec, None
        codebook = self._codebook(z.shape[1])
        if training and self.estimator == "gumbel":
            keys = jax.random.split(self.make_rng("gumbel"), len(z))
        axis = self.axis_name if training else None
        result = quantizer.quantize_batch(
            z,
            codebook,
            spec,
            training=training,
            keys=keys,
            temperature=temperature,
            axis_name=axis,
        )
        losses = self.beta * result.commitment_loss
        if not self.ema:
            losses += result.codebook_loss
        elif training and self.is_mutable_collection("codebook"):
            self._update(result, axis)
        return Output(result.output, result.codes, jnp.mean(losses), result.residuals)

    def decode(self, codes: Int[Array, "B Q"]) -> Float[Array, "B W"]:
        """Returns the sum of the code vectors of codes."""
        if self.ema:
            codebook = self.get_variable("codebook", "vectors")
        else:
            codebook = self.get_variable("params", "codebook")
        levels = jnp.arange(len(self.sizes))
        return jnp.sum(jnp.asarray(codebook)[levels[None], codes], axis=1)

    def _check(self) -> None:
        if len(self.sk_epsilons) not in (1, len(self.sizes)):
            raise UserError(
                f"sk_epsilons has {len(self.sk_epsilons)} values for"
                f" {len(self.sizes)} levels; set one value, or one for each level"
            )
        if self.estimator == "gumbel" and (self.ema or self.spec.balanced):
            other = "ema=True" if self.ema else "sk_epsilons above 0"
            raise UserError(f"estimator='gumbel' cannot be combined with {other}")

    def _codebook(self, width: int) -> Float[Array, "Q K W"]:
        def draw(key: PRNGKeyArray) -> Float[Array, "Q K W"]:
            return rqvae.uniform_codebook(key, self.sizes, width)

        if not self.ema:
            return jnp.asarray(self.param("codebook", draw))
        vectors = self.variable(
            "codebook", "vectors", lambda: draw(self.make_rng("params"))
        ).value
        self.variable("codebook", "counts", jnp.ones, vectors.shape[:2])
        self.variable("codebook", "sums", lambda: vectors)
        return jnp.asarray(vectors)

    def _update(self, result: quantizer.Quantized, axis: str | None) -> None:
        """Moves the averages towards the batch."""
        averages = rqvae.Averages(
            self.get_variable("codebook", "counts"),
            self.get_variable("codebook", "sums"),
        )
        revive = self.revive_below > 0
        averages, vectors = rqvae.update_averages(
            averages,
            result.residuals,
            result.codes,
            decay=self.ema_decay,
            revive_below=self.revive_below,
            mask=self.spec.mask,
            key=self.make_rng("revive") if revive else jax.random.key(0),
            axis_name=axis,
        )
        self.put_variable("codebook", "vectors", vectors)
        for name, value in averages._asdict().items():
            self.put_variable("codebook", name, value)


def init_codebooks(
    variables: PyTree,
    latents: Float[Array, "N W"],
    sizes: tuple[int, ...],
    *,
    key: PRNGKeyArray,
    path: tuple[str, ...] = (),
    iterations: int = 100,
) -> PyTree:
    """Returns variables whose codebooks are the residual k-means of latents.

    Args:
      variables: Variables of a model with a `ResidualQuantizer`; they do not change.
      latents: Latents of at least as many rows as the largest level has codes.
      sizes: Number of codes of each level, as of the quantizer.
      key: Source of the seedings.
      path: Names of the submodules down to the quantizer, such as `("quantizer",)`;
        empty for the quantizer's own variables.
      iterations: Maximum number of Lloyd iterations.

    Raises:
      UserError: There is no quantizer at the path, or there are too few latents.
    """
    if len(latents) < max(sizes):
        raise UserError(
            f"k-means of {max(sizes)} codes requires as many latents, not"
            f" {len(latents)}; pass a larger batch"
        )
    fit = kmeans.fit_residual(key, latents, sizes, iterations=iterations)
    vectors = rqvae.pad_codebooks(fit.codebooks, max(sizes))
    present = [c for c in ("codebook", "params") if _has(variables, (c, *path), c)]
    if not present:
        raise UserError(f"variables contain no codebook at {'/'.join(path) or '.'}")
    if present[0] == "params":
        return _replace(variables, ("params", *path), {"codebook": vectors})
    counts = jnp.ones(vectors.shape[:2])
    entries = {"vectors": vectors, "counts": counts, "sums": vectors}
    return _replace(variables, ("codebook", *path), entries)


def _has(tree: PyTree, path: tuple[str, ...], collection: str) -> bool:
    """Returns whether a collection has the codebook at a path."""
    for name in path:
        if name not in tree:
            return False
        tree = tree[name]
    return ("vectors" if collection == "codebook" else "codebook") in tree


def _replace(tree: PyTree, path: tuple[str, ...], entries: PyTree) -> PyTree:
    """Returns a nested dict with entries merged at a path."""
    if not path:
        return {**tree, **entries}
    return {**tree, path[0]: _replace(tree[path[0]], path[1:], entries)}
