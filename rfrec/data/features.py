# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Item vectors: files, labels and texts in; checked `ItemVectors` out.

`.npy` files are memory-mapped and scanned in chunks, so a file may be larger than
memory. `rfrec.data.join` builds `ItemVectors` from the features read here.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from rfrec.config import UserError

CHUNK_ROWS = 16_384
_DTYPES = ("float16", "float32", "float64")


class Block(NamedTuple):
    """Columns of `ItemVectors.values` that come from one feature, in order."""

    name: str
    width: int
    kind: Literal["dense", "multi_hot"]


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """Vectors of all items, with what a run must know about where they come from.

    Attributes:
      values: Float16 or float32, row = item; possibly a read-only memory map.
      blocks: The features side by side; their widths add up to D.
      ids: Names of the items in JSON output; None means "0" .. "N-1".
      titles: One for each item, for people; None when unknown.
      segments: (data set, number of items) in row order.
      fingerprint: Sha256 of shape, type and bytes of `values`.
      warnings: What the checks found, one line each.
    """

    values: Float[np.ndarray, "N D"]
    blocks: tuple[Block, ...]
    ids: tuple[str, ...] | None
    titles: tuple[str, ...] | None
    segments: tuple[tuple[str, int], ...]
    fingerprint: str
    warnings: tuple[str, ...]


class FeatureReport(NamedTuple):
    """What `check_features` found in one feature of finite values.

    Attributes:
      rows: Number of items.
      constant_columns: Columns with one value in all rows that have a vector.
      zero_rows: Items without a vector (all zero).
      duplicate_rows: Rows with a vector that repeat an earlier row.
      mean_square: Mean of the squares of all values, zero rows included.
    """

    rows: int
    constant_columns: Int[np.ndarray, "C"]
    zero_rows: Int[np.ndarray, "Z"]
    duplicate_rows: int
    mean_square: float

    def warnings(self, path: str | Path) -> list[str]:
        """Words the findings, one line for each kind.

        Args:
          path: File or feature that the lines name.

        Returns:
          No line where there is nothing to say.
        """
        lines = []
        if self.zero_rows.size:
            lines.append(
                f"{path}: {self.zero_rows.size} of {self.rows} items have no vector"
                f" (rows of zeros: {_some(self.zero_rows)})"
            )
        if self.constant_columns.size:
            lines.append(
                f"{path}: {self.constant_columns.size} columns are constant"
                f" ({_some(self.constant_columns)})"
            )
        if self.duplicate_rows:
            lines.append(
                f"{path}: {self.duplicate_rows} of {self.rows} rows repeat an earlier"
                " row; a quantizer gives equal rows equal codes"
            )
        return lines


class MultiHot(NamedTuple):
    """Label indicators and the label of each column (sorted)."""

    matrix: Float32[np.ndarray, "N G"]
    vocabulary: tuple[str, ...]


