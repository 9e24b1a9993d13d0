# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A file of items, one a line, in; their rows out."""

from collections.abc import Mapping
from pathlib import Path

from rfrec.config import UserError


def read(place: str, names: Mapping[str, int], key: str) -> list[int]:
    """Reads which items a file names.

    Args:
      place: Of the file; empty lines count for nothing.
      names: Row of each item.
      key: Of the config, named in errors.

    Returns:
      Their rows, in the order of the file.

    Raises:
      UserError: The file cannot be read, or names an unknown item; tells the line.
    """
    path, rows = Path(place).expanduser(), []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key}={place} cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        item = line.strip()
        if item and item not in names:
            raise UserError(
                f"{path}, line {number}: item {item!r} is not in the catalogue of"
                f" {len(names)} items: leave it out"
            )
        rows += [names[item]] if item else []
    return rows
