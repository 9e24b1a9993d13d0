# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The layers of a T5 (Raffel et al. 2020), as `transformers` computes them.

In training, a decoder layer runs all positions at once. In a search, it runs the beams
of one level, each of which attends to its own ancestors.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from rfrec.dropout import dropout
from rfrec.train.matmul import matmul
from rfrec.typing import PyTree

# Added to the scores of masked keys; also the logits beyond a level's size.


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Shape of a T5; the defaults are MQL4GRec's.

    Attributes:
      vocab_size: Number of tokens; 0 is padding and the start of the decoder.
      d_model: Width of the residual stream.
      d_ff: Width of the feed-forward layers.
      d_kv: Width of one attention head.
      num_heads: Attention heads.
      num_layers: Layers of the encoder.
      num_decoder_layers: Layers of the decoder.
      feed_forward: `relu` (T5) or `gated-gelu` (T5 1.1).
      dropout: Dropout rate.
      tied: Whether logits come from the embedding, scaled by d_model^-1/2.
      relative_buckets: Buckets of relative positions.
      relative_max_distance: Distance from which on all share the last bucket.
      epsilon: Added to the mean square in norms.
      level_heads: Codes of each level, if every level has an output head (TIGER); ()
        for one output over the vocabulary.
      remat: Whether layers are recomputed in the backward pass to save memory.
      dtype: Data type of the computation; parameters, softmax, norms and logits are
        float32.
    """

    vocab_size: int
    d_model: int = 128
    d_ff: int = 1024
    d_kv: int = 64
    num_heads: int = 6
    num_layers: int = 4
    num_decoder_layers: int = 4
    feed_forward: Literal["relu", "gated-gelu"] = "relu"
    dropout: float = 0.1
    tied: bool = True
    relative_buckets: int = 32
    relative_max_distance: int = 128
    epsilon: float = 1e-6
    level_heads: tuple[int, ...] = ()
    remat: bool = False
    dtype: Any = jnp.float32


class Memory(NamedTuple):
    """Keys and values of one attention layer, [B, H, P, d_kv] each."""

    keys: PyTree
    values: PyTree


def relative_bucket(
    distance: Int[np.ndarray, "..."], *, bidirectional: bool, buckets: int, most: int
) -> Int[np.ndarray, "..."]:
    """Returns buckets of relative positions: exact when near, logarithmic when far.

    Args:
      distance: Key position minus query position.
      bidirectional: Whether the future has half of the buckets; otherwise it shares
        bucket 0.
      buckets: Number of buckets.
      most: Distance from which on all share the last bucket.
    """
    start = np.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        start = np.where(distance > 0, buckets, 0)
        distance = np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    exact = buckets // 2
    # In float32, as the reference computes it: the borders of the far buckets depend
    # on how the logarithm is rounded.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    scale = np.float32(np.log(most / exact))
    far = exact + (ratio / scale * np.float32(buckets - exact)).astype(distance.dtype)
    return start + np.where(distance < exact, distance, np.minimum(far, buckets - 1))


def _matrix(module: nn.Module, name: str, shape, scale: float, axes) -> Array:
    """Declares a normal parameter with logical axis names, in the compute dtype."""
    init = nn.with_logical_partitioning(nn.initializers.normal(scale), axes)
    value: Any = module.param(name, init, shape)
    return jnp.asarray(value, module.arch.dtype)  # type: ignore[attr-defined]


class RMSNorm(nn.Module):
    """Scales to mean square 1, without a mean or a bias; in float32."""

    arch: Architecture

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalises the last axis."""
        init = nn.with_logical_partitioning(nn.initializers.ones, ("embed",))
        scale: Any = self.param("scale", init, (x.shape[-1],))
        y = jnp.asarray(x, jnp.float32)
        y = y * lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.arch.epsilon)
        y = y * scale.reshape((1,) * (x.ndim - 1) + (-1,))
        return jnp.asarray(y, self.arch.dtype)


