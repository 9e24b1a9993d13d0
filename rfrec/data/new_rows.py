# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Feature files that have grown: rows that are known, and new ones behind them.

Files of one data set flow in; out come the sum of the known rows, by which they are
recognised, and the new rows as the tokenizer reads them.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from tqdm import tqdm

from rfrec.config import UserError
from rfrec.data import join
from rfrec.data.dataset import DataSet
from rfrec.data.features import CHUNK_ROWS, as_float32, check_features
from rfrec.data.join import Feature


def open_features(data: DataSet, names: Sequence[str], known: int) -> list[Feature]:
    """Opens features whose first rows are known.

    Args:
      data: The data set.
      names: Names of the features; () takes the only `.npy` in the folder.
      known: Rows that each must have at least.

    Raises:
      UserError: A feature is missing or damaged, has too few rows, or other rows than
        another; or none is named and there are several.
    """
    features = data.read_features(tuple(names))
    join.check_rows(features)
    origin, rows = features[0].origin, len(features[0].values)
    if rows < known:
        raise UserError(
            f"{origin} has {rows} rows, the catalogue {known}: keep the row of every"
            " item, also of removed ones, and append new rows behind them"
        )
    data.check_counts(rows, origin)
    return features


def first_rows(features: Sequence[Feature], rows: int) -> list[Feature]:
    """Cuts features off behind so many rows."""
    return [feature._replace(values=feature.values[:rows]) for feature in features]


def fingerprints(features: Sequence[Feature], known: int) -> tuple[str, str]:
    """Hashes the known rows, and all of them, in one pass.

    Args:
      features: As read, not scaled.
      known: Number of rows.

    Returns:
      Hexadecimal SHA-256 of names, types, widths and bytes of the first `known` rows,
      and of all rows: the former is the latter of the files before they grew.
    """
    parts, wholes = hashlib.sha256(), hashlib.sha256()
    for feature in features:
        values = feature.values
        head = f"{feature.name} {values.dtype.str} {values.shape[1]}\n".encode()
        digest, bounds = hashlib.sha256(head), (0, known, len(values))
        with tqdm(
            total=len(values), unit="row", desc=feature.name, disable=None, leave=False
        ) as bar:
            for start, stop, into in zip(
                bounds[:-1], bounds[1:], (parts, wholes), strict=True
            ):
                for row in range(start, stop, CHUNK_ROWS):
                    chunk = values[row : min(row + CHUNK_ROWS, stop)]
                    digest.update(np.ascontiguousarray(chunk).data)
                    bar.update(len(chunk))
                into.update(digest.digest())
    return parts.hexdigest(), wholes.hexdigest()


def join_new_rows(
    features: Sequence[Feature], known: int, factors: Sequence[float]
) -> tuple[Float32[np.ndarray, "n D"], list[str]]:
    """Puts the new rows side by side, scaled as the known ones were.

    Args:
      features: With at least `known` rows.
      known: Number of rows that are not new.
      factors: What each feature is multiplied with.

    Returns:
      The vectors, and what should be shown to the user.

    Raises:
      UserError: A value is NaN, infinite or beyond float32; names the rows.
    """
    columns, warnings = [], []
    for feature, factor in zip(features, factors, strict=True):
        values = feature.values[known:]
        if len(values):
            report = check_features(values, feature.origin, first_row=known)
            # Columns that are constant in a few rows say nothing.
            report = report._replace(constant_columns=np.zeros(0, int))
            warnings += report.warnings(f"{feature.origin}, new rows")
        columns.append(as_float32(values) * np.float32(factor))
    return np.concatenate(columns, axis=1), warnings
