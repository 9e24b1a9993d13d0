# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Data sources by name, and the three ways to load from them.

- `movielens-100k`: Genres and titles of MovieLens-100K, read from `$RFREC_DATA` or
  downloaded once.
- `movielens`: A MovieLens folder of any release, as published.
- `folder`: `NAME.<feature>.npy`, `NAME.items.tsv`, `NAME.inter.json`.
- `mmrec`: `NAME.inter` beside `<feature>_feat.npy`.
- `prepared`: A folder written by `rfrec.launch.prepare`.
- `synthetic`: A seeded catalogue with cluster structure.

`load_items` returns the vectors of all items for the tokenizer, `load_interactions` the
histories, and `load_features` each feature separately for graph models.
"""

import dataclasses
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from rfrec.config import UserError
from rfrec.data import folders, movielens, prepared, synthetic
from rfrec.data.dataset import DataSet, Request
from rfrec.data.features import ItemVectors, check_features
from rfrec.data.interactions import Interactions
from rfrec.data.join import Feature, join, stack


class Source(NamedTuple):
    """One entry of the table of sources.

    Attributes:
      open: Function that opens a data set.
      named: Whether one folder may contain several data sets, selected by name.
      reads_path: Whether the source reads the folder `data.path`.
    """

    open: Callable[[Request], DataSet]
    named: bool = False
    reads_path: bool = True


SOURCES: dict[str, Source] = {
    "movielens-100k": Source(movielens.open_100k),
    "movielens": Source(movielens.open_release),
    "folder": Source(folders.open_source, named=True),
    "mmrec": Source(folders.open_source, named=True),
    "prepared": Source(prepared.open_source),
    "synthetic": Source(synthetic.open_source, reads_path=False),
}


def open_data_set(request: Request) -> DataSet:
    """Opens one data set.

    Raises:
      UserError: The source is unknown or cannot use the path or name, or there is no
        such data set.
    """
    names = (request.name,) if request.name else ()
    _check_request(request.source, request.path, names, ())
    return SOURCES[request.source].open(request)


def load_items(
    *,
    source: str,
    path: str | Path | None = None,
    names: tuple[str, ...] = (),
    features: tuple[str, ...] = (),
    scale: str = "none",
    seed: int = 0,
    num_items: int = 10_000,
    text_width: int = 64,
) -> ItemVectors:
    """Loads the vectors of all items.

    Args:
      source: A key of `SOURCES`.
      path: Folder of the data; None uses `$RFREC_DATA`. Not allowed for `synthetic`.
      names: Data sets of `folder` and `mmrec`, stacked for one shared quantizer. May be
        empty if the folder contains one.
      features: Features, concatenated in this order. The default is genres and text for
        MovieLens, text and image for `synthetic`, otherwise the only `.npy` file.
      scale: `none` or `mean_square`, see `rfrec.data.join.join`; each data set is
        scaled separately.
      seed: Seed of the synthetic catalogue and of the SVD of titles.
      num_items: Size of the synthetic catalogue, at least 1.
      text_width: Width of title vectors, and of each synthetic feature.

    Returns:
      Checked vectors; `warnings` should be shown to the user.

    Raises:
      UserError: The source has no such data, or the files are damaged.
    """
    _check_request(source, path, names, features)
    parts = []
    for name in names or (None,):
        request = Request(
            source,
            path,
            name,
            needs="features",
            seed=seed,
            num_items=num_items,
            text_width=text_width,
        )
        data = SOURCES[source].open(request)
        chosen = data.read_features(features)
        items = join(
            chosen, name=data.name, scale=scale, ids=data.ids, titles=data.titles
        )
        lines = data.check_counts(len(items.values), chosen[0].origin)
        parts.append(dataclasses.replace(items, warnings=(*items.warnings, *lines)))
    return stack(parts)


def load_interactions(
    *,
    source: str,
    path: str | Path | None = None,
    name: str | None = None,
    num_items: int = 10_000,
    num_users: int = 10_000,
    seed: int = 0,
) -> Interactions:
    """Loads the histories of all users of one data set.

    Args:
      source: A key of `SOURCES`.
      path: Folder of the data, as for `load_items`.
      name: Data set of `folder` or `mmrec`; None if the folder contains one.
      num_items: Size of the synthetic catalogue.
      num_users: Number of synthetic histories.
      seed: Seed of the synthetic catalogue, as for `load_items`.

    Returns:
      Histories whose items are the rows that `load_items` returns for the data set.

    Raises:
      UserError: The source has no such data, or the log is damaged.
    """
    request = Request(
        source, path, name, seed=seed, num_items=num_items, num_users=num_users
    )
    return open_data_set(request).read_interactions()


def load_features(
    *,
    source: str,
    path: str | Path | None = None,
    name: str | None = None,
    features: tuple[str, ...] = (),
    seed: int = 0,
    num_items: int = 10_000,
    text_width: int = 64,
) -> tuple[tuple[Feature, ...], tuple[str, ...]]:
    """Loads features of one data set separately.

    Args:
      source: A key of `SOURCES`.
      path: Folder of the data, as for `load_items`.
      name: Data set of `folder` or `mmrec`; None if the folder contains one.
      features: Features to load; none are loaded by default.
      seed: Seed of the synthetic catalogue and of the SVD of titles.
      num_items: Size of the synthetic catalogue.
      text_width: Width of title vectors, and of each synthetic feature.

    Returns:
      The features in order, all values finite, and warnings for the user.

    Raises:
      UserError: The source has no such data, or a file is damaged.
    """
    _check_request(source, path, (name,) if name else (), features)
    request = Request(
        source, path, name, seed=seed, num_items=num_items, text_width=text_width
    )
    data = SOURCES[source].open(request)
    chosen = tuple(data.read_features(features)) if features else ()
    reports = [(check_features(f.values, f.origin), f.origin) for f in chosen]
    # Equal vectors matter to a quantizer only.
    lines = (r._replace(duplicate_rows=0).warnings(origin) for r, origin in reports)
    return chosen, tuple(chain.from_iterable(lines))


def _check_request(
    source: str,
    path: str | Path | None,
    names: tuple[str, ...],
    features: tuple[str, ...],
) -> None:
    """Rejects options that the source cannot use, instead of ignoring them."""
    if source not in SOURCES:
        raise UserError(
            f"data.source is {source!r}, expected one of {', '.join(SOURCES)}"
        )
    if names and not SOURCES[source].named:
        raise UserError(
            f"data.names is {names}, but source {source!r} is one data set; leave"
            " data.names empty"
        )
    if path is not None and not SOURCES[source].reads_path:
        raise UserError(
            f"data.path is set, but source {source!r} reads no files; remove it"
        )
    if "rf" in features:
        raise UserError(
            "data.features contains 'rf' (vectors of a trained graph recommender),"
            " which only the tokenizer accepts; remove it"
        )
    for what, chosen in (("names", names), ("features", features)):
        if len(set(chosen)) < len(chosen):
            raise UserError(
                f"data.{what} is {chosen}: an entry occurs twice; list each once"
            )
