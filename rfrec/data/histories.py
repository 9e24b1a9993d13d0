# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Histories in JSON, for which recommendations are requested.

A file consists of lines `{"user": "u", "items": [...]}`, in which `user` is optional,
or of objects `{"u": [...], ...}`: one on each line, or one for the whole file. The
oldest item is first.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from rfrec.config import UserError
from rfrec.data import sequences
from rfrec.data.interactions import Interactions


class HistoryError(UserError):
    """A history that cannot be used; the text states the reason.

    Attributes:
      malformed: Whether a value has a wrong type, not only an unknown content.
    """

    def __init__(self, reason: str, *, malformed: bool):
        super().__init__(reason)
        self.malformed = malformed


class _Entry(NamedTuple):
    line: int
    user: str
    items: Any


def read(
    text: str,
    num_items: int,
    *,
    item_ids: Sequence[str] | None = None,
    coded: Bool[np.ndarray, " N"] | None = None,
    origin: str = "histories",
) -> Interactions:
    """Reads histories, in which an item may occur several times.

    Args:
      text: Content of the file.
      num_items: Number of items of the catalogue.
      item_ids: Item id of each row; None if the rows are the ids.
      coded: Whether each item has the required codes; None if all have them.
      origin: Name of the file for errors.

    Raises:
      UserError: There is no history, or one is empty or contains an unknown item; names
        the line.
    """
    names = map(str, range(num_items)) if item_ids is None else item_ids
    rows = {name: row for row, name in enumerate(names)}
    users, histories = [], []
    for entry in _entries(text, origin):
        where = f"{origin}, line {entry.line}: user {entry.user!r}"
        users.append(entry.user)
        try:
            histories.append(find_rows(entry.items, rows))
        except HistoryError as error:
            raise UserError(f"{where}: {error}") from error
        if coded is not None and not coded[histories[-1]].all():
            item = entry.items[int(np.argmin(coded[histories[-1]]))]
            raise UserError(f"{where}: item {item!r} has no codes: remove it")
    if not users:
        raise UserError(f"{origin} contains no history: write at least one")
    return sequences.from_histories(histories, num_items, user_ids=users, origin=origin)


def find_rows(items: Any, rows: Mapping[str, int]) -> list[int]:
    """Returns the rows of the items of one history.

    Args:
      items: A list of item ids, strings or integers, from JSON.
      rows: Row of each item by its id.

    Raises:
      HistoryError: The value is not a list, is empty or contains an unknown item.
    """
    if not isinstance(items, list):
        raise HistoryError("items must be a list, oldest first", malformed=True)
    if not items:
        raise HistoryError("items is empty: send at least one item", malformed=False)
    for item in items:
        if not isinstance(item, str) and type(item) is not int:
            reason = f"item {shorten(item)}: must be a name or a number"
            raise HistoryError(reason, malformed=True)
        if str(item) not in rows:
            reason = (
                f"item {shorten(item)} is not one of the {len(rows)} items that a"
                " history can contain: remove it"
            )
            raise HistoryError(reason, malformed=False)
    return [rows[str(item)] for item in items]


def shorten(value: Any) -> str:
    """Returns the repr of a value, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _entries(text: str, origin: str) -> Iterator[_Entry]:
    """Yields users with the values of their items."""
    numbered = enumerate(text.splitlines(), start=1)
    lines = [(number, line) for number, line in numbered if line.strip()]
    if lines and not isinstance(_parse(lines[0][1]), _Pairs):
        whole = _parse(text)
        if isinstance(whole, _Pairs):
            yield from _users(whole, lines[0][0])
            return
    for number, line in lines:
        content = _parse(line)
        if not isinstance(content, _Pairs):
            why = (
                content.msg
                if isinstance(content, json.JSONDecodeError)
                else "no object"
            )
            raise UserError(
                f'{origin}, line {number}: is not {{"user": ..., "items": [...]}}'
                f" ({why})"
            )
        yield from _users(content, number)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, in which a key may occur several times."""


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        return error


def _users(pairs: _Pairs, line: int) -> Iterator[_Entry]:
    values = dict(pairs)
    if "items" in values and values.keys() <= {"user", "items"}:
        yield _Entry(line, str(values.get("user", line)), values["items"])
        return
    for user, items in pairs:
        yield _Entry(line, user, items)
