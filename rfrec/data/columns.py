# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Columns of delimited text in, NumPy arrays out; errors name the line."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from rfrec.config import UserError


def read_columns(
    path: Path, columns: Sequence[int], kind: type, *, delimiter: str, header: bool
) -> Shaped[np.ndarray, "E C"]:
    """Reads some columns of a file of equal-typed, unquoted fields.

    NumPy parses in C, so that a row never becomes Python objects.

    Args:
      path: UTF-8 text, a row on each line, no comments.
      columns: positions to keep, from 0.
      kind: `int` (int64), `float` (float64) or `str`.
      delimiter: one character; a double one counts as an empty field between.
      header: whether the first line holds names.

    Returns:
      One column for each of `columns`.

    Raises:
      UserError: the file is missing, has no rows, or a line lacks a field or holds
        one of another type.
    """
    dtype = {int: np.int64, float: np.float64, str: np.str_}[kind]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")
            table = np.loadtxt(
                path,
                dtype,
                comments=None,
                delimiter=delimiter,
                skiprows=int(header),
                usecols=tuple(columns),
                ndmin=2,
                encoding="utf-8",
            )
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check data.path and names") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError) as error:
        raise _bad_line(path, columns, kind, delimiter, header, error) from error
    if not table.size:
        raise UserError(f"{path}: holds no rows; the file may be truncated")
    return table


def _bad_line(
    path: Path,
    columns: Sequence[int],
    kind: Callable,
    delimiter: str,
    header: bool,
    error: Exception,
) -> UserError:
    """Finds the first line that cannot be read; slow, for the error path only."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            fields = line.rstrip("\r\n").split(delimiter)
            if (header and number == 1) or fields == [""]:
                continue
            if len(fields) <= max(columns):
                return UserError(
                    f"{path}: line {number} has too few fields ({line.strip()!r});"
                    " the file may be truncated, copy it again"
                )
            for column in columns:
                try:
                    kind(fields[column])
                except ValueError:
                    return UserError(
                        f"{path}: line {number}: {fields[column]!r} is not"
                        f" {'an integer' if kind is int else 'a number'}"
                    )
    return UserError(f"{path}: cannot be read ({error})")
