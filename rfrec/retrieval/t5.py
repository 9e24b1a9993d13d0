# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""T5 over codes: tokens of a history in, logits of the target's tokens out.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified
Text-to-Text Transformer", as `transformers` computes it, so that weights can be
exchanged. The decoder is written for rows: given cached keys, training runs all
positions at once and a search runs the beams of one level, through the same code.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from rfrec.retrieval.dropout import dropout
from rfrec.typing import PyTree

# Added to the scores of keys that must not be seen; logits beyond a level's size.
NEG = -1e9


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Shape of a T5; the defaults are MQL4GRec's.

    Attributes:
      vocab_size: Tokens; 0 is padding and the start of the decoder.
      d_model: Width of the residual stream.
      d_ff: Width of the feed-forward layers.
      d_kv: Width of one attention head.
      num_heads: Attention heads.
      num_layers: Of the encoder.
      num_decoder_layers: Of the decoder.
      feed_forward: `relu` (T5) or `gated-gelu` (T5 1.1).
      dropout: Rate.
      tied: Whether logits come from the embedding, scaled by d_model^-1/2.
      relative_buckets: Of relative positions.
      relative_max_distance: From which on all share the last bucket.
      epsilon: Of the norms.
      level_heads: Codes of each level, if every level has a head of its own (TIGER);
        () for one output over the vocabulary.
      remat: Whether layers are computed again in the backward pass, to save memory.
      dtype: Of the computation; parameters, softmax, norms and logits are float32.
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
    """Keys and values of one attention layer, one row for each position.

    Both are [B H P d_kv].
    """

    keys: PyTree
    values: PyTree


def relative_bucket(
    distance: Int[np.ndarray, "..."], *, bidirectional: bool, buckets: int, most: int
) -> Int[np.ndarray, "..."]:
    """Numbers relative positions: exactly when near, logarithmically when far.

    Args:
      distance: Key position minus query position.
      bidirectional: Whether the future has half of the buckets; else it shares 0.
      buckets: In all.
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


def shift_right(labels: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Returns what the decoder reads to predict `labels`: the start token 0 first."""
    return jnp.pad(labels, ((0, 0), (1, 0)))[:, :-1]


def _matrix(module: nn.Module, name: str, shape, scale: float, axes) -> Array:
    """Declares a normal parameter with logical axis names, in the compute dtype."""
    init = nn.with_logical_partitioning(nn.initializers.normal(scale), axes)
    value = module.param(name, init, shape)
    return jnp.asarray(value, module.arch.dtype)  # type: ignore[attr-defined]


class RMSNorm(nn.Module):
    """Scales to mean square 1, without a mean or a bias; in float32."""

    arch: Architecture

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalises the last axis."""
        init = nn.with_logical_partitioning(nn.initializers.ones, ("embed",))
        scale = self.param("scale", init, (x.shape[-1],))
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
        hidden = x @ _matrix(self, "wi", (a.d_model, a.d_ff), into, axes)
        if a.feed_forward == "relu":
            hidden = jax.nn.relu(hidden)
        else:
            gate = x @ _matrix(self, "wi_gate", (a.d_model, a.d_ff), into, axes)
            hidden = jax.nn.gelu(gate, approximate=True) * hidden
        hidden = dropout(hidden, a.dropout, keys=keys, site=site)
        return hidden @ _matrix(self, "wo", (a.d_ff, a.d_model), out, ("mlp", "embed"))


class Attention(nn.Module):
    """Multi-head attention of T5: no scaling, a bias of relative positions."""

    arch: Architecture

    def setup(self):
        a = self.arch
        inner = a.num_heads * a.d_kv
        # The scores are not divided by the root of d_kv: the start of q is.
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
        return Memory(self._heads(x @ self.k), self._heads(x @ self.v))

    def __call__(self, x: Float[Array, "B W D"], memory: Memory, bias, keys, site: int):
        """Lets rows attend to remembered positions.

        Args:
          x: Rows.
          memory: P positions.
          bias: Added to the scores, broadcast to [B H W P].
          keys: Of dropout on the weights.
          site: Of that dropout.
        """
        scores = jnp.einsum("bhwd,bhpd->bhwp", self._heads(x @ self.q), memory.keys)
        scores = jnp.asarray(scores, jnp.float32) + bias
        weights = jnp.asarray(jax.nn.softmax(scores, axis=-1), self.arch.dtype)
        weights = dropout(weights, self.arch.dropout, keys=keys, site=site)
        mixed = jnp.einsum("bhwp,bhpd->bhwd", weights, memory.values)
        mixed = mixed.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1)
        return mixed @ self.o


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each behind a norm."""

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

    def __call__(self, x, past: Memory | None, encoded: Memory, bias, pad_bias, keys):
        """Runs rows; returns them and the memory with the rows appended."""
        rate, site = self.arch.dropout, self.site
        y = self.attention_norm(x)
        memory = self.attention.remember(y)
        if past is not None:
            memory = Memory(
                *(jnp.concatenate(p, axis=2) for p in zip(past, memory, strict=True))
            )
        y = self.attention(y, memory, bias, keys, site)
        x = x + dropout(y, rate, keys=keys, site=site + 1)
        y = self.cross_attention_norm(x)
        y = self.cross_attention(y, encoded, pad_bias, keys, site + 2)
        x = x + dropout(y, rate, keys=keys, site=site + 3)
        y = self.feed_forward(self.feed_forward_norm(x), keys, site + 4)
        return x + dropout(y, rate, keys=keys, site=site + 5), memory


