# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""MovieLens: movies, their features and the rating log.

Folders are read as GroupLens publishes them: 100K (`u.item`, `u.data`), 1M and 10M
(`movies.dat`, `ratings.dat`), 20M, 25M, 32M and latest (`movies.csv`, `ratings.csv`).
RecBole's `ml-100k.item` and `ml-100k.inter` are read too. Movies are always ordered by
their id. See Harper and Konstan (2015), The MovieLens Datasets: History
and Context, ACM TiiS 5(4), and the terms of use: no redistribution.
"""

import csv
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rfrec.config import UserError
from rfrec.data.dataset import DataSet, Request, choose_features, find_root
from rfrec.data.features import multi_hot, tfidf_svd
from rfrec.data.fetch import FOLDER, fetch_movielens_100k, is_movielens
from rfrec.data.interactions import Interactions, from_log
from rfrec.data.join import Feature
from rfrec.data.tables import read_columns

FEATURES = ("genres", "text")

# Order of the 19 flags at the end of a line of u.item.
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
    """All movies of a folder, by ascending id, including those that nobody rated."""

    ids: tuple[int, ...]
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]


class _Layout(NamedTuple):
    """Names and format of the two files of one publication."""

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


class MovieLens(DataSet):
    """The movies and ratings of one folder, read when they are needed."""

    def __init__(self, request: Request, find_folder: Callable[[Request], Path]):
        """Keeps the request; `find_folder` may download the files."""
        self.name = request.source
        self._request = request
        self._find_folder = find_folder

    @functools.cached_property
    def _folder(self) -> Path:
        return self._find_folder(self._request)

    @functools.cached_property
    def _movies(self) -> "Movies":
        return read_movies(self._folder)

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the movies."""
        return tuple(map(str, self._movies.ids))

    @property
    def titles(self) -> tuple[str, ...]:
        """Titles of the movies."""
        return self._movies.titles

    def read_features(self, names: tuple[str, ...]) -> list[Feature]:
        """Computes `genres` and `text`, or those that are named."""
        chosen = choose_features(names, FEATURES, self.name)
        width, seed = self._request.text_width, self._request.seed
        return [
            movie_feature(
                self._movies, feature, width=width, seed=seed, origin=self._folder
            )
            for feature in chosen
        ]

    def read_interactions(self) -> Interactions:
        """Reads the ratings."""
        return read_ratings(self._folder, self._movies)


def open_release(request: Request) -> MovieLens:
    """Opens a folder of any release."""
    return MovieLens(request, lambda r: find_root(r.source, r.path))


def open_100k(request: Request) -> MovieLens:
    """Opens MovieLens-100K, which is downloaded if no path is set."""
    return MovieLens(request, _find_100k)


def _find_100k(request: Request) -> Path:
    if request.path is None:
        return fetch_movielens_100k()
    root = Path(request.path).expanduser()
    return root / FOLDER if is_movielens(root / FOLDER) else root


def read_movies(folder: str | Path) -> Movies:
    """Reads ids, titles and genres.

    Titles get one form, "Title (Year)" with single spaces, so that the two publications
    of 100K give equal movies and equal vectors: RecBole keeps the year in a separate
    column and spells movie 267, "unknown" without a year, as "unkonwn". Nothing else
    differs; both contain 1,682 movies.

    Args:
      folder: Folder as published by GroupLens, or with RecBole's `ml-100k.item`.

    Returns:
      Movies by ascending id; "(no genres listed)" gives no genre.

    Raises:
      UserError: There is no known file, a line is damaged or an id occurs twice.
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
        raise UserError(f"{path}: contains no movie; the file may be truncated")
    ids = tuple(sorted(movies))
    titles, genres = zip(*(movies[movie] for movie in ids), strict=True)
    return Movies(ids, titles, genres)


def read_ratings(folder: str | Path, movies: Movies) -> Interactions:
    """Reads who rated what, in order of time; the number of stars is not used.

    Args:
      folder: Folder, as for `read_movies`.
      movies: All movies of the folder; an item row is a position there.

    Returns:
      Histories of all users; ties in time keep the order of the file.

    Raises:
      UserError: The file is missing or damaged, or a movie is not among `movies`.
    """
    layout = _layout(folder)
    path = Path(folder) / layout.ratings
    log = read_columns(
        path, layout.columns, int, delimiter=layout.delimiter, header=layout.header
    )
    users, rated, times = log.T
    known = np.array(movies.ids)
    rows = np.minimum(np.searchsorted(known, rated), len(known) - 1)
    unknown = np.flatnonzero(known[rows] != rated)
    if unknown.size:
        line = int(unknown[0]) + 1 + layout.header
        raise UserError(
            f"{path}: line {line}: movie {rated[unknown[0]]} is not in"
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
    """Computes one feature of all movies.

    Args:
      movies: All movies of the folder.
      name: `genres` (multi-hot) or `text` (TF-IDF and SVD of the titles).
      width: Width of `text`; ignored for `genres`, which has a column for each genre.
      seed: Seed of the SVD of `text`.
      origin: Folder, for error messages.

    Returns:
      A row for each movie.

    Raises:
      UserError: There is no genre, or `width` exceeds what the titles support.
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
    """Identifies the publication by its file of movies."""
    for layout in _LAYOUTS:
        if (Path(folder) / layout.movies).is_file():
            return layout
    names = ", ".join(layout.movies for layout in _LAYOUTS)
    raise UserError(
        f"{folder}: not a MovieLens folder, it contains none of {names};"
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
    """Reads lines of UTF-8, or of Latin-1 as in the older releases.

    Latin-1 text with accents is practically never valid UTF-8.
    """
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n").rstrip("\n").split("\n") if raw else []


def _fields(path: Path, number: int, line: str, mark: str, count: int) -> list[str]:
    """Splits a line and checks the number of fields."""
    fields = line.split(mark)
    if len(fields) != count:
        raise UserError(
            f"{path}: line {number} has {len(fields)} fields, expected {count};"
            " the file may be truncated, copy it again"
        )
    return fields
