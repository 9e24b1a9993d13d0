# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Unique codes for items that are added to a catalogue.

The codes of existing items never change, in contrast to the repair in
`rfrec.codes.assignment`, which may move any item of a full prefix.
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
    """Assigns unique codes to new items, in the order of the rows.

    An item gets its nearest codes if they are free. Otherwise it gets the free tuple
    with the least ||z - sum of code vectors||^2 among those that keep as many of its
    first codes as possible: another last code or, only if a prefix is full, a change
    one level up. Ties go to the lowest codes. Distances are float64.

    Args:
      taken: Codes in use; rows may be equal, and may lie outside the codebooks.
      nearest: Nearest codes of the new items, 0 to K_l - 1 at level l.
      latents: Finite latents of the new items.
      codebooks: Code vectors [K_l, D] of each level.

    Returns:
      Codes that differ from each other and from all of `taken`.

    Raises:
      UserError: Shapes do not match, a latent is not finite, or there are fewer free
        tuples than new items.
    """
    sizes = tuple(map(len, codebooks))
    table.check_codes(nearest, sizes)
    repair.check_vectors(nearest, latents, codebooks)
    within = taken[(taken < np.asarray(sizes)).all(axis=1)]
    used = len(np.unique(table.tuple_keys(within, sizes)))
    free = math.prod(sizes) - used
    if free < len(nearest):
        raise UserError(
            f"the code space is full: {len(nearest)} new items, {free} free tuples"
            f" ({used} of {math.prod(sizes)} are used, codes of sizes {sizes}); train"
            " a tokenizer with larger codebooks or one more level"
        )
    vectors = [codebook.astype(np.float64) for codebook in codebooks]
    if len(sizes) == 1:
        # One level is searched as two, of which the first has a single code.
        vectors.insert(0, np.zeros_like(vectors[0][:1]))
        within, nearest = (np.insert(c, 0, 0, axis=1) for c in (within, nearest))
    free_codes = FreeCodes(within, vectors)
    assigned = np.empty_like(nearest)
    rows = zip(nearest, latents, strict=True)
    for row, (codes, latent) in enumerate(
        tqdm(rows, total=len(nearest), unit="item", desc="codes", disable=None)
    ):
        assigned[row] = free_codes.claim(codes, latent.astype(np.float64))
    return assigned[:, -len(sizes) :]
