# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a T5 during training: users, batches, ranked lists and metrics.

The model itself runs in `rfrec.retrieval.training`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32

from rfrec.codes.trie import Trie, leaf_of
from rfrec.evaluation import metrics, report
from rfrec.retrieval.corpus import Catalogue

NAMES = (*report.NAMES, "code_hr@10", "code_ndcg@10")


class Block(NamedTuple):
    """Batches of one length bucket.

    Attributes:
      history: Length of the bucket.
      rows: Rows of the examples; the last batch is padded with its first row.
      counted: False for padding.
    """

    history: int
    rows: Int32[np.ndarray, "S B"]
    counted: Bool[np.ndarray, "S B"]


def draw_users(num_users: int, most: int, seed: int) -> Int[np.ndarray, " U"]:
    """Draws at most `most` distinct users, in ascending order; 0 returns all."""
    if most == 0 or most >= num_users:
        return np.arange(num_users)
    rng = np.random.default_rng([seed, 5])
    return np.sort(rng.choice(num_users, most, replace=False))


def blocks(
    lengths: Int[np.ndarray, " P"],
    buckets: Sequence[int],
    batch_size: int,
    parts: int,
) -> list[Block]:
    """Splits examples into batches by the smallest bucket that fits them.

    Args:
      lengths: Lengths of the examples, none above the last bucket.
      buckets: Lengths of the buckets, ascending.
      batch_size: Maximum number of examples in a batch, a multiple of `parts`.
      parts: Number of devices that share a batch.
    """
    bucket_of, result = np.searchsorted(buckets, lengths), []
    for i in np.unique(bucket_of):
        rows = np.flatnonzero(bucket_of == i).astype(np.int32)
        number = -(-len(rows) // batch_size)
        # Batches of equal size need little padding.
        size = -(-len(rows) // number)
        size += -size % parts
        count = number * size
        padded = np.concatenate([rows, np.full(count - len(rows), rows[0], np.int32)])
        counted = np.arange(count) < len(rows)
        shape = (-1, size)
        result.append(Block(buckets[i], padded.reshape(shape), counted.reshape(shape)))
    return result


def in_order(batches: Sequence[Block], values: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the results of blocks [S B ...] in the order of the examples [P ...]."""
    count = sum(int(block.counted.sum()) for block in batches)
    result = np.empty((count, *values[0].shape[2:]), values[0].dtype)
    for block, value in zip(batches, values, strict=True):
        result[block.rows[block.counted]] = value[block.counted]
    return result


def ranked_items(
    trie: Trie, leaves: Int[np.ndarray, "U S"]
) -> Int32[np.ndarray, "U K"]:
    """Turns ranked leaves into ranked items; items that share a leaf stay together.

    Args:
      trie: Trie of the leaves.
      leaves: Leaves, best first; -1 is no leaf.

    Returns:
      Items in their order within a leaf; -1 after the last.
    """
    first, group = trie.leaf_indptr[:-1], np.diff(trie.leaf_indptr)
    counts = np.where(leaves >= 0, group[leaves], 0)
    ends = counts.cumsum(axis=1)
    items = np.full((len(leaves), max(int(ends[:, -1].max()), 1)), -1, np.int32)
    flat = counts.ravel()
    within = np.arange(flat.sum()) - np.repeat(np.cumsum(flat) - flat, flat)
    users = np.repeat(np.arange(len(leaves)), ends[:, -1])
    column = np.repeat((ends - counts).ravel(), flat) + within
    index = np.repeat(first[leaves].ravel(), flat) + within
    items[users, column] = trie.leaf_items[index]
    return items


def search_metrics(
    catalogues: Sequence[Catalogue], leaves: Sequence[Int[np.ndarray, "_ _"]]
) -> dict[str, float]:
    """Averages metrics over the users of all catalogues, by item and by code.

    By code, a list contains the target if it contains the target's codes. Papers count
    this way if items share codes.

    Args:
      catalogues: Data sets.
      leaves: Ranked leaves of the users of each.
    """
    by_item, by_code = [], []
    for catalogue, ranked in zip(catalogues, leaves, strict=True):
        targets = np.asarray(catalogue.examples.target)
        items = ranked_items(catalogue.trie, ranked)
        by_item.append(metrics.match(items, targets))
        by_code.append(metrics.match(ranked, leaf_of(catalogue.trie)[targets]))
    code_names = tuple(name for name in NAMES if name.startswith("code_"))
    plain = tuple(name.removeprefix("code_") for name in code_names)
    of_codes = report.means(_joined(by_code), plain)
    named = zip(code_names, of_codes.values(), strict=True)
    return {**report.means(_joined(by_item)), **dict(named)}


def _joined(parts: Sequence[metrics.Matches]) -> metrics.Matches:
    width = max(part.hit.shape[1] for part in parts)
    hits = [np.pad(p.hit, ((0, 0), (0, width - p.hit.shape[1]))) for p in parts]
    relevant = np.concatenate([part.relevant for part in parts])
    return metrics.Matches(np.concatenate(hits), relevant)
