# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores of the whole catalogue in; the best items of each user out."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

# Score of what must not be listed; finite, so that no arithmetic makes it NaN.
NEG = -1e30


class Lists(NamedTuple):
    """A ranked list for each user, best first.

    Attributes:
      items: Numbers of items, -1 where the list has ended.
      scores: Of the items, falling; where there is no item they mean nothing.
    """

    items: Int[np.ndarray, "U K"]
    scores: Float[np.ndarray, "U K"]

    @property
    def valid(self) -> Bool[np.ndarray, "U K"]:
        """Which entries are items."""
        return self.items >= 0


def top_k(
    scores: Float[Array, "B N"], k: int, seen: Int[Array, "B S"] | None = None
) -> tuple[Int[Array, "B K"], Float[Array, "B K"]]:
    """Takes the k best items of each row; equal scores in the order of the items.

    Args:
      scores: Of all items.
      k: Length of the lists; it may exceed the number of items.
      seen: Items not to be listed; numbers outside 0 .. N-1 are padding.

    Returns:
      Items and scores as in `Lists`.
    """
    rows, num_items = scores.shape
    if seen is not None:
        # A negative index would count from the end: send it beyond the end instead.
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

    The products of a block, the mask and the choice are one program; the host lays out
    the next block's histories meanwhile.

    Args:
      users: Embeddings; every user is ranked for.
      items: Embeddings.
      k: Length of the lists.
      block: Users at a time: block x items scores are in memory.
      seen: Histories not to be listed, as of `rank_catalogue`.

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
    # Highest: accelerators would round the operands, and near ties would swap.
    scores = jnp.matmul(users[rows], items.T, precision=lax.Precision.HIGHEST)
    return top_k(scores, k, seen)


def rank_catalogue(
    score: Callable[[Int[np.ndarray, " B"]], Float[Array, "B N"]],
    num_users: int,
    *,
    k: int,
    block: int = 1024,
    seen: tuple[Int[np.ndarray, " U1"], Int[np.ndarray, " E"]] | None = None,
) -> Lists:
    """Ranks all items for each user, a block of users at a time.

    Args:
      score: Returns the scores of all items for users, always `block` of them; the
        last block is filled up with the first users.
      num_users: To rank for.
      k: Length of the lists.
      block: Users at a time: block x items scores are in memory.
      seen: Histories not to be listed, `items[indptr[u] : indptr[u + 1]]`.

    Returns:
      The lists of all users.
    """
    best = jax.jit(top_k, static_argnums=1)
    parts = []
    for start in range(0, num_users, block):
        users = np.arange(start, start + block) % num_users
        masked = None if seen is None else padded_rows(*seen, users)
        parts.append(jax.tree.map(np.asarray, best(score(users), k, masked)))
    items, scores = map(np.concatenate, zip(*parts, strict=True))
    return Lists(items[:num_users], scores[:num_users])


def padded_rows(
    indptr: Int[np.ndarray, " U1"],
    items: Int[np.ndarray, " E"],
    rows: Int[np.ndarray, " B"],
) -> Int[np.ndarray, "B S"]:
    """Returns histories as rows padded with -1.

    Their width is a power of two, so that few programs are compiled for it.
    """
    start, length = indptr[rows], np.diff(indptr)[rows]
    width = 1 << int(length.max(initial=1) - 1).bit_length()
    places = np.arange(width)[None]
    inside = places < length[:, None]
    flat = items[np.where(inside, start[:, None] + places, 0)] if len(items) else 0
    return np.where(inside, flat, -1).astype(np.int32)
