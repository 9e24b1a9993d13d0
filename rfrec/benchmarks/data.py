# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Synthetic data of the benchmark, as arrays on the host.

The data sets of the published results may not be redistributed. The synthetic data have
what speed depends on: the numbers of users, items and interactions, and their long
tails.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int32, Int64

from rfrec.benchmarks.options import Gume, Histories, Repair
from rfrec.codes import table
from rfrec.data import folders, pairs, sources
from rfrec.data.interactions import Interactions
from rfrec.pipelines import coded_histories as t5_data


class CodedItems(NamedTuple):
    """Codes of a tokenizer, the latents of the items, and its codebooks."""

    codes: Int32[np.ndarray, "N Q"]
    latents: Float[np.ndarray, "N D"]
    codebooks: list[Float[np.ndarray, "K_level D"]]


class CodedHistories(NamedTuple):
    """Histories, the codes of their items, and the number of codes of each level."""

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


def conflicting_codes(repair: Repair, items: int, seed: int) -> CodedItems:
    """Draws codes with conflicts, and latents near the sums of their code vectors.

    n items with one prefix and random last codes of K have about n^2 / 2K conflicts,
    so prefixes that hold 2 K c items on average make the share c of conflict items.
    """
    rng = np.random.default_rng(seed)
    width, sizes = repair.width, repair.sizes
    codebooks = [
        rng.standard_normal((k, width), np.float32) / 2**level
        for level, k in enumerate(sizes)
    ]
    crowd = max(2 * sizes[-1] * repair.conflicts, 1.0)
    pool = rng.integers(sizes[:-1], size=(max(int(items / crowd), 1), len(sizes) - 1))
    prefixes = pool[rng.integers(len(pool), size=items)]
    last = rng.integers(sizes[-1], size=(items, 1))
    codes = np.hstack([prefixes, last]).astype(np.int32)
    latents = rng.standard_normal((items, width), np.float32) / 2 ** len(sizes)
    for level, codebook in enumerate(codebooks):
        latents += codebook[codes[:, level]]
    return CodedItems(codes, latents, codebooks)


# Lengths of the histories of Amazon Instruments as MQL4GRec cuts it, and users of each
# length in 10,000. The last four lengths represent 21-25, 26-31, 32-40 and more items.
_LENGTHS = np.array(
    [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 23, 28, 35, 58]
)
_USERS = np.array(
    [3314, 1995, 1251, 837, 606, 417, 313, 234, 193, 144, 112, 92, 69, 63, 54, 46]
    + [127, 65, 39, 29]
)
_INSTRUMENTS = "Instruments"


def has_instruments() -> bool:
    """Whether `RFREC_DATA`, or a folder in it, has Instruments with its codes."""
    root = os.environ.get("RFREC_DATA")
    if not root:
        return False
    folder = Path(root).expanduser()
    suffixes = (".inter.json", ".index_lemb.json")
    return all(_INSTRUMENTS in folders.find_names(folder, s) for s in suffixes)


def coded_histories(sizes: Histories, seed: int) -> CodedHistories:
    """Reads Instruments with its published text codes, or draws similar data.

    Raises:
      UserError: A file of Instruments is damaged.
    """
    if has_instruments():
        inter = sources.load_interactions(source="folder", name=_INSTRUMENTS)
        path = t5_data.index_path("folder", None, _INSTRUMENTS, "lemb")
        inter, codes = t5_data.align(table.read_index(path), inter, path)
        return CodedHistories(inter, codes, (256,) * codes.shape[1])
    users, items = sizes.num_users, sizes.num_items
    rng = np.random.default_rng(seed)
    lengths = rng.choice(_LENGTHS, users, p=_USERS / _USERS.sum())
    inter = Interactions(
        indptr=np.concatenate([[0], np.cumsum(lengths)]),
        items=rng.integers(items, size=lengths.sum(), dtype=np.int32),
        num_items=items,
        user_ids=tuple(map(str, range(users))),
    )
    levels, size = sizes.levels, sizes.codes
    return CodedHistories(
        inter, drawn_codes(rng, items, levels, size), (size,) * levels
    )


def drawn_codes(
    rng: np.random.Generator, rows: int, levels: int, size: int, exponent: float = 1.5
) -> Int32[np.ndarray, "N Q"]:
    """Draws codes; those of the first level follow a power law, as in real tokenizers.

    With the exponent 1.5, 256 codes have a perplexity of 15, like MQL4GRec's published
    text codes. The codes of further levels are used about equally often.
    """
    shares = np.arange(1, size + 1, dtype=float) ** -exponent
    codes = rng.integers(size, size=(rows, levels), dtype=np.int32)
    codes[:, 0] = rng.choice(size, rows, p=shares / shares.sum())
    return codes


