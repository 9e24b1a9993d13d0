# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Repair of colliding codes.

`repair` returns new codes, the number of items that moved, and the distances before and
after. With the default method, `assign`, no two items have equal codes.
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
    """Codes after a repair, and its cost.

    Attributes:
      codes: Codes [N, Q], or [N, Q+1] after `suffix`.
      sizes: Number of codes per level.
      moved: Number of items whose tuple changed; for `suffix`, those with a digit above
        0.
      cost_before: Mean over all items of ||z - sum of code vectors||^2.
      cost_after: The same with the new codes (a suffix digit has no vector).
      duplicates_left: Number of items minus distinct tuples, after the repair.
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
      codes: Codes 0 to K_l - 1 at level l.
      latents: Finite latents that the codes represent.
      codebooks: Code vectors [K_l, D] of each level.
      method: `assign`, unique codes at the least distance (`assignment.assign_unique`);
        `reassign`, MQL4GRec's procedure, which leaves duplicates (`reassign.reassign`);
        `suffix`, one more level that counts the earlier items with the same tuple
        (TIGER, Rajput et al. 2023); `none`.

    Returns:
      The codes and the cost.

    Raises:
      UserError: Shapes do not match, a latent is not finite, the method is unknown, or
        there are more items than tuples for `assign`.
    """
    sizes = tuple(len(codebook) for codebook in codebooks)
    table.check_codes(codes, sizes)
    check_vectors(codes, latents, codebooks)
    vectors = [codebook.astype(np.float64) for codebook in codebooks]
    before = codes.astype(np.int32)
    after, sizes = _apply(method, before, latents, vectors)
    duplicates = len(after) - len(np.unique(table.tuple_keys(after, sizes)))
    if method in ("assign", "suffix") and duplicates:
        raise RuntimeError(f"{method} left {duplicates} duplicates; this is a bug")
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
                    f"{len(codes)} items cannot have distinct codes: sizes {sizes}"
                    f" give {math.prod(sizes)} tuples; use larger codebooks or one"
                    " more level"
                )
            return assignment.assign_unique(codes, latents, codebooks), sizes
        case "reassign":
            distances_of = functools.partial(_last_distances, codes, latents, codebooks)
            return reassign.reassign_with(codes, sizes[-2:], distances_of), sizes
        case "suffix":
            digit = _earlier_equals(codes, sizes)
            return np.hstack([codes, digit]), (*sizes, int(digit.max()) + 1)
        case "none":
            return codes, sizes
        case _:
            raise UserError(
                f"repair method {method!r} is unknown; use assign, reassign, suffix or"
                " none"
            )


def check_vectors(
    codes: np.ndarray, latents: np.ndarray, codebooks: Sequence[np.ndarray]
) -> None:
    """Checks that latents and codebooks match the codes and are finite.

    Raises:
      UserError: They do not match or are not finite; the message gives the row or the
        codebook.
    """
    if len(latents) != len(codes):
        raise UserError(f"{len(latents)} latents for {len(codes)} rows of codes")
    for level, codebook in enumerate(codebooks):
        if codebook.shape[1] != latents.shape[1]:
            raise UserError(
                f"codebook {level} has width {codebook.shape[1]}, the latents"
                f" {latents.shape[1]}; both must be of one model"
            )
        if not np.isfinite(codebook).all():
            raise UserError(f"codebook {level} contains a NaN or infinite value")
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