def fill_missing(values: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Returns vectors whose rows of zeros have become the mean of the others.

    Args:
      values: Row = item; returned as they are, a memory map too, if every item has a
        vector or none has.
    """
    present = np.asarray(values.any(axis=1))
    if present.all() or not present.any():
        return values
    filled = np.array(values)
    filled[~present] = np.mean(values, axis=0, dtype=np.float64, where=present[:, None])
    return filled


def read_features(path: str | Path) -> Float[np.ndarray, "N D"]:
    """Memory-maps a `.npy` file of item vectors.

    Nothing but the header is read: `check_features` looks at the values.

    Args:
      path: File of float16, float32 or float64 [N, D], row = item.

    Returns:
      A read-only memory map.

    Raises:
      UserError: The file is missing, no `.npy`, pickled, truncated, empty, or of
        another type or rank.
    """
    path = Path(path)
    shape, fortran, dtype, offset = _read_header(path)
    if dtype.hasobject:
        raise UserError(
            f"{path}: holds pickled Python objects, which are never read;"
            " save it again as a plain float32 array"
        )
    if dtype.name not in _DTYPES:
        raise UserError(
            f"{path}: values are {dtype.name}, expected one of {', '.join(_DTYPES)};"
            " convert with .astype('float32')"
        )
    if len(shape) != 2:
        raise UserError(
            f"{path}: shape is {shape}, expected two dimensions [items, width];"
            " reshape before saving"
        )
    if not all(shape):
        raise UserError(f"{path}: shape is {shape}, there is no vector in it")
    expected = offset + shape[0] * shape[1] * dtype.itemsize
    size = path.stat().st_size
    if size < expected:
        raise UserError(
            f"{path}: truncated, {size} of {expected} bytes for shape {shape};"
            " copy or download the file again"
        )
    order = "F" if fortran else "C"
    return np.memmap(path, dtype, "r", offset=offset, shape=shape, order=order)


def check_features(
    x: Float[np.ndarray, "N D"],
    path: str | Path,
    chunk_rows: int = CHUNK_ROWS,
    first_row: int = 0,
) -> FeatureReport:
    """Scans all values once, a chunk of rows at a time.

    Args:
      x: Array or memory map; zero rows are allowed (items without a vector).
      path: File or feature named in errors.
      chunk_rows: Rows held in memory at once, at least 1.
      first_row: Number of the first row in the file, where `x` is its end.

    Returns:
      The findings; `FeatureReport.warnings` words them.

    Raises:
      UserError: A value is NaN, infinite or beyond float32; names the rows.
    """
    num_rows, width = x.shape
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    bad, zero = np.zeros(num_rows, bool), np.zeros(num_rows, bool)
    digests, square = [], 0.0
    for start in range(0, num_rows, chunk_rows):
        rows = slice(start, min(start + chunk_rows, num_rows))
        # Adding zero turns -0.0 into 0.0, so that equal rows have equal bytes.
        chunk = as_float32(x[rows]) + np.float32(0)
        bad[rows] = ~np.isfinite(chunk).all(axis=1)
        zero[rows] = ~chunk.any(axis=1)
        filled = chunk[~(zero[rows] | bad[rows])]
        if not filled.size:
            continue
        low = np.minimum(low, filled.min(axis=0))
        high = np.maximum(high, filled.max(axis=0))
        square += float(np.einsum("nd,nd->", filled, filled, dtype=np.float64))
        digests.append(_row_digests(filled))
    if bad.any():
        raise UserError(
            f"{path}: {bad.sum()} of {num_rows} rows hold NaN or infinite values"
            f" (rows {_some(first_row + np.flatnonzero(bad))}); compute them again or"
            " set the whole row to zero"
        )
    hashes = np.concatenate(digests) if digests else np.zeros(0, np.uint64)
    constant = low == high if hashes.size > 1 else np.zeros(width, bool)
    return FeatureReport(
        rows=num_rows,
        constant_columns=np.flatnonzero(constant),
        zero_rows=first_row + np.flatnonzero(zero),
        duplicate_rows=hashes.size - np.unique(hashes).size,
        mean_square=square / x.size,
    )


def multi_hot(values: Sequence[Sequence[str]]) -> MultiHot:
    """Marks the labels of each item with ones.

    Args:
      values: Labels of each item, in any order, repeats allowed.

    Returns:
      float32 [N, G] of zeros and ones, and the G labels in sorted order.

    Raises:
      UserError: No item has a label.
    """
    vocabulary = tuple(sorted({label for labels in values for label in labels}))
    if not vocabulary:
        raise UserError("no item has a label: there is nothing to mark as multi-hot")
    column = {label: i for i, label in enumerate(vocabulary)}
    matrix = np.zeros((len(values), len(vocabulary)), np.float32)
    for row, labels in zip(matrix, values, strict=True):
        row[[column[label] for label in labels]] = 1
    return MultiHot(matrix, vocabulary)


def tfidf_svd(
    texts: Sequence[str], width: int, seed: int
) -> Float32[np.ndarray, "N D"]:
    """Embeds short texts by latent semantic analysis.

    TF-IDF over character 3- and 4-grams within words, then the leading left singular
    vectors times the singular values (Deerwester et al. 1990, Indexing by Latent
    Semantic Analysis; randomised SVD of Halko et al. 2011, section 4.5). Character
    n-grams rather than words: most words of a title occur once, so that a truncated
    word space sees little but the year, and many titles nearly coincide.

    Args:
      texts: One for each item; an empty text gives a row of zeros.
      width: Number of singular vectors.
      seed: Seed of the random projection.

    Returns:
      One row for each text, of norm at most 1.

    Raises:
      UserError: There are fewer texts or n-grams than `width`.
    """
    # Loaded where it is needed: it takes a second, and few commands get here.
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 4), strip_accents="unicode"
    )
    if not any(text.strip() for text in texts):
        raise UserError("all texts are empty: there is nothing to embed")
    weights = vectorizer.fit_transform(texts)
    if not 1 <= width <= min(weights.shape):
        raise UserError(
            f"text width {width} is impossible with {weights.shape[0]} texts and"
            f" {weights.shape[1]} n-grams in them; set data.text_width from 1 to"
            f" {min(weights.shape)}"
        )
    svd = TruncatedSVD(width, random_state=seed)
    return svd.fit_transform(weights).astype(np.float32)


def as_float32(x: Float[np.ndarray, "N D"]) -> Float32[np.ndarray, "N D"]:
    """Casts to native float32; what does not fit becomes infinite, silently."""
    with np.errstate(over="ignore"):
        return np.asarray(x, np.float32)


def fingerprint(values: Float[np.ndarray, "N D"]) -> str:
    """Hashes shape, type and bytes (row by row, whatever the layout).

    Args:
      values: Array or memory map, read in chunks.

    Returns:
      Hexadecimal sha256.
    """
    digest = hashlib.sha256(f"{values.shape} {values.dtype.str}".encode())
    for start in range(0, len(values), CHUNK_ROWS):
        digest.update(np.ascontiguousarray(values[start : start + CHUNK_ROWS]).data)
    return digest.hexdigest()


def _read_header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Returns shape, Fortran order, type and the offset of the first value."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path and the feature name")
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        with path.open("rb") as file:
            start = file.read(2)
            file.seek(0)
            version = np.lib.format.read_magic(file)
            return (*readers[version](file), file.tell())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, SyntaxError) as error:
        if start[:1] == b"\x80":
            raise UserError(
                f"{path}: is a pickle, which is never read;"
                " save the array with numpy.save(..., allow_pickle=False)"
            ) from error
        raise UserError(
            f"{path}: is not a .npy file or its header is damaged;"
            " write it with numpy.save"
        ) from error


def _row_digests(rows: Float32[np.ndarray, "N D"]) -> np.ndarray:
    """Returns a 64-bit hash of each row, uint64 [N]."""
    packed = b"".join(
        hashlib.blake2b(row.data, digest_size=8).digest()
        for row in np.ascontiguousarray(rows)
    )
    return np.frombuffer(packed, np.uint64)


def _some(numbers: Int[np.ndarray, "C"], limit: int = 8) -> str:
    """Lists the first numbers, and dots for the rest."""
    text = ", ".join(map(str, numbers[:limit].tolist()))
    return text + ", ..." if numbers.size > limit else text
