# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The store gives back what it got, forgets what it should, and names damage."""

import hashlib

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.encoders.store import open_store


def key(name):
    return hashlib.sha256(name.encode()).digest()


def vectors(*rows):
    return np.asarray(rows, np.float32)


@pytest.fixture
def filled(tmp_path):
    store = open_store(tmp_path / "cache", "eye 1")
    store.add([key("a"), key("b")], vectors([1, 2], [3, 4]), {key("x"): "torn"})
    store.add([key("c")], vectors([5, 6]), {})
    store.add([], np.zeros((0, 0), np.float32), {key("y"): "blank"})
    return store


@pytest.mark.parametrize("again", [False, True])
def test_each_item_gets_the_vector_of_its_key(filled, again):
    store = open_store(filled.folder, "eye 1") if again else filled
    out = np.zeros((5, 2), np.float32)
    store.accumulate([key("c"), None, key("a"), key("c"), key("b")], out)
    np.testing.assert_array_equal(out, [[5, 6], [0, 0], [1, 2], [5, 6], [3, 4]])
    store.accumulate([key("a"), key("b"), None, None, None], out)
    np.testing.assert_array_equal(out[:3], [[6, 8], [3, 4], [1, 2]])
    assert store.failed == {key("x"): "torn", key("y"): "blank"}
    assert store.width == 2
    assert [store.knows(key(name)) for name in "abcxyz"] == [True] * 5 + [False]


def test_another_reader_may_read_what_one_could_not(filled):
    store = open_store(filled.folder, "eye 2")
    assert store.failed == {}
    assert store.knows(key("a"))


def test_a_file_left_by_a_kill_is_no_shard(filled):
    (filled.folder / ".half.123.tmp.safetensors").write_bytes(b"half")
    assert len(open_store(filled.folder, "eye 1").locations) == 3


def test_damage_is_one_line_with_the_remedy(filled):
    shard = filled.shards[0]
    whole = shard.read_bytes()
    for size in (0, 4, 20, len(whole) - 1):
        shard.write_bytes(whole[:size])
        with pytest.raises(UserError, match=f"{shard.name}: is damaged .*remove it"):
            open_store(filled.folder, "eye 1")
    shard.unlink()
    assert not open_store(filled.folder, "eye 1").knows(key("a"))


def test_vectors_of_two_widths_are_refused(filled):
    with pytest.raises(UserError, match=r"width 3, but other .* width 2; rem"):
        filled.add([key("d")], vectors([1, 2, 3]), {})


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be created"):
        open_store(tmp_path / "file" / "cache", "")
