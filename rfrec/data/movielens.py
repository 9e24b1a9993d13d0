# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A MovieLens folder in; movies, their vectors and the rating log out.

Folders are read as GroupLens publishes them: 100K (`u.item`, `u.data`), 1M and 10M
(`movies.dat`, `ratings.dat`), 20M, 25M, 32M and latest (`movies.csv`,
`ratings.csv`); RecBole's `ml-100k.item` and `ml-100k.inter` too. Movies are always
ordered by their id. See Harper and Konstan (2015), The MovieLens Datasets: History
and Context, ACM TiiS 5(4), and the terms of use: no redistribution.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rfrec.config import UserError
from rfrec.data.features import multi_hot, tfidf_svd
from rfrec.data.interactions import Interactions, from_log
from rfrec.data.join import Feature
from rfrec.data.tables import read_columns

FEATURES = ("genres", "text")

# Order of the 19 flags that close a line of u.item.
_FLAGS = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)


class Movies(NamedTuple):
    """All movies of a folder, by ascending id, those nobody rated included."""

    ids: tuple[int, ...]
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]


class _Layout(NamedTuple):
    """Names and form of the two files of one publication."""

    movies: str
    ratings: str
    delimiter: str
    columns: tuple[int, int, int]
    header: bool


# A double colon reads as two delimiters with an empty field between.
_LAYOUTS = (
    _Layout("u.item", "u.data", "\t", (0, 1, 3), False),
    _Layout("ml-100k.item", "ml-100k.inter", "\t", (0, 1, 3), True),
    _Layout("movies.dat", "ratings.dat", ":", (0, 2, 6), False),
    _Layout("movies.csv", "ratings.csv", ",", (0, 1, 3), True),
)


def is_movielens(folder: Path) -> bool:
    """Tells whether the folder holds a file of movies in a known form."""
    return any((folder / layout.movies).is_file() for layout in _LAYOUTS)


def read_movies(folder: str | Path) -> Movies:
    """Reads ids, titles and genres.

    Titles are brought to one form, "Title (Year)" with single spaces, so that the
    two publications of 100K give equal movies and equal vectors: RecBole keeps the
    year in a column of its own and spells movie 267, "unknown" without a year, as
    "unkonwn". Nothing else differs; both hold 1,682 movies.

    Args:
      folder: as published by GroupLens, or with RecBole's `ml-100k.item`.

    Returns:
      Movies by ascending id; "(no genres listed)" gives no genre.

    Raises:
      UserError: there is no known file, a line is damaged or an id occurs twice.
    """
    path = Path(folder) / _layout(folder).movies
    readers = {".dat": _dat_rows, ".csv": _csv_rows}
    rows = readers.get(path.suffix, _100k_rows)(path)
    movies: dict[int, tuple[str, tuple[str, ...]]] = {}
    for number, movie, title, genres in rows:
        if not movie.isdecimal():
            raise UserError(f"{path}: line {number}: {movie!r} is not a movie id")
        if int(movie) in movies:
            raise UserError(f"{path}: line {number}: movie {movie} occurs twice")
        movies[int(movie)] = " ".join(title.split()), genres
    if not movies:
        raise UserError(f"{path}: holds no movie; the file may be truncated")
    ids = tuple(sorted(movies))
    titles, genres = zip(*(movies[movie] for movie in ids), strict=True)
    return Movies(ids, titles, genres)


def read_ratings(folder: str | Path, movies: Movies) -> Interactions:
    """Reads who rated what, in the order of time; the stars are not used.

    Args:
      folder: as of `read_movies`.
      movies: all movies of the folder; row = position there.

    Returns:
      Histories of all users; ties in time keep the order of the file.

    Raises:
      UserError: the file is missing or damaged, or a movie is not among `movies`.
    """
    layout = _layout(folder)
    path = Path(folder) / layout.ratings
    log = read_columns(
        path, layout.columns, int, delimiter=layout.delimiter, header=layout.header
    )
    users, rated, times = log.T
    known = np.array(movies.ids)
    rows = np.minimum(np.searchsorted(known, rated), len(known) - 1)
    strange = np.flatnonzero(known[rows] != rated)
    if strange.size:
        line = int(strange[0]) + 1 + layout.header
        raise UserError(
            f"{path}: line {line}: movie {rated[strange[0]]} is not in"
            f" {layout.movies}; both files must be of one release"
        )
    return from_log(
        users,
        rows,
        times,
        num_items=len(known),
        item_ids=tuple(map(str, movies.ids)),
        origin=path,
    )


