# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Columns of a table in; the texts of each item, by a template, out."""

import string
from collections.abc import Sequence
from typing import NamedTuple

from rfrec.config import UserError
from rfrec.data.tables import Cell, Table

_KEY = "config.text.pieces"


class Piece(NamedTuple):
    """A part of an item's text: one column with what stands around it."""

    before: str
    column: str
    after: str


def parse(forms: Sequence[str]) -> tuple[Piece, ...]:
    """Parses a template.

    Args:
      forms: Such as `"Brand: {brand}."`, in the order of the text; each names one
        column in braces. Doubled braces are braces.

    Returns:
      A piece for each.

    Raises:
      UserError: One of them names no column, or more than one.
    """
    return tuple(map(_parse_one, forms))


def compose(table: Table, pieces: Sequence[Piece]) -> list[tuple[str, ...]]:
    """Fills a template.

    White space is collapsed and lists are joined by commas. A piece whose column is
    empty is left out, with its label.

    Args:
      table: The items.
      pieces: Pieces of the template.

    Returns:
      The pieces of each item, in order; none for an item without a text.

    Raises:
      UserError: The table lacks a column.
    """
    columns = [table.column(piece.column, _KEY) for piece in pieces]
    composed = []
    for cells in zip(*columns, strict=True):
        texts = map(_plain, cells)
        composed.append(
            tuple(
                f"{piece.before}{text}{piece.after}"
                for piece, text in zip(pieces, texts, strict=True)
                if text
            )
        )
    return composed


def _parse_one(form: str) -> Piece:
    try:
        parts = list(string.Formatter().parse(form))
    except ValueError as error:
        raise UserError(f"{_KEY}: {form!r} is no template ({error})") from error
    named = [part for part in parts if part[1] is not None]
    if len(named) != 1 or not named[0][1] or named[0][2] or named[0][3]:
        raise UserError(
            f"{_KEY}: {form!r} must name one column in braces, such as"
            " 'Brand: {brand}.'"
        )
    place = parts.index(named[0])
    before = "".join(part[0] for part in parts[: place + 1])
    after = "".join(part[0] for part in parts[place + 1 :])
    return Piece(before, str(named[0][1]), after)


def _plain(cell: Cell) -> str:
    """Returns the text of a cell without line breaks and double spaces."""
    parts = (cell,) if isinstance(cell, str) else cell
    words = (" ".join(part.split()) for part in parts)
    return ", ".join(filter(None, words))
