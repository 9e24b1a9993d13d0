# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""JSON of a request in, a query out; an answer in, its JSON out.

A request is `{"items": [...], "user": "u", "k": 10, "filter_seen": false}`, oldest item
first; all but `items` may be missing. An answer is `{"user": "u", "items": [...],
"scores": [...]}`, best first.
"""

import json
from typing import Any

from rfrec.serving.recommender import Answer, Query, Recommender

_KEYS = ("items", "user", "k", "filter_seen")


class RefusedError(Exception):
    """A request that cannot be answered; its text tells why.

    Attributes:
      status: Of HTTP.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def parse(text: str | bytes, recommender: Recommender) -> Query:
    """Reads a request.

    Raises:
      RefusedError: It is no request (400), or names what cannot be (422).
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the request is not JSON: {error}") from error
    if not isinstance(content, dict) or "items" not in content:
        raise RefusedError(400, 'a request is an object: {"items": [...]}')
    if odd := content.keys() - set(_KEYS):
        raise RefusedError(400, f"{min(odd)!r} is no key: use {', '.join(_KEYS)}")
    return Query(
        user=_user(content.get("user"), recommender),
        items=_items(content["items"], recommender),
        top_k=_top_k(content.get("k"), recommender),
        filter_seen=_filter(content.get("filter_seen", False)),
    )


def _user(user: Any, recommender: Recommender) -> str:
    if user is None and recommender.has_users:
        raise RefusedError(422, "user is needed: the model has tokens of users")
    if not isinstance(user, str | None):
        raise RefusedError(400, f"user={user!r}: must be a string")
    return user or ""


def _items(items: Any, recommender: Recommender) -> tuple[int, ...]:
    if not isinstance(items, list):
        raise RefusedError(400, "items must be a list, oldest first")
    if not items:
        raise RefusedError(422, "items is empty: give at least one")
    if len(items) > recommender.max_items:
        raise RefusedError(
            422,
            f"{len(items)} items are too many: give the latest"
            f" {recommender.max_items} or fewer",
        )
    for item in items:
        if not (isinstance(item, str) or type(item) is int):
            raise RefusedError(400, f"item {_short(item)}: must be a name or a number")
        if str(item) not in recommender.rows:
            raise RefusedError(
                422,
                f"item {_short(item)} is not among the {len(recommender.rows)} items"
                " that a history can name: leave it out",
            )
    return tuple(recommender.rows[str(item)] for item in items)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _top_k(k: Any, recommender: Recommender) -> int:
    if k is None:
        return recommender.manifest.top_k
    if type(k) is not int:
        raise RefusedError(400, f"k={_short(k)}: must be an integer")
    if not 1 <= k <= recommender.manifest.beams:
        raise RefusedError(
            422, f"k={_short(k)}: must be from 1 to {recommender.manifest.beams}"
        )
    return k


def _filter(value: Any) -> bool:
    if not isinstance(value, bool):
        raise RefusedError(400, f"filter_seen={_short(value)}: must be true or false")
    return value


def as_json(user: str, answer: Answer, recommender: Recommender) -> dict[str, Any]:
    """Returns an answer with the names of its items."""
    items: list[Any] = list(answer.items)
    if recommender.named:
        items = [recommender.names[row] for row in items]
    return {"user": user, "items": items, "scores": list(answer.scores)}
