# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The search space: a trie on the device, and filters of items that may be searched.

A filter leaves the trie as it is: for each node it has the number of items below the
node that may be recommended.
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
from rfrec.retrieval import batches
from rfrec.typing import PyTree


class Index(NamedTuple):
    """A trie on the device, and the tokens of its codes.

    Attributes:
      tables: One table for each level.
      tokens: Token of each code, one array for each level.
      items: Items of each leaf, [leaves G]; -1 is padding.
    """

    tables: tuple[trie.Table, ...]
    tokens: tuple[PyTree, ...]
    items: PyTree


def make_index(index: trie.Trie, tokens: Sequence[Int[np.ndarray, "_"]]) -> Index:
    """Returns the arrays of a trie for the device, in NumPy.

    Args:
      index: Trie of the items.
      tokens: Token of each code, one array for each level.
    """
    return Index(trie.tables(index), tuple(tokens), trie.leaf_table(index))


class Filter(NamedTuple):
    """Items that may be recommended.

    Attributes:
      keep: Whether each item may be recommended, [N + 1]; the last entry is False.
      counts: Number of such items below every node, one array for each depth 1..Q.
      paths: Node of each depth 1..Q above every item, [N Q]; -1 for items that may not
        be recommended. None without `seen`.
      seen: Distinct items that a user must not get, [B H]; -1 is padding. None if there
        are none.
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
    """Returns the arrays of a filter for the device, in NumPy.

    Args:
      index: Trie of the items.
      keep: Whether each item may be recommended; None allows all.
      seen: Distinct items that each user must not get; -1 is padding.
    """
    kept = np.ones(index.num_items, bool) if keep is None else keep
    paths = None
    if seen is not None:
        paths = trie.ancestors(index)[trie.leaf_of(index)]
        paths = np.where(kept[:, None], paths, -1)
    counts = trie.item_counts(index, kept)
    return Filter(np.append(kept, False), counts, paths, seen)


class SearchSpace(NamedTuple):
    """All arrays that a search reads besides the parameters and the histories.

    Attributes:
      tables: Tables of the task, without histories.
      index: Trie of the items.
      allowed: Filter of the items, without `seen`; None allows all items.
    """

    tables: batches.Tables
    index: Index
    allowed: Filter | None


def make_space(
    index: trie.Trie,
    tokens: Sequence[Int[np.ndarray, "_"]],
    tables: batches.Tables,
    *,
    keep: Bool[np.ndarray, "N"] | None = None,
    filter_seen: bool = False,
) -> SearchSpace:
    """Returns the arrays of a search space for the device, in NumPy.

    Args:
      index: Trie of the items.
      tokens: Token of each code, one array for each level.
      tables: Tables of the task; their histories are dropped.
      keep: Whether each item may be recommended; None allows all.
      filter_seen: Whether batches have items that their users must not get.
    """
    allowed = None
    if keep is not None or filter_seen:
        seen = np.full((1, 1), -1, np.int32) if filter_seen else None
        allowed = make_filter(index, keep=keep, seen=seen)._replace(seen=None)
    tables = tables._replace(items=np.zeros(1, np.int32), users=tables.users[:1])
    return SearchSpace(tables, make_index(index, tokens), allowed)


def children_of(table: trie.Table, nodes: Int[Array, "B W"], width: int):
    """Returns nodes, codes and existence [B W C] of the children of each node."""
    if table.child is not None:
        children = table.child[nodes]
        codes = jnp.arange(children.shape[2], dtype=jnp.int32)
        return children, jnp.broadcast_to(codes, children.shape), children >= 0
    offsets = jnp.arange(width, dtype=jnp.int32)[None, None]
    children = table.indptr[nodes][..., None] + offsets
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
    # Beams whose node is the parent, and the position among its children.
    parent = paths[..., level - 1] if level else jnp.zeros_like(path)
    on_parent = dead[:, :, None] & (parent[:, :, None] == nodes[:, None, :])  # [B H W]
    position = path - table.indptr[parent]
    if table.child is not None:
        position = table.codes[path]
    position = (jnp.arange(nodes.shape[1]) * width)[None, None] + position[..., None]
    flat = jnp.where(on_parent, position, legal[0].size).reshape(batch, -1)
    reached = legal.reshape(batch, -1).at[users, flat].set(False, mode="drop")
    return reached.reshape(legal.shape)


def _count_equal(x: Int[Array, "B H"]) -> Int[Array, "B H"]:
    """Returns how many entries of its row equal each entry, including itself."""
    if export.is_symbolic_dim(x.shape[1]):
        # A sorted search needs a known length; a server limits H, so H x H is small.
        return jnp.sum(x[:, :, None] == x[:, None, :], axis=2)
    # All pairs would need too much memory for users with thousands of items.
    ordered = jnp.sort(x, axis=1)
    first, last = (
        jax.vmap(functools.partial(jnp.searchsorted, side=side))(ordered, x)
        for side in ("left", "right")
    )
    return last - first
