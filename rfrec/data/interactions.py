# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Interaction logs in, histories in time order and leave-one-out splits out.

Files: `NAME.inter.json` holds `{user: [item, ...]}`, oldest first; `NAME.inter` is
tab separated with a header, as MMRec or RecBole write it.
"""

import json
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32, Int64, Num, Shaped

from rfrec import files
from rfrec.config import UserError
from rfrec.data.tables import read_columns


@dataclass(frozen=True, eq=False)
class Interactions:
    """Histories of all users, one behind the other (CSR).

    Attributes:
      indptr: User u's history is `items[indptr[u] : indptr[u + 1]]`.
      items: Item rows in 0 .. num_items - 1, oldest first.
      num_items: Number of items, those nobody used included.
      user_ids: Name of each user in the source.
      item_ids: Names of the items as in `ItemVectors.ids`; None means the row.
    """

    indptr: Int64[np.ndarray, "U1"]
    items: Int32[np.ndarray, "E"]
    num_items: int
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...] | None = None

    @property
    def num_users(self) -> int:
        """Number of users, each with at least one item."""
        return len(self.user_ids)

    def history(self, user: int) -> Int32[np.ndarray, "L"]:
        """Views the items of one user, oldest first."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]


class Split(NamedTuple):
    """Leave-one-out: the last item tests, the one before validates."""

    train: Interactions
    valid_items: Int32[np.ndarray, "U"]
    test_items: Int32[np.ndarray, "U"]


def read_inter_json(path: str | Path, num_items: int | None = None) -> Interactions:
    """Reads `{user: [item, ...]}`, oldest item first.

    Args:
      path: UTF-8 JSON file.
      num_items: Number of known items; None takes the largest id plus one.

    Returns:
      Users in file order.

    Raises:
      UserError: The file is missing, truncated or of another form; an id is no
        integer or out of range; a user is empty, double or repeats an item.
    """
    path = Path(path)
    try:
        users = json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=lambda pairs: _unique_users(pairs, path),
        )
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check data.path and names") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: not valid JSON at line {error.lineno} column {error.colno}"
            f" ({error.msg}); the file may be truncated, copy it again"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason})") from error
    if not isinstance(users, dict) or not users:
        raise UserError(f"{path}: expected an object {{user: [item, ...]}} with users")
    for user, history in users.items():
        _check_history(user, history, path)
    names = tuple(users)
    lengths = np.fromiter(map(len, users.values()), np.int64, len(names))
    items = np.fromiter(chain.from_iterable(users.values()), np.int64, lengths.sum())
    return _from_histories(lengths, items, names, num_items, path)


def write_inter_json(inter: Interactions, path: str | Path) -> None:
    """Writes `{user: [item, ...]}` without white space, atomically.

    Args:
      inter: Histories; item rows are written, not `item_ids`.
      path: File to make or replace.
    """
    path = Path(path)
    text = json.dumps(
        {user: inter.history(row).tolist() for row, user in enumerate(inter.user_ids)},
        separators=(",", ":"),
    )
    with files.replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_inter_tsv(path: str | Path, num_items: int | None = None) -> Interactions:
    """Reads the tab-separated `.inter` format of MMRec or RecBole.

    Columns `userID itemID` (MMRec) hold item rows. Columns `user_id:token
    item_id:token` (RecBole) hold names: items are numbered in the order of their
    names, of their values if all are integers, and `item_ids` keeps the names.
    Histories follow `timestamp` if there is one, else the file; ratings and MMRec's
    `x_label` split are not used.

    Args:
      path: File with a header line.
      num_items: Number of known items; None takes the number in the file.

    Returns:
      Users in the order of their names.

    Raises:
      UserError: The file is missing, truncated or has no such columns; an item is
        out of range or occurs twice for a user.
    """
    path = Path(path)
    names, typed = read_header(path)
    user, item = (_position(names, kind, path) for kind in ("user", "item"))
    if typed:
        pair = read_columns(path, (user, item), str, delimiter="\t", header=True)
        (users, user_ids), (items, item_ids) = map(_number_tokens, pair.T)
        num_items = len(item_ids) if num_items is None else num_items
    else:
        pair = read_columns(path, (user, item), int, delimiter="\t", header=True)
        (users, items), user_ids, item_ids = pair.T, None, None
    times = np.zeros(len(users))
    if "timestamp" in names:
        column = (names.index("timestamp"),)
        times = read_columns(path, column, float, delimiter="\t", header=True)[:, 0]
    return from_log(
        users,
        items,
        times,
        num_items=num_items,
        user_ids=user_ids,
        item_ids=item_ids,
        origin=path,
    )


def from_log(
    users: Int[np.ndarray, "E"],
    items: Int[np.ndarray, "E"],
    timestamps: Num[np.ndarray, "E"],
    *,
    num_items: int | None = None,
    user_ids: tuple[str, ...] | None = None,
    item_ids: tuple[str, ...] | None = None,
    origin: str | Path = "log",
) -> Interactions:
    """Sorts a log into histories by user, then time; ties keep the log's order.

    Args:
      users: Any integers; users without a row do not exist.
      items: Rows, from 0.
      timestamps: Any unit; NaN is refused.
      num_items: Number of known items; None takes the largest id plus one.
      user_ids: Name of user i; None names users by their number.
      item_ids: Name of item i; None means the row.
      origin: Named in errors.

    Returns:
      Users in ascending order.

    Raises:
      UserError: The log is empty, an item is out of range or occurs twice for a
        user, or a time is NaN.
    """
    if not len(users):
        raise UserError(f"{origin}: holds no interaction")
    if np.isnan(timestamps).any():
        row = int(np.flatnonzero(np.isnan(timestamps))[0])
        raise UserError(f"{origin}: the timestamp of interaction {row + 1} is missing")
    order = np.lexsort((timestamps, users))
    distinct, lengths = np.unique(users, return_counts=True)
    names = tuple(str(u) if user_ids is None else user_ids[u] for u in distinct)
    return _from_histories(lengths, items[order], names, num_items, origin, item_ids)


