# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Histories and code files in; data sets for a T5, side by side and checked, out."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32
from ml_collections import ConfigDict

from rfrec.codes import catalogue, table
from rfrec.config import UserError
from rfrec.data import folders, sequences, sources
from rfrec.data.interactions import Interactions
from rfrec.data.synthetic import histories

MODALITIES = ("text", "image")
_FOLDERS = {"folder": folders.open_folder, "mmrec": folders.open_mmrec}


class CodedSet(NamedTuple):
    """One data set.

    Attributes:
      name: Of the data set.
      inter: Whole histories.
      codes: By modality, a row per item; -1 for an item without codes, which is in no
        history.
      removed: By modality, marks items that histories may hold but that are not to be
        named; only of catalogues.
    """

    name: str
    inter: Interactions
    codes: dict[str, Int32[np.ndarray, "N Q"]]
    removed: dict[str, Bool[np.ndarray, " N"]]


class CodedData(NamedTuple):
    """Data sets one behind the other.

    Attributes:
      names: Of the data sets.
      num_items: Of each.
      num_users: Of each.
      inter: Histories of all; items of a set follow those of the sets before.
      codes: By modality, of all items.
      removed: By modality, as of `CodedSet`, of all items.
      fingerprint: SHA-256 of histories and codes.
      warnings: To be shown.
    """

    names: tuple[str, ...]
    num_items: tuple[int, ...]
    num_users: tuple[int, ...]
    inter: Interactions
    codes: dict[str, Int32[np.ndarray, "N Q"]]
    removed: dict[str, Bool[np.ndarray, " N"]]
    fingerprint: str
    warnings: tuple[str, ...]

    def rows(self, number: int) -> slice:
        """Returns the items of a data set."""
        first = sum(self.num_items[:number])
        return slice(first, first + self.num_items[number])

    def users(self, number: int) -> slice:
        """Returns the users of a data set."""
        first = sum(self.num_users[:number])
        return slice(first, first + self.num_users[number])


def load(config: ConfigDict, used: Sequence[str]) -> CodedData:
    """Loads the data sets that a config names.

    Args:
      config: Its section `data` and its seed count.
      used: Modalities whose codes are needed.

    Raises:
      UserError: One line that names what is wrong and how to mend it.
    """
    if config.data.source == "synthetic":
        made = synthetic(config.data.num_users, config.data.num_items, config.seed)
        codes = {m: made.codes[m] for m in used}
        parts = [made._replace(codes=codes, removed=_no_removed(codes))]
    else:
        names = tuple(config.data.names) or (None,)
        parts = [_load_set(config, name, used) for name in names]
    warnings = [
        line
        for part in parts
        for modality in part.codes
        if (line := _conflicts(part, modality, config.data.unique))
    ]
    return stack(parts, warnings)


def stack(parts: Sequence[CodedSet], warnings: Sequence[str] = ()) -> CodedData:
    """Puts data sets of the same modalities behind one another."""
    inter = parts[0].inter
    if len(parts) > 1:
        inter = sequences.stack_interactions({p.name: p.inter for p in parts})
    codes = {}
    for modality in parts[0].codes:
        tables = [part.codes[modality] for part in parts]
        levels = {part.shape[1] for part in tables}
        if len(levels) > 1:
            raise UserError(
                f"config.data.names: their {modality} codes have {min(levels)} and"
                f" {max(levels)} levels: use data sets of one tokenizer"
            )
        codes[modality] = np.concatenate(tables)
    return CodedData(
        names=tuple(part.name for part in parts),
        num_items=tuple(part.inter.num_items for part in parts),
        num_users=tuple(part.inter.num_users for part in parts),
        inter=inter,
        codes=codes,
        removed={m: np.concatenate([p.removed[m] for p in parts]) for m in codes},
        fingerprint=fingerprint(inter, codes),
        warnings=tuple(warnings),
    )


def fingerprint(inter: Interactions, codes: dict[str, Int32[np.ndarray, "N Q"]]) -> str:
    """Hashes histories and codes, by SHA-256."""
    digest = hashlib.sha256()
    for array in (inter.indptr, inter.items, *codes.values()):
        digest.update(np.ascontiguousarray(array, "<i8").tobytes())
    return digest.hexdigest()


def _load_set(config: ConfigDict, name: str | None, used: Sequence[str]) -> CodedSet:
    data = config.data
    inter = sources.load_interactions(source=data.source, path=data.path, name=name)
    name = name or data.source
    codes, gone = {}, {}
    for modality in used:
        if data[modality] is None:
            raise UserError(
                f"config.task.names need {modality} codes: set config.data.{modality}"
                " to the suffix or path of an index file"
            )
        path = index_path(data.source, data.path, name, data[modality])
        index, gone[modality] = read_codes(path)
        if index.modality != modality:
            raise UserError(
                f"{path} holds {index.modality} codes: give it as"
                f" config.data.{index.modality}"
            )
        inter, codes[modality] = align(index, inter, path)
    # An index may name items that come after those of the one read before.
    most = inter.num_items
    codes = {
        m: np.pad(c, ((0, most - len(c)), (0, 0)), constant_values=-1)
        for m, c in codes.items()
    }
    removed = _no_removed(codes)
    for modality, rows in gone.items():
        removed[modality][rows] = True
    return CodedSet(name, inter, codes, removed)


