# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches: whole, in order, stored as they are made, whatever interrupts them."""

import hashlib
import os
import signal

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.encoders import running
from rfrec.encoders.store import open_store
from rfrec.train.loop import Preempted

KEYS = [hashlib.sha256(bytes([n])).digest() for n in range(20)]
BAD = {KEYS[3]: "torn", KEYS[12]: "blank"}
# All of one batch.
BAD |= dict.fromkeys(KEYS[16:20], "dark")


class Interrupted(Exception):
    """What a kill leaves behind, without the kill."""


def run(folder, *, act=None, at=0, seconds=0.0):
    """Encodes what is missing; a vector shows who was in its batch."""
    store = open_store(folder, "eye")
    pending = [key for key in KEYS if not store.knows(key)]
    seen = []

    def load(batch):
        good = [key for key in batch if key not in BAD]
        failed = {key: BAD[key] for key in batch if key in BAD}
        return running.Loaded(good, good, failed)

    def encode(batch):
        seen.append(list(batch))
        if len(seen) == at and act is not None:
            act()
        mates = sum(key[0] for key in batch)
        return np.asarray([[key[1], mates] for key in batch], np.float32)

    running.encode_all(
        store, pending, load, encode, batch_size=4, seconds=seconds, what="image"
    )
    return seen


def read(folder):
    store = open_store(folder, "eye")
    out = np.zeros((len(KEYS), 2), np.float32)
    store.accumulate([key if key in store.locations else None for key in KEYS], out)
    return out.tobytes(), store.failed


def test_every_input_is_encoded_once_in_whole_batches(tmp_path):
    seen = run(tmp_path)
    assert [len(batch) for batch in seen] == [4 - 1, 4, 4, 4 - 1]
    assert sum(seen, []) == [key for key in KEYS if key not in BAD]
    assert read(tmp_path)[1] == BAD
    assert run(tmp_path) == []


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_what_was_interrupted_ends_as_if_nothing_had_been(tmp_path, at):
    def interrupt():
        raise Interrupted

    run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", act=interrupt, at=at)
    assert len(open_store(tmp_path / "cut", "eye").shards) == at - 1
    assert len(run(tmp_path / "cut")) == 4 - (at - 1)
    assert read(tmp_path / "cut") == read(tmp_path / "whole")


def test_sigterm_stores_what_was_encoded(tmp_path):
    run(tmp_path / "whole")
    with pytest.raises(Preempted, match="8 of 20 images"):
        run(
            tmp_path / "cut",
            act=lambda: os.kill(os.getpid(), signal.SIGTERM),
            at=2,
            seconds=1e9,
        )
    assert len(run(tmp_path / "cut")) == 2
    assert read(tmp_path / "cut") == read(tmp_path / "whole")


def test_vectors_are_stored_together_until_the_time_is_up(tmp_path):
    run(tmp_path, seconds=1e9)
    assert len(open_store(tmp_path, "eye").shards) == 1


def test_a_vector_that_is_not_finite_is_refused(tmp_path):
    store = open_store(tmp_path, "")
    with pytest.raises(UserError, match="config.image.dtype to bfloat16"):
        running.encode_all(
            store,
            KEYS,
            lambda batch: running.Loaded(list(batch), None, {}),
            lambda inputs: np.full((20, 2), np.nan, np.float32),
            batch_size=20,
            seconds=0.0,
            what="image",
        )
    assert store.shards == []
