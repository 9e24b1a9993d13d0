# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Repair of colliding codes.

In go codes, latents and codebooks; out come new codes, with how many items moved and
what it cost in distance. The default, `assign`, leaves no two items with equal codes.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32

from rfrec.codes import assignment, reassign, table
from rfrec.config import UserError


class Repair(NamedTuple):
    """Codes after a repair, and its price.

    Attributes:
      codes: [N, Q]; [N, Q+1] after `suffix`.
      sizes: codes per level.
      moved: items whose tuple changed; for `suffix`, items with a digit above 0.
      cost_before: mean over all items of ||z - sum of code vectors||^2.
      cost_after: the same with the new codes (a suffix digit has no vector).
      duplicates_left: items minus distinct tuples, after.
    """

    codes: Int32[np.ndarray, "N Q"]
    sizes: tuple[int, ...]
    moved: int
    cost_before: float
    cost_after: float
    duplicates_left: int


def repair(
    codes: Int[np.ndarray, "N Q"],
    latents: Float[np.ndarray, "N D"],
    codebooks: Sequence[Float[np.ndarray, "_ D"]],
    method: str = "assign",
) -> Repair:
    """Removes collisions from a table of codes.

    Args:
      codes: level l in 0..K_l-1.
      latents: what the codes stand for, finite.
      codebooks: the code vectors [K_l, D] of each level.
      method: `assign`, unique codes at the least distance (`assignment.assign_unique`);
        `reassign`, MQL4GRec's procedure, which leaves duplicates (`reassign.reassign`);
        `suffix`, one more level that counts the earlier items with the same tuple
        (TIGER, Rajput et al. 2023); `none`.

    Returns:
      The codes and the price.

    Raises:
      UserError: if arrays do not fit each other, a latent is not finite, the method is
        unknown, or `assign` has fewer tuples than items.
    """
    sizes = tuple(len(codebook) for codebook in codebooks)
    table.check_codes(codes, sizes)
    check_vectors(codes, latents, codebooks)
    vectors = [codebook.astype(np.float64) for codebook in codebooks]
    before = codes.astype(np.int32)
    after, sizes = _apply(method, before, latents, vectors)
    duplicates = len(after) - len(np.unique(table.tuple_keys(after, sizes)))
    if method in ("assign", "suffix") and duplicates:
        raise RuntimeError(f"{method} left {duplicates} duplicates: a defect of rfrec")
    levels = codes.shape[1]
    changed = (after[:, :levels] != before).any(1) | (after[:, levels:] > 0).any(1)
    return Repair(
        codes=after,
        sizes=sizes,
        moved=int(changed.sum()),
        cost_before=assignment.mean_cost(latents, before, vectors),
        cost_after=assignment.mean_cost(latents, after[:, :levels], vectors),
        duplicates_left=duplicates,
    )


def _apply(
    method: str, codes: np.ndarray, latents: np.ndarray, codebooks: list[np.ndarray]
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Runs one method; returns codes and sizes."""
    sizes = tuple(len(codebook) for codebook in codebooks)
    match method:
        case "assign":
            if math.prod(sizes) < len(codes):
                raise UserError(
                    f"{len(codes)} items cannot have distinct codes: sizes {sizes} "
                    f"give {math.prod(sizes)} tuples; use larger codebooks or one "
                    f"more level"
                )
            return assignment.assign_unique(codes, latents, codebooks), sizes
        case "reassign":
            of = functools.partial(_last_distances, codes, latents, codebooks)
            return reassign.reassign_with(codes, sizes[-2:], of), sizes
        case "suffix":
            digit = _earlier_equals(codes, sizes)
            return np.hstack([codes, digit]), (*sizes, int(digit.max()) + 1)
        case "none":
            return codes, sizes
        case _:
            raise UserError(
                f"repair method {method!r} is unknown: "
                f"use assign, reassign, suffix or none"
            )


def check_vectors(
    codes: np.ndarray, latents: np.ndarray, codebooks: Sequence[np.ndarray]
) -> None:
    """Refuses latents and codebooks that do not fit the codes or are not finite.

    Raises:
      UserError: naming the row or the codebook.
    """
    if len(latents) != len(codes):
        raise UserError(f"{len(latents)} latents for {len(codes)} rows of codes")
    for level, codebook in enumerate(codebooks):
        if codebook.shape[1] != latents.shape[1]:
            raise UserError(
                f"codebook {level} has width {codebook.shape[1]}, "
                f"the latents {latents.shape[1]}"
            )
        if not np.isfinite(codebook).all():
            raise UserError(f"codebook {level} holds a NaN or infinite value")
    finite = np.isfinite(latents).all(1)
    if not finite.all():
        raise UserError(f"latents: row {finite.argmin()} is not finite")


def _last_distances(
    codes: np.ndarray,
    latents: np.ndarray,
    codebooks: list[np.ndarray],
    rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes distances at the last two levels along the items' own residuals."""
    last = len(codebooks) - 1
    rest = assignment.residuals(latents[rows], codes[rows], codebooks, last)
    below = assignment.squared_distances(rest, codebooks[last])
    if not last:
        return np.zeros((len(rows), 1)), below
    rest += codebooks[last - 1][codes[rows, last - 1]]
    return assignment.squared_distances(rest, codebooks[last - 1]), below


def _earlier_equals(codes: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Counts for every row [N, 1] the earlier rows with the same tuple."""
    keys = table.tuple_keys(codes, sizes)
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    counts = np.empty((len(codes), 1), np.int32)
    counts[order, 0] = np.arange(len(codes)) - np.searchsorted(ranked, ranked)
    return counts
