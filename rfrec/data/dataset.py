# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What every data source provides: a `DataSet` with features and interactions.

To add a source, write one module with a subclass of `DataSet` and a function that opens
it from a `Request`, and add one entry to the table in `rfrec.data.sources`.
"""

import abc
import os
from pathlib import Path
from typing import Literal, NamedTuple

from rfrec.config import UserError
from rfrec.data.interactions import Interactions
from rfrec.data.join import Feature


class Request(NamedTuple):
    """Everything that a source may need to open a data set.

    Attributes:
      source: Name of the source, a key of `rfrec.data.sources.SOURCES`.
      path: Folder of the files; None uses `$RFREC_DATA`.
      name: Name of the data set; None if the folder contains only one.
      needs: The part of the data set that a folder must contain to be found without a
        name, `features` or `log`.
      seed: Seed of everything that the source draws.
      num_items: Number of items, for sources that generate data.
      num_users: Number of users, for sources that generate data.
      text_width: Width of features that are computed from texts.
    """

    source: str
    path: str | Path | None = None
    name: str | None = None
    needs: Literal["features", "log"] = "log"
    seed: int = 0
    num_items: int = 10_000
    num_users: int = 10_000
    text_width: int = 64


class DataSet(abc.ABC):
    """One data set; row i of everything that it returns is item i.

    Attributes:
      name: Name of the data set.
      ids: Names of the items in JSON output; None means the row number.
      titles: Titles of the items, for people; None if they are unknown.
      log: File of the interactions; None if the source has no such file.
    """

    name: str
    ids: tuple[str, ...] | None = None
    titles: tuple[str, ...] | None = None
    log: Path | None = None

    @abc.abstractmethod
    def read_features(self, names: tuple[str, ...]) -> list[Feature]:
        """Reads features in the order of `names`; () reads the default features.

        Raises:
          UserError: There is no such feature, or its file is damaged.
        """

    @abc.abstractmethod
    def read_interactions(self) -> Interactions:
        """Reads the histories of all users.

        Raises:
          UserError: The log is missing or damaged.
        """

    def check_counts(self, num_items: int, origin: str) -> list[str]:
        """Compares the number of items with the other files of the data set.

        Args:
          num_items: Number of rows of the features.
          origin: File or description of the features, for messages.

        Returns:
          Warnings, one line each.

        Raises:
          UserError: Another file contradicts the number.
        """
        del num_items, origin
        return []


def find_root(source: str, path: str | Path | None) -> Path:
    """Returns the folder of `data.path` or, if that is None, of `$RFREC_DATA`.

    Raises:
      UserError: Neither is set, or the folder does not exist.
    """
    root = path or os.environ.get("RFREC_DATA")
    if not root:
        raise UserError(
            f"source {source!r} needs a folder; set RFREC_DATA or --config.data.path"
        )
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; correct data.path or RFREC_DATA")
    return root


def choose_features(
    names: tuple[str, ...], known: tuple[str, ...], source: str
) -> tuple[str, ...]:
    """Returns `names`, or all `known` features if there are none.

    Raises:
      UserError: A name is not one of the known features.
    """
    for name in names:
        if name not in known:
            raise UserError(
                f"source {source!r} has no feature {name!r}; it has: {', '.join(known)}"
            )
    return names or known
