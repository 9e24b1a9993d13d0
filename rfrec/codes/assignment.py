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
        space = FreeCodes(codes, codebooks)
        for row in homeless:
            codes[row] = space.claim_nearest(
                codes[row], latents[row].astype(np.float64)
            )
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
    """The free tuples of a table of at least two levels.

    A prefix of all but the last two codes has a grid of taken places, made when it is
    first searched. Below a shorter prefix, its children are searched in the order of a
    lower bound on their distance, until the bound exceeds what was found.
    """

    def __init__(
        self, codes: Int32[np.ndarray, "N Q"], codebooks: Sequence[np.ndarray]
    ):
        """Indexes the tuples in use; rows without a place may repeat another's."""
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
        # ||b + c||^2, the part of ||r - b - c||^2 that is the same for all items.
        self._pair_norms = self._crosses[levels[-2], levels[-1]] + upper[:, None] + last
        # The least that the products of code vectors from level l on can add up to.
        self._least_crosses = [
            sum(c.min() for (m, _), c in self._crosses.items() if m >= level)
            for level in (*levels, len(codebooks))
        ]
        self._grids: dict[Prefix, Bool[np.ndarray, "J K"]] = {}
        self._full: set[Prefix] = set()
        # Last codes taken since, by what comes before them.
        self._taken: dict[Prefix, list[int]] = {}

    def claim(
        self, codes: Int32[np.ndarray, "Q"], latent: Float64[np.ndarray, "D"]
    ) -> Prefix:
        """Takes an item's own place or, where that is taken, the nearest free one.

        The nearest is looked for below all codes but the last; where all of these
        places are taken, as `claim_nearest` does.

        Args:
          codes: the item's own tuple.
          latent: the item's latent.

        Returns:
          The tuple; no later call returns it again.

        Raises:
          RuntimeError: if the whole space is taken.
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

    def _mark(self, place: Prefix) -> Prefix:
        """Notes that a place is taken."""
        self._taken.setdefault(place[:-1], []).append(place[-1])
        if place[:-2] in self._grids:
            self._grids[place[:-2]][place[-2:]] = True
        return place

    def claim_nearest(
        self, codes: Int32[np.ndarray, "Q"], latent: Float64[np.ndarray, "D"]
    ) -> Prefix:
        """Takes the nearest free place that keeps as many first codes as possible.

        Args:
          codes: the item's own tuple, whose prefixes are searched, longest first.
          latent: the item's latent.

        Returns:
          The tuple; no later call returns it again.

        Raises:
          RuntimeError: if the whole space is taken.
        """
        own = tuple(codes.tolist())
        for kept in range(len(own) - 2, -1, -1):
            prefix = own[:kept]
            rest = latent.copy()
            for level, code in enumerate(prefix):
                rest -= self._codebooks[level][code]
            found = self._nearest(prefix, rest)
            if found is not None:
                return self._mark(found[1])
        raise RuntimeError(f"no free place among code sizes {self._sizes}")

    def _nearest(
        self, prefix: Prefix, rest: Float64[np.ndarray, "D"]
    ) -> tuple[float, Prefix] | None:
        """Finds the squared distance and tuple of the nearest place, None if full."""
        if prefix in self._full:
            return None
        in_grid = len(prefix) == len(self._sizes) - 2
        found = (self._search_grid if in_grid else self._search_below)(prefix, rest)
        if found is None:
            self._full.add(prefix)
        return found

    def _search_below(
        self, prefix: Prefix, rest: Float64[np.ndarray, "D"]
    ) -> tuple[float, Prefix] | None:
        """Searches the children of a prefix.

        The bound for a child with residual p is that of the expanded square
        ||p - sum c_m||^2, every term at its own minimum over the codes.
        """
        level = len(prefix)
        rests = rest - self._codebooks[level]
        squares = (rests**2).sum(1)
        bounds = squares + self._least_crosses[level + 1]
        for later in range(level + 1, len(self._sizes)):
            linear = self._norms[later] - 2.0 * (self._codebooks[later] @ rest)
            bounds += (linear + self._crosses[level, later]).min(1)
        # Rounding must not exclude a place as near as the best.
        bounds -= 1e-12 * squares.max()
        best = None
        for code in np.argsort(bounds, kind="stable").tolist():
            if best is not None and bounds[code] > best[0]:
                break
            found = self._nearest((*prefix, code), rests[code])
            if found is not None and (best is None or found < best):
                best = found
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
        """Returns the rows of the first table that begin with a prefix."""
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