class Stack(nn.Module):
    """The parameters around the layers of an encoder or decoder."""

    arch: Architecture
    decoder: bool

    def setup(self):
        a = self.arch
        init = nn.initializers.normal(a.d_model**-0.5)
        init = nn.with_logical_partitioning(init, ("buckets", "heads_count"))
        self.relative_bias = self.param(
            "relative_bias", init, (a.relative_buckets, a.num_heads)
        )
        count = a.num_decoder_layers if self.decoder else a.num_layers
        kind: Any = DecoderLayer if self.decoder else EncoderLayer
        kind = nn.remat(kind) if a.remat else kind
        # Sites of dropout: 8 a layer, from 16 on; those of the stack are below.
        first = 16 + (8 * a.num_layers if self.decoder else 0)
        self.layers = [kind(a, site=first + 8 * i) for i in range(count)]
        self.final_norm = RMSNorm(a)

    def bias(self, query: np.ndarray, key: np.ndarray) -> Float[Array, "1 H W P"]:
        """Returns the bias of positions, known when the program is built."""
        a = self.arch
        bucket = relative_bucket(
            key[None, :] - query[:, None],
            bidirectional=not self.decoder,
            buckets=a.relative_buckets,
            most=a.relative_max_distance,
        )
        bias = self.relative_bias[bucket]  # [W P H]
        return jnp.asarray(bias, jnp.float32).transpose(2, 0, 1)[None]


