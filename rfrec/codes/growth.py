# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Unique codes for items that come later.

In go the codes of a catalogue and the latents and nearest codes of new items; out come
codes of the new ones. No code that was given changes: `rfrec.codes.assignment` may move
items to make room, this may not.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int32
from tqdm import tqdm

from rfrec.codes import repair, table
from rfrec.codes.assignment import FreeCodes
from rfrec.config import UserError


def assign_new(
    taken: Int32[np.ndarray, "N Q"],
    nearest: Int32[np.ndarray, "n Q"],
    latents: Float[np.ndarray, "n D"],
    codebooks: Sequence[Float[np.ndarray, "_ D"]],
) -> Int32[np.ndarray, "n Q"]:
    """Gives each new item, in the order of the rows, a place of its own.

    An item gets its nearest codes if no item has them, else the free place with the
    least ||z - sum of code vectors||^2 among those that keep as many of its first codes
    as possible: another last code, and only where a prefix is full a change one level
    up. Equal distances go to the lowest codes. Distances are float64.

    Args:
      taken: codes that are given; rows may be equal, and may lie beyond the codebooks.
      nearest: level l in 0..K_l-1.
      latents: of the new items, finite.
      codebooks: the code vectors [K_l, D] of each level.

    Returns:
      Codes that differ from each other and from all of `taken`.

    Raises:
      UserError: arrays do not fit each other, a latent is not finite, or fewer places
        are free than there are new items.
    """
    sizes = tuple(map(len, codebooks))
    table.check_codes(nearest, sizes)
    repair.check_vectors(nearest, latents, codebooks)
    within = taken[(taken < np.asarray(sizes)).all(axis=1)]
    used = len(np.unique(table.tuple_keys(within, sizes)))
    free = math.prod(sizes) - used
    if free < len(nearest):
        raise UserError(
            f"the code space is full: {len(nearest)} new items, {free} free places"
            f" ({used} of {math.prod(sizes)} are taken, codes of sizes {sizes}): train"
            " a tokenizer with larger codebooks or one more level"
        )
    vectors = [codebook.astype(np.float64) for codebook in codebooks]
    if len(sizes) == 1:
        # One level is searched as two, the first of a single code.
        vectors.insert(0, np.zeros_like(vectors[0][:1]))
        within, nearest = (np.insert(c, 0, 0, axis=1) for c in (within, nearest))
    space = FreeCodes(within, vectors)
    placed = np.empty_like(nearest)
    rows = zip(nearest, latents, strict=True)
    for row, (codes, latent) in enumerate(
        tqdm(rows, total=len(nearest), unit="item", desc="codes", disable=None)
    ):
        placed[row] = space.claim(codes, latent.astype(np.float64))
    return placed[:, -len(sizes) :]
