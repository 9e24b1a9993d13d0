# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the vectors of all items as the arrays of a data folder."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from rfrec import files
from rfrec.config import UserError
from rfrec.encoders.running import Encoded
from rfrec.encoders.sentence import unit_length

# Number of rows that are converted at a time.
_CHUNK = 4096


def write_missing(path: Path, ids: Sequence[str], reasons: Mapping[int, str]) -> None:
    """Writes the items without a vector: `item`, `id`, `reason`, tab-separated.

    Args:
      path: File to write.
      ids: Names of all items.
      reasons: Reason why an item has no vector, by row.
    """
    rows = [("item", "id", "reason")]
    rows += [(str(row), ids[row], reason) for row, reason in reasons.items()]
    lines = ("\t".join(" ".join(cell.split()) for cell in row) for row in rows)
    files.write_text(path, "".join(f"{line}\n" for line in lines))


def write_mask(path: Path, mask: Bool[np.ndarray, " N"]) -> None:
    """Writes which items have a vector."""
    with files.replacing(path) as partial:
        np.save(partial, mask, allow_pickle=False)


def write_vectors(path: Path, encoded: Encoded, dtype: str) -> None:
    """Writes one row for each item; items without a vector have zeros.

    The sums are kept in a temporary file, so that they may exceed the memory.

    Args:
      path: File to write, `.npy`.
      encoded: Vectors of the items.
      dtype: Data type of the file.

    Raises:
      UserError: A value is too large for the data type, or the disk is full.
    """
    width = encoded.store.width
    assert width is not None, "written before anything was encoded"
    shape = (len(encoded.keys), width)
    try:
        with tempfile.TemporaryFile(dir=path.parent) as scratch:
            means = np.memmap(scratch, np.float32, "w+", shape=shape)
            _average(encoded, means)
            with files.replacing(path) as partial:
                _convert(means, partial, dtype)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def _convert(means: Float32[np.ndarray, "N D"], path: Path, dtype: str) -> None:
    out = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), means.shape)
    for start in range(0, len(out), _CHUNK):
        rows = slice(start, start + _CHUNK)
        with np.errstate(over="ignore"):
            out[rows] = means[rows]
        if not np.isfinite(out[rows]).all():
            raise UserError(
                f"a vector exceeds {dtype}; set config.out.dtype to float32"
            )
    out.flush()


def _average(encoded: Encoded, out: Float32[np.ndarray, "N D"]) -> None:
    """Writes the mean of each item's vectors into its row, which is zero.

    Vectors are added in the order of the texts, in whatever shards they are, so that a
    resumed run has the same last bits.
    """
    most = max(map(len, encoded.keys))
    for piece in range(most):
        keys = [own[piece] if piece < len(own) else None for own in encoded.keys]
        encoded.store.accumulate(keys, out)
    if most == 1:
        return
    counts = np.asarray([max(len(own), 1) for own in encoded.keys], np.float32)
    for start in range(0, len(out), _CHUNK):
        rows = slice(start, start + _CHUNK)
        mean = np.asarray(out[rows]) / counts[rows, None]
        out[rows] = unit_length(mean) if encoded.settings["normalise"] else mean
