# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads histories and the code files of their items."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32

from rfrec import config as cfg
from rfrec.codes import catalogue, table
from rfrec.config import UserError
from rfrec.data import folders, sources
from rfrec.data.interactions import Interactions
from rfrec.data.synthetic import histories
from rfrec.retrieval.corpus import (
    MODALITIES,
    CodedData,
    CodedSet,
    describe_conflicts,
    none_removed,
    stack,
)
from rfrec.retrieval.options import History

_FOLDERS = {"folder": folders.open_folder, "mmrec": folders.open_mmrec}


@dataclasses.dataclass(frozen=True)
class Data(History):
    """Histories and codes.

    Attributes:
      source: Format of the data.
      path: Folder of the data; None uses the environment variable RFREC_DATA.
      names: Data sets; several share the tokens and are trained on together.
      text: Text codes: the suffix KIND of `NAME.index_KIND.json` beside the histories,
        or a path that ends in .json, of such a file or of the `catalogue.json` of a
        catalogue; `{name}` in it stands for the data set. None uses no text codes.
      image: Image codes, likewise.
      unique: Whether items that share all codes are an error, not a warning.
      num_items: Number of items of synthetic data.
      num_users: Number of users of synthetic data.
    """

    source: str = cfg.option("folder", cfg.one_of(*sources.SOURCES))
    path: str | None = None
    names: tuple[str, ...] = ("Instruments",)
    text: str | None = "lemb"
    image: str | None = "vitemb"
    unique: bool = False
    num_items: int = cfg.option(400, cfg.whole(1))
    num_users: int = cfg.option(600, cfg.whole(1))


def load(data: Data, used: Sequence[str], *, seed: int) -> CodedData:
    """Loads the data sets.

    Args:
      data: Which data sets to load.
      used: Modalities whose codes are needed.
      seed: Seed of synthetic data.

    Raises:
      UserError: A file is missing or damaged, an item of a history has no codes, or
        codes are not unique but must be.
    """
    if data.source == "synthetic":
        drawn = synthetic(data.num_users, data.num_items, seed)
        codes = {m: drawn.codes[m] for m in used}
        parts = [drawn._replace(codes=codes, removed=none_removed(codes))]
    else:
        names = tuple(data.names) or (None,)
        parts = [_load_set(data, name, used) for name in names]
    warnings = []
    for part in parts:
        for line in filter(None, (describe_conflicts(part, m) for m in part.codes)):
            if data.unique:
                raise UserError(
                    f"{line}; repair them with rfrec.launch.codes, or set"
                    " config.data.unique=False"
                )
            warnings.append(f"{line}: they are always recommended together")
    return stack(parts, warnings)


def _load_set(data: Data, name: str | None, used: Sequence[str]) -> CodedSet:
    inter = sources.load_interactions(source=data.source, path=data.path, name=name)
    name = name or data.source
    codes, removed_rows = {}, {}
    for modality in used:
        kind = getattr(data, modality)
        if kind is None:
            raise UserError(
                f"config.task.names need {modality} codes; set config.data.{modality}"
                " to the suffix or path of an index file"
            )
        path = index_path(data.source, data.path, name, kind)
        index, removed_rows[modality] = read_codes(path)
        if index.modality != modality:
            raise UserError(
                f"{path} contains {index.modality} codes; set it as"
                f" config.data.{index.modality}"
            )
        inter, codes[modality] = align(index, inter, path)
    # An index may name items beyond those of the index that was read before it.
    count = inter.num_items
    codes = {
        m: np.pad(c, ((0, count - len(c)), (0, 0)), constant_values=-1)
        for m, c in codes.items()
    }
    removed = none_removed(codes)
    for modality, rows in removed_rows.items():
        removed[modality][rows] = True
    return CodedSet(name, inter, codes, removed)


