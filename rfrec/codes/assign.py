# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Unique codes at the least distance.

In go codes with collisions, latents and codebooks; out come codes without any. Only
items whose full prefix (all codes but the last) holds a collision are touched: they
get distinct last codes with the least total distance, and those that find no room go
to the nearest free place under a shorter prefix.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Float64, Int32, Int64
from scipy.optimize import linear_sum_assignment

from rfrec.codes import distance, places, table

# Entries of one block of distances: 64 MiB of float64.
_BLOCK = 2**23

Codebooks = Sequence[Float64[np.ndarray, "_ D"]]


def assign(
    codes: Int32[np.ndarray, "N Q"],
    latents: Float[np.ndarray, "N D"],
    codebooks: Codebooks,
) -> Int32[np.ndarray, "N Q"]:
    """Makes all tuples distinct.

    The last codes within a prefix solve a linear assignment of all its items with cost
    ||r - c||^2, r the residual before the last level. A prefix with more items than
    last codes keeps those the assignment picks; the others move in the order of their
    rows, each to the free place with the least ||z - sum of code vectors||^2 that
    changes as few of the later levels as possible. Equal costs go to the lowest codes;
    between equal assignments the choice is SciPy's, the same in every run.

    Args:
      codes: level l in 0..K_l-1; the product of all K_l is at least N.
      latents: finite.
      codebooks: one per level.

    Returns:
      The new codes.
    """
    codes = codes.copy()
    groups = table.colliding_prefixes(codes, codes.shape[1] - 1)
    overflow = [
        _assign_block(codes, latents, codebooks, block)
        for block in _blocks(groups, len(codebooks[-1]))
    ]
    homeless = np.sort(np.concatenate([np.empty(0, np.int64), *overflow]))
    if homeless.size:
        space = places.FreePlaces(codes, codebooks)
        for row in homeless:
            codes[row] = space.take(codes[row], latents[row].astype(np.float64))
    return codes


def _blocks(
    groups: list[Int64[np.ndarray, "_"]], size: int
) -> Iterator[list[Int64[np.ndarray, "_"]]]:
    """Cuts the groups into runs whose distances fill about one block."""
    block, entries = [], 0
    for rows in groups:
        block.append(rows)
        entries += len(rows) * size
        if entries >= _BLOCK:
            yield block
            block, entries = [], 0
    if block:
        yield block


def _assign_block(
    codes: Int32[np.ndarray, "N Q"],
    latents: Float[np.ndarray, "N D"],
    codebooks: Codebooks,
    groups: list[Int64[np.ndarray, "_"]],
) -> Int64[np.ndarray, "_"]:
    """Writes the best last codes of each group; returns the items left without one."""
    items = np.concatenate(groups)
    rest = distance.residuals(
        latents[items], codes[items], codebooks, len(codebooks) - 1
    )
    costs = distance.squared_distances(rest, codebooks[-1])
    left, start = [], 0
    for rows in groups:
        stay, last = linear_sum_assignment(costs[start : start + len(rows)])
        codes[rows[stay], -1] = last
        if len(stay) < len(rows):
            left.append(np.delete(rows, stay))
        start += len(rows)
    return np.concatenate([np.empty(0, np.int64), *left])
