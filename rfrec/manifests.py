# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Manifests: JSON files that list what belongs together, as NamedTuples in Python."""

import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from rfrec import files
from rfrec.config import UserError

_Kind = TypeVar("_Kind")


def read(
    path: Path, kind: type[_Kind], form: str, *, what: str, maker: str, remedy: str
) -> _Kind:
    """Reads a manifest: an object with the fields of a NamedTuple, and `format`.

    Args:
      path: Manifest file.
      kind: NamedTuple whose annotations are checked, including nested ones.
      form: Expected value of `format`.
      what: What a folder with such a manifest is, as in "a catalogue".
      maker: Command that writes it.
      remedy: What the user can do about a damaged file; ends the error message.

    Raises:
      UserError: The file is missing, damaged or of another format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}; name the folder of {what},"
            f" made by {maker}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON: {error}; {remedy}") from error
    present = content.pop("format", None) if isinstance(content, dict) else None
    if present != form:
        raise UserError(
            f"{path}: its format is {present!r}, but this rfrec reads {form!r}:"
            f" write it again with {maker}, or use the rfrec version that wrote it"
        )
    try:
        return _typed(kind, content, "it")
    except TypeError as error:
        raise UserError(f"{path}: is damaged: {error}; {remedy}") from error


def write(path: Path, manifest: Any, form: str) -> None:
    """Writes a manifest atomically.

    Args:
      path: File to write.
      manifest: NamedTuple, whose fields may be NamedTuples.
      form: Value of `format`, which `read` checks.

    Raises:
      UserError: The file cannot be written.
    """
    files.write_json(path, {"format": form} | _plain(manifest))


def _plain(value: Any) -> Any:
    """Turns NamedTuples into dictionaries."""
    if hasattr(value, "_asdict"):
        return {name: _plain(inner) for name, inner in value._asdict().items()}
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _typed(kind: Any, value: Any, what: str) -> Any:
    """Converts JSON to an annotated type.

    Raises:
      TypeError: A value has another type.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        some = next(k for k in inner if k is not types.NoneType)
        return None if value is None else _typed(some, value, what)
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(inner[0], each, what) for each in value)
    if origin is dict and isinstance(value, dict):
        return {name: _typed(inner[1], each, name) for name, each in value.items()}
    if hasattr(kind, "_fields") and isinstance(value, dict):
        wanted = typing.get_type_hints(kind)
        if value.keys() != wanted.keys():
            odd = ", ".join(sorted(value.keys() ^ wanted.keys()))
            raise TypeError(f"{what} lacks or should not have {odd}")
        return kind(**{k: _typed(wanted[k], v, k) for k, v in value.items()})
    if type(value) is not kind:
        raise TypeError(f"{what} holds {value!r}")
    return value
