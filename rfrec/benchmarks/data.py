# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Data of the benchmark: sizes in, arrays on the host out."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int32

from rfrec.codes import table
from rfrec.data import folders, sources
from rfrec.data.interactions import Interactions
from rfrec.pipelines import coded_histories as t5_data


class CodedItems(NamedTuple):
    """Codes of a tokenizer, the latents they stand for, and its codebooks."""

    codes: Int32[np.ndarray, "N Q"]
    latents: Float[np.ndarray, "N D"]
    codebooks: list[Float[np.ndarray, "K_level D"]]


class CodedHistories(NamedTuple):
    """Histories, the codes of their items, and how many each level has."""

    inter: Interactions
    codes: Int32[np.ndarray, "N Q"]
    sizes: tuple[int, ...]


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


# Users by the items of their history, in Amazon Instruments as MQL4GRec cuts it: of
# 10,000 users 3,314 have 5. The last four stand for 21-25, 26-31, 32-40 and more.
_LENGTHS = np.array(
    [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 23, 28, 35, 58]
)
_USERS = np.array(
    [3314, 1995, 1251, 837, 606, 417, 313, 234, 193, 144, 112, 92, 69, 63, 54, 46]
    + [127, 65, 39, 29]
)
_INSTRUMENTS = "Instruments"


def has_instruments() -> bool:
    """Whether `RFREC_DATA`, or a folder in it, holds Instruments with its codes."""
    root = os.environ.get("RFREC_DATA")
    if not root:
        return False
    folder = Path(root).expanduser()
    suffixes = (".inter.json", ".index_lemb.json")
    return all(_INSTRUMENTS in folders.find_names(folder, s) for s in suffixes)


def coded_histories(settings: dict[str, Any], seed: int) -> CodedHistories:
    """Reads Instruments with its published text codes, or draws what is like it.

    Raises:
      UserError: A file of Instruments is damaged.
    """
    if has_instruments():
        inter = sources.load_interactions(source="folder", name=_INSTRUMENTS)
        path = t5_data.index_path("folder", None, _INSTRUMENTS, "lemb")
        inter, codes = t5_data.align(table.read_index(path), inter, path)
        return CodedHistories(inter, codes, (256,) * codes.shape[1])
    users, items = settings["num_users"], settings["num_items"]
    rng = np.random.default_rng(seed)
    lengths = rng.choice(_LENGTHS, users, p=_USERS / _USERS.sum())
    inter = Interactions(
        indptr=np.concatenate([[0], np.cumsum(lengths)]),
        items=rng.integers(items, size=lengths.sum(), dtype=np.int32),
        num_items=items,
        user_ids=tuple(map(str, range(users))),
    )
    levels, size = settings["levels"], settings["codes"]
    return CodedHistories(
        inter, drawn_codes(rng, items, levels, size), (size,) * levels
    )


def drawn_codes(
    rng: np.random.Generator, rows: int, levels: int, size: int, exponent: float = 1.5
) -> Int32[np.ndarray, "N Q"]:
    """Draws codes; those of the first level by a power law, as tokenizers make them.

    At the exponent 1.5, 256 codes have a perplexity of 15, as MQL4GRec's published ones
    of text; those of further levels are about evenly used.
    """
    shares = np.arange(1, size + 1, dtype=float) ** -exponent
    codes = rng.integers(size, size=(rows, levels), dtype=np.int32)
    codes[:, 0] = rng.choice(size, rows, p=shares / shares.sum())
    return codes