class FeedForward(nn.Module):
    """Two matrices with ReLU, or three with a gate."""

    arch: Architecture

    @nn.compact
    def __call__(self, x: Float[Array, "B P D"], keys, site: int):
        """Returns the update of the residual stream."""
        a = self.arch
        into, out = a.d_model**-0.5, a.d_ff**-0.5
        axes = ("embed", "mlp")
        hidden = matmul(x, _matrix(self, "wi", (a.d_model, a.d_ff), into, axes))
        if a.feed_forward == "relu":
            hidden = jax.nn.relu(hidden)
        else:
            gate = _matrix(self, "wi_gate", (a.d_model, a.d_ff), into, axes)
            hidden = jax.nn.gelu(matmul(x, gate), approximate=True) * hidden
        hidden = dropout(hidden, a.dropout, keys=keys, site=site)
        last = _matrix(self, "wo", (a.d_ff, a.d_model), out, ("mlp", "embed"))
        return matmul(hidden, last)


class Attention(nn.Module):
    """Multi-head attention of T5: no scaling, a bias of relative positions."""

    arch: Architecture

    def setup(self):
        a = self.arch
        inner = a.num_heads * a.d_kv
        # The initial q is divided by the root of d_kv, instead of the scores.
        query, other = (a.d_model * a.d_kv) ** -0.5, a.d_model**-0.5
        shape, axes = (a.d_model, inner), ("embed", "heads")
        self.q = _matrix(self, "q", shape, query, axes)
        self.k = _matrix(self, "k", shape, other, axes)
        self.v = _matrix(self, "v", shape, other, axes)
        self.o = _matrix(self, "o", shape[::-1], inner**-0.5, axes[::-1])

    def _heads(self, x: Float[Array, "B P I"]) -> Float[Array, "B H P d"]:
        split = x.reshape(*x.shape[:2], self.arch.num_heads, self.arch.d_kv)
        return split.transpose(0, 2, 1, 3)

    def remember(self, x: Float[Array, "B P D"]) -> Memory:
        """Returns the keys and values of positions."""
        return Memory(self._heads(matmul(x, self.k)), self._heads(matmul(x, self.v)))

    def __call__(self, x: Float[Array, "B W D"], memory: Memory, bias, keys, site: int):
        """Returns the attention of rows to stored positions.

        Args:
          x: Rows of the residual stream.
          memory: Keys and values of P positions.
          bias: Added to the scores, broadcast to [B H W P].
          keys: Random keys of dropout on the attention weights.
          site: Number of that dropout.
        """
        query = self._heads(matmul(x, self.q))
        scores = jnp.einsum("bhwd,bhpd->bhwp", query, memory.keys)
        scores = jnp.asarray(scores, jnp.float32) + bias
        weights = jnp.asarray(jax.nn.softmax(scores, axis=-1), self.arch.dtype)
        weights = dropout(weights, self.arch.dropout, keys=keys, site=site)
        return self._join(jnp.einsum("bhwp,bhpd->bhwd", weights, memory.values))

    def along(self, x: Float[Array, "B W D"], path: Sequence[Memory], bias):
        """Returns the attention of each row to positions of its own.

        Args:
          x: Rows of the residual stream.
          path: For each position, one key and one value per row, [B H W d_kv].
          bias: Added to the scores, [1 H 1 P].
        """
        query = self._heads(matmul(x, self.q))
        # One query per key: products and sums need no copies, unlike matrix products.
        scores = [jnp.sum(query * memory.keys, axis=-1) for memory in path]
        scores = jnp.asarray(jnp.stack(scores, axis=-1), jnp.float32) + bias
        weights = jnp.asarray(jax.nn.softmax(scores, axis=-1), self.arch.dtype)
        parts = [weights[..., i, None] * m.values for i, m in enumerate(path)]
        return self._join(functools.reduce(jnp.add, parts))

    def _join(self, mixed: Float[Array, "B H W d"]) -> Float[Array, "B W D"]:
        batch, _, rows, _ = mixed.shape
        return matmul(mixed.transpose(0, 2, 1, 3).reshape(batch, rows, -1), self.o)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each after a norm."""

    arch: Architecture
    site: int

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], bias, keys):
        """Returns the residual stream after the layer."""
        rate, site = self.arch.dropout, self.site
        attention = Attention(self.arch, name="attention")
        y = RMSNorm(self.arch, name="attention_norm")(x)
        y = attention(y, attention.remember(y), bias, keys, site)
        x = x + dropout(y, rate, keys=keys, site=site + 1)
        y = RMSNorm(self.arch, name="feed_forward_norm")(x)
        y = FeedForward(self.arch, name="feed_forward")(y, keys, site + 2)
        return x + dropout(y, rate, keys=keys, site=site + 3)


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder and feed-forward."""

    arch: Architecture
    site: int

    def setup(self):
        self.attention = Attention(self.arch)
        self.attention_norm = RMSNorm(self.arch)
        self.cross_attention = Attention(self.arch)
        self.cross_attention_norm = RMSNorm(self.arch)
        self.feed_forward = FeedForward(self.arch)
        self.feed_forward_norm = RMSNorm(self.arch)

    def remember_encoded(self, encoded: Float[Array, "B L D"]) -> Memory:
        """Returns the keys and values of the encoder's output for this layer."""
        return self.cross_attention.remember(encoded)

    def __call__(self, x, encoded: Memory, bias, pad_bias, keys):
        """Runs all positions."""
        y = self.attention_norm(x)
        y = self.attention(y, self.attention.remember(y), bias, keys, self.site)
        return self._finish(x, y, encoded, pad_bias, keys)

    def grow(self, x, path: Sequence[Memory], encoded: Memory, bias, pad_bias):
        """Runs the rows of one level; returns them and their memory."""
        y = self.attention_norm(x)
        memory = self.attention.remember(y)
        y = self.attention.along(y, [*path, memory], bias)
        return self._finish(x, y, encoded, pad_bias, None), memory

    def _finish(self, x, y, encoded: Memory, pad_bias, keys):
        """Adds the update of self-attention, and runs the rest of the layer."""
        rate, site = self.arch.dropout, self.site
        x = x + dropout(y, rate, keys=keys, site=site + 1)
        y = self.cross_attention_norm(x)
        y = self.cross_attention(y, encoded, pad_bias, keys, site + 2)
        x = x + dropout(y, rate, keys=keys, site=site + 3)
        y = self.feed_forward(self.feed_forward_norm(x), keys, site + 4)
        return x + dropout(y, rate, keys=keys, site=site + 5)