def read_codes(path: Path) -> tuple[table.CodeIndex, Int32[np.ndarray, "_"]]:
    """Reads an index file, or the catalogue with this manifest.

    Returns:
      The codes, and the rows of removed items (none in an index file).
    """
    if path.name != catalogue.MANIFEST:
        return table.read_index(path), np.zeros(0, np.int32)
    loaded = catalogue.load(path.parent)
    names = tuple(map(str, range(len(loaded.codes))))
    index = table.CodeIndex(loaded.codes, names, loaded.manifest.modality)
    return index, loaded.removed


def index_path(source: str, root: str | None, name: str, kind: str) -> Path:
    """Returns the file of the option `data.text` or `data.image`.

    Args:
      source: Format of the data.
      root: Folder of the data; None uses `$RFREC_DATA`.
      name: Data set; replaces `{name}` in a path.
      kind: Suffix of `NAME.index_SUFFIX.json`, or a path that ends in .json.

    Raises:
      UserError: A suffix is used with a source that is not a folder.
    """
    if kind.endswith(".json"):
        return Path(kind.replace("{name}", name)).expanduser()
    if source not in _FOLDERS:
        raise UserError(
            f"config.data.text and image: source {source!r} requires the path of an"
            f" index file that ends in .json, not {kind!r}"
        )
    folder = Path(root or os.environ["RFREC_DATA"]).expanduser()
    return _FOLDERS[source](folder, name).log.with_name(f"{name}.index_{kind}.json")


def align(
    index: table.CodeIndex, inter: Interactions, path: Path
) -> tuple[Interactions, Int32[np.ndarray, "N Q"]]:
    """Arranges codes by item row; items that only the index names come last.

    Args:
      index: Codes and item names, as read.
      inter: Histories.
      path: File of the index, for errors.

    Returns:
      Histories, whose `num_items` may have grown, and codes, -1 where there are none.

    Raises:
      UserError: An item of a history has no codes, or an id of the index is not a row.
    """
    ids = inter.item_ids
    if ids is None:
        ids = _row_ids(index, inter.num_items, path)
    rows = {name: row for row, name in enumerate(ids)}
    added = tuple(name for name in index.item_ids if name not in rows)
    rows |= {name: len(ids) + i for i, name in enumerate(added)}
    codes = np.full((len(rows), index.codes.shape[1]), -1, np.int32)
    codes[[rows[name] for name in index.item_ids]] = index.codes
    missing = np.flatnonzero(codes[inter.items, 0] < 0)
    if missing.size:
        first = int(missing[0])
        user = int(np.searchsorted(inter.indptr, first, side="right")) - 1
        raise UserError(
            f"{path}: item {ids[inter.items[first]]} of user"
            f" {inter.user_ids[user]!r} has no codes ({missing.size} such"
            " interactions); add the codes of every item of the histories"
        )
    names = None if inter.item_ids is None else (*ids, *added)
    return dataclasses.replace(inter, num_items=len(rows), item_ids=names), codes


def _row_ids(index: table.CodeIndex, num_items: int, path: Path) -> tuple[str, ...]:
    """Returns the row numbers of histories and index, as names."""
    for name in index.item_ids:
        if not name.isdecimal() or str(int(name)) != name or int(name) >= 2**31 - 1:
            raise UserError(
                f"{path}: item {name!r} is unknown to the histories, whose items are"
                " numbered from 0"
            )
    count = max(num_items, 1 + max(map(int, index.item_ids)))
    return tuple(map(str, range(count)))


def synthetic(num_users: int, num_items: int, seed: int) -> CodedSet:
    """Draws histories with structure, and random unique codes for both modalities."""
    # Clusters of about 25 items: histories walk along them.
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
    return CodedSet("synthetic", inter, codes, none_removed(codes))


def _digits(
    keys: Int[np.ndarray, " N"], size: int, levels: int
) -> Int32[np.ndarray, "N Q"]:
    powers = size ** np.arange(levels)[::-1]
    return (keys[:, None] // powers[None] % size).astype(np.int32)
