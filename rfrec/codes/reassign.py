# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""MQL4GRec's repair of colliding codes, for comparison with its results.

The repair of `rfrec.codes.assignment` should be preferred. This procedure keeps the old
last-level distances after it has changed the level before, gives up when the last two
levels are full, and leaves duplicates because of a defect: it compares codes as printed
lists, and under NumPy 2 an entry of a sorted array is printed as `np.int64(3)`, an
unchanged one as `3`. Two items with the same numbers therefore count as different if
one of them was moved. The recorded results contain this defect, so it is reproduced
here: until the end, a code that was written counts as another symbol, `code + size`.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from rfrec.codes import table

# Maps item rows to their distances to the codes of the level before the last and of the
# last level, both along the residual path of the original codes.
DistancesOf = Callable[
    [Int[np.ndarray, "n"]],
    tuple[Float[np.ndarray, "n J"], Float[np.ndarray, "n K"]],
]


def reassign(
    codes: Int[np.ndarray, "N Q"],
    distances: Float[np.ndarray, "N Q K"],
    *,
    passes: int = 2,
) -> Int[np.ndarray, "N Q"]:
    """Moves colliding items to near codes in the last two levels, as MQL4GRec does.

    Groups of equal codes are processed in the order in which they first occur. Within a
    group, the item nearest to any last-level code keeps its codes. The item of rank i
    (from 0) takes the first free last code, starting from its i-th nearest. If there is
    none, it takes the first free pair with its j-th nearest code at the level before,
    j = 1, 2, ... If there is none either, it keeps the last pair that was tried,
    although that is used.

    Args:
      codes: Codes, all levels of one size K.
      distances: Distances to every code of every level; only the last two levels are
        used.
      passes: Number of passes over the groups.

    Returns:
      The new codes, in the type of `codes`; not always unique.
    """
    size = distances.shape[2]
    return reassign_with(
        codes, (size, size), lambda rows: _last_two(distances[rows]), passes=passes
    )


def _last_two(
    distances: Float[np.ndarray, "n Q K"],
) -> tuple[Float[np.ndarray, "n J"], Float[np.ndarray, "n K"]]:
    if distances.shape[1] == 1:
        return np.zeros((len(distances), 1)), distances[:, 0]
    return distances[:, -2], distances[:, -1]


def reassign_with(
    codes: Int[np.ndarray, "N Q"],
    sizes: tuple[int, ...],
    distances_of: DistancesOf,
    *,
    passes: int = 2,
) -> Int[np.ndarray, "N Q"]:
    """Runs `reassign` with distances computed for the colliding items only.

    Items keep their first Q-2 codes, so each such prefix is independent of the others.
    The result equals that of one pass over all groups, but needs only one small table
    of used pairs at a time.

    Args:
      codes: Codes of any sizes; for Q = 1 the level before the last counts as a level
        of size 1.
      sizes: Sizes of the last two levels (of the only level, for Q = 1).
      distances_of: Function that returns the distances of some rows of `codes`.
      passes: Number of passes over the groups.

    Returns:
      The new codes, in the type of `codes`.
    """
    codes = codes.copy()
    sizes = sizes if codes.shape[1] > 1 else (1, sizes[-1])
    for rows in table.colliding_prefixes(codes, max(codes.shape[1] - 2, 0)):
        pairs = np.zeros((len(rows), 2), np.int64)
        pairs[:, -codes.shape[1] :] = codes[rows, -2:]
        # Symbols below the size are original codes, larger ones are written codes.
        taken = np.zeros((2 * sizes[0], 2 * sizes[1]), bool)
        taken[pairs[:, 0], pairs[:, 1]] = True
        for _ in range(passes):
            _one_pass(pairs, taken, lambda local, rows=rows: distances_of(rows[local]))
        codes[rows, -2:] = (pairs % sizes)[:, -codes.shape[1] :]
    return codes


def _one_pass(
    pairs: Int[np.ndarray, "n 2"],
    taken: Bool[np.ndarray, "J2 K2"],
    distances_of: DistancesOf,
) -> None:
    """Goes once over the groups of equal pairs, updating `pairs` and `taken`."""
    _, first, group, counts = np.unique(
        pairs @ [taken.shape[1], 1],
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    rows = np.flatnonzero(counts[group] > 1)
    if not len(rows):
        return
    upper, last = distances_of(rows)
    nearest = last.min(1)
    # Groups by first appearance; in a group by the own minimum, ties by item.
    by_rank = np.lexsort((nearest, first[group[rows]]))
    owner = first[group[rows[by_rank]]]
    rank = np.arange(len(rows)) - np.searchsorted(owner, owner)
    for local, number in zip(by_rank, rank, strict=True):
        if number:
            row = rows[local]
            pairs[row] = _next_pair(
                pairs[row], taken, upper[local], last[local], int(number)
            )
            taken[tuple(pairs[row])] = True


def _next_pair(
    own: Int[np.ndarray, "2"],
    taken: Bool[np.ndarray, "J2 K2"],
    upper: Float[np.ndarray, "J"],
    last: Float[np.ndarray, "K"],
    rank: int,
) -> tuple[int, int]:
    """Returns the pair for the item of a rank in its group; it may be in use."""
    columns = len(last) + np.argsort(last, kind="stable")
    row, column = own.tolist()
    later = columns[rank:]
    free = later[~taken[row, later]]
    if free.size:
        return row, int(free[0])
    for row in (len(upper) + np.argsort(upper, kind="stable")[1:]).tolist():
        if not taken[row, column]:
            return row, column
        free = columns[~taken[row, columns]]
        if free.size:
            return row, int(free[0])
    tried = later.size or len(upper) > 1
    return row, int(columns[-1]) if tried else column