# Popularity (rank + shift)^-power: of 160,792 pairs of 7,050 items, the most popular
# item has about 540 and the least popular one 6 or 7, as in Amazon Baby.
_POWER, _SHIFT = 0.8, 30
# Standard deviation of the logarithm of the purchases beyond the minimum.
_SPREAD = 1.0
# Dimensions that the vectors of all modalities share, and the scale of their noise.
_COMMON, _NOISE = 32, 0.5
_ROWS = 2048


def purchases(sizes: Gume, seed: int) -> pairs.PairSplit:
    """Draws distinct pairs of users and items; each user has some in each part.

    Args:
      sizes: Numbers of users, items and pairs; each part has a pair for each user.
      seed: Seed of the draw.
    """
    rng = np.random.default_rng(seed)
    num_users, num_items = sizes.num_users, sizes.num_items
    counts = [getattr(sizes, f"{part}_pairs") for part in pairs.PARTS]
    keys = _draw_pairs(rng, num_users, num_items, sum(counts))
    users = keys // num_items
    # In a random order within each user, one pair goes to each part; the part of the
    # others is drawn.
    order = rng.permutation(len(keys))
    order = order[np.argsort(users[order], kind="stable")]
    rank = np.arange(len(order)) - np.searchsorted(users, users)
    labels = np.where(rank < 3, rank, 0)
    rest = rng.permutation(np.flatnonzero(rank >= 3))
    more_valid, more_test = (count - num_users for count in counts[1:])
    labels[rest[:more_valid]] = 1
    labels[rest[more_valid : more_valid + more_test]] = 2
    parts = [keys[order[labels == number]] for number in range(3)]
    return pairs.PairSplit(
        *(pairs.select(k // num_items, k % num_items, num_users) for k in parts),
        num_users=num_users,
        num_items=num_items,
        user_ids=tuple(map(str, range(num_users))),
    )


def _draw_pairs(
    rng: np.random.Generator, users: int, items: int, total: int
) -> Int64[np.ndarray, " E"]:
    """Draws distinct pairs, numbered user x items + item, by the items' popularity."""
    least = min(5, total // users)
    weights = np.exp(_SPREAD * rng.standard_normal(users))
    wanted = least + rng.multinomial(total - least * users, weights / weights.sum())
    # A user buys at most half of the items; the others take the rest.
    spare = np.maximum(wanted - items // 2, 0).sum()
    wanted = np.minimum(wanted, items // 2)
    wanted[np.argsort(wanted, kind="stable")[:spare]] += 1
    shares = (np.arange(items) + 1.0 + _SHIFT) ** -_POWER
    shares = rng.permutation(shares / shares.sum())
    keys, missing = np.zeros(0, np.int64), wanted
    while missing.any():
        buyers = np.repeat(np.arange(users), missing)
        drawn = rng.choice(items, len(buyers), p=shares)
        keys = np.unique(np.concatenate([keys, buyers * items + drawn]))
        missing = wanted - np.bincount(keys // items, minlength=users)
    return keys


def features(sizes: Gume, seed: int) -> dict[str, Float32[np.ndarray, "I _"]]:
    """Draws item vectors by modality; the same items are similar in all modalities."""
    rng = np.random.default_rng(seed)
    common = clusters(rng, sizes.num_items, _COMMON)
    return {
        f"modality_{number}": _spread(rng, common, _turn(rng, width))
        for number, width in enumerate(sizes.feature_widths)
    }


def write_vectors(path: Path, shape: tuple[int, int], seed: int) -> None:
    """Writes vectors of one modality to an `.npy` file, a block at a time."""
    rng = np.random.default_rng(seed)
    common = clusters(rng, shape[0], _COMMON)
    turn = _turn(rng, shape[1])
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(common), _ROWS):
            block = _spread(rng, common[start : start + _ROWS], turn)
            file.write(block.astype("<f4").tobytes())


def _turn(rng: np.random.Generator, width: int) -> Float32[np.ndarray, "C D"]:
    """Draws a map from the common dimensions to those of a modality."""
    turn = rng.standard_normal((_COMMON, width), np.float32)
    return turn / np.float32(np.sqrt(_COMMON))


def _spread(
    rng: np.random.Generator,
    common: Float32[np.ndarray, "I C"],
    turn: Float32[np.ndarray, "C D"],
) -> Float32[np.ndarray, "I D"]:
    """Maps common vectors to a modality, and adds noise."""
    noise = rng.standard_normal((len(common), turn.shape[1]), np.float32)
    return common @ turn + np.float32(_NOISE) * noise
