# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Free places of the code space, searched by distance.

In go the codes in use and the codebooks; then, item by item, a latent goes in and the
nearest free tuple comes out, which from then on is taken.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int32

Prefix = tuple[int, ...]


class FreePlaces:
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

    def settle(
        self, codes: Int32[np.ndarray, "Q"], latent: Float64[np.ndarray, "D"]
    ) -> Prefix:
        """Takes an item's own place or, where that is taken, the nearest free one.

        The nearest is looked for below all codes but the last; where all of these
        places are taken, as `take` does.

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
            return self.take(codes, latent)
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

    def take(
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
