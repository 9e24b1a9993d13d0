# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Training pairs in; batches of user, positive and negative item out, on the device.

A batch is a function of key, epoch and number alone and costs no more than its rows:
nothing is carried from batch to batch, so that any number of steps fits one jitted
call and a resumed run draws what it would have drawn. Two things make this possible.

The order of an epoch is a keyed bijection of 0 .. E-1 that is evaluated where it is
needed: a Feistel network over the next power of two, walked until it lands inside
(Black & Rogaway 2002, Ciphers with Arbitrary Finite Domains; as a shuffle, Mitchell et
al. 2022, Bandwidth-Optimal Random Shuffling for GPUs).

A negative has the law of rejection sampling, uniform over the items of training that
the user does not have, without a rejection: the r-th such item is found by a binary
search in the user's row.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int, Int32, UInt32

from rfrec.config import UserError
from rfrec.data.pairs import Positives

# Half rounds of the network; the shuffle of Mitchell et al. has as many.
_ROUNDS = 24


class Table(NamedTuple):
    """What batches are drawn from; placed on the devices by the caller.

    Attributes:
      users: User of each training pair, ascending.
      items: Item of each pair, ascending within a user.
      indptr: User u has the pairs `indptr[u] : indptr[u + 1]`.
      candidates: Items that occur in training, ascending: what may be a negative.
      gaps: For each pair, how many candidates below its item the user does not have.
    """

    users: Int32[Array | np.ndarray, "E"]
    items: Int32[Array | np.ndarray, "E"]
    indptr: Int32[Array | np.ndarray, "U1"]
    candidates: Int32[Array | np.ndarray, "C"]
    gaps: Int32[Array | np.ndarray, "E"]


class Triplets(NamedTuple):
    """Rows of a batch.

    Attributes:
      users: One for each row.
      positives: An item of the user's in training.
      negatives: An item of training that is none of the user's.
      weights: 1; 0 in the rows that fill up the last batch of an epoch.
    """

    users: Int32[Array, "B"]
    positives: Int32[Array, "B"]
    negatives: Int32[Array, "B"]
    weights: Float32[Array, "B"]


def build(train: Positives, *, user_ids: tuple[str, ...] | None = None) -> Table:
    """Prepares the pairs of training, on the host.

    Args:
      train: At least one pair.
      user_ids: Name users in errors.

    Raises:
      UserError: A user has every item that occurs in training, so that no negative
        is left.
    """
    candidates = np.unique(train.items)
    counts = train.counts
    full = np.flatnonzero(counts >= len(candidates))
    if full.size:
        user = int(full[0]) if user_ids is None else repr(user_ids[full[0]])
        raise UserError(
            f"user {user} has all {len(candidates)} items of training, so that there is"
            " no negative item to draw; leave such users out"
        )
    users = train.users
    place = np.arange(len(users)) - train.indptr[users]
    gaps = np.searchsorted(candidates, train.items) - place
    arrays = (users, train.items, train.indptr, candidates, gaps)
    return Table(*(a.astype(np.int32) for a in arrays))


def num_batches(table: Table, size: int) -> int:
    """Returns the batches of an epoch; the last may be filled up.

    Args:
      table: From `build`.
      size: Rows of a batch, at least 1.
    """
    return -(-table.users.shape[0] // size)


def batch(
    table: Table,
    key: jax.Array,
    epoch: Int[Array, ""] | int,
    index: Int[Array, ""] | int,
    size: int,
) -> Triplets:
    """Returns batch `index` of an epoch, in which every pair comes once.

    Args:
      table: From `build`.
      key: Random key of the run, typed.
      epoch: From 0; each has its own order and negatives.
      index: In 0 .. num_batches - 1.
      size: Rows, static.
    """
    table = Table(*map(jnp.asarray, table))
    order_key, draw_key = jax.random.split(jax.random.fold_in(key, epoch))
    number = table.users.shape[0]
    rows = index * size + jnp.arange(size, dtype=jnp.int32)
    pairs = permute(order_key, rows % number, number)
    users = table.users[pairs]
    draws = jax.random.fold_in(draw_key, index)
    return Triplets(
        users=users,
        positives=table.items[pairs],
        negatives=draw_negatives(table, draws, users),
        weights=(rows < number).astype(jnp.float32),
    )


def permute(
    key: jax.Array, positions: Int32[Array, "B"], number: int
) -> Int32[Array, "B"]:
    """Returns the values at some positions of a random order of 0 .. number-1.

    Args:
      key: Random key of the order, typed.
      positions: Positions in the order, in 0 .. number-1.
      number: Length of the order, static, below 2**31.
    """
    bits = max((number - 1).bit_length(), 2)
    low = bits // 2
    constants = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

    def cipher(x: UInt32[Array, "B"]) -> UInt32[Array, "B"]:
        left, right = x >> low, x & ((1 << low) - 1)
        for i in range(0, _ROUNDS, 2):
            left ^= _mix(right, constants[i]) >> (32 - (bits - low))
            right ^= _mix(left, constants[i + 1]) >> (32 - low)
        return left << low | right

    # Each walk follows a cycle through its own start, so that it comes back inside.
    def walk(x: UInt32[Array, "B"]) -> UInt32[Array, "B"]:
        return jnp.where(x < number, x, cipher(x))

    first = cipher(positions.astype(jnp.uint32))
    inside = lax.while_loop(lambda x: jnp.any(x >= number), walk, first)
    return inside.astype(jnp.int32)


def draw_negatives(
    table: Table, key: jax.Array, users: Int32[Array, "B"]
) -> Int32[Array, "B"]:
    """Draws an item of training for each user that is none of the user's.

    Args:
      table: From `build`.
      key: Typed.
      users: One for each row.
    """
    start, end = table.indptr[users], table.indptr[users + 1]
    missing = table.candidates.shape[0] - (end - start)
    rank = jax.random.randint(key, users.shape, 0, missing, jnp.int32)
    # Gaps never fall within a row: those at most the rank are in front.
    low, high = start, end
    for _ in range(table.users.shape[0].bit_length()):
        middle = (low + high) // 2
        inside = low < high
        below = table.gaps[jnp.where(inside, middle, 0)] <= rank
        low = jnp.where(inside & below, middle + 1, low)
        high = jnp.where(inside & ~below, middle, high)
    return table.candidates[rank + low - start]


def _mix(x: UInt32[Array, "B"], constant: UInt32[Array, ""]) -> UInt32[Array, "B"]:
    """Hashes 32 bits (the finaliser of MurmurHash3); its high bits are used."""
    x = (x ^ constant) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
