# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""MovieLens-100K is found before it is fetched, and verified before it is kept."""

import hashlib
import io
import subprocess
import zipfile

import pytest

from rfrec.config import UserError
from rfrec.data import fetch

MD5 = "0e33842e24a9c977be4e0107933c0723"


def archive(names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in (*names, "README"):
            file.writestr(name, f"content of {name}")
    return buffer.getvalue()


ZIP = archive(fetch._GROUPLENS_MEMBERS)
WHEEL = archive(fetch._WHEEL_MEMBERS)


class Network:
    """Both routes, offline: what they serve, and who was asked."""

    def __init__(self, monkeypatch):
        self.asked = []
        self.zip, self.wheel = ZIP, WHEEL
        monkeypatch.setattr(fetch, "_download", self.download)
        monkeypatch.setattr(fetch, "_pip_download", self.pip)
        monkeypatch.setattr(fetch, "_GROUPLENS_MD5", hashlib.md5(ZIP).hexdigest())
        monkeypatch.setattr(fetch, "_WHEEL_SHA256", hashlib.sha256(WHEEL).hexdigest())

    def download(self, url):
        self.asked.append("grouplens")
        if isinstance(self.zip, Exception):
            raise self.zip
        return self.zip

    def pip(self, folder):
        self.asked.append("pip")
        if isinstance(self.wheel, Exception):
            raise self.wheel
        if self.wheel is not None:
            (folder / "recbole-1.2.0-py3-none-any.whl").write_bytes(self.wheel)


@pytest.fixture
def network(monkeypatch, tmp_path):
    monkeypatch.delenv("RFREC_DATA", raising=False)
    monkeypatch.setenv("RFREC_CACHE", str(tmp_path / "cache"))
    return Network(monkeypatch)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_published_checksum_is_the_one_tested():
    assert fetch._GROUPLENS_MD5 == MD5


@pytest.mark.parametrize("name", ["u.item", "ml-100k.item"])
def test_data_folder_comes_first(network, tmp_path, monkeypatch, name):
    folder = tmp_path / "data" / "ml-100k"
    folder.mkdir(parents=True)
    (folder / name).touch()
    monkeypatch.setenv("RFREC_DATA", str(tmp_path / "data"))
    assert fetch.fetch_movielens_100k() == folder
    assert network.asked == []


def test_publisher_is_asked_once(network, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("RFREC_DATA", str(tmp_path))  # Holds no ml-100k.
    folder = fetch.fetch_movielens_100k()
    assert folder == cache / "ml-100k" == fetch.fetch_movielens_100k()
    assert names(folder) == ["u.data", "u.item"]
    assert (folder / "u.item").read_text() == "content of ml-100k/u.item"
    assert names(cache) == ["ml-100k"]
    assert network.asked == ["grouplens"]


def test_explicit_cache_is_used(network, tmp_path):
    folder = fetch.fetch_movielens_100k(tmp_path / "mine")
    assert folder == tmp_path / "mine" / "ml-100k"


@pytest.mark.parametrize(
    "served", [OSError("no route to host"), TimeoutError("timed out"), ZIP[:-1], b""]
)
def test_wheel_stands_in_for_the_publisher(network, cache, served):
    network.zip = served
    folder = fetch.fetch_movielens_100k()
    assert names(folder) == ["ml-100k.inter", "ml-100k.item"]
    assert names(cache) == ["ml-100k"]
    assert network.asked == ["grouplens", "pip"]


@pytest.mark.parametrize(
    ("wheel", "reason"),
    [
        (subprocess.CalledProcessError(1, "pip", stderr="a\nERROR: no match\n"), "ERR"),
        (subprocess.TimeoutExpired("pip", 5), "timed out after 5 seconds"),
        (FileNotFoundError("no python"), "no python"),
        (None, "pip wrote no wheel"),
        (WHEEL[:-1], "sha256 is .*, expected .*damaged or was replaced"),
    ],
)
def test_failure_of_both_says_what_to_put_where(network, cache, wheel, reason):
    network.zip, network.wheel = OSError("no\nroute"), wheel
    with pytest.raises(UserError, match=rf"GroupLens: no route; .*{reason}") as error:
        fetch.fetch_movielens_100k()
    text = str(error.value)
    assert f"put u.item and u.data of ml-100k.zip into {cache / 'ml-100k'}" in text
    assert "set RFREC_DATA" in text
    assert "\n" not in text
    assert not cache.exists()


def test_archive_without_the_file_is_refused(network, monkeypatch):
    other = archive(["ml-100k/other"])
    network.zip = other
    monkeypatch.setattr(fetch, "_GROUPLENS_MD5", hashlib.md5(other).hexdigest())
    network.wheel = None
    with pytest.raises(UserError, match=r"GroupLens: .*ml-100k/u\.item.* in the archi"):
        fetch.fetch_movielens_100k()


def test_folder_without_movies_is_filled(network, cache):
    (cache / "ml-100k").mkdir(parents=True)
    (cache / "ml-100k" / "notes").touch()
    assert names(fetch.fetch_movielens_100k()) == ["notes", "u.data", "u.item"]


def test_process_that_comes_second_uses_what_is_there(network, cache, monkeypatch):
    first = network.download

    def race(url):
        (cache / "ml-100k").mkdir(parents=True)
        (cache / "ml-100k" / "u.item").write_text("of the first")
        return first(url)

    monkeypatch.setattr(fetch, "_download", race)
    folder = fetch.fetch_movielens_100k()
    assert names(folder) == ["u.item"]
    assert (folder / "u.item").read_text() == "of the first"
    assert names(cache) == ["ml-100k"]


def test_cache_that_cannot_be_written_is_named(network, cache):
    cache.write_text("a file, no folder")
    with pytest.raises(UserError, match="cannot be written .*set RFREC_CACHE"):
        fetch.fetch_movielens_100k()


def test_pip_only_downloads_and_only_wheels(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(
        subprocess, "run", lambda command, **kwargs: calls.append((command, kwargs))
    )
    fetch._pip_download(tmp_path)
    ((command, kwargs),) = calls
    assert command[1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "recbole==1.2.0"} <= set(command)
    assert str(tmp_path) in command
    assert kwargs["check"]
    assert kwargs["timeout"] > 0
