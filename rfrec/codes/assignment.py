# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Unique codes at the least distance, and the free codes that are left.

`assign_unique` takes codes with collisions, the latents that they stand for and the
codebooks, and returns codes without collisions. Only items that share their prefix (all
codes but the last) with a collision can change. Items that find no free last code move
to the nearest free tuple under a shorter prefix, which `FreeCodes` searches.

Latents and codebooks are float32, all arithmetic is float64 on the host: rounding then
does not separate equal optima, and costs over many items add up.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int32, Int64
from scipy.optimize import linear_sum_assignment

from rfrec.codes import table

# Entries of one block of distances: 64 MiB of float64.
_BLOCK = 2**23
_CHUNK = 65_536

Codebooks = Sequence[Float64[np.ndarray, "_ D"]]
Prefix = tuple[int, ...]


def assign_unique(
    codes: Int32[np.ndarray, "N Q"],
    latents: Float[np.ndarray, "N D"],
    codebooks: Codebooks,
) -> Int32[np.ndarray, "N Q"]:
    """Makes all tuples distinct.

    The last codes within a prefix solve a linear assignment of all its items with the
    cost ||r - c||^2, where r is the residual before the last level. If a prefix has
    more items than last codes, the items that the assignment leaves out move in the
    order of their rows. Each moves to the free tuple with the least ||z - sum of code
    vectors||^2 among those that change as few of the later levels as possible. Ties go
    to the lowest codes; between equal assignments SciPy chooses, in the same way in
    every run.

    Args:
      codes: Codes 0 to K_l - 1 at level l; the product of all K_l is at least N.
      latents: Finite latents.
      codebooks: Code vectors [K_l, D] of each level.

    Returns:
      The new codes, all distinct.
    """
    codes = codes.copy()
    groups = table.colliding_prefixes(codes, codes.shape[1] - 1)
    overflow = [
        _assign_block(codes, latents, codebooks, block)
        for block in _blocks(groups, len(codebooks[-1]))
    ]
    unassigned = np.sort(np.concatenate([np.empty(0, np.int64), *overflow]))
    if unassigned.size:
        free = FreeCodes(codes, codebooks)
        for row in unassigned:
            codes[row] = free.claim_nearest(codes[row], latents[row].astype(np.float64))
    return codes


def _blocks(
    groups: list[Int64[np.ndarray, "_"]], size: int
) -> Iterator[list[Int64[np.ndarray, "_"]]]:
    """Batches the groups so that the distances of a batch fill about one block."""
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
    """Writes the best last codes of each group; returns the items without one."""
    items = np.concatenate(groups)
    rest = residuals(latents[items], codes[items], codebooks, len(codebooks) - 1)
    costs = squared_distances(rest, codebooks[-1])
    left, start = [], 0
    for rows in groups:
        stay, last = linear_sum_assignment(costs[start : start + len(rows)])
        codes[rows[stay], -1] = last
        if len(stay) < len(rows):
            left.append(np.delete(rows, stay))
        start += len(rows)
    return np.concatenate([np.empty(0, np.int64), *left])


