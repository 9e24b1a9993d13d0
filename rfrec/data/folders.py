# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Folders in rfrec's own or MMRec's format in; features, titles, histories out.

rfrec: `NAME.<feature>.npy`, optionally `NAME.items.tsv` and `NAME.inter.json`;
`NAME.<feature>_mask.npy`, which tells the items that have a vector, is no feature.
MMRec: `NAME.inter` beside `<feature>_feat.npy`.
Row i of every file is item i. A data set lies in the folder that is given or in a
folder directly below it.
"""

import glob
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rfrec.config import UserError
from rfrec.data.features import multi_hot, read_features
from rfrec.data.interactions import Interactions, read_inter_json, read_inter_tsv
from rfrec.data.join import Feature
from rfrec.data.tables import ItemTable, read_item_table


class DataSet(NamedTuple):
    """The files of one data set; nothing is read yet but the table.

    Attributes:
      name: of the data set.
      vectors: feature name -> `.npy` file.
      table: `NAME.items.tsv`, if there is one.
      log: `NAME.inter.json` or `NAME.inter`, which need not exist.
      read_log: reads `log`, given the number of items.
    """

    name: str
    vectors: dict[str, Path]
    table: ItemTable | None
    log: Path
    read_log: Callable[[Path, int | None], Interactions]

    @property
    def feature_names(self) -> list[str]:
        """Names that can be asked for, sorted."""
        return sorted(set(self.vectors) | set(self.table.labels if self.table else ()))


def find_names(root: Path, suffix: str) -> list[str]:
    """Lists the data sets of a folder and of the folders directly below it.

    Args:
      root: folder to look in.
      suffix: what follows the name: a glob pattern such as `.*.npy` or `.inter`.

    Returns:
      Sorted names.
    """
    found = {*root.glob(f"*{suffix}"), *root.glob(f"*/*{suffix}")}
    dots = suffix.count(".")
    return sorted({path.name.rsplit(".", dots)[0] for path in found if path.is_file()})


def open_folder(root: Path, name: str) -> DataSet:
    """Finds the files of a data set in rfrec's format.

    Args:
      root: folder, or the folder above.
      name: NAME of its files.

    Returns:
      Its files; the table is read.

    Raises:
      UserError: there is no such data set or two, or the table is damaged.
    """
    folder = _one_folder(root, name, (".*.npy", ".inter.json", ".items.tsv"))
    vectors = {
        path.name.removeprefix(f"{name}.").removesuffix(".npy"): path
        for path in folder.glob(f"{glob.escape(name)}.*.npy")
        if not path.name.endswith("_mask.npy")
    }
    table = folder / f"{name}.items.tsv"
    return DataSet(
        name=name,
        vectors=vectors,
        table=read_item_table(table) if table.is_file() else None,
        log=folder / f"{name}.inter.json",
        read_log=read_inter_json,
    )


def open_mmrec(root: Path, name: str) -> DataSet:
    """Finds the files of a data set in MMRec's format.

    Args:
      root: folder, or the folder above.
      name: NAME of `NAME.inter`.

    Returns:
      Its files.

    Raises:
      UserError: there is no such data set or two.
    """
    folder = _one_folder(root, name, (".inter",))
    return DataSet(
        name=name,
        vectors={
            p.name.removesuffix("_feat.npy"): p for p in folder.glob("*_feat.npy")
        },
        table=None,
        log=folder / f"{name}.inter",
        read_log=_read_mmrec,
    )


def read_feature(data: DataSet, name: str) -> Feature:
    """Opens one feature: a `.npy` file, else a column of labels as multi-hot.

    Args:
      data: the data set.
      name: feature asked for.

    Returns:
      The feature; vectors stay a memory map.

    Raises:
      UserError: the data set has no such feature, or its file is damaged.
    """
    if path := data.vectors.get(name):
        return Feature(name, read_features(path), "dense", str(path))
    if data.table and name in data.table.labels:
        matrix = multi_hot(data.table.labels[name]).matrix
        return Feature(name, matrix, "multi_hot", f"{data.table.path}: {name}")
    raise UserError(
        f"data set {data.name!r} has no feature {name!r}; its folder has:"
        f" {', '.join(data.feature_names) or 'none'}"
    )


def choose_features(data: DataSet, names: tuple[str, ...]) -> list[Feature]:
    """Opens the features that are asked for, or the only `.npy` there is.

    Args:
      data: the data set.
      names: in the order wanted; may be empty.

    Raises:
      UserError: none is named but there are several, or as `read_feature`.
    """
    if not names and len(data.vectors) != 1:
        raise UserError(
            f"data set {data.name!r} has the features"
            f" {', '.join(data.feature_names) or 'none'}; choose by data.features"
        )
    return [read_feature(data, name) for name in names or data.vectors]


def check_counts(data: DataSet, num_items: int, origin: str) -> list[str]:
    """Compares the number of items with the other files of the data set.

    Args:
      data: the data set.
      num_items: number of rows of its features.
      origin: file that has so many.

    Returns:
      Warnings: a line if the log ends before the last item.

    Raises:
      UserError: the table has another number, or the log an item beyond.
    """
    if data.table and data.table.num_items != num_items:
        raise UserError(
            f"{origin} has {num_items} rows but {data.table.path} has"
            f" {data.table.num_items} items; both need a row for each item"
        )
    if not data.log.is_file():
        return []
    logged = data.read_log(data.log, None).num_items
    if logged > num_items:
        raise UserError(
            f"{origin} has {num_items} rows but {data.log} has items up to"
            f" {logged - 1}, that is {logged}; row i must be item i"
        )
    if logged < num_items:
        return [f"{data.log}: ends at item {logged - 1} of {num_items}"]
    return []


def _read_mmrec(path: Path, num_items: int | None) -> Interactions:
    """Reads a log whose items number rows of the features beside it."""
    inter = read_inter_tsv(path, num_items)
    if inter.item_ids is not None:
        raise UserError(
            f"{path}: items are named, so that the rows of its features are unknown;"
            " MMRec's columns userID and itemID number both from 0"
        )
    return inter


def _one_folder(root: Path, name: str, suffixes: tuple[str, ...]) -> Path:
    """Finds the only folder, the root or one below it, that holds the data set."""
    for candidates in ([root], sorted(p for p in root.iterdir() if p.is_dir())):
        holding = [
            folder
            for folder in candidates
            if any(any(folder.glob(glob.escape(name) + s)) for s in suffixes)
        ]
        if len(holding) > 1:
            places = " and ".join(map(str, holding))
            raise UserError(f"data set {name!r} is in {places}; set data.path to one")
        if holding:
            return holding[0]
    known = sorted({n for suffix in suffixes for n in find_names(root, suffix)})
    raise UserError(
        f"{root}: no data set {name!r} there or one folder below; found:"
        f" {', '.join(known) or 'none'}"
    )
