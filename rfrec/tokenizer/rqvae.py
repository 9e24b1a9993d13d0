# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The RQ-VAE: encoder, residual quantizer, decoder as one Linen module.

Item vectors [B D] flow in; reconstructions, latents and quantized vectors flow out.
Parameters are plain dicts: `encoder`, `decoder`, and a padded `codebook` [Q K W]. A
codebook without a gradient (learned by moving averages, or frozen under a projection)
is in the collection `codebook` instead; statistics of normalised inputs are in
`inputs`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from rfrec import config as cfg
from rfrec.tokenizer import quantizer
from rfrec.train.matmul import matmul

# Average count below which an unused EMA code is no longer decayed.
_FADED = 1e-5

INITIALIZERS = {
    "xavier": nn.initializers.xavier_normal(),
    "normal": nn.initializers.normal(0.02),
}


@dataclasses.dataclass(frozen=True)
class Layers:
    """Shape and numerics of encoder and decoder.

    Attributes:
      hidden: Widths of the encoder's hidden layers; the decoder mirrors them.
      latent_width: Width of the latents and of the code vectors.
      dropout: Dropout rate before every linear layer.
      batch_norm: Whether every hidden linear layer is followed by batch normalisation.
      normalize_input: Whether the columns of the input are standardised by the
        statistics of all items; reconstructions are in the original units.
      initializer: `xavier` normal, or `normal` with standard deviation 0.02; biases are
        zero.
      dtype: Type of the products of encoder and decoder; all else is float32.
    """

    hidden: tuple[int, ...] = cfg.option((256, 256), cfg.each(cfg.whole(1)))
    latent_width: int = cfg.option(32, cfg.at_least(1))
    dropout: float = cfg.option(0.0, cfg.within(0, 1))
    batch_norm: bool = False
    normalize_input: bool = False
    initializer: Literal["xavier", "normal"] = "xavier"
    dtype: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture(Layers):
    """All that determines the parameters and the function of an RQ-VAE.

    Attributes:
      input_width: Width of an item vector.
      quantization: How latents become codes.
    """

    input_width: int
    quantization: quantizer.Quantization


def drop_rows(
    keys: Key[Array, " B"], x: Float[Array, "B D"], rate: float
) -> Float[Array, "B D"]:
    """Applies dropout with one key a row.

    The noise depends on the row's key only, not on how a batch is spread over devices.

    """
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0)


def _product(x, kernel, dimensions, precision=None, preferred_element_type=None):
    """Multiplies for `nn.Dense`, by the product with the fast gradient."""
    del dimensions, precision, preferred_element_type
    return matmul(x, kernel)


class Mlp(nn.Module):
    """Linear layers with ReLU between them: dropout, linear, norm, ReLU."""

    widths: tuple[int, ...]
    arch: Architecture
    axis_name: str | None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B D"], *, training: bool, keys: Key[Array, " B"] | None
    ) -> Float[Array, "B W"]:
        arch = self.arch
        for i, width in enumerate(self.widths):
            if training and arch.dropout > 0:
                assert keys is not None, "dropout draws noise while training"
                layer_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
                x = drop_rows(layer_keys, x, arch.dropout)
            x = nn.Dense(
                width,
                dtype=jnp.dtype(arch.dtype),
                kernel_init=INITIALIZERS[arch.initializer],
                dot_general=_product,
                name=f"linear_{i}",
            )(x)
            if i == len(self.widths) - 1:
                break
            if arch.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=not training,
                    momentum=0.9,
                    axis_name=self.axis_name if training else None,
                    name=f"norm_{i}",
                )(x)
            x = nn.relu(x)
        return x.astype(jnp.float32)


class Output(NamedTuple):
    """Results of one pass."""

    reconstruction: Float[Array, "B D"]
    latents: Float[Array, "B W"]
    quantized: quantizer.Quantized