def movie_feature(
    movies: Movies, name: str, *, width: int, seed: int, origin: str | Path
) -> Feature:
    """Makes one feature of all movies.

    Args:
      movies: as read.
      name: `genres` (multi-hot) or `text` (TF-IDF and SVD of the titles).
      width: of `text`; ignored for `genres`, which has a column for each genre.
      seed: of `text`.
      origin: folder named in errors.

    Returns:
      A row for each movie.

    Raises:
      UserError: there is no genre, or `width` exceeds what the titles support.
    """
    try:
        if name == "genres":
            matrix = multi_hot(movies.genres).matrix
            return Feature(name, matrix, "multi_hot", f"{origin}: {name}")
        vectors = tfidf_svd(movies.titles, width, seed)
        return Feature(name, vectors, "dense", f"{origin}: {name}")
    except UserError as error:
        raise UserError(f"{origin}: {name}: {error}") from error


def _layout(folder: str | Path) -> _Layout:
    """Recognises the publication by its file of movies."""
    for layout in _LAYOUTS:
        if (Path(folder) / layout.movies).is_file():
            return layout
    names = ", ".join(layout.movies for layout in _LAYOUTS)
    raise UserError(
        f"{folder}: no MovieLens folder, it holds none of {names};"
        " unpack the archive there or correct data.path"
    )


_Row = tuple[int, str, str, tuple[str, ...]]


def _100k_rows(path: Path) -> Iterator[_Row]:
    """Yields line number, id, title and genres of u.item or ml-100k.item."""
    recbole = path.name == "ml-100k.item"
    for number, line in enumerate(_lines(path), 1):
        if recbole:
            if number > 1:
                movie, title, year, genres = _fields(path, number, line, "\t", 4)
                unknown = title == "unkonwn"
                title = "unknown" if unknown else f"{title} ({year})"
                yield number, movie, title, tuple(genres.split())
        else:
            movie, title, *rest = _fields(path, number, line, "|", 24)
            flags = zip(_FLAGS, rest[3:], strict=True)
            yield number, movie, title, tuple(g for g, flag in flags if flag == "1")


def _dat_rows(path: Path) -> Iterator[_Row]:
    """Yields the rows of movies.dat."""
    for number, line in enumerate(_lines(path), 1):
        movie, title, genres = _fields(path, number, line, "::", 3)
        yield number, movie, title, _genres(genres)


def _csv_rows(path: Path) -> Iterator[_Row]:
    """Yields the rows of movies.csv, where quotes protect commas."""
    reader = csv.reader(_lines(path))
    next(reader, None)
    for fields in reader:
        if len(fields) != 3:
            raise UserError(
                f"{path}: line {reader.line_num} has {len(fields)} fields, expected 3;"
                " the file may be truncated, copy it again"
            )
        movie, title, genres = fields
        yield reader.line_num, movie, title, _genres(genres)


def _genres(text: str) -> tuple[str, ...]:
    """Splits a list of genres."""
    if text in ("", "(no genres listed)"):
        return ()
    return tuple(text.split("|"))


def _lines(path: Path) -> list[str]:
    """Reads lines of UTF-8, or of Latin-1 as the older releases are.

    Latin-1 text with accents is practically never valid UTF-8.
    """
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n").rstrip("\n").split("\n") if raw else []


def _fields(path: Path, number: int, line: str, mark: str, count: int) -> list[str]:
    """Splits a line and insists on the number of fields."""
    fields = line.split(mark)
    if len(fields) != count:
        raise UserError(
            f"{path}: line {number} has {len(fields)} fields, expected {count};"
            " the file may be truncated, copy it again"
        )
    return fields