class FreeCodes:
    """The free tuples of a table of at least two levels, searched by distance.

    Each prefix of all but the last two codes has a grid of used tuples, which is built
    when it is first searched. Below a shorter prefix, the children are searched in the
    order of a lower bound on their distance, until the bound exceeds the best distance
    so far.
    """

    def __init__(
        self, codes: Int32[np.ndarray, "N Q"], codebooks: Sequence[np.ndarray]
    ):
        """Indexes the tuples in use; rows may be equal."""
        self._columns = codes[np.lexsort(codes.T[::-1])].T.copy()
        self._codebooks = codebooks
        self._sizes = tuple(len(codebook) for codebook in codebooks)
        levels = range(len(codebooks))
        self._norms = [(codebook**2).sum(1) for codebook in codebooks]
        # 2 b.c for code vectors b, c of every pair of levels, earlier level first.
        self._crosses = {
            (m, n): 2.0 * (codebooks[m] @ codebooks[n].T)
            for n in levels
            for m in range(n)
        }
        upper, last = self._norms[-2:]
        # ||b + c||^2, the part of ||r - b - c||^2 that does not depend on the item.
        self._pair_norms = self._crosses[levels[-2], levels[-1]] + upper[:, None] + last
        # Lower bound on the sum of the products of code vectors from level l on.
        self._least_crosses = [
            sum(c.min() for (m, _), c in self._crosses.items() if m >= level)
            for level in (*levels, len(codebooks))
        ]
        self._grids: dict[Prefix, Bool[np.ndarray, "J K"]] = {}
        self._full: set[Prefix] = set()
        # Last codes claimed since then, by prefix.
        self._taken: dict[Prefix, list[int]] = {}

    def claim(
        self, codes: Int32[np.ndarray, "Q"], latent: Float64[np.ndarray, "D"]
    ) -> Prefix:
        """Claims an item's own tuple or, if that is used, the nearest free one.

        The nearest one is searched among those that differ in the last code only; if
        all of these are used, `claim_nearest` is called.

        Args:
          codes: Tuple of the item.
          latent: Latent of the item.

        Returns:
          The tuple; no later call returns it again.

        Raises:
          RuntimeError: There is no free tuple.
        """
        *start, last = codes.tolist()
        prefix = tuple(start)
        used = np.zeros(self._sizes[-1], bool)
        below = self._below(prefix)
        used[self._columns[-1, below]] = True
        used[self._taken.get(prefix, [])] = True
        if used.all():
            return self.claim_nearest(codes, latent)
        if used[last]:
            rest = latent.copy()
            for level, code in enumerate(prefix):
                rest -= self._codebooks[level][code]
            costs = ((rest - self._codebooks[-1]) ** 2).sum(1)
            costs[used] = np.inf
            last = int(costs.argmin())
        return self._mark((*prefix, last))

    def _mark(self, codes: Prefix) -> Prefix:
        """Marks a tuple as used."""
        self._taken.setdefault(codes[:-1], []).append(codes[-1])
        if codes[:-2] in self._grids:
            self._grids[codes[:-2]][codes[-2:]] = True
        return codes

    def claim_nearest(
        self, codes: Int32[np.ndarray, "Q"], latent: Float64[np.ndarray, "D"]
    ) -> Prefix:
        """Claims the nearest free tuple that keeps as many first codes as possible.

        Args:
          codes: Tuple of the item, whose prefixes are searched, longest first.
          latent: Latent of the item.

        Returns:
          The tuple; no later call returns it again.

        Raises:
          RuntimeError: There is no free tuple.
        """
        own = tuple(codes.tolist())
        for kept in range(len(own) - 2, -1, -1):
            prefix = own[:kept]
            rest = latent.copy()
            for level, code in enumerate(prefix):
                rest -= self._codebooks[level][code]
            nearest = self._nearest(prefix, rest)
            if nearest is not None:
                return self._mark(nearest[1])
        raise RuntimeError(f"no free tuple of codes of sizes {self._sizes}")

    def _nearest(
        self, prefix: Prefix, rest: Float64[np.ndarray, "D"]
    ) -> tuple[float, Prefix] | None:
        """Returns squared distance and tuple of the nearest free one, None if full."""
        if prefix in self._full:
            return None
        in_grid = len(prefix) == len(self._sizes) - 2
        nearest = (self._search_grid if in_grid else self._search_below)(prefix, rest)
        if nearest is None:
            self._full.add(prefix)
        return nearest

    def _search_below(
        self, prefix: Prefix, rest: Float64[np.ndarray, "D"]
    ) -> tuple[float, Prefix] | None:
        """Searches the children of a prefix.

        The bound for a child with residual p expands ||p - sum c_m||^2 and takes the
        minimum of each term over the codes.
        """
        level = len(prefix)
        rests = rest - self._codebooks[level]
        squares = (rests**2).sum(1)
        bounds = squares + self._least_crosses[level + 1]
        for later in range(level + 1, len(self._sizes)):
            linear = self._norms[later] - 2.0 * (self._codebooks[later] @ rest)
            bounds += (linear + self._crosses[level, later]).min(1)
        # Rounding must not exclude a tuple that is as near as the best.
        bounds -= 1e-12 * squares.max()
        best = None
        for code in np.argsort(bounds, kind="stable").tolist():
            if best is not None and bounds[code] > best[0]:
                break
            nearest = self._nearest((*prefix, code), rests[code])
            if nearest is not None and (best is None or nearest < best):
                best = nearest
        return best

    def _search_grid(
        self, prefix: Prefix, rest: Float64[np.ndarray, "D"]
    ) -> tuple[float, Prefix] | None:
        grid = self._grid(prefix)
        upper, last = self._codebooks[-2:]
        costs = self._pair_norms - (2.0 * (upper @ rest))[:, None]
        costs -= 2.0 * (last @ rest)
        costs[grid] = np.inf
        row, column = divmod(int(costs.argmin()), grid.shape[1])
        if grid[row, column]:
            return None
        return float(costs[row, column] + rest @ rest), (*prefix, row, column)

    def _grid(self, prefix: Prefix) -> Bool[np.ndarray, "J K"]:
        if prefix not in self._grids:
            below = self._below(prefix)
            grid = np.zeros(self._sizes[-2:], bool)
            grid[self._columns[-2, below], self._columns[-1, below]] = True
            for row in range(len(grid)):
                grid[row, self._taken.get((*prefix, row), [])] = True
            self._grids[prefix] = grid
        return self._grids[prefix]

    def _below(self, prefix: Prefix) -> slice:
        """Returns the rows of the sorted table that begin with a prefix."""
        start, stop = 0, self._columns.shape[1]
        for level, code in enumerate(prefix):
            column = self._columns[level, start:stop]
            start, stop = start + np.searchsorted(column, [code, code + 1])
        return slice(int(start), int(stop))


def residuals(
    latents: Float[np.ndarray, "n D"],
    codes: Int[np.ndarray, "n Q"],
    codebooks: Codebooks,
    levels: int,
) -> Float64[np.ndarray, "n D"]:
    """Subtracts the code vectors of the first `levels` levels from the latents."""
    rest = latents.astype(np.float64)
    for level in range(levels):
        rest -= codebooks[level][codes[:, level]]
    return rest


def squared_distances(
    points: Float64[np.ndarray, "n D"], codebook: Float64[np.ndarray, "K D"]
) -> Float64[np.ndarray, "n K"]:
    """Computes ||p||^2 - 2 p.c + ||c||^2 for all pairs."""
    cross = points @ codebook.T
    cross *= -2.0
    cross += (codebook**2).sum(1)
    cross += (points**2).sum(1)[:, None]
    return cross


def mean_cost(
    latents: Float[np.ndarray, "N D"],
    codes: Int[np.ndarray, "N Q"],
    codebooks: Codebooks,
) -> float:
    """Averages ||z - sum of code vectors||^2 over the items."""
    total = 0.0
    for start in range(0, len(latents), _CHUNK):
        part = slice(start, start + _CHUNK)
        rest = residuals(latents[part], codes[part], codebooks, len(codebooks))
        total += float(np.einsum("nd,nd->", rest, rest))
    return total / len(latents)
