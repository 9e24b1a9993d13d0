# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""User-item pairs for training, validation and test.

Graph recommenders need sets of items, not sequences. MMRec's `.inter` contains its own
split in the column `x_label`; every other log is split here, user by user.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64

from rfrec.config import UserError
from rfrec.data import interactions, sources
from rfrec.data.dataset import DataSet, Request
from rfrec.data.features import fingerprint
from rfrec.data.folders import FolderDataSet
from rfrec.data.interactions import Interactions
from rfrec.data.join import Feature, check_rows
from rfrec.data.tables import read_columns

SPLITS = ("label", "leave_one_out", "time", "random")
PARTS = ("train", "valid", "test")
_MMREC_COLUMNS = ("userID", "itemID", "x_label")


class Positives(NamedTuple):
    """The items of each user in one part of the data (CSR).

    Attributes:
      indptr: User u has `items[indptr[u] : indptr[u + 1]]`; a row may be empty.
      items: Item rows, ascending within a user, each once.
    """

    indptr: Int64[np.ndarray, "U1"]
    items: Int32[np.ndarray, "E"]

    @property
    def counts(self) -> Int64[np.ndarray, "U"]:
        """Number of items of each user."""
        return np.diff(self.indptr)

    @property
    def users(self) -> Int64[np.ndarray, "E"]:
        """User of each pair."""
        return np.repeat(np.arange(len(self.indptr) - 1), self.counts)


@dataclass(frozen=True, eq=False)
class PairSplit:
    """Pairs of user and item in three disjoint parts.

    Attributes:
      train: Training pairs; every user has at least one.
      valid: Validation pairs; users may have none.
      test: Test pairs; users may have none.
      num_users: Number of users U; users are numbered 0 to U-1.
      num_items: Number of items, including those without any pair.
      user_ids: Name of each user in the source.
      item_ids: Names of the items; None means the row number.
      warnings: Findings that the user should see, one line each.
    """

    train: Positives
    valid: Positives
    test: Positives
    num_users: int
    num_items: int
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the numbers of users and items and of all pairs."""
        digest = hashlib.sha256(f"{self.num_users} {self.num_items}".encode())
        for part in (self.train, self.valid, self.test):
            digest.update(part.indptr.tobytes() + part.items.tobytes())
        return digest.hexdigest()


class GraphData(NamedTuple):
    """Pairs, and the features of their items.

    Attributes:
      split: Pairs for training, validation and test.
      features: One checked feature for each modality, in the order of the request.
      warnings: Findings of the checks, one line each.
    """

    split: PairSplit
    features: tuple[Feature, ...]
    warnings: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the pairs and of all features."""
        digest = hashlib.sha256(self.split.fingerprint.encode())
        for feature in self.features:
            digest.update(f"{feature.name} {fingerprint(feature.values)}".encode())
        return digest.hexdigest()


def load(
    *,
    source: str,
    path: str | Path | None = None,
    name: str | None = None,
    features: tuple[str, ...] = (),
    split: str = "label",
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    num_items: int = 10_000,
    num_users: int = 10_000,
    text_width: int = 64,
) -> GraphData:
    """Loads and splits one data set, with the named features.

    Args:
      source: A key of `sources.SOURCES`.
      path: Folder of the data, as for `sources.load_items`.
      name: Data set of `folder` or `mmrec`; None if the folder contains one.
      features: Modalities; none for a recommender that uses interactions only.
      split: `label` reads MMRec's `x_label`; for the others see `from_interactions`.
      shares: Shares of the parts, as for `from_interactions`.
      seed: Seed of the random split and of the synthetic data set.
      num_items: Size of the synthetic catalogue.
      num_users: Number of synthetic histories.
      text_width: Width of features computed from texts, as for `sources.load_items`.

    Raises:
      UserError: The source has no such data or split, or a file is damaged.
    """
    if split not in SPLITS:
        raise UserError(f"data.split is {split!r}, expected one of {', '.join(SPLITS)}")
    chosen, warnings = sources.load_features(
        source=source,
        path=path,
        name=name,
        features=features,
        seed=seed,
        num_items=num_items,
        text_width=text_width,
    )
    check_rows(chosen)
    request = Request(
        source, path, name, seed=seed, num_items=num_items, num_users=num_users
    )
    data = sources.open_data_set(request)
    if split == "label":
        parts = _read_labelled(data, source)
    else:
        parts = from_interactions(
            data.read_interactions(),
            how=split,
            shares=shares,
            seed=seed,
            origin=str(data.log or "interactions"),
        )
    _check_num_items(chosen, parts)
    notes = _notes(data.log, parts, chosen, split) if data.log else ()
    return GraphData(parts, chosen, (*warnings, *parts.warnings, *notes))


