# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Ranks the whole catalogue for each user."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

# Score of items that must not be listed; finite, so that arithmetic gives no NaN.
NEG = -1e30


class Lists(NamedTuple):
    """A ranked list for each user, best first.

    Attributes:
      items: Rows of items, -1 after the end of a list.
      scores: Scores of the items, descending; meaningless where there is no item.
    """

    items: Int[np.ndarray, "U K"]
    scores: Float[np.ndarray, "U K"]

    @property
    def valid(self) -> Bool[np.ndarray, "U K"]:
        """Entries that are items."""
        return self.items >= 0


def top_k(
    scores: Float[Array, "B N"], k: int, seen: Int[Array, "B S"] | None = None
) -> tuple[Int[Array, "B K"], Float[Array, "B K"]]:
    """Returns the k best items of each row; equal scores in the order of the items.

    Args:
      scores: Scores of all items.
      k: Length of the lists; it may exceed the number of items.
      seen: Items that are not listed; numbers outside 0 .. N-1 are padding.

    Returns:
      Items and scores as in `Lists`.
    """
    rows, num_items = scores.shape
    if seen is not None:
        # A negative index would count from the end; an index beyond it is dropped.
        where = jnp.where(seen < 0, num_items, seen)
        scores = scores.at[jnp.arange(rows)[:, None], where].set(NEG, mode="drop")
    best, items = lax.top_k(scores, min(k, num_items))
    items = jnp.where(best > NEG / 2, items.astype(jnp.int32), -1)
    padding = ((0, 0), (0, max(k - num_items, 0)))
    best = jnp.pad(best, padding, constant_values=NEG)
    return jnp.pad(items, padding, constant_values=-1), best


def rank_products(
    users: Float[Array | np.ndarray, "U D"],
    items: Float[Array | np.ndarray, "I D"],
    *,
    k: int,
    block: int = 1024,
    seen: tuple[Int[np.ndarray, " U1"], Int[np.ndarray, " E"]] | None = None,
) -> Lists:
    """Ranks all items by the inner product of embeddings.

    Products, mask and selection of a block are one program, which runs while the host
    prepares the histories of the next block.

    Args:
      users: Embeddings of the users.
      items: Embeddings of the items.
      k: Length of the lists.
      block: Number of users at a time: block x items scores are in memory.
      seen: Histories, which are not listed: `items[indptr[u] : indptr[u + 1]]`.

    Returns:
      The lists of all users.
    """
    num_users = len(users)
    block = min(block, num_users)
    parts = []
    for start in range(0, num_users, block):
        rows = np.arange(start, start + block, dtype=np.int32) % num_users
        masked = None if seen is None else padded_rows(*seen, rows)
        parts.append(_best_products(users, items, rows, masked, k))
    listed, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Lists(listed[:num_users], scores[:num_users])


@functools.partial(jax.jit, static_argnames="k")
def _best_products(users, items, rows, seen, k: int):
    # With less precision accelerators round the operands, and close scores swap.
    scores = jnp.matmul(users[rows], items.T, precision=lax.Precision.HIGHEST)
    return top_k(scores, k, seen)


def padded_rows(
    indptr: Int[np.ndarray, " U1"],
    items: Int[np.ndarray, " E"],
    rows: Int[np.ndarray, " B"],
) -> Int[np.ndarray, "B S"]:
    """Returns histories as rows padded with -1.

    The width is a power of two, so that few programs are compiled.

    Args:
      indptr: History u is `items[indptr[u] : indptr[u + 1]]`.
      items: Items of all histories.
      rows: Histories to return.
    """
    start, length = indptr[rows], np.diff(indptr)[rows]
    width = 1 << int(length.max(initial=1) - 1).bit_length()
    columns = np.arange(width)[None]
    inside = columns < length[:, None]
    flat = items[np.where(inside, start[:, None] + columns, 0)] if len(items) else 0
    return np.where(inside, flat, -1).astype(np.int32)
