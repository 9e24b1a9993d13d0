# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Interaction logs in; user-item pairs for training, validation and test out.

What a graph recommender needs: sets, not sequences. MMRec's `.inter` brings its own
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
from rfrec.data import interactions, pair_checks, sources
from rfrec.data.features import fingerprint
from rfrec.data.interactions import Interactions
from rfrec.data.join import Feature
from rfrec.data.tables import read_columns

SPLITS = ("label", "leave_one_out", "time", "random")
PARTS = ("train", "valid", "test")


class Positives(NamedTuple):
    """The items of each user in one part of the data (CSR).

    Attributes:
      indptr: user u has `items[indptr[u] : indptr[u + 1]]`; a row may be empty.
      items: ascending within a user, each once.
    """

    indptr: Int64[np.ndarray, "U1"]
    items: Int32[np.ndarray, "E"]

    @property
    def counts(self) -> Int64[np.ndarray, "U"]:
        """Number of items of each user."""
        return np.diff(self.indptr)

    @property
    def users(self) -> Int64[np.ndarray, "E"]:
        """The user of each pair."""
        return np.repeat(np.arange(len(self.indptr) - 1), self.counts)


@dataclass(frozen=True, eq=False)
class PairSplit:
    """Pairs of user and item in three parts that share none.

    Attributes:
      train: every user has a pair here.
      valid: users may have none.
      test: users may have none.
      num_users: U; users are numbered 0 .. U-1.
      num_items: I, those nobody used included.
      user_ids: name of each user in the source.
      item_ids: names of the items; None means the row.
      warnings: what is worth knowing, one line each.
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
        """Hexadecimal sha256 of the numbers and all pairs."""
        digest = hashlib.sha256(f"{self.num_users} {self.num_items}".encode())
        for part in (self.train, self.valid, self.test):
            digest.update(part.indptr.tobytes() + part.items.tobytes())
        return digest.hexdigest()


class GraphData(NamedTuple):
    """Pairs, and the features of their items.

    Attributes:
      split: of the interactions.
      features: one for each modality, in the order asked for; checked.
      warnings: what the checks found, one line each.
    """

    split: PairSplit
    features: tuple[Feature, ...]
    warnings: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 of the pairs and of all features."""
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
    """Loads one data set, split, with the features that are named.

    Args:
      source: one of `sources.SOURCES`.
      path: as of `sources.load_items`.
      name: data set of `folder` or `mmrec`; None if the folder holds one.
      features: modalities; none for a recommender that sees interactions only.
      split: `label` reads MMRec's `x_label`; the others as of `from_interactions`.
      shares: as of `from_interactions`.
      seed: of the random split, and of the synthetic data set.
      num_items: of the synthetic catalogue.
      num_users: of the synthetic histories.
      text_width: as of `sources.load_items`.

    Raises:
      UserError: one line that names what is wrong and how to mend it.
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
    pair_checks.check_lengths(chosen)
    data = None
    if source in ("folder", "mmrec"):
        data = sources.open_set(source, path, name)
    if split == "label":
        if data is None or source != "mmrec":
            raise UserError(
                f"data.split is 'label', which only source 'mmrec' has, not {source!r};"
                f" choose one of {', '.join(SPLITS[1:])}"
            )
        parts = read_mmrec(data.log, sources.known_items(data))
    else:
        inter = sources.load_interactions(
            source=source,
            path=path,
            name=name,
            num_items=num_items,
            num_users=num_users,
            seed=seed,
        )
        origin = "interactions" if data is None else str(data.log)
        parts = from_interactions(
            inter, how=split, shares=shares, seed=seed, origin=origin
        )
    for feature in chosen:
        if len(feature.values) != parts.num_items:
            raise UserError(
                f"{feature.origin} has {len(feature.values)} rows, the data set has"
                f" {parts.num_items} items; row i must be item i"
            )
    told = ()
    if data is not None:
        last = max(int(getattr(parts, part).items.max()) for part in PARTS)
        told = pair_checks.notice(data, last, chosen, split)
    return GraphData(parts, chosen, (*warnings, *parts.warnings, *told))


def read_mmrec(path: str | Path, num_items: int | None = None) -> PairSplit:
    """Reads MMRec's `.inter` with its own split.

    Columns `userID` and `itemID` number from 0; `x_label` is 0 for training, 1 for
    validation and 2 for test. Users are numbered anew in ascending order. Those
    without a training pair, for whom nothing can be learned, are left out with a
    warning, as MMRec leaves them out.

    Args:
      path: tab-separated file with a header.
      num_items: number of items that have features; None takes the largest item
        plus one.

    Raises:
      UserError: the file is missing, truncated or lacks a column; a label is another
        one, a part is empty, an item is out of range or a pair comes twice.
    """
    path = Path(path)
    names, typed = interactions.read_header(path)
    wanted = ("userID", "itemID", "x_label")
    if all(name.lstrip("-").replace(".", "", 1).isdigit() for name in names):
        raise UserError(
            f"{path}: the header is missing, the first line is {names}: put one with"
            f" {', '.join(wanted)} before it"
        )
    if typed or any(name not in names for name in wanted):
        raise UserError(
            f"{path}: header {names} has not the untyped columns {', '.join(wanted)}"
            f" of MMRec's split; set data.split to one of {', '.join(SPLITS[1:])}"
        )
    places = tuple(map(names.index, wanted))
    table = read_columns(path, places, int, delimiter="\t", header=True)
    users, items, labels = table.T
    unknown = np.flatnonzero((labels < 0) | (labels > 2))
    if unknown.size:
        raise UserError(
            f"{path}: interaction {unknown[0] + 1} has x_label {labels[unknown[0]]};"
            " 0 is training, 1 validation and 2 test"
        )
    num_items = pair_checks.check_range(users, items, num_items, path)
    return _build(*(users, items, labels), num_items, str, None, str(path))


def from_interactions(
    inter: Interactions,
    *,
    how: str = "leave_one_out",
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    origin: str = "interactions",
) -> PairSplit:
    """Splits each user's history.

    Args:
      inter: oldest item first.
      how: `leave_one_out` tests on the last item and validates on the one before, of
        histories of at least three; `time` cuts each history in time order by the
        shares; `random` shuffles it before.
      shares: of training, validation and test; they add up to 1. The latter two are
        rounded down but to no less than one pair, where a history has three or more;
        a shorter history is all training.
      seed: of the shuffle.
      origin: named in errors.

    Raises:
      UserError: a history is too short for `leave_one_out`, or a part stays empty.
    """
    lengths = np.diff(inter.indptr)
    users = np.repeat(np.arange(inter.num_users), lengths)
    places = np.arange(len(inter.items)) - inter.indptr[:-1][users]
    if how == "leave_one_out":
        interactions.leave_one_out(inter, origin=origin)
        num_valid = num_test = np.ones_like(lengths)
    elif how in ("time", "random"):
        pair_checks.check_shares(shares)
        num_valid, num_test = (
            np.where(lengths > 2, np.maximum((lengths * s).astype(int), 1), 0)
            for s in shares[1:]
        )
        if how == "random":
            draws = np.random.default_rng(seed).random(len(users))
            places[np.lexsort((draws, users))] = places.copy()
    else:
        raise UserError(f"split {how!r}: expected one of {', '.join(SPLITS[1:])}")
    left = (lengths[users] - places)[:, None]
    held = np.stack([num_test, num_test + num_valid], axis=1)[users]
    labels = np.array([0, 1, 2])[np.sum(left <= held, axis=1)]
    names = inter.user_ids
    return _build(
        *(users, inter.items, labels, inter.num_items),
        *(lambda user: names[user], inter.item_ids, origin),
    )


def select(
    users: Int[np.ndarray, "E"], items: Int[np.ndarray, "E"], num_users: int
) -> Positives:
    """Packs pairs in any order.

    Args:
      users: in 0 .. num_users - 1.
      items: rows, from 0.
      num_users: number of rows of the result.
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
    """Numbers the users that can be trained, and packs the three parts."""
    pair_checks.check_repeats(users, items, num_items, origin)
    known = np.unique(users[labels == 0])
    kept = np.isin(users, known)
    warnings = _left_out(users, kept, origin)
    rows, items, labels = np.searchsorted(known, users[kept]), items[kept], labels[kept]
    parts = {}
    for number, part in enumerate(PARTS):
        members = labels == number
        if not members.any():
            raise UserError(
                f"{origin}: the {part} part is empty; all three need an interaction of"
                " a user who is in training"
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


def _left_out(
    users: Int[np.ndarray, "E"], kept: Bool[np.ndarray, "E"], origin: str
) -> tuple[str, ...]:
    if kept.all():
        return ()
    lost = users[~kept]
    return (
        f"{origin}: {len(np.unique(lost))} users without a training interaction are"
        f" left out, with {len(lost)} interactions",
    )
