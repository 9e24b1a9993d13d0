# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Every published form of MovieLens gives the same movies and histories.

The movies here are invented; the forms are those of the releases.
"""

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.data import movielens

MOVIES = {
    2: ("Café Lantern, The (1994)", ("Comedy", "Drama")),
    5: ("Harbour: Part II, The (1981) (V)", ("Action",)),
    11: ('Say "Ahoy", Sailor (1950)', ("Film-Noir", "Western")),
    40: ("unknown", ("unknown",)),
}
# user, movie, stars, time: user 3 rates two movies in the same second.
RATINGS = [(3, 11, 4, 70), (1, 5, 3, 20), (3, 2, 5, 70), (3, 5, 1, 60), (1, 40, 2, 10)]
HISTORIES = {"1": [3, 1], "3": [1, 2, 0]}
FORMS = ["100k", "recbole", "1m", "25m"]


def write_release(folder, form, movies=MOVIES, ratings=RATINGS):
    folder.mkdir(parents=True, exist_ok=True)
    items, log = WRITERS[form](movies)
    # Reversed: readers must not rely on the order of movies.
    items[1].reverse()
    (folder / items[0]).write_text(
        items[2] + "".join(items[1]), encoding=items[3], newline=""
    )
    name, mark, header = log
    lines = (mark.join(map(str, rating)) + "\n" for rating in ratings)
    (folder / name).write_text(header + "".join(lines), newline="")
    return folder


def _100k(movies):
    lines = []
    for movie, (title, genres) in movies.items():
        flags = "|".join(str(int(flag in genres)) for flag in movielens._FLAGS)
        lines.append(f"{movie}|{title}|01-Jan-1990||http://x|{flags}\n")
    return ("u.item", lines, "", "latin-1"), ("u.data", "\t", "")


def _recbole(movies):
    lines = []
    for movie, (title, genres) in movies.items():
        name, year = title.rsplit(" (", 1) if "(" in title else ("unkonwn", "unkonwn)")
        fields = str(movie), name, year.rstrip(")"), " ".join(genres)
        lines.append("\t".join(fields) + "\r\n")
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    log = "user_id:token\titem_id:token\trating:float\ttimestamp:float\r\n"
    return (
        ("ml-100k.item", lines, header + "\r\n", "utf-8"),
        ("ml-100k.inter", "\t", log),
    )


def _1m(movies):
    lines = [f"{m}::{title}::{'|'.join(g)}\n" for m, (title, g) in movies.items()]
    return ("movies.dat", lines, "", "latin-1"), ("ratings.dat", "::", "")


def _25m(movies):
    lines = [
        '{},"{}",{}\n'.format(
            m, title.replace('"', '""'), "|".join(g) or "(no genres listed)"
        )
        for m, (title, g) in movies.items()
    ]
    log = "userId,movieId,rating,timestamp\n"
    return (
        ("movies.csv", lines, "movieId,title,genres\n", "utf-8"),
        ("ratings.csv", ",", log),
    )


WRITERS = {"100k": _100k, "recbole": _recbole, "1m": _1m, "25m": _25m}


@pytest.mark.parametrize("form", FORMS)
def test_movies_are_the_same_in_every_form(tmp_path, form):
    movies = movielens.read_movies(write_release(tmp_path / form, form))
    assert movies.ids == tuple(MOVIES)
    assert movies.titles == tuple(title for title, _ in MOVIES.values())
    assert movies.genres == tuple(genres for _, genres in MOVIES.values())


@pytest.mark.parametrize("form", FORMS)
def test_histories_are_the_same_in_every_form(tmp_path, form):
    folder = write_release(tmp_path / form, form)
    inter = movielens.read_ratings(folder, movielens.read_movies(folder))
    found = {u: inter.history(i).tolist() for i, u in enumerate(inter.user_ids)}
    assert found == HISTORIES
    assert inter.num_items == len(MOVIES)
    assert inter.item_ids == ("2", "5", "11", "40")


def test_half_stars_are_no_obstacle(tmp_path):
    halves = [(u, m, stars - 0.5, t) for u, m, stars, t in RATINGS]
    folder = write_release(tmp_path, "25m", ratings=halves)
    assert movielens.read_ratings(folder, movielens.read_movies(folder)).num_users == 2


def test_no_genres_listed_gives_no_genre(tmp_path):
    folder = write_release(tmp_path, "25m", {1: ("A (1990)", ())})
    assert movielens.read_movies(folder).genres == ((),)


def test_white_space_in_titles_is_normalised(tmp_path):
    folder = write_release(tmp_path, "1m", {1: ("A  Mill\u00a0 (1990) ", ("Drama",))})
    assert movielens.read_movies(folder).titles == ("A Mill (1990)",)


def test_features_are_equal_in_every_form(tmp_path):
    vectors = []
    for form in FORMS:
        movies = movielens.read_movies(write_release(tmp_path / form, form))
        vectors.append(
            [
                movielens.movie_feature(movies, name, width=3, seed=1, origin=form)
                for name in movielens.FEATURES
            ]
        )
    genres, text = vectors[0]
    assert (genres.kind, text.kind) == ("multi_hot", "dense")
    np.testing.assert_array_equal(genres.values.sum(1), [2, 1, 2, 1])
    for other_genres, other_text in vectors[1:]:
        np.testing.assert_array_equal(genres.values, other_genres.values)
        np.testing.assert_array_equal(text.values, other_text.values)


def test_impossible_width_names_folder_and_key(tmp_path):
    movies = movielens.read_movies(write_release(tmp_path, "1m"))
    with pytest.raises(UserError, match="here: text: .*data.text_width from 1 to 4"):
        movielens.movie_feature(movies, "text", width=64, seed=0, origin="here")


def test_other_folder_is_no_movielens(tmp_path):
    with pytest.raises(UserError, match="none of u.item, ml-100k.item, movies.d"):
        movielens.read_movies(tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_truncated_movies_name_the_line(tmp_path, form):
    folder = write_release(tmp_path, form)
    path = folder / movielens._layout(folder).movies
    lines = path.read_bytes().rstrip(b"\r\n").split(b"\n")
    path.write_bytes(b"\n".join(lines)[: -len(lines[-1]) + 4])
    with pytest.raises(UserError, match=rf"line {len(lines)} has \d fields, expected"):
        movielens.read_movies(folder)


def test_double_movie_and_strange_id_name_the_line(tmp_path):
    (tmp_path / "movies.dat").write_text("1::A (1990)::Drama\n1::B (1991)::Drama\n")
    with pytest.raises(UserError, match=r"movies\.dat: line 2: movie 1 occurs twice"):
        movielens.read_movies(tmp_path)
    (tmp_path / "movies.dat").write_text("one::A (1990)::Drama\n")
    with pytest.raises(UserError, match=r"movies\.dat: line 1: 'one' is not a movie"):
        movielens.read_movies(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"), [("movies.dat", ""), ("movies.csv", "a,b,c")]
)
def test_file_without_movies_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name}: contains no movie"):
        movielens.read_movies(tmp_path)


@pytest.mark.parametrize(
    ("form", "extra", "message"),
    [
        ("100k", "1\t77\t3\t5\n", r"u\.data: line 6: movie 77 is not in u\.item"),
        ("25m", "1,1,3,5\n", r"ratings\.csv: line 7: movie 1 is not in movies\.csv"),
        ("1m", "1::2::3\n", r"ratings\.dat: line 6 has too few fields"),
        ("1m", "1::x::3::4\n", r"ratings\.dat: line 6: 'x' is not an integer"),
        ("25m", "1,5,3,99\n", "user '1' has item '5' more than once"),
    ],
)
def test_damaged_ratings_name_the_place(tmp_path, form, extra, message):
    folder = write_release(tmp_path, form)
    movies = movielens.read_movies(folder)
    with (folder / movielens._layout(folder).ratings).open("a") as file:
        file.write(extra)
    with pytest.raises(UserError, match=message):
        movielens.read_ratings(folder, movies)


def test_missing_ratings_are_named(tmp_path):
    folder = write_release(tmp_path, "1m")
    (folder / "ratings.dat").unlink()
    with pytest.raises(UserError, match=r"ratings\.dat: no such file"):
        movielens.read_ratings(folder, movielens.read_movies(folder))