def _check_num_items(features: tuple[Feature, ...], split: PairSplit) -> None:
    """Raises an error unless each feature has a row for each item."""
    for feature in features:
        rows = len(feature.values)
        if rows != split.num_items:
            raise UserError(
                f"{feature.origin} has {rows} rows, the data set has"
                f" {split.num_items} items; row i must be item i"
            )


def _read_labelled(data: DataSet, source: str) -> PairSplit:
    """Reads the split that a data set of the source `mmrec` contains."""
    if source != "mmrec" or not isinstance(data, FolderDataSet):
        raise UserError(
            f"data.split 'label' requires data.source 'mmrec', not {source!r}; use one"
            f" of {', '.join(SPLITS[1:])}"
        )
    return read_mmrec(data.log, data.known_items)


def _notes(
    log: Path, split: PairSplit, features: tuple[Feature, ...], how: str
) -> tuple[str, ...]:
    """Lists properties of a log that are accepted but may be mistakes."""
    last = max(int(getattr(split, part).items.max()) for part in PARTS)
    lines = []
    if features and last + 1 < len(features[0].values):
        lines.append(
            f"{log}: ends at item {last}, {features[0].origin} has"
            f" {len(features[0].values)} rows: no user has the other items; row i must"
            " be item i"
        )
    if log.suffix == ".inter" and how in ("leave_one_out", "time"):
        names, _ = interactions.read_header(log)
        if "timestamp" not in names:
            lines.append(
                f"{log}: has no column timestamp; its lines are assumed to be in order"
                " of time"
            )
    return tuple(lines)


def read_mmrec(path: str | Path, num_items: int | None = None) -> PairSplit:
    """Reads MMRec's `.inter` with its own split.

    The columns `userID` and `itemID` count from 0; `x_label` is 0 for training, 1 for
    validation and 2 for test. Users are renumbered in ascending order. Users without a
    training pair, for whom nothing can be learned, are removed with a warning, as in
    MMRec.

    Args:
      path: Tab-separated file with a header.
      num_items: Number of items that have features; None uses the largest item plus
        one.

    Raises:
      UserError: The file is missing, truncated or lacks a column; a label is unknown, a
        part is empty, an item is out of range or a pair occurs twice.
    """
    path = Path(path)
    names, typed = interactions.read_header(path)
    if all(name.lstrip("-").replace(".", "", 1).isdigit() for name in names):
        raise UserError(
            f"{path}: the header is missing, the first line is {names}; insert a line"
            f" with {', '.join(_MMREC_COLUMNS)} before it"
        )
    if typed or any(name not in names for name in _MMREC_COLUMNS):
        raise UserError(
            f"{path}: header {names} lacks the untyped columns"
            f" {', '.join(_MMREC_COLUMNS)} of MMRec's split; set data.split to one of"
            f" {', '.join(SPLITS[1:])}"
        )
    columns = tuple(map(names.index, _MMREC_COLUMNS))
    table = read_columns(path, columns, int, delimiter="\t", header=True)
    users, items, labels = table.T
    unknown = np.flatnonzero((labels < 0) | (labels > 2))
    if unknown.size:
        raise UserError(
            f"{path}: interaction {unknown[0] + 1} has x_label {labels[unknown[0]]};"
            " 0 is training, 1 validation and 2 test"
        )
    num_items = _count_items(users, items, num_items, path)
    return _build(*(users, items, labels), num_items, str, None, str(path))