def leave_one_out(inter: Interactions, *, origin: str = "interactions") -> Split:
    """Splits off the last item of each user for test, the one before to validate.

    Args:
      inter: Histories of at least three items.
      origin: Named in errors.

    Returns:
      `train` keeps the rest, in order, with the same users and `num_items`.

    Raises:
      UserError: A history is shorter than three.
    """
    lengths = np.diff(inter.indptr)
    if lengths.min() < 3:
        user = int(np.argmin(lengths))
        raise UserError(
            f"{origin}: user {inter.user_ids[user]!r} has {lengths[user]} items,"
            " leave-one-out needs at least 3; drop such users first"
        )
    last = inter.indptr[1:] - 1
    keep = np.ones(len(inter.items), bool)
    keep[last] = keep[last - 1] = False
    indptr = inter.indptr - 2 * np.arange(len(inter.indptr))
    train = replace(inter, indptr=indptr, items=inter.items[keep])
    return Split(train, inter.items[last - 1], inter.items[last])


def _from_histories(
    lengths: Int[np.ndarray, "U"],
    items: Int[np.ndarray, "E"],
    user_ids: tuple[str, ...],
    num_items: int | None,
    origin: str | Path,
    item_ids: tuple[str, ...] | None = None,
) -> Interactions:
    """Checks range and repeats of all histories, and packs them."""
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    def owner(position: int) -> str:
        return user_ids[int(np.searchsorted(indptr, position, side="right")) - 1]

    bound = 2**31 - 1 if num_items is None else num_items
    outside = np.flatnonzero((items < 0) | (items >= bound))
    if outside.size:
        position = int(outside[0])
        raise UserError(
            f"{origin}: item {items[position]} of user {owner(position)!r} is out of"
            f" range 0 to {bound - 1}; {outside.size} such interactions"
        )
    num_items = int(items.max()) + 1 if num_items is None else num_items
    rows = np.repeat(np.arange(len(lengths)), lengths)
    keys = np.sort(rows * num_items + items)
    double = np.flatnonzero(keys[1:] == keys[:-1])
    if double.size:
        row, item = divmod(int(keys[double[0]]), num_items)
        name = item if item_ids is None else repr(item_ids[item])
        raise UserError(
            f"{origin}: user {user_ids[row]!r} has item {name} more than once;"
            f" {double.size} repeats in all, keep one of each"
        )
    packed = items.astype(np.int32)
    return Interactions(indptr, packed, num_items, user_ids, item_ids)


def _unique_users(pairs: list[tuple[str, object]], path: Path) -> dict[str, object]:
    """Builds the dict that JSON would, but refuses a key that comes twice."""
    users = dict(pairs)
    if len(users) < len(pairs):
        seen: set[str] = set()
        for user, _ in pairs:
            if user in seen:
                raise UserError(f"{path}: user {user!r} occurs more than once")
            seen.add(user)
    return users


def _check_history(user: str, history: object, path: Path) -> None:
    """Refuses what is not a list of at least one integer."""
    if not isinstance(history, list):
        raise UserError(f"{path}: user {user!r}: expected a list of items")
    if not history:
        raise UserError(f"{path}: user {user!r} has an empty history; drop the user")
    for item in history:
        if type(item) is not int or not -(2**63) <= item < 2**63:
            raise UserError(f"{path}: user {user!r}: item {item!r} is not an item row")


def read_header(path: Path) -> tuple[list[str], bool]:
    """Returns the column names without RecBole's types, and whether it had types.

    Raises:
      UserError: The file is missing or no UTF-8.
    """
    try:
        with path.open(encoding="utf-8") as file:
            names = file.readline().rstrip("\r\n").split("\t")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check data.path and names") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason})") from error
    return [name.split(":")[0] for name in names], any(":" in name for name in names)


def _position(names: list[str], kind: str, path: Path) -> int:
    """Returns the column of the users or the items."""
    for spelling in (f"{kind}ID", f"{kind}_id"):
        if spelling in names:
            return names.index(spelling)
    raise UserError(
        f"{path}: header {names} has no column {kind}ID or {kind}_id:token;"
        " expected a tab-separated .inter file"
    )


def _number_tokens(
    tokens: Shaped[np.ndarray, "E"],
) -> tuple[Int[np.ndarray, "E"], tuple[str, ...]]:
    """Numbers names by value if all are integers, else alphabetically."""
    names, numbers = np.unique(tokens, return_inverse=True)
    try:
        order = np.argsort(names.astype(np.int64), kind="stable")
    except (ValueError, OverflowError):
        order = np.arange(len(names))
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return rank[numbers.ravel()], tuple(names[order].tolist())