class Stack(nn.Module):
    """The parameters around the layers of an encoder or decoder."""

    arch: Architecture
    decoder: bool

    def setup(self):
        a = self.arch
        init = nn.initializers.normal(a.d_model**-0.5)
        init = nn.with_logical_partitioning(init, ("buckets", "heads_count"))
        self.relative_bias: Any = self.param(
            "relative_bias", init, (a.relative_buckets, a.num_heads)
        )
        count = a.num_decoder_layers if self.decoder else a.num_layers
        kind: Any = DecoderLayer if self.decoder else EncoderLayer
        kind = nn.remat(kind) if a.remat else kind
        # Sites of dropout: 8 per layer, from 16 on; smaller ones belong to the stack.
        first = 16 + (8 * a.num_layers if self.decoder else 0)
        self.layers = [kind(a, site=first + 8 * i) for i in range(count)]
        self.final_norm = RMSNorm(a)

    def bias(self, query: np.ndarray, key: np.ndarray) -> Float[Array, "1 H W P"]:
        """Returns the bias of positions that are known at compile time."""
        a = self.arch
        bucket = relative_bucket(
            key[None, :] - query[:, None],
            bidirectional=not self.decoder,
            buckets=a.relative_buckets,
            most=a.relative_max_distance,
        )
        bias = self.relative_bias[bucket]  # [W P H]
        return jnp.asarray(bias, jnp.float32).transpose(2, 0, 1)[None]
