# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Purchases and item vectors of GUME's cases: sizes in, arrays on the host out.

The data that GUME was published on may not be passed on. What speed depends on is
alike: how many users, items and pairs there are, and the long tails of both.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from rfrec.benchmarks import data
from rfrec.data import pairs

# Of a popularity (rank + shift)^-power: 160,792 pairs of 7,050 items give the first
# some 540 and the last 6 or 7, as in Amazon Baby, of which every item has 5 or more.
_POWER, _SHIFT = 0.8, 30
# Of the logarithm of how much users buy beyond the least.
_SPREAD = 1.0
# Dimensions in which the vectors of all modalities agree, and the share that is noise.
_COMMON, _NOISE = 32, 0.5
_ROWS = 2048


def purchases(settings: dict[str, Any], seed: int) -> pairs.PairSplit:
    """Draws purchases; no user buys an item twice, and all have some in each part.

    Args:
      settings: `num_users`, `num_items` and the pairs of the parts, `train_pairs`,
        `valid_pairs` and `test_pairs`, each no fewer than there are users.
      seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    num_users, num_items = settings["num_users"], settings["num_items"]
    sizes = [settings[f"{part}_pairs"] for part in pairs.PARTS]
    keys = _draw(rng, num_users, num_items, sum(sizes))
    users = keys // num_items
    # A random order within each user: one pair goes to each part, the rest is drawn.
    order = rng.permutation(len(keys))
    order = order[np.argsort(users[order], kind="stable")]
    place = np.arange(len(order)) - np.searchsorted(users, users)
    labels = np.where(place < 3, place, 0)
    rest = rng.permutation(np.flatnonzero(place >= 3))
    more_valid, more_test = (size - num_users for size in sizes[1:])
    labels[rest[:more_valid]] = 1
    labels[rest[more_valid : more_valid + more_test]] = 2
    parts = [keys[order[labels == number]] for number in range(3)]
    return pairs.PairSplit(
        *(pairs.select(k // num_items, k % num_items, num_users) for k in parts),
        num_users=num_users,
        num_items=num_items,
        user_ids=tuple(map(str, range(num_users))),
    )


def _draw(
    rng: np.random.Generator, users: int, items: int, total: int
) -> Int64[np.ndarray, " E"]:
    """Draws so many distinct pairs, user x items + item, of popular items more."""
    least = min(5, total // users)
    weights = np.exp(_SPREAD * rng.standard_normal(users))
    wanted = least + rng.multinomial(total - least * users, weights / weights.sum())
    # Nobody buys more than half of what there is; who buys least takes the rest.
    spare = np.maximum(wanted - items // 2, 0).sum()
    wanted = np.minimum(wanted, items // 2)
    wanted[np.argsort(wanted, kind="stable")[:spare]] += 1
    shares = (np.arange(items) + 1.0 + _SHIFT) ** -_POWER
    shares = rng.permutation(shares / shares.sum())
    found, missing = np.zeros(0, np.int64), wanted
    while missing.any():
        buyers = np.repeat(np.arange(users), missing)
        drawn = rng.choice(items, len(buyers), p=shares)
        found = np.unique(np.concatenate([found, buyers * items + drawn]))
        missing = wanted - np.bincount(found // items, minlength=users)
    return found


def features(
    settings: dict[str, Any], seed: int
) -> tuple[Float32[np.ndarray, "I _"], ...]:
    """Draws vectors of each modality, which agree on who is alike."""
    rng = np.random.default_rng(seed)
    common = data.clusters(rng, settings["num_items"], _COMMON)
    return tuple(
        _spread(rng, common, _turn(rng, width)) for width in settings["feature_widths"]
    )


def write_vectors(path: Path, shape: tuple[int, int], seed: int) -> None:
    """Writes vectors of one modality to an `.npy` file, a block at a time."""
    rng = np.random.default_rng(seed)
    common = data.clusters(rng, shape[0], _COMMON)
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
    """Maps common vectors, and adds noise."""
    noise = rng.standard_normal((len(common), turn.shape[1]), np.float32)
    return common @ turn + np.float32(_NOISE) * noise
