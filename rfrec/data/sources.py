# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The name of a data source in; `ItemVectors` and `Interactions` out.

- `movielens-100k`: genres and titles; found in `$RFREC_DATA` or fetched once.
- `movielens`: a MovieLens folder of any release, as published.
- `folder`: `NAME.<feature>.npy`, `NAME.items.tsv`, `NAME.inter.json`.
- `mmrec`: `NAME.inter` beside `<feature>_feat.npy`.
- `synthetic`: a seeded catalogue with cluster structure.
"""

import os
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from rfrec.config import UserError
from rfrec.data import folders, movielens, synthetic
from rfrec.data.features import ItemVectors, check_features
from rfrec.data.fetch import FOLDER, fetch_movielens_100k
from rfrec.data.interactions import Interactions
from rfrec.data.join import Feature, join, stack

SOURCES = ("movielens-100k", "movielens", "folder", "mmrec", "synthetic")

_OPEN = {"folder": folders.open_folder, "mmrec": folders.open_mmrec}
_SUFFIX = {
    ("folder", "features"): ".*.npy",
    ("folder", "log"): ".inter.json",
    ("mmrec", "features"): ".inter",
    ("mmrec", "log"): ".inter",
}


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
      source: one of `SOURCES`.
      path: folder; None takes `$RFREC_DATA`. Not for `synthetic`.
      names: data sets of `folder` and `mmrec`, stacked for one shared quantizer;
        may be left out if the folder holds one.
      features: put side by side in this order. None given takes genres and text for
        MovieLens, text and image for `synthetic`, else the only `.npy` there is.
      scale: `none` or `mean_square`, see `rfrec.data.join.join`; each data set is
        scaled by itself.
      seed: of the synthetic catalogue and the SVD of titles.
      num_items: size of the synthetic catalogue, at least 1.
      text_width: width of title vectors, and of each synthetic feature.

    Returns:
      Checked vectors; `warnings` should be shown to the user.

    Raises:
      UserError: one line that names what is wrong and how to mend it.
    """
    _check_request(source, path, names, features)
    if source == "synthetic":
        chosen = _known(features or synthetic.FEATURES, synthetic.FEATURES, source)
        return synthetic.catalogue(
            num_items, widths=dict.fromkeys(chosen, text_width), scale=scale, seed=seed
        )
    if source in _OPEN:
        root = _root(source, path)
        names = names or (_only_name(root, source, "features"),)
        return stack([_load_set(root, source, n, features, scale) for n in names])
    chosen = _known(features or movielens.FEATURES, movielens.FEATURES, source)
    folder = _movielens_folder(source, path)
    movies = movielens.read_movies(folder)
    return join(
        [
            movielens.movie_feature(
                movies, f, width=text_width, seed=seed, origin=folder
            )
            for f in chosen
        ],
        name=source,
        scale=scale,
        ids=tuple(map(str, movies.ids)),
        titles=movies.titles,
    )


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
      source: one of `SOURCES`.
      path: as of `load_items`.
      name: data set of `folder` or `mmrec`; None if the folder holds one.
      num_items: of the synthetic catalogue.
      num_users: of the synthetic histories.
      seed: of the synthetic catalogue, as of `load_items`.

    Returns:
      Histories whose items are the rows that `load_items` returns for the data set.

    Raises:
      UserError: one line that names what is wrong and how to mend it.
    """
    _check_request(source, path, (name,) if name else (), ())
    if source == "synthetic":
        return synthetic.histories(num_users, num_items=num_items, seed=seed)
    if source in _OPEN:
        data = open_set(source, path, name)
        return data.read_log(data.log, known_items(data))
    folder = _movielens_folder(source, path)
    return movielens.read_ratings(folder, movielens.read_movies(folder))


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
    """Loads features of one data set, each by itself.

    Args:
      source: one of `SOURCES`.
      path: as of `load_items`.
      name: data set of `folder` or `mmrec`; None if the folder holds one.
      features: to load; none loads none.
      seed: as of `load_items`.
      num_items: of the synthetic catalogue.
      text_width: as of `load_items`.

    Returns:
      The features in order, all values finite, and what should be shown to the user.

    Raises:
      UserError: one line that names what is wrong and how to mend it.
    """
    _check_request(source, path, (name,) if name else (), features)
    if source == "synthetic":
        chosen = _synthetic_features(features, num_items, text_width, seed)
    elif source in _OPEN:
        data = open_set(source, path, name)
        chosen = tuple(folders.read_feature(data, feature) for feature in features)
    else:
        known = _known(features, movielens.FEATURES, source)
        folder = _movielens_folder(source, path)
        movies = movielens.read_movies(folder)
        chosen = tuple(
            movielens.movie_feature(
                movies, f, width=text_width, seed=seed, origin=folder
            )
            for f in known
        )
    reports = [(check_features(f.values, f.origin), f.origin) for f in chosen]
    # Equal vectors matter to a quantizer only.
    lines = (r._replace(duplicate_rows=0).warnings(origin) for r, origin in reports)
    return chosen, tuple(chain.from_iterable(lines))


def open_set(source: str, path: str | Path | None, name: str | None) -> folders.DataSet:
    """Finds the files of a data set of `folder` or `mmrec` that has a log.

    Args:
      source: `folder` or `mmrec`.
      path: as of `load_items`.
      name: of the data set; None if the folder holds one.

    Raises:
      UserError: there is no folder, no such data set, or more than one.
    """
    root = _root(source, path)
    return _OPEN[source](root, name or _only_name(root, source, "log"))


def known_items(data: folders.DataSet) -> int | None:
    """Returns how many items all files of a data set but its log have; None if none."""
    counts = [folders.read_features(p).shape[0] for p in data.vectors.values()]
    if data.table:
        counts.append(data.table.num_items)
    return min(counts, default=None)


def _synthetic_features(
    features: tuple[str, ...], num_items: int, width: int, seed: int
) -> tuple[Feature, ...]:
    """Makes features one by one, as `load_items` makes them side by side."""
    chosen = _known(features, synthetic.FEATURES, "synthetic")
    if not chosen:
        return ()
    made = synthetic.catalogue(
        num_items, widths=dict.fromkeys(chosen, width), seed=seed
    )
    columns = np.split(made.values, len(chosen), axis=1)
    return tuple(
        Feature(name, block, "dense", f"synthetic {name}")
        for name, block in zip(chosen, columns, strict=True)
    )


def _check_request(
    source: str,
    path: str | Path | None,
    names: tuple[str, ...],
    features: tuple[str, ...],
) -> None:
    """Refuses what the source cannot use, rather than ignoring it."""
    if source not in SOURCES:
        raise UserError(
            f"data.source is {source!r}, expected one of {', '.join(SOURCES)}"
        )
    if names and source not in _OPEN:
        raise UserError(
            f"data.names is {names}, but source {source!r} is one data set; leave"
            " data.names empty"
        )
    if path is not None and source == "synthetic":
        raise UserError(
            "data.path is set, but source 'synthetic' reads no files; leave it out"
        )
    if "rf" in features:
        raise UserError(
            "data.features names 'rf', vectors of a trained graph recommender, which"
            " only the tokenizer takes; leave it out"
        )
    for what, chosen in (("names", names), ("features", features)):
        if len(set(chosen)) < len(chosen):
            raise UserError(f"data.{what} is {chosen}: one of them is given twice")


def _load_set(
    root: Path, source: str, name: str, features: tuple[str, ...], scale: str
) -> ItemVectors:
    """Loads one data set of a folder."""
    data = _OPEN[source](root, name)
    chosen = folders.choose_features(data, features)
    titles = data.table.titles if data.table else None
    items = join(chosen, name=name, scale=scale, titles=titles)
    late = folders.check_counts(data, len(items.values), chosen[0].origin)
    return replace(items, warnings=(*items.warnings, *late))


def _known(
    features: tuple[str, ...], allowed: tuple[str, ...], source: str
) -> tuple[str, ...]:
    """Returns the features if the source can make them all."""
    for feature in features:
        if feature not in allowed:
            raise UserError(
                f"source {source!r} has no feature {feature!r}; it has:"
                f" {', '.join(allowed)}"
            )
    return features


def _root(source: str, path: str | Path | None) -> Path:
    """Returns the folder given, or that of the environment."""
    root = path or os.environ.get("RFREC_DATA")
    if not root:
        raise UserError(
            f"source {source!r} needs a folder: set RFREC_DATA or --config.data.path"
        )
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; correct data.path or RFREC_DATA")
    return root


def _only_name(root: Path, source: str, what: str) -> str:
    """Returns the name of the only data set in a folder."""
    names = folders.find_names(root, _SUFFIX[source, what])
    if len(names) != 1:
        raise UserError(
            f"{root}: holds the data sets {', '.join(names) or 'none'}; choose by"
            " data.names"
        )
    return names[0]


def _movielens_folder(source: str, path: str | Path | None) -> Path:
    """Finds the folder of the release, and fetches 100K if no path is given."""
    if source == "movielens":
        return _root(source, path)
    if path is None:
        return fetch_movielens_100k()
    root = Path(path).expanduser()
    return root / FOLDER if movielens.is_movielens(root / FOLDER) else root
