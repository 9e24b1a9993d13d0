# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Small files: written completely or not at all, and read with clear errors."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rfrec.config import UserError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary file that replaces `path` once it is complete.

    If the process is killed or the body raises, `path` is unchanged. The temporary file
    is in the same folder, so that the replacement is atomic, and has the same suffix,
    because some writers choose the format by it.

    Args:
      path: File to create or replace.

    Raises:
      UserError: The file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file atomically.

    Raises:
      UserError: The file cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a JSON file atomically, indented by one space.

    Raises:
      UserError: The file cannot be written.
    """
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_text(path: str | os.PathLike[str], remedy: str) -> str:
    """Reads a UTF-8 text file.

    Args:
      path: File to read.
      remedy: What the user can do if the file cannot be read; ends the error message.

    Raises:
      UserError: The file cannot be read or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}; {remedy}"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error}); {remedy}") from error


def read_json(path: str | os.PathLike[str], remedy: str) -> dict[str, Any]:
    """Reads a file that contains a JSON object.

    Args:
      path: File to read.
      remedy: What the user can do about a damaged file; ends the error message.

    Raises:
      UserError: The file cannot be read or does not contain a JSON object.
    """
    text = read_text(path, remedy)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a JSON object; {remedy}")
    return content


def sha256(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
