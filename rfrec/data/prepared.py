# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The format of a prepared data set: flat arrays, two tables and `data.json`.

    data.json      counts, sources with SHA-256, settings, warnings
    users.parquet  row, id
    items.parquet  row, id, has_metadata, and the columns of the item table
    indptr.npy     int64 [U + 1]; history of user u: indptr[u] to indptr[u + 1]
    items.npy      int32 [E], rows of items, oldest first
    times.npy      int64 [E], milliseconds since 1970; absent if the log has no times
    split.npy      uint8 [E]: 0 train, 1 validation, 2 test

Arrays are memory-mapped, so that a process holds only what it reads.
"""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8

from rfrec import files
from rfrec.config import UserError
from rfrec.data.dataset import DataSet, Request, find_root
from rfrec.data.features import multi_hot, read_features, tfidf_svd
from rfrec.data.interactions import Interactions
from rfrec.data.join import Feature

MANIFEST = "data.json"
FORMAT = "rfrec.data/1"
TRAIN, VALID, TEST = 0, 1, 2


class Prepared:
    """A prepared data set; arrays are mapped and tables are read when first used."""

    def __init__(self, folder: str | Path):
        """Opens a folder that `rfrec.launch.prepare` wrote.

        Args:
          folder: The data set.

        Raises:
          UserError: There is no `data.json`, or it is of another format.
        """
        self.folder = Path(folder).expanduser()
        remedy = "name a folder written by rfrec.launch.prepare"
        self.manifest = files.read_json(self.folder / MANIFEST, remedy)
        if self.manifest.get("format") != FORMAT:
            raise UserError(
                f"{self.folder / MANIFEST}: format {self.manifest.get('format')!r} is"
                f" not {FORMAT!r}: prepare the data again with this version of rfrec"
            )

    def __repr__(self) -> str:
        counts = self.manifest["counts"]
        return (
            f"Prepared({str(self.folder)!r}, users={counts['users']},"
            f" items={counts['items']}, interactions={counts['interactions']})"
        )

    @property
    def num_users(self) -> int:
        """Number of users."""
        return self.manifest["counts"]["users"]

    @property
    def num_items(self) -> int:
        """Number of items, those without interactions included."""
        return self.manifest["counts"]["items"]

    @functools.cached_property
    def indptr(self) -> Int64[np.ndarray, " U1"]:
        """Bounds of the histories."""
        return self._map("indptr.npy")

    @functools.cached_property
    def items(self) -> Int32[np.ndarray, " E"]:
        """Item rows of all histories, oldest first."""
        return self._map("items.npy")

    @functools.cached_property
    def times(self) -> Int64[np.ndarray, " E"] | None:
        """Milliseconds since 1970, None if the log has no times."""
        return self._map("times.npy") if self.manifest["has_times"] else None

    @functools.cached_property
    def split(self) -> UInt8[np.ndarray, " E"]:
        """Split of each interaction: `TRAIN`, `VALID` or `TEST`."""
        return self._map("split.npy")

    @functools.cached_property
    def user_ids(self) -> tuple[str, ...]:
        """Original ids of the users by row."""
        return tuple(self._column("users.parquet", "id"))

    @functools.cached_property
    def item_ids(self) -> tuple[str, ...]:
        """Original ids of the items by row."""
        return tuple(self._column("items.parquet", "id"))

    @property
    def item_columns(self) -> tuple[str, ...]:
        """Metadata columns of the item table."""
        return tuple(self.manifest["item_columns"])

    def item_texts(self, column: str) -> tuple[str, ...]:
        """Returns a metadata column by row; a missing value is empty.

        Raises:
          UserError: There is no such column.
        """
        if column not in self.item_columns:
            known = ", ".join(self.item_columns) or "none"
            raise UserError(
                f"{self.folder / 'items.parquet'}: has no column {column!r}; it has"
                f" {known}"
            )
        return tuple(v or "" for v in self._column("items.parquet", column))

    @property
    def has_metadata(self) -> Bool[np.ndarray, " N"]:
        """Whether each item occurs in the item table."""
        return np.array(self._column("items.parquet", "has_metadata"), bool)

    def _map(self, file: str) -> Any:
        path = self.folder / file
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}): prepare the data again"
            ) from error

    def _column(self, file: str, column: str) -> list:
        from pyarrow import parquet

        path = self.folder / file
        try:
            return parquet.read_table(path, columns=[column])[column].to_pylist()
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}): prepare the data again"
            ) from error


def is_prepared(folder: str | Path | None) -> bool:
    """Returns whether a folder contains a prepared data set."""
    if folder is None:
        return False
    path = Path(folder).expanduser() / MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


class PreparedSource(DataSet):
    """A prepared data set as a source of all commands.

    The feature `NAME` is the file `NAME.npy` in the folder, if there is one. Otherwise
    `text` is TF-IDF and SVD of all metadata columns, and any other name is a metadata
    column of labels, separated by bars, as a multi-hot feature.
    """

    def __init__(self, request: Request):
        """Opens the folder of a request."""
        self._data = Prepared(find_root(request.source, request.path))
        self._request = request
        self.name = self._data.folder.resolve().name
        self.log = self._data.folder / MANIFEST

    @property
    def ids(self) -> tuple[str, ...]:
        """Original ids of the items."""
        return self._data.item_ids

    @property
    def titles(self) -> tuple[str, ...] | None:
        """Titles of the items, None if the item table had no column of this name."""
        if "title" not in self._data.item_columns:
            return None
        return self._data.item_texts("title")

    def read_features(self, names: tuple[str, ...]) -> list[Feature]:
        """Reads or computes features; `text` by default."""
        return [self._read_feature(name) for name in names or ("text",)]

    def _read_feature(self, name: str) -> Feature:
        path = self._data.folder / f"{name}.npy"
        if path.exists():
            return Feature(name, read_features(path), "dense", str(path))
        origin = f"{self._data.folder}: {name}"
        if name != "text":
            labels = [tuple(filter(None, t.split("|"))) for t in self._texts(name)]
            return Feature(name, multi_hot(labels).matrix, "multi_hot", origin)
        columns = [self._texts(column) for column in self._data.item_columns]
        if not columns:
            raise UserError(
                f"{origin}: the data were prepared without an item table; prepare them"
                f" with config.table.path, or put the vectors into {path}"
            )
        texts = [" ".join(filter(None, cells)) for cells in zip(*columns, strict=True)]
        width, seed = self._request.text_width, self._request.seed
        return Feature(name, tfidf_svd(tuple(texts), width, seed), "dense", origin)

    def _texts(self, column: str) -> tuple[str, ...]:
        return self._data.item_texts(column)

    def read_interactions(self) -> Interactions:
        """Returns the histories; items of a history may repeat."""
        data = self._data
        return Interactions(
            indptr=np.asarray(data.indptr),
            items=np.asarray(data.items),
            num_items=data.num_items,
            user_ids=data.user_ids,
            item_ids=data.item_ids,
        )


def open_source(request: Request) -> PreparedSource:
    """Opens a prepared data set.

    Raises:
      UserError: The folder is missing or contains no prepared data set.
    """
    return PreparedSource(request)
