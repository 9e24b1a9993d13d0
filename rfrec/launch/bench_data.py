# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Synthetic data of the benchmark: sizes in, arrays on the host out."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int32


class CodedItems(NamedTuple):
    """Codes of a tokenizer, the latents they stand for, and its codebooks."""

    codes: Int32[np.ndarray, "N Q"]
    latents: Float[np.ndarray, "N D"]
    codebooks: list[Float[np.ndarray, "K_level D"]]


def clusters(
    rng: np.random.Generator, rows: int, width: int
) -> Float[np.ndarray, "N D"]:
    """Draws vectors around 64 centres, mean square 1."""
    centers = rng.standard_normal((64, width), np.float32)
    x = centers[rng.integers(64, size=rows)]
    x += rng.standard_normal(x.shape, np.float32)
    return x / np.sqrt(np.mean(x**2))


def conflicting_codes(settings: dict[str, Any], seed: int) -> CodedItems:
    """Draws codes with conflicts, and latents near the sums of their code vectors.

    n items with one prefix and random last codes of K have about n^2 / 2K conflicts,
    so prefixes that hold 2 K c items on average make the share c of conflict items.
    """
    rng = np.random.default_rng(seed)
    items, width, sizes = (settings[n] for n in ("num_items", "width", "sizes"))
    codebooks = [
        rng.standard_normal((k, width), np.float32) / 2**level
        for level, k in enumerate(sizes)
    ]
    crowd = max(2 * sizes[-1] * settings["conflicts"], 1.0)
    pool = rng.integers(sizes[:-1], size=(max(int(items / crowd), 1), len(sizes) - 1))
    prefixes = pool[rng.integers(len(pool), size=items)]
    last = rng.integers(sizes[-1], size=(items, 1))
    codes = np.hstack([prefixes, last]).astype(np.int32)
    latents = rng.standard_normal((items, width), np.float32) / 2 ** len(sizes)
    for level, codebook in enumerate(codebooks):
        latents += codebook[codes[:, level]]
    return CodedItems(codes, latents, codebooks)
