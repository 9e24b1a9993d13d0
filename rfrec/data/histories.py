# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Histories that somebody asks recommendations for, as JSON in; `Interactions` out.

Lines `{"user": "u", "items": [...]}`, of which `user` may be missing, or objects
`{"u": [...], ...}`, one a line or one for the whole file; oldest item first.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from rfrec.config import UserError
from rfrec.data import sequences
from rfrec.data.interactions import Interactions


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
    """Reads histories, in which an item may come twice.

    Args:
      text: Of the file.
      num_items: Of the catalogue.
      item_ids: Names of the items; None for their row numbers.
      coded: Items that have the codes that are needed; None for all.
      origin: Named in errors.

    Raises:
      UserError: No history, or one that is empty or names an unknown item; tells the
        line.
    """
    names = map(str, range(num_items)) if item_ids is None else item_ids
    rows = {name: row for row, name in enumerate(names)}
    users, histories = [], []
    for entry in _entries(text, origin):
        where = f"{origin}, line {entry.line}: user {entry.user!r}"
        users.append(entry.user)
        histories.append(_rows(entry.items, rows, where))
        if coded is not None and not coded[histories[-1]].all():
            item = entry.items[int(np.argmin(coded[histories[-1]]))]
            raise UserError(f"{where}: item {item!r} has no codes: leave it out")
    if not users:
        raise UserError(f"{origin} holds no history: give at least one")
    return sequences.from_histories(histories, num_items, user_ids=users, origin=origin)


def _rows(items: Any, rows: Mapping[str, int], where: str) -> list[int]:
    """Looks items up by name."""
    if not isinstance(items, list):
        raise UserError(f"{where}: expected a list of items, oldest first")
    if not items:
        raise UserError(f"{where} has an empty history: give at least one item")
    for item in items:
        named = isinstance(item, str) or type(item) is int
        if not named or str(item) not in rows:
            raise UserError(
                f"{where}: item {item!r} is not in the catalogue of {len(rows)}"
                " items: leave it out"
            )
    return [rows[str(item)] for item in items]


def _entries(text: str, origin: str) -> Iterator[_Entry]:
    """Yields users and what is said to be their items."""
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
    """A JSON object, in which a key may come twice."""


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        return error


def _users(pairs: _Pairs, line: int) -> Iterator[_Entry]:
    found = dict(pairs)
    if "items" in found and found.keys() <= {"user", "items"}:
        yield _Entry(line, str(found.get("user", line)), found["items"])
        return
    for user, items in pairs:
        yield _Entry(line, user, items)
