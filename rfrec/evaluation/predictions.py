# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Ranked lists as a JSONL file.

One line for each user: `{"user": name, "items": [...], "scores": [...]}`, best first.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rfrec import files
from rfrec.config import UserError
from rfrec.evaluation.ranking import NEG, Lists


def write(
    path: Path,
    users: Sequence[str],
    lists: Lists,
    item_ids: Sequence[str] | None = None,
) -> None:
    """Writes ranked lists atomically.

    Args:
      path: File to create or replace.
      users: Name of the user of each list.
      lists: Ranked lists; entries that are no items are left out.
      item_ids: Names of the items; None writes their rows.
    """
    with files.replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for line in as_lines(users, lists, item_ids):
            file.write(line + "\n")


def as_lines(
    users: Sequence[str], lists: Lists, item_ids: Sequence[str] | None = None
) -> Iterator[str]:
    """Yields the lines of the file, without line ends."""
    for user, items, scores in zip(users, *lists, strict=True):
        kept = items >= 0
        numbers = items[kept].tolist()
        named = numbers if item_ids is None else [item_ids[i] for i in numbers]
        # The fewest digits that give the same float32 when read.
        rounded = [float(str(s)) for s in scores[kept].astype(np.float32)]
        yield json.dumps({"user": user, "items": named, "scores": rounded})


def read(
    path: Path, item_ids: Sequence[str] | None = None
) -> tuple[tuple[str, ...], Lists]:
    """Reads ranked lists.

    Args:
      path: JSONL file.
      item_ids: Names of the items; None if the file contains rows.

    Returns:
      The names of the users, and their lists padded to the longest.

    Raises:
      UserError: The file cannot be read, is empty or damaged; names the line.
    """
    numbers = None
    if item_ids is not None:
        numbers = {name: row for row, name in enumerate(item_ids)}
    lines = files.read_text(path, "use the predictions of a run").splitlines()
    rows = [_row(path, i, line, numbers) for i, line in enumerate(lines, start=1)]
    if not rows:
        raise UserError(f"{path} is empty; write the predictions again")
    users = tuple(user for user, _, _ in rows)
    if len(set(users)) < len(users):
        raise UserError(f"{path} contains a user twice; write the predictions again")
    width = max(1, *(len(items) for _, items, _ in rows))
    items = np.full((len(rows), width), -1, np.int32)
    scores = np.full((len(rows), width), NEG, np.float32)
    for i, (_, listed, values) in enumerate(rows):
        items[i, : len(listed)] = listed
        scores[i, : len(values)] = values
    return users, Lists(items, scores)


def _row(
    path: Path, number: int, line: str, numbers: dict[str, int] | None
) -> tuple[str, list[int], list[float]]:
    try:
        row = json.loads(line)
        user, items, scores = row["user"], row["items"], row["scores"]
        if numbers is not None:
            items = [numbers[item] for item in items]
        fits = isinstance(user, str) and len(items) == len(scores)
        fits = fits and all(type(item) is int and item >= 0 for item in items)
        if not fits or not np.isfinite(np.asarray(scores, np.float64)).all():
            raise ValueError("user, items or scores of another form")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}, line {number} is not the list of a user"
            f" ({type(error).__name__}: {error}); write the predictions again"
        ) from error
    return user, items, scores
