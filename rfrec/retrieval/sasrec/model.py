# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""SASRec: encodes a history as a vector that scores every item.

Kang & McAuley 2018, "Self-Attentive Sequential Recommendation": item and position
embeddings, causal self-attention and point-wise feed-forward layers, pre-norm with
residual connections; items are scored by their own embedding. Trained with
cross-entropy over the whole catalogue, without sampled negatives, it is a far better
baseline than with the paper's binary loss (Klenitskiy & Vasilev 2023).

A row may contain several histories one after the other: attention stays within a
history, and positions count from its end, as when histories are padded on the left.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Shaped

from rfrec.dropout import dropout
from rfrec.numerics import NEG


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Shape of a SASRec.

    Attributes:
      num_items: Items of the catalogue.
      history: Maximum number of items of a history.
      width: Width of the embeddings and layers.
      hidden: Width inside the feed-forward layers.
      heads: Attention heads, which share the width.
      layers: Pairs of attention and feed-forward layers.
      dropout: Dropout rate, after the embedding and each layer, and on attention
        weights.
      epsilon: Added to the variance in layer norms.
      dtype: Data type of the computation; parameters, norms, softmax and scores are
        float32.
    """

    num_items: int
    history: int = 50
    width: int = 64
    hidden: int = 64
    heads: int = 1
    layers: int = 2
    dropout: float = 0.2
    epsilon: float = 1e-8
    dtype: Any = jnp.float32


class SASRec(nn.Module):
    """The network: a call encodes positions as vectors, `scores` ranks the items."""

    arch: Architecture

    def setup(self):
        """Creates embeddings and layers."""
        a = self.arch
        table = nn.initializers.normal(a.width**-0.5)
        self.items = self.param("items", table, (a.num_items, a.width))
        self.positions = self.param("positions", table, (a.history, a.width))
        self.blocks = [Block(a, i, name=f"block_{i}") for i in range(a.layers)]
        self.norm = nn.LayerNorm(a.epsilon, name="norm")

    def __call__(
        self,
        items: Int[Array, "B L"],
        positions: Int[Array, "B L"],
        histories: Int[Array, "B L"],
        *,
        keys: Shaped[Array, " B"] | None = None,
    ) -> Float[Array, "B L D"]:
        """Encodes rows of histories.

        Args:
          items: Oldest first; anything at padding.
          positions: Position of each item, counted back from the last of its history,
            which is 0.
          histories: Number of the history in its row, from 1; 0 is padding.
          keys: A random key for each row; None for no dropout.

        Returns:
          At each slot the vector that scores the next item, float32.
        """
        a = self.arch
        present = (histories > 0)[:, :, None]
        # Scaled as in the paper's code, so that positions do not drown the items.
        x = self.items[items] * a.width**0.5 + self.positions[positions]
        x = dropout(x, a.dropout, keys=keys, site=0)
        x = jnp.where(present, x, 0.0).astype(a.dtype)
        same = histories[:, :, None] == histories[:, None, :]
        length = items.shape[1]
        causal = jnp.tril(jnp.ones((length, length), bool))[None]
        for block in self.blocks:
            x = block(x, same & causal, keys)
        return self.norm(x.astype(jnp.float32))

    def scores(self, vectors: Float[Array, "*B D"]) -> Float[Array, "*B N"]:
        """Scores all items."""
        dtype = self.arch.dtype
        table = self.items.astype(dtype).T
        return jnp.matmul(
            vectors.astype(dtype), table, preferred_element_type=jnp.float32
        )

    def losses(
        self, vectors: Float[Array, "P D"], targets: Int[Array, " P"]
    ) -> Float[Array, " P"]:
        """Returns the cross-entropy of each target among all items."""
        return optax.softmax_cross_entropy_with_integer_labels(
            self.scores(vectors), targets
        )


class Block(nn.Module):
    """Causal attention and a feed-forward layer."""

    arch: Architecture
    number: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        mask: Bool[Array, "B L L"],
        keys: Shaped[Array, " B"] | None,
    ) -> Float[Array, "B L D"]:
        """Transforms rows.

        Args:
          x: Vector of each slot.
          mask: Whether each slot (second axis) attends to each slot (third axis).
          keys: A random key for each row; None for no dropout.
        """
        a, site = self.arch, 1 + 4 * self.number

        def normed(x, name):
            y = nn.LayerNorm(a.epsilon, name=name)(x.astype(jnp.float32))
            return y.astype(a.dtype)

        def dense(width, name):
            return nn.Dense(width, dtype=a.dtype, name=name)

        y = normed(x, "attention_norm")
        query, key, value = (
            dense(a.width, name)(y).reshape(*x.shape[:2], a.heads, -1)
            for name in ("query", "key", "value")
        )
        logits = jnp.einsum("bihd,bjhd->bhij", query, key) * query.shape[-1] ** -0.5
        logits = jnp.where(mask[:, None], logits.astype(jnp.float32), NEG)
        weights = dropout(jax.nn.softmax(logits), a.dropout, keys=keys, site=site)
        y = jnp.einsum("bhij,bjhd->bihd", weights.astype(a.dtype), value)
        y = dense(a.width, "output")(y.reshape(x.shape))
        x = x + dropout(y, a.dropout, keys=keys, site=site + 1)
        y = nn.relu(dense(a.hidden, "inner")(normed(x, "feed_forward_norm")))
        y = dropout(y, a.dropout, keys=keys, site=site + 2)
        y = dense(a.width, "outer")(y)
        return x + dropout(y, a.dropout, keys=keys, site=site + 3)