class RQVAE(nn.Module):
    """Encoder, residual quantizer and decoder.

    Attributes:
      arch: See `Architecture`.
      axis_name: Device axis over which a batch is spread; None on one device and
        where the compiler partitions the program.
    """

    arch: Architecture
    axis_name: str | None = None

    def setup(self):
        arch, spec = self.arch, self.arch.quantization
        self.encoder = Mlp((*arch.hidden, arch.latent_width), arch, self.axis_name)
        self.decoder = Mlp(
            (*reversed(arch.hidden), arch.input_width), arch, self.axis_name
        )
        shape = (len(spec.sizes), max(spec.sizes), arch.latent_width)
        if spec.learned_by == "ema" or spec.projection:
            vectors = self.variable("codebook", "vectors", self._uniform, shape)
            self.codebook = vectors.value
            if spec.learned_by == "ema":
                self.variable("codebook", "counts", jnp.ones, shape[:2])
                self.variable("codebook", "sums", lambda: vectors.value)
        else:
            self.codebook = self.param(
                "codebook", lambda key: uniform_codebook(key, spec.sizes, shape[-1])
            )
        if spec.projection:
            self.projection = self.param(
                "projection", lambda _: jnp.tile(jnp.eye(shape[-1]), (shape[0], 1, 1))
            )
        if arch.normalize_input:
            width = (arch.input_width,)
            self.mean = self.variable("inputs", "mean", jnp.zeros, width)
            self.deviation = self.variable("inputs", "deviation", jnp.ones, width)

    def _uniform(self, shape):
        return uniform_codebook(
            self.make_rng("params"), self.arch.quantization.sizes, shape[-1]
        )

    def code_vectors(self) -> Float[Array, "Q K W"]:
        """Returns the code vectors in use: projected, normalised as configured."""
        spec = self.arch.quantization
        vectors = jnp.asarray(self.codebook)  # parameters may lie on the host
        if spec.projection:
            vectors = jnp.einsum("qkw,qwv->qkv", vectors, self.projection)
        if spec.l2_normalize:
            first = quantizer.unit(vectors[:1])
            vectors = jnp.concatenate([first, vectors[1:]])
        return vectors

    def encode(
        self,
        x: Float[Array, "B D"],
        *,
        training: bool = False,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B W"]:
        """Returns the latents of item vectors."""
        if self.arch.normalize_input:
            x = (x - self.mean.value[None]) / self.deviation.value[None]
        z = self.encoder(x, training=training, keys=keys)
        return quantizer.unit(z) if self.arch.quantization.l2_normalize else z

    def decode(
        self,
        q: Float[Array, "B W"],
        *,
        training: bool = False,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B D"]:
        """Returns the item vectors of quantized latents."""
        x = self.decoder(q, training=training, keys=keys)
        if self.arch.normalize_input:
            x = x * self.deviation.value[None] + self.mean.value[None]
        return x

    def reconstruct(self, x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        """Encodes and decodes without quantizing; touches every parameter."""
        return self.decode(self.encode(x))

    def tokenize(self, x: Float[Array, "B D"]) -> Int[Array, "B Q"]:
        """Returns the nearest codes of item vectors."""
        z, vectors = self.encode(x), self.code_vectors()
        spec = self.arch.quantization
        return quantizer.quantize_batch(z, vectors, spec, training=False).codes

    def __call__(
        self,
        x: Float[Array, "B D"],
        *,
        training: bool = False,
        keys: Key[Array, " B"] | None = None,
        temperature: float | Float[Array, ""] = 1.0,
        bypass: Bool[Array, ""] | None = None,
    ) -> Output:
        """Encodes, quantizes and decodes.

        Args:
          x: Item vectors.
          training: Whether dropout, batch statistics, Sinkhorn and Gumbel noise apply.
          keys: One key for each row, required while training with noise.
          temperature: Temperature of the Gumbel softmax.
          bypass: If true, the decoder receives the latents themselves.
        """
        split = [None] * 3
        if keys is not None:
            split = [jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in range(3)]
        z = self.encode(x, training=training, keys=split[0])
        quantized = quantizer.quantize_batch(
            z,
            self.code_vectors(),
            self.arch.quantization,
            training=training,
            keys=split[1],
            temperature=temperature,
            axis_name=self.axis_name if training else None,
        )
        decoded = quantized.output
        if bypass is not None:
            decoded = jnp.where(bypass, z, decoded)
        x = self.decode(decoded, training=training, keys=split[2])
        return Output(x, z, quantized)


def uniform_codebook(
    key: PRNGKeyArray, sizes: Sequence[int], width: int
) -> Float[Array, "Q K W"]:
    """Draws code vectors from U(-1/K, 1/K), padded with zeros to the widest level."""
    widest = max(sizes)
    levels = [
        jax.random.uniform(level_key, (k, width), minval=-1 / k, maxval=1 / k)
        for level_key, k in zip(jax.random.split(key, len(sizes)), sizes, strict=True)
    ]
    return pad_codebooks(levels, widest)


def pad_codebooks(
    codebooks: Sequence[Float[Array, "_ W"]], widest: int
) -> Float[Array, "Q K W"]:
    """Stacks codebooks of different sizes, padded with zeros."""
    return jnp.stack([jnp.pad(c, ((0, widest - len(c)), (0, 0))) for c in codebooks])


class Averages(NamedTuple):
    """Moving averages of an `ema` codebook: vectors are sums / counts."""

    counts: Float[Array, "Q K"]
    sums: Float[Array, "Q K W"]


def update_averages(
    averages: Averages,
    residuals: Float[Array, "B Q W"],
    codes: Int[Array, "B Q"],
    *,
    decay: float,
    revive_below: float,
    mask: Bool[np.ndarray, "Q K"] | None,
    key: PRNGKeyArray,
    axis_name: str | None = None,
) -> tuple[Averages, Float[Array, "Q K W"]]:
    """Moves an EMA codebook towards a batch and revives its dead codes.

    counts and sums follow n <- decay n + (1 - decay) n_batch (van den Oord et al.,
    Neural Discrete Representation Learning, 2017, appendix A.1). A code whose average
    count falls below `revive_below` is moved to a random residual of the global batch;
    its averages are reset, otherwise they would pull it back at once.

    Args:
      averages: Averages before the step.
      residuals: Input of each level.
      codes: Chosen code of each level.
      decay: Decay of the averages, in [0, 1).
      revive_below: Average number of uses in a step; 0 never revives.
      mask: False for codes that do not exist.
      key: Random key, the same on all devices.
      axis_name: Device axis over which the batch is spread.

    Returns:
      The averages and the code vectors.
    """
    num_codes = averages.counts.shape[1]
    one_hot = jax.nn.one_hot(codes, num_codes)  # [B Q K]
    counts = jnp.sum(one_hot, axis=0)
    sums = jnp.einsum("bqk,bqw->qkw", one_hot, residuals)
    if axis_name is not None:
        counts, sums = jax.lax.psum((counts, sums), axis_name)
        residuals = jax.lax.all_gather(residuals, axis_name, tiled=True)
    counts = decay * averages.counts + (1 - decay) * counts
    sums = decay * averages.sums + (1 - decay) * sums
    # Both averages of an unused code decay, so its vector stays; before they vanish in
    # rounding they are kept as they are.
    faded = counts < _FADED
    counts = jnp.where(faded, averages.counts, counts)
    sums = jnp.where(faded[..., None], averages.sums, sums)
    dead = counts < revive_below
    if mask is not None:
        dead &= mask
    rows = jax.random.randint(key, dead.shape, 0, residuals.shape[0])
    fresh = jax.vmap(lambda row, level: level[row], (0, 1))(rows, residuals)
    counts = jnp.where(dead, 1.0, counts)
    sums = jnp.where(dead[..., None], fresh, sums)
    vectors = sums / jnp.maximum(counts, _FADED)[..., None]
    return Averages(counts, sums), vectors