def from_interactions(
    inter: Interactions,
    *,
    how: str = "leave_one_out",
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    origin: str = "interactions",
) -> PairSplit:
    """Splits the history of each user.

    Args:
      inter: Histories, oldest item first.
      how: `leave_one_out` tests on the last item and validates on the one before it;
        histories need at least three items. `time` cuts each history in order of time
        by the shares; `random` shuffles it first.
      shares: Shares of training, validation and test, which add up to 1. The numbers of
        validation and test pairs are rounded down, but are at least one where a history
        has three or more items; shorter histories are used for training only.
      seed: Seed of the shuffle.
      origin: File or description of the log, for error messages.

    Raises:
      UserError: A history is too short for `leave_one_out`, or a part is empty.
    """
    lengths = np.diff(inter.indptr)
    users = np.repeat(np.arange(inter.num_users), lengths)
    ranks = np.arange(len(inter.items)) - inter.indptr[:-1][users]
    if how == "leave_one_out":
        interactions.leave_one_out(inter, origin=origin)
        num_valid = num_test = np.ones_like(lengths)
    elif how in ("time", "random"):
        _check_shares(shares)
        num_valid, num_test = (
            np.where(lengths > 2, np.maximum((lengths * s).astype(int), 1), 0)
            for s in shares[1:]
        )
        if how == "random":
            draws = np.random.default_rng(seed).random(len(users))
            ranks[np.lexsort((draws, users))] = ranks.copy()
    else:
        raise UserError(f"split {how!r}: expected one of {', '.join(SPLITS[1:])}")
    left = (lengths[users] - ranks)[:, None]
    held_out = np.stack([num_test, num_test + num_valid], axis=1)[users]
    labels = np.array([0, 1, 2])[np.sum(left <= held_out, axis=1)]
    names = inter.user_ids
    return _build(
        *(users, inter.items, labels, inter.num_items),
        *(lambda user: names[user], inter.item_ids, origin),
    )


def select(
    users: Int[np.ndarray, "E"], items: Int[np.ndarray, "E"], num_users: int
) -> Positives:
    """Packs pairs, which may be in any order.

    Args:
      users: Users in 0 to `num_users` - 1.
      items: Item rows.
      num_users: Number of rows of the result.
    """
    order = np.lexsort((items, users))
    counts = np.bincount(users, minlength=num_users)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Positives(indptr, items[order].astype(np.int32))


def _build(
    users: Int[np.ndarray, "E"],
    items: Int[np.ndarray, "E"],
    labels: Int[np.ndarray, "E"],
    num_items: int,
    name: Callable[[int], str],
    item_ids: tuple[str, ...] | None,
    origin: str,
) -> PairSplit:
    """Numbers the users that have training pairs, and packs the three parts."""
    _check_repeats(users, items, num_items, origin)
    known = np.unique(users[labels == 0])
    kept = np.isin(users, known)
    warnings = _removed_users(users, kept, origin)
    rows, items, labels = np.searchsorted(known, users[kept]), items[kept], labels[kept]
    parts = {}
    for number, part in enumerate(PARTS):
        members = labels == number
        if not members.any():
            raise UserError(
                f"{origin}: the {part} part is empty; all three parts need an"
                " interaction of a user who is in training"
            )
        parts[part] = select(rows[members], items[members], len(known))
    return PairSplit(
        **parts,
        num_users=len(known),
        num_items=num_items,
        user_ids=tuple(name(user) for user in known.tolist()),
        item_ids=item_ids,
        warnings=warnings,
    )


def _removed_users(
    users: Int[np.ndarray, "E"], kept: Bool[np.ndarray, "E"], origin: str
) -> tuple[str, ...]:
    if kept.all():
        return ()
    removed = users[~kept]
    return (
        f"{origin}: {len(np.unique(removed))} users without a training interaction were"
        f" removed, with {len(removed)} interactions",
    )


def _check_shares(shares: tuple[float, float, float]) -> None:
    """Raises an error unless there are three positive shares that add up to 1."""
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise UserError(
            f"data.shares is {tuple(shares)}: expected three numbers above 0 that add"
            " up to 1, for training, validation and test"
        )


def _count_items(
    users: Int[np.ndarray, "E"],
    items: Int[np.ndarray, "E"],
    num_items: int | None,
    path: Path,
) -> int:
    """Returns the number of items; raises an error for an item out of range."""
    bound = 2**31 - 1 if num_items is None else num_items
    outside = np.flatnonzero((items < 0) | (items >= bound))
    if outside.size:
        limit = ""
        if num_items is not None:
            limit = f", the fewest rows of the features beside it ({num_items})"
        raise UserError(
            f"{path}: item {items[outside[0]]} of user {users[outside[0]]} is out of"
            f" range 0 to {bound - 1}{limit}; {outside.size} such interactions"
        )
    return int(items.max()) + 1 if num_items is None else num_items


def _check_repeats(
    users: Int[np.ndarray, "E"],
    items: Int[np.ndarray, "E"],
    num_items: int,
    origin: str,
) -> None:
    """Raises an error if a pair occurs twice, in one part or in two."""
    keys = np.sort(users.astype(np.int64) * num_items + items)
    double = np.flatnonzero(keys[1:] == keys[:-1])
    if double.size:
        user, item = divmod(int(keys[double[0]]), num_items)
        raise UserError(
            f"{origin}: user {user} has item {item} more than once; {double.size}"
            " repeats in all parts together, keep one of each"
        )
