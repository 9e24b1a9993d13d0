# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Data sets in folders, in rfrec's own format or in MMRec's.

rfrec: `NAME.<feature>.npy`, optionally `NAME.items.tsv` and `NAME.inter.json`.
`NAME.<feature>_mask.npy`, which marks the items that have a vector, is not a feature.
MMRec: `NAME.inter` beside `<feature>_feat.npy`.
Row i of every file is item i. A data set is in the folder of `data.path` or in a folder
directly below it.
"""

import glob
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rfrec.config import UserError
from rfrec.data.dataset import DataSet, Request, find_root
from rfrec.data.features import multi_hot, read_features
from rfrec.data.interactions import Interactions, read_inter_json, read_inter_tsv
from rfrec.data.join import Feature
from rfrec.data.tables import ItemTable, read_item_table

# For each source, the files by which a data set is found if no name is set.
_SUFFIXES = {
    "folder": {"features": ".*.npy", "log": ".inter.json"},
    "mmrec": {"features": ".inter", "log": ".inter"},
}


@dataclass(frozen=True, kw_only=True)
class FolderDataSet(DataSet):
    """The files of one data set; only the table has been read.

    Attributes:
      name: Name of the data set.
      vectors: The `.npy` file of each feature.
      table: Content of `NAME.items.tsv`, if there is one.
      log: `NAME.inter.json` or `NAME.inter`, which need not exist.
      read_log: Function that reads `log`, given the number of items.
    """

    name: str
    vectors: dict[str, Path]
    table: ItemTable | None
    log: Path
    read_log: Callable[[Path, int | None], Interactions]

    @property
    def titles(self) -> tuple[str, ...] | None:
        """Titles of the items; None without a table that has them."""
        return self.table.titles if self.table else None

    @property
    def feature_names(self) -> list[str]:
        """Names of all features, sorted."""
        return sorted(set(self.vectors) | set(self.table.labels if self.table else ()))

    @property
    def known_items(self) -> int | None:
        """Number of items of all files but the log; None if there are no others."""
        counts = [read_features(path).shape[0] for path in self.vectors.values()]
        if self.table:
            counts.append(self.table.num_items)
        return min(counts, default=None)

    def read_features(self, names: tuple[str, ...]) -> list[Feature]:
        """Opens the named features, or the only `.npy` file if no name is given."""
        if not names and len(self.vectors) != 1:
            raise UserError(
                f"data set {self.name!r} has the features"
                f" {', '.join(self.feature_names) or 'none'}; select some with"
                " data.features"
            )
        return [self._read_feature(name) for name in names or self.vectors]

    def _read_feature(self, name: str) -> Feature:
        """Opens a `.npy` file as a memory map, else a column of labels as multi-hot."""
        if path := self.vectors.get(name):
            return Feature(name, read_features(path), "dense", str(path))
        if self.table and name in self.table.labels:
            matrix = multi_hot(self.table.labels[name]).matrix
            return Feature(name, matrix, "multi_hot", f"{self.table.path}: {name}")
        raise UserError(
            f"data set {self.name!r} has no feature {name!r}; its folder has:"
            f" {', '.join(self.feature_names) or 'none'}"
        )

    def read_interactions(self) -> Interactions:
        """Reads the log."""
        return self.read_log(self.log, self.known_items)

    def check_counts(self, num_items: int, origin: str) -> list[str]:
        """Compares the number of items with the table and the log."""
        if self.table and self.table.num_items != num_items:
            raise UserError(
                f"{origin} has {num_items} rows but {self.table.path} has"
                f" {self.table.num_items} items; both need a row for each item"
            )
        if not self.log.is_file():
            return []
        logged = self.read_log(self.log, None).num_items
        if logged > num_items:
            raise UserError(
                f"{origin} has {num_items} rows but {self.log} has items up to"
                f" {logged - 1}, that is {logged}; row i must be item i"
            )
        if logged < num_items:
            return [f"{self.log}: ends at item {logged - 1} of {num_items}"]
        return []


def find_names(root: Path, suffix: str) -> list[str]:
    """Lists the data sets of a folder and of the folders directly below it.

    Args:
      root: Folder to search.
      suffix: Glob pattern of what follows the name, such as `.*.npy` or `.inter`.

    Returns:
      Sorted names.
    """
    paths = {*root.glob(f"*{suffix}"), *root.glob(f"*/*{suffix}")}
    dots = suffix.count(".")
    return sorted({path.name.rsplit(".", dots)[0] for path in paths if path.is_file()})


def open_source(request: Request) -> FolderDataSet:
    """Opens a data set of the source `folder` or `mmrec`.

    Raises:
      UserError: There is no folder, no such data set, or more than one.
    """
    root = find_root(request.source, request.path)
    name = request.name
    if name is None:
        names = find_names(root, _SUFFIXES[request.source][request.needs])
        if len(names) != 1:
            raise UserError(
                f"{root}: contains the data sets {', '.join(names) or 'none'}; select"
                " one with data.names"
            )
        name = names[0]
    return (open_folder if request.source == "folder" else open_mmrec)(root, name)


def open_folder(root: Path, name: str) -> FolderDataSet:
    """Finds the files of a data set in rfrec's format, and reads its table.

    Args:
      root: Folder of the files, or the folder above it.
      name: NAME of the files.

    Raises:
      UserError: There is no such data set or two, or the table is damaged.
    """
    folder = _one_folder(root, name, (".*.npy", ".inter.json", ".items.tsv"))
    vectors = {
        path.name.removeprefix(f"{name}.").removesuffix(".npy"): path
        for path in folder.glob(f"{glob.escape(name)}.*.npy")
        if not path.name.endswith("_mask.npy")
    }
    table = folder / f"{name}.items.tsv"
    return FolderDataSet(
        name=name,
        vectors=vectors,
        table=read_item_table(table) if table.is_file() else None,
        log=folder / f"{name}.inter.json",
        read_log=read_inter_json,
    )


def open_mmrec(root: Path, name: str) -> FolderDataSet:
    """Finds the files of a data set in MMRec's format.

    Args:
      root: Folder of the files, or the folder above it.
      name: NAME of `NAME.inter`.

    Raises:
      UserError: There is no such data set or two.
    """
    folder = _one_folder(root, name, (".inter",))
    return FolderDataSet(
        name=name,
        vectors={
            p.name.removesuffix("_feat.npy"): p for p in folder.glob("*_feat.npy")
        },
        table=None,
        log=folder / f"{name}.inter",
        read_log=_read_mmrec,
    )


def _read_mmrec(path: Path, num_items: int | None) -> Interactions:
    """Reads a log whose item numbers are rows of the features beside it."""
    inter = read_inter_tsv(path, num_items)
    if inter.item_ids is not None:
        raise UserError(
            f"{path}: items have names, so their rows in the features are unknown;"
            " MMRec's columns userID and itemID must both count from 0"
        )
    return inter


def _one_folder(root: Path, name: str, suffixes: tuple[str, ...]) -> Path:
    """Finds the only folder, `root` or one below it, that contains the data set."""
    for candidates in ([root], sorted(p for p in root.iterdir() if p.is_dir())):
        matching = [
            folder
            for folder in candidates
            if any(any(folder.glob(glob.escape(name) + s)) for s in suffixes)
        ]
        if len(matching) > 1:
            listed = " and ".join(map(str, matching))
            raise UserError(f"data set {name!r} is in {listed}; set data.path to one")
        if matching:
            return matching[0]
    known = sorted({n for suffix in suffixes for n in find_names(root, suffix)})
    raise UserError(
        f"{root}: no data set {name!r} there or one folder below; available:"
        f" {', '.join(known) or 'none'}"
    )