class T5(nn.Module):
    """Encoder, decoder and output."""

    arch: Architecture

    def setup(self):
        a = self.arch
        axes = ("vocab", "embed")
        shape = (a.vocab_size, a.d_model)
        init = nn.with_logical_partitioning(nn.initializers.normal(1.0), axes)
        self.embedding = self.param("embedding", init, shape)
        self.encoder = Stack(a, decoder=False)
        self.decoder = Stack(a, decoder=True)
        if a.level_heads:
            init = nn.initializers.normal(a.d_model**-0.5)
            init = nn.with_logical_partitioning(init, ("level", "vocab", "embed"))
            most = max(a.level_heads)
            shape = (len(a.level_heads), most, a.d_model)
            self.heads = self.param("heads", init, shape)
        elif not a.tied:
            self.output = self.param("output", init, shape)

    def _embed(self, tokens: Int[Array, "B P"]) -> Float[Array, "B P D"]:
        return jnp.asarray(self.embedding[tokens], self.arch.dtype)

    def encode(
        self, tokens: Int[Array, "B L"], *, keys: Shaped[Array, "B"] | None = None
    ) -> Float[Array, "B L D"]:
        """Encodes histories; rows of padding (token 0) hold nothing meaningful."""
        rate = self.arch.dropout
        x = dropout(self._embed(tokens), rate, keys=keys, site=0)
        places = np.arange(tokens.shape[1])
        bias = self.encoder.bias(places, places) + padding_bias(tokens)
        for layer in self.encoder.layers:
            x = layer(x, bias, keys)
        return dropout(self.encoder.final_norm(x), rate, keys=keys, site=1)

    def remember(self, encoded: Float[Array, "B L D"]) -> tuple[Memory, ...]:
        """Returns what each decoder layer needs of the encoder's output."""
        return tuple(x.remember_encoded(encoded) for x in self.decoder.layers)

    def decode(
        self,
        tokens: Int[Array, "B W"],
        encoded: tuple[Memory, ...],
        pad_bias: Float[Array, "B 1 1 L"],
        *,
        query: np.ndarray,
        key: np.ndarray,
        mask: Bool[Array, "B W P"],
        past: tuple[Memory, ...] | None = None,
        keys: Shaped[Array, "B"] | None = None,
    ) -> tuple[Float[Array, "B W D"], tuple[Memory, ...]]:
        """Runs rows of the decoder.

        Args:
          tokens: One for each row.
          encoded: From `remember`.
          pad_bias: From `padding_bias`.
          query: Position of each row, known when the program is built.
          key: Position of each remembered row, this call's at the end.
          mask: Which remembered rows a row sees, of its own past and itself.
          past: Memories returned by the calls before.
          keys: Of dropout.

        Returns:
          Hidden rows, ready for logits, and memories with these rows appended.
        """
        rate = self.arch.dropout
        x = dropout(self._embed(tokens), rate, keys=keys, site=2)
        bias = self.decoder.bias(query, key) + jnp.where(mask, 0.0, NEG)[:, None]
        memories = []
        for i, layer in enumerate(self.decoder.layers):
            before = None if past is None else past[i]
            x, memory = layer(x, before, encoded[i], bias, pad_bias, keys)
            memories.append(memory)
        x = dropout(self.decoder.final_norm(x), rate, keys=keys, site=3)
        return x, tuple(memories)

    def logits(
        self, hidden: Float[Array, "*B D"], tokens: Int[Array, "K"] | None = None
    ) -> Float[Array, "*B V"]:
        """Returns logits of all tokens, or of some."""
        matrix = self.embedding if self.arch.tied else self.output
        matrix = matrix if tokens is None else matrix[tokens]
        scale = self.arch.d_model**-0.5 if self.arch.tied else 1.0
        matrix = jnp.asarray(matrix, self.arch.dtype)
        return _float32_product(hidden * scale, matrix)

    def level_logits(
        self, hidden: Float[Array, "*B D"], level: int
    ) -> Float[Array, "*B K"]:
        """Returns logits of the codes of one level from its own head."""
        matrix = self.heads[level, : self.arch.level_heads[level]]
        return _float32_product(hidden, jnp.asarray(matrix, self.arch.dtype))

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        decoder_tokens: Int[Array, "B T"],
        *,
        keys: Shaped[Array, "B"] | None = None,
    ) -> Float[Array, "B T V"]:
        """Predicts the next token at every position of the decoder.

        Args:
          tokens: Of the histories; 0 is padding.
          decoder_tokens: From `shift_right`.
          keys: One a row for dropout; None is deterministic.

        Returns:
          Logits, float32; with level heads those of position t's level, NEG beyond its
          size.
        """
        encoded = self.remember(self.encode(tokens, keys=keys))
        places = np.arange(decoder_tokens.shape[1])
        mask = jnp.asarray(places[None, :] <= places[:, None])[None]
        hidden, _ = self.decode(
            decoder_tokens,
            encoded,
            padding_bias(tokens),
            query=places,
            key=places,
            mask=mask,
            keys=keys,
        )
        if not self.arch.level_heads:
            return self.logits(hidden)
        sizes = self.arch.level_heads
        rows = [self.level_logits(hidden[:, q], q) for q in range(len(sizes))]
        widths = [((0, 0), (0, max(sizes) - k)) for k in sizes]
        padded = [
            jnp.pad(row, width, constant_values=NEG)
            for row, width in zip(rows, widths, strict=True)
        ]
        return jnp.stack(padded, axis=1)


def _float32_product(x: Float[Array, "*B D"], matrix: Float[Array, "V D"]):
    return jnp.einsum("...d,vd->...v", x, matrix, preferred_element_type=jnp.float32)


def padding_bias(tokens: Int[Array, "B L"]) -> Float[Array, "B 1 1 L"]:
    """Returns what hides padding from attention."""
    return jnp.where(tokens == 0, NEG, 0.0)[:, None, None, :].astype(jnp.float32)


def init(arch: Architecture, key: Array) -> PyTree:
    """Returns fresh parameters, a nested dict of float32 arrays."""
    return nn.unbox(_boxed(arch, key))


def logical_axes(arch: Architecture) -> PyTree:
    """Returns the names of the axes of every parameter, in the same nested dict.

    They are `vocab`, `embed`, `heads`, `mlp`, `buckets`, `heads_count`, `level`.
    """
    boxed = jax.eval_shape(lambda: _boxed(arch, jax.random.key(0)))
    return jax.tree.map(
        lambda box: tuple(box.names),
        boxed,
        is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned),
    )


def _boxed(arch: Architecture, key: Array) -> PyTree:
    shape = (1, max(len(arch.level_heads), 1))
    tokens = jnp.zeros(shape, jnp.int32)
    return T5(arch).init(key, tokens, tokens)["params"]
