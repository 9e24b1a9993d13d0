# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads JSON reports that a person may have damaged, value by value."""

import json
from pathlib import Path
from typing import Any

from rfrec.config import UserError


def load(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a file that holds a JSON object.

    Args:
      path: Of the file.
      remedy: What mends it, for the error.

    Raises:
      UserError: It cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): {remedy}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged, no JSON ({error}): {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged, no JSON object: {remedy}")
    return content


def at(path: Path, content: Any, *keys: str | int, kind: type) -> Any:
    """Returns what stands at nested keys; a whole number passes for a float.

    Args:
      path: Of the file, for the error.
      content: Of the file.
      keys: Outer first.
      kind: Type of the value.

    Raises:
      UserError: It is missing or of another kind.
    """
    value, where = content, ".".join(map(str, keys))
    try:
        for key in keys:
            value = value[key]
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path} is damaged: it lacks {where}") from error
    kinds = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise UserError(
            f"{path} is damaged: {where} is {value!r}, not a {kind.__name__}"
        )
    return value
