# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Distances between latents and sums of code vectors, on the host.

In go float32 latents and codebooks; all arithmetic is float64, so that equal optima
are not told apart by rounding and costs over many items add up.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int

_CHUNK = 65_536


def residuals(
    latents: Float[np.ndarray, "n D"],
    codes: Int[np.ndarray, "n Q"],
    codebooks: Sequence[Float64[np.ndarray, "_ D"]],
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
    codebooks: Sequence[Float64[np.ndarray, "_ D"]],
) -> float:
    """Averages ||z - sum of code vectors||^2 over the items."""
    total = 0.0
    for start in range(0, len(latents), _CHUNK):
        part = slice(start, start + _CHUNK)
        rest = residuals(latents[part], codes[part], codebooks, len(codebooks))
        total += float(np.einsum("nd,nd->", rest, rest))
    return total / len(latents)
