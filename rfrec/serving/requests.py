# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Requests and answers: their JSON format, and every check of a request.

A request is `{"items": [...], "user": "u", "k": 10, "filter_seen": false}`, with the
oldest item first; only `items` is required. An answer is `{"user": "u", "items": [...],
"scores": [...]}`, with the best item first.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rfrec.config import UserError
from rfrec.data import histories
from rfrec.data.histories import HistoryError, shorten

_KEYS = ("items", "user", "k", "filter_seen")


class Query(NamedTuple):
    """A checked request.

    Attributes:
      user: Name of the user; the model may have a token for it.
      items: Rows of the history, oldest first, at least one.
      top_k: Length of the list.
      filter_seen: Whether items of the history are excluded from the list.
    """

    user: str
    items: tuple[int, ...]
    top_k: int
    filter_seen: bool


class Answer(NamedTuple):
    """Ranked rows with their scores, best first; shorter if few items are legal."""

    items: tuple[int, ...]
    scores: tuple[float, ...]


class Accepted(NamedTuple):
    """What a recommender accepts as a request.

    Attributes:
      rows: Row of each item that a history can contain, by item id.
      max_items: Maximum number of items of a history.
      max_k: Maximum length of a list.
      default_k: Length of a list if the request has none.
      requires_user: Whether the model has user tokens.
    """

    rows: Mapping[str, int]
    max_items: int
    max_k: int
    default_k: int
    requires_user: bool


class RefusedError(UserError):
    """A request that cannot be answered; the text states the reason.

    Attributes:
      status: HTTP status of the response.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def parse(text: str | bytes, accepted: Accepted, *, default_user: str = "") -> Query:
    """Reads and checks a request in JSON.

    Args:
      text: The request.
      accepted: What the recommender accepts.
      default_user: Name of the user if the request has none.

    Raises:
      RefusedError: The request is malformed (400), or has a value that the recommender
        does not accept (422).
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the request is not JSON: {error}") from error
    if not isinstance(content, dict) or "items" not in content:
        raise RefusedError(400, 'a request is an object: {"items": [...]}')
    if unknown := content.keys() - set(_KEYS):
        raise RefusedError(400, f"unknown key {min(unknown)!r}: use {', '.join(_KEYS)}")
    return check(content, accepted, default_user=default_user)


def check(
    content: Mapping[str, Any], accepted: Accepted, *, default_user: str = ""
) -> Query:
    """Checks the values of a request.

    Args:
      content: Values by key; only `items` is required.
      accepted: What the recommender accepts.
      default_user: Name of the user if the request has none.

    Raises:
      RefusedError: A value has a wrong type (400) or is not accepted (422).
    """
    user, filter_seen = content.get("user"), content.get("filter_seen", False)
    if user is None and accepted.requires_user:
        raise RefusedError(422, "user is required: the model has user tokens")
    if not isinstance(user, str | None):
        raise RefusedError(400, f"user={shorten(user)}: must be a string")
    if not isinstance(filter_seen, bool):
        raise RefusedError(
            400, f"filter_seen={shorten(filter_seen)}: must be true or false"
        )
    return Query(
        user=user or default_user,
        items=_check_items(content["items"], accepted),
        top_k=_check_k(content.get("k"), accepted),
        filter_seen=filter_seen,
    )


def _check_items(items: Any, accepted: Accepted) -> tuple[int, ...]:
    if isinstance(items, list) and len(items) > accepted.max_items:
        raise RefusedError(
            422,
            f"{len(items)} items are too many: send only the latest"
            f" {accepted.max_items}",
        )
    try:
        return tuple(histories.find_rows(items, accepted.rows))
    except HistoryError as error:
        raise RefusedError(400 if error.malformed else 422, str(error)) from error


def _check_k(k: Any, accepted: Accepted) -> int:
    if k is None:
        return accepted.default_k
    if type(k) is not int:
        raise RefusedError(400, f"k={shorten(k)}: must be an integer")
    if not 1 <= k <= accepted.max_k:
        raise RefusedError(422, f"k={shorten(k)}: must be from 1 to {accepted.max_k}")
    return k


def as_json(
    query: Query, answer: Answer, item_ids: Sequence[str] | None
) -> dict[str, Any]:
    """Returns the JSON values of an answer.

    Args:
      query: The query that was answered.
      answer: Its answer.
      item_ids: Item id of each row; None if the rows are the ids.
    """
    items: list[Any] = list(answer.items)
    if item_ids is not None:
        items = [item_ids[row] for row in items]
    return {"user": query.user, "items": items, "scores": list(answer.scores)}
