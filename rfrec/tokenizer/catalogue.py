# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Item vectors as the tokenizer trains on them: which rows, in which batches."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class Items:
    """Item vectors and which of them are trained on.

    Attributes:
      values: Vectors, float16 or float32, perhaps memory-mapped.
      train: Rows to train on.
      validation: Rows held out, perhaps none.
      multi_hot: True for the columns of multi-hot features; None if there are none.
      resident: Whether all vectors live on every device; else batches are read from
        `values` as they are needed.
    """

    values: Float[np.ndarray, "N D"]
    train: Int[np.ndarray, " T"]
    validation: Int[np.ndarray, " V"]
    multi_hot: Bool[np.ndarray, " D"] | None = None
    resident: bool = True


def split_items(
    num_items: int, val_ratio: float, seed: int
) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " V"]]:
    """Holds out a random share of the items; returns training and held-out rows."""
    order = np.random.default_rng([seed, 1]).permutation(num_items)
    held = int(round(val_ratio * num_items))
    return np.sort(order[held:]), np.sort(order[:held])


def epoch_rows(
    rows: Int[np.ndarray, " T"], batch_size: int, *, seed: int, epoch: int
) -> Int[np.ndarray, "S B"]:
    """Returns the rows of each batch of an epoch, shuffled by seed and epoch.

    Every batch is full: the last one is filled up from the beginning of the order, so
    that no reduction needs weights and every engine sees equal parts.
    """
    order = np.random.default_rng([seed, 2, epoch]).permutation(rows)
    steps = -(-len(rows) // batch_size)
    return np.resize(order, (steps, batch_size)).astype(np.int32)


def column_statistics(
    x: Float[np.ndarray, "T D"],
) -> dict[str, Float[np.ndarray, " D"]]:
    """Returns mean and deviation of the columns; constant columns keep their scale."""
    mean, deviation = x.mean(axis=0, dtype="f8"), x.std(axis=0, dtype="f8")
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    return {"mean": mean.astype("f4"), "deviation": deviation.astype("f4")}


def read_rows(
    values: Float[np.ndarray, "N D"], rows: Int[np.ndarray, "S B"]
) -> Float[np.ndarray, "S B D"]:
    """Reads rows of a memory map in ascending order, which disks prefer."""
    flat, inverse = np.unique(rows, return_inverse=True)
    return np.asarray(values[flat])[inverse].reshape(*rows.shape, values.shape[1])