def _no_removed(
    codes: dict[str, Int32[np.ndarray, "N Q"]],
) -> dict[str, Bool[np.ndarray, " N"]]:
    return {modality: np.zeros(len(rows), bool) for modality, rows in codes.items()}


def read_codes(path: Path) -> tuple[table.CodeIndex, Int32[np.ndarray, "_"]]:
    """Reads an index file, or the catalogue whose manifest is named.

    Returns:
      The codes, and the rows of removed items, of which an index has none.
    """
    if path.name != catalogue.MANIFEST:
        return table.read_index(path), np.zeros(0, np.int32)
    found = catalogue.load(path.parent)
    names = tuple(map(str, range(len(found.codes))))
    index = table.CodeIndex(found.codes, names, found.manifest.modality)
    return index, found.removed


def index_path(source: str, root: str | None, name: str, place: str) -> Path:
    """Returns the file of `config.data.text` or `.image`.

    Args:
      source: Of the data.
      root: Its folder; None takes `$RFREC_DATA`.
      name: Of the data set; replaces `{name}` in a path.
      place: A path that ends in .json, of an index or of a catalogue's manifest, or the
        suffix of `NAME.index_SUFFIX.json`.
    """
    if place.endswith(".json"):
        return Path(place.replace("{name}", name)).expanduser()
    if source not in _FOLDERS:
        raise UserError(
            f"config.data.text and image: source {source!r} needs the path of an index"
            f" file that ends in .json, not {place!r}"
        )
    folder = Path(root or os.environ["RFREC_DATA"]).expanduser()
    return _FOLDERS[source](folder, name).log.with_name(f"{name}.index_{place}.json")


def align(
    index: table.CodeIndex, inter: Interactions, path: Path
) -> tuple[Interactions, Int32[np.ndarray, "N Q"]]:
    """Lays codes out by item row; items that only the index knows come last.

    Args:
      index: As read.
      inter: Histories.
      path: Of the index, for errors.

    Returns:
      Histories, whose `num_items` may have grown, and codes, -1 where there are none.

    Raises:
      UserError: An item of a history has no codes, or an id of the index is no row.
    """
    ids = inter.item_ids
    if ids is None:
        ids = _row_ids(index, inter.num_items, path)
    rows = {name: row for row, name in enumerate(ids)}
    fresh = tuple(name for name in index.item_ids if name not in rows)
    rows |= {name: len(ids) + i for i, name in enumerate(fresh)}
    codes = np.full((len(rows), index.codes.shape[1]), -1, np.int32)
    codes[[rows[name] for name in index.item_ids]] = index.codes
    lacking = np.flatnonzero(codes[inter.items, 0] < 0)
    if lacking.size:
        place = int(lacking[0])
        user = int(np.searchsorted(inter.indptr, place, side="right")) - 1
        raise UserError(
            f"{path}: item {ids[inter.items[place]]} of user"
            f" {inter.user_ids[user]!r} has no codes; {lacking.size} such interactions:"
            " give every item of the histories its codes"
        )
    names = None if inter.item_ids is None else (*ids, *fresh)
    return replace(inter, num_items=len(rows), item_ids=names), codes


def _row_ids(index: table.CodeIndex, num_items: int, path: Path) -> tuple[str, ...]:
    """Returns the row numbers that histories and index span, as names."""
    for name in index.item_ids:
        if not name.isdecimal() or str(int(name)) != name or int(name) >= 2**31 - 1:
            raise UserError(
                f"{path}: item {name!r} is unknown to the histories, which number"
                " their items from 0"
            )
    most = max(num_items, 1 + max(map(int, index.item_ids)))
    return tuple(map(str, range(most)))


def _conflicts(part: CodedSet, modality: str, unique: bool) -> str | None:
    """Returns a warning if items share all codes; refuses them if they must not."""
    codes = part.codes[modality]
    codes = codes[codes[:, 0] >= 0]
    sizes = tuple((codes.max(axis=0) + 1).tolist())
    count = table.statistics(codes, sizes).conflict_items
    if not count:
        return None
    told = f"{part.name}: {modality} codes are not unique, {count} conflict items"
    if unique:
        raise UserError(
            f"{told}; repair them by rfrec.launch.codes, or set"
            " config.data.unique=False"
        )
    return f"{told}: a list that names one names all that share its codes"


def synthetic(num_users: int, num_items: int, seed: int) -> CodedSet:
    """Makes histories with structure, and random unique codes for both modalities."""
    # Rings of some 25 items: long enough that a history goes on along them.
    inter = histories(
        num_users,
        num_items=num_items,
        num_clusters=max(1, num_items // 25),
        max_length=min(50, num_items),
        seed=seed,
    )
    levels, size = 3, 8
    while size**levels < 4 * num_items:
        size += 1
    codes = {}
    for number, modality in enumerate(MODALITIES):
        rng = np.random.default_rng([seed, 6, number])
        keys = rng.choice(size**levels, num_items, replace=False)
        codes[modality] = _digits(keys, size, levels)
    return CodedSet("synthetic", inter, codes, _no_removed(codes))


def _digits(
    keys: Int[np.ndarray, " N"], size: int, levels: int
) -> Int32[np.ndarray, "N Q"]:
    powers = size ** np.arange(levels)[::-1]
    return (keys[:, None] // powers[None] % size).astype(np.int32)
