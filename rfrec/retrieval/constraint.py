# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a search may produce: a trie on the device, and masks over it.

Tries and lists of items flow in on the host; inside a search, the legal children of
nodes come out. A mask never rebuilds the trie: each node carries the number of items
below it that may be recommended.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Bool, Int

from rfrec.codes import trie
from rfrec.typing import PyTree


class Index(NamedTuple):
    """A trie on the device, and how its codes are spelled.

    Attributes:
      tables: One a level.
      tokens: Token of each code, one array a level.
      items: Of each leaf, -1 as padding, [leaves G].
    """

    tables: tuple[trie.Table, ...]
    tokens: tuple[PyTree, ...]
    items: PyTree


def make_index(index: trie.Trie, tokens: Sequence[Int[np.ndarray, "_"]]) -> Index:
    """Lays out a trie for searches; NumPy arrays, to be put on a device.

    Args:
      index: Of the items.
      tokens: Token of each code, one array a level.
    """
    return Index(trie.tables(index), tuple(tokens), trie.leaf_table(index))


class Filter(NamedTuple):
    """Items that may be recommended: a mask over the trie, which stays as it is.

    Attributes:
      keep: Whether an item may be recommended at all, [N + 1], the last False.
      counts: For each depth 1..Q, such items below every node.
      paths: Node of each depth 1..Q above every item, -1 for items that are not kept,
        [N Q]; None without `seen`.
      seen: Distinct items that a user must not get, -1 as padding, [B H], or None.
    """

    keep: PyTree
    counts: tuple[PyTree, ...]
    paths: PyTree
    seen: PyTree


def make_filter(
    index: trie.Trie,
    *,
    keep: Bool[np.ndarray, "N"] | None = None,
    seen: Int[np.ndarray, "B H"] | None = None,
) -> Filter:
    """Makes a filter; NumPy arrays, to be put on a device.

    Args:
      index: Of the items.
      keep: Items that may be recommended, an allow list; None for all.
      seen: Distinct items of each user that must not come again, -1 as padding.
    """
    kept = np.ones(index.num_items, bool) if keep is None else keep
    paths = None
    if seen is not None:
        paths = trie.ancestors(index)[trie.leaf_of(index)]
        paths = np.where(kept[:, None], paths, -1)
    counts = trie.item_counts(index, kept)
    return Filter(np.append(kept, False), counts, paths, seen)


def children_of(table: trie.Table, nodes: Int[Array, "B W"], width: int):
    """Returns nodes and codes of the children of each node, and which exist."""
    if table.child is not None:
        children = table.child[nodes]
        codes = jnp.arange(children.shape[2], dtype=jnp.int32)
        return children, jnp.broadcast_to(codes, children.shape), children >= 0
    places = jnp.arange(width, dtype=jnp.int32)[None, None]
    children = table.indptr[nodes][..., None] + places
    legal = children < table.indptr[nodes + 1][..., None]
    children = jnp.where(legal, children, 0)
    return children, table.codes[children], legal


def mask_children(allowed: Filter, level: int, table: trie.Table, nodes, children):
    """Returns which children lead to an item that may be recommended."""
    legal = allowed.counts[level][children] > 0
    if allowed.seen is None:
        return legal
    batch, _, width = children.shape
    users = jnp.arange(batch)[:, None]
    paths = jnp.where(allowed.seen[..., None] >= 0, allowed.paths[allowed.seen], -1)
    path = paths[..., level]  # [B H]
    dead = (path >= 0) & (_count_equal(path) >= allowed.counts[level][path])
    # The rows that stand on the parent, and the place among its children.
    parent = paths[..., level - 1] if level else jnp.zeros_like(path)
    at = dead[:, :, None] & (parent[:, :, None] == nodes[:, None, :])  # [B H W]
    place = path - table.indptr[parent]
    if table.child is not None:
        place = table.codes[path]
    place = (jnp.arange(nodes.shape[1]) * width)[None, None] + place[..., None]
    flat = jnp.where(at, place, legal[0].size).reshape(batch, -1)
    reached = legal.reshape(batch, -1).at[users, flat].set(False, mode="drop")
    return reached.reshape(legal.shape)


def _count_equal(x: Int[Array, "B H"]) -> Int[Array, "B H"]:
    """Returns how many entries of its row each entry equals, itself among them."""
    if export.is_symbolic_dim(x.shape[1]):
        # No sorted search of unknown length; a server's limits keep H x H small.
        return jnp.sum(x[:, :, None] == x[:, None, :], axis=2)
    # Where users have thousands of items, pairs of all would fill the memory.
    ordered = jnp.sort(x, axis=1)
    first, behind = (
        jax.vmap(functools.partial(jnp.searchsorted, side=side))(ordered, x)
        for side in ("left", "right")
    )
    return behind - first
