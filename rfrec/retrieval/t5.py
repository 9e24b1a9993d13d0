# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""T5 over codes: predicts the tokens of the next item from those of a history.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified
Text-to-Text Transformer", as `transformers` computes it, so that weights can be
exchanged.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from rfrec.dropout import dropout
from rfrec.numerics import NEG
from rfrec.retrieval.layers import Architecture, Memory, Stack
from rfrec.typing import PyTree

# Number of tokens whose logits are computed together if only their sum is needed.
_PIECE = 4096


def shift_right(labels: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Returns the decoder's input for `labels`: the start token 0 comes first."""
    return jnp.pad(labels, ((0, 0), (1, 0)))[:, :-1]


class T5(nn.Module):
    """Encoder, decoder and output."""

    arch: Architecture

    def setup(self):
        a = self.arch
        axes = ("vocab", "embed")
        shape = (a.vocab_size, a.d_model)
        init = nn.with_logical_partitioning(nn.initializers.normal(1.0), axes)
        self.embedding: Any = self.param("embedding", init, shape)
        self.encoder = Stack(a, decoder=False)
        self.decoder = Stack(a, decoder=True)
        if a.level_heads:
            init = nn.initializers.normal(a.d_model**-0.5)
            init = nn.with_logical_partitioning(init, ("level", "vocab", "embed"))
            most = max(a.level_heads)
            shape = (len(a.level_heads), most, a.d_model)
            self.heads: Any = self.param("heads", init, shape)
        elif not a.tied:
            self.output: Any = self.param("output", init, shape)

    def _embed(self, tokens: Int[Array, "B P"]) -> Float[Array, "B P D"]:
        return jnp.asarray(self.embedding[tokens], self.arch.dtype)

    def encode(
        self, tokens: Int[Array, "B L"], *, keys: Shaped[Array, "B"] | None = None
    ) -> Float[Array, "B L D"]:
        """Encodes histories; rows of padding (token 0) are arbitrary."""
        rate = self.arch.dropout
        x = dropout(self._embed(tokens), rate, keys=keys, site=0)
        positions = np.arange(tokens.shape[1])
        bias = self.encoder.bias(positions, positions) + padding_bias(tokens)
        for layer in self.encoder.layers:
            x = layer(x, bias, keys)
        return dropout(self.encoder.final_norm(x), rate, keys=keys, site=1)

    def remember(self, encoded: Float[Array, "B L D"]) -> tuple[Memory, ...]:
        """Returns keys and values of the encoder's output for each decoder layer."""
        return tuple(x.remember_encoded(encoded) for x in self.decoder.layers)

    def decode(
        self,
        tokens: Int[Array, "B T"],
        encoded: tuple[Memory, ...],
        pad_bias: Float[Array, "B 1 1 L"],
        *,
        keys: Shaped[Array, "B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Runs all positions of the decoder; each attends to those before it.

        Args:
          tokens: Input from `shift_right`.
          encoded: Keys and values from `remember`.
          pad_bias: Bias from `padding_bias`.
          keys: Random keys of dropout, one per row; None for no dropout.

        Returns:
          Hidden rows, the input of `logits`.
        """
        rate, positions = self.arch.dropout, np.arange(tokens.shape[1])
        x = dropout(self._embed(tokens), rate, keys=keys, site=2)
        future = positions[None, :] > positions[:, None]
        future = np.where(future, np.float32(NEG), 0.0)
        bias = self.decoder.bias(positions, positions) + future[None, None]
        for layer, memory in zip(self.decoder.layers, encoded, strict=True):
            x = layer(x, memory, bias, pad_bias, keys)
        return dropout(self.decoder.final_norm(x), rate, keys=keys, site=3)

    def grow(
        self,
        tokens: Int[Array, "B W"],
        encoded: tuple[Memory, ...],
        pad_bias: Float[Array, "B 1 1 L"],
        past: Sequence[tuple[Memory, ...]],
        ancestors: Int[Array, "B W P"],
    ) -> tuple[Float[Array, "B W D"], tuple[Memory, ...]]:
        """Runs the rows of one level of a tree; each attends to its ancestors.

        Args:
          tokens: Token of each row.
          encoded: Keys and values from `remember`.
          pad_bias: Bias from `padding_bias`.
          past: Memories that the calls for the P earlier levels returned.
          ancestors: Each row's ancestor among the rows of each earlier level.

        Returns:
          Hidden rows, the input of `logits`, and their memory, one for each layer.
        """
        level, x, memories = len(past), self._embed(tokens), []
        bias = self.decoder.bias(np.array([level]), np.arange(level + 1))
        for i, layer in enumerate(self.decoder.layers):
            path = [_rows(past[p][i], ancestors[..., p]) for p in range(level)]
            x, memory = layer.grow(x, path, encoded[i], bias, pad_bias)
            memories.append(memory)
        return self.decoder.final_norm(x), tuple(memories)

    def logits(
        self, hidden: Float[Array, "*B D"], tokens: Int[Array, "K"] | None = None
    ) -> Float[Array, "*B V"]:
        """Returns logits of all tokens, or of some."""
        matrix = self.embedding if self.arch.tied else self.output
        matrix = matrix if tokens is None else matrix[tokens]
        scale = self.arch.d_model**-0.5 if self.arch.tied else 1.0
        matrix = jnp.asarray(matrix, self.arch.dtype)
        return _float32_product(hidden * scale, matrix)

    def log_normaliser(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B"]:
        """Returns the log-sum-exp of all logits.

        A large vocabulary is processed in pieces that fit the cache, which takes half
        the time on a CPU.
        """
        whole, rest = divmod(self.arch.vocab_size, _PIECE)
        if whole < 2:
            return jax.nn.logsumexp(self.logits(hidden), axis=-1)
        split = whole * _PIECE

        def one(tokens):
            return jax.nn.logsumexp(self.logits(hidden, tokens), axis=-1)

        tokens = jnp.arange(split).reshape(whole, _PIECE)
        parts = lax.map(one, tokens)
        if rest:
            last = one(jnp.arange(split, self.arch.vocab_size))
            parts = jnp.concatenate([parts, last[None]])
        return jax.nn.logsumexp(parts, axis=0)

    def level_logits(
        self, hidden: Float[Array, "*B D"], level: int
    ) -> Float[Array, "*B K"]:
        """Returns logits of the codes of one level, from the head of that level."""
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
          tokens: Tokens of the histories; 0 is padding.
          decoder_tokens: Input from `shift_right`.
          keys: Random keys of dropout, one per row; None for no dropout.

        Returns:
          Logits, float32; with level heads those of position t's level, NEG beyond its
          size.
        """
        encoded = self.remember(self.encode(tokens, keys=keys))
        hidden = self.decode(decoder_tokens, encoded, padding_bias(tokens), keys=keys)
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


def _rows(memory: Memory, index: Int[Array, "B W"]) -> Memory:
    """Selects one position of a memory for each row."""
    index = index[:, None, :, None]
    return Memory(*(jnp.take_along_axis(part, index, axis=2) for part in memory))


def _float32_product(x: Float[Array, "*B D"], matrix: Float[Array, "V D"]):
    return jnp.einsum("...d,vd->...v", x, matrix, preferred_element_type=jnp.float32)


def padding_bias(tokens: Int[Array, "B L"]) -> Float[Array, "B 1 1 L"]:
    """Returns the bias that masks padding in attention."""
    return jnp.where(tokens == 0, NEG, 0.0)[:, None, None, :].astype(jnp.float32)


def init(arch: Architecture, key: Array) -> PyTree:
    """Returns initial parameters, a nested dict of float32 arrays."""
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
