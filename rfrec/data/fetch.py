# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""MovieLens-100K: read from disk, or downloaded once, verified and cached."""

import hashlib
import http.client
import io
import os
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from absl import logging

from rfrec.config import UserError

FOLDER = "ml-100k"
# The file of movies in each form that `rfrec.data.movielens` reads.
MOVIE_FILES = ("u.item", "ml-100k.item", "movies.dat", "movies.csv")

_GROUPLENS_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
_GROUPLENS_MD5 = "0e33842e24a9c977be4e0107933c0723"
_GROUPLENS_MEMBERS = ("ml-100k/u.item", "ml-100k/u.data")
_GROUPLENS_TIMEOUT = 10

_WHEEL = "recbole==1.2.0"
_WHEEL_SHA256 = "075820e2ea8f182ec4d30c4ec9067d5ac7b07c2f5e3ae1adeb8a5fbee2d4204d"
_WHEEL_MEMBERS = (
    "recbole/dataset_example/ml-100k/ml-100k.item",
    "recbole/dataset_example/ml-100k/ml-100k.inter",
)
_PIP_TIMEOUT = 180


def is_movielens(folder: Path) -> bool:
    """Returns whether a folder contains a file of movies in a known form."""
    return any((folder / name).is_file() for name in MOVIE_FILES)


class _RouteError(Exception):
    """One download failed; the next one is tried."""


def fetch_movielens_100k(cache_dir: str | Path | None = None) -> Path:
    """Returns the folder of MovieLens-100K, downloading it if necessary.

    The files are looked for in `$RFREC_DATA/ml-100k`, then in the cache. If they are in
    neither, two downloads are tried: ml-100k.zip from GroupLens, checked by its
    published MD5, then the wheel of RecBole 1.2.0 from the package index, checked by
    SHA-256. The wheel is read as an archive, never installed or imported. Both contain
    the same movies and ratings (see `read_movies` for differences in spelling).

    Args:
      cache_dir: Folder of the cache; None uses `$RFREC_CACHE`, or `~/.cache/rfrec` if
        that is not set.

    Returns:
      A folder that `rfrec.data.movielens` reads.

    Raises:
      UserError: Both downloads failed; the message says which file to put where.
    """
    if root := os.environ.get("RFREC_DATA"):
        folder = Path(root) / FOLDER
        if is_movielens(folder):
            return folder
    default = os.environ.get("RFREC_CACHE") or "~/.cache/rfrec"
    cache = Path(cache_dir or default).expanduser()
    if is_movielens(cache / FOLDER):
        return cache / FOLDER
    reasons = []
    for route in (_from_grouplens, _from_wheel):
        try:
            _keep(route(), cache)
        except _RouteError as error:
            logging.info("%s", error)
            reasons.append(str(error))
        else:
            return cache / FOLDER
    raise UserError(
        f"MovieLens-100K could not be downloaded ({'; '.join(reasons)}); put u.item and"
        f" u.data of ml-100k.zip into {cache / FOLDER}, or set RFREC_DATA to a folder"
        f" that contains {FOLDER}/u.item"
    )


def _from_grouplens() -> dict[str, bytes]:
    """Downloads the archive of the publisher; returns name -> content."""
    logging.info(
        "downloading %s (timeout %d s)",
        _GROUPLENS_URL,
        _GROUPLENS_TIMEOUT,
    )
    try:
        raw = _download(_GROUPLENS_URL)
    except (OSError, http.client.HTTPException) as error:
        raise _RouteError(f"GroupLens: {_one_line(error)}") from error
    return _members(raw, "md5", _GROUPLENS_MD5, _GROUPLENS_MEMBERS, "GroupLens")


def _from_wheel() -> dict[str, bytes]:
    """Downloads RecBole's wheel without installing it; returns name -> content."""
    logging.info("downloading the example data of the wheel %s with pip", _WHEEL)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _pip_download(Path(folder))
        except subprocess.CalledProcessError as error:
            last = (error.stderr or "").strip().rpartition("\n")[2]
            raise _RouteError(f"pip download {_WHEEL}: {last or error}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _RouteError(f"pip download {_WHEEL}: {_one_line(error)}") from error
        wheels = sorted(Path(folder).glob("*.whl"))
        if not wheels:
            raise _RouteError(f"pip download {_WHEEL}: pip wrote no wheel")
        raw = wheels[0].read_bytes()
    return _members(raw, "sha256", _WHEEL_SHA256, _WHEEL_MEMBERS, _WHEEL)


def _download(url: str) -> bytes:
    """Reads a URL."""
    with urllib.request.urlopen(url, timeout=_GROUPLENS_TIMEOUT) as response:
        return response.read()


def _pip_download(folder: Path) -> None:
    """Downloads the wheel with pip, from the index that pip is configured for."""
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, *quiet]
        + ["--dest", str(folder), _WHEEL],
        check=True,
        capture_output=True,
        text=True,
        timeout=_PIP_TIMEOUT,
    )


def _members(
    raw: bytes, algorithm: str, expected: str, names: tuple[str, ...], origin: str
) -> dict[str, bytes]:
    """Verifies an archive and returns some of its files by their base name."""
    digest = hashlib.new(algorithm, raw, usedforsecurity=False).hexdigest()
    if digest != expected:
        raise _RouteError(
            f"{origin}: {algorithm} is {digest}, expected {expected}; the download is"
            " damaged or was replaced"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            return {Path(name).name: archive.read(name) for name in names}
    except (zipfile.BadZipFile, KeyError) as error:
        raise _RouteError(f"{origin}: {_one_line(error)}") from error


def _keep(files: dict[str, bytes], cache: Path) -> None:
    """Moves the files into the cache as one folder, in one step.

    If several processes download at once, the first one creates the folder and the
    others use it.
    """
    target = cache / FOLDER
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f"{FOLDER}.") as name:
            staging = Path(name) / FOLDER
            staging.mkdir()
            for file, content in files.items():
                (staging / file).write_bytes(content)
            try:
                os.replace(staging, target)
            except OSError:
                if is_movielens(target):
                    return
                # A folder without movies exists already. It is filled with the movies
                # last, because their file marks a complete folder.
                for file in reversed(files):
                    os.replace(staging / file, target / file)
    except OSError as error:
        raise UserError(
            f"{cache}: cannot be written ({_one_line(error)}); set RFREC_CACHE to a"
            " writable folder"
        ) from error
    logging.info("MovieLens-100K is in %s", target)


def _one_line(error: Exception) -> str:
    """Returns the message of an error without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
