# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Encodes inputs in batches and stores their vectors; a run can be interrupted.

The order of the inputs and the batch size decide which inputs share a batch, and
thereby the last bits of a vector. Batches are stored whole and in order, so that a
resumed run forms the same batches as an uninterrupted one.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float32
from tqdm import tqdm

from rfrec.config import UserError
from rfrec.encoders.folder import Folder
from rfrec.encoders.store import Store
from rfrec.train.loop import Preempted, sigterm

# Interval of the log lines that report progress where there is no terminal.
_SECONDS_PER_LINE = 60.0


class Loaded(NamedTuple):
    """A batch ready for the encoder.

    Attributes:
      keys: Keys of the inputs that could be read.
      inputs: These inputs, in the form that the encoder takes.
      failed: Reasons why the others could not be read, by key.
    """

    keys: list[bytes]
    inputs: Any
    failed: dict[bytes, str]


class Encoded(NamedTuple):
    """The vectors of all items.

    Attributes:
      folder: Checkpoint of the encoder.
      identity: SHA-256 of the encoder's files.
      settings: Settings on which the vectors depend, `normalise` among them.
      store: Store of the vectors.
      keys: Keys of the vectors of each item, which are averaged.
      reasons: Reason why an item has no vector, by row.
      new: Number of vectors that were not in the store before.
    """

    folder: Folder
    identity: str
    settings: dict[str, Any]
    store: Store
    keys: list[tuple[bytes, ...]]
    reasons: dict[int, str]
    new: int


class _Batch(NamedTuple):
    """An encoded batch, without its inputs, which are large."""

    keys: list[bytes]
    vectors: Float32[np.ndarray, "B D"]
    failed: dict[bytes, str]


def encode_all(
    store: Store,
    pending: Sequence[bytes],
    load: Callable[[Sequence[bytes]], Loaded],
    encode: Callable[[Any], Float32[np.ndarray, "B D"]],
    *,
    batch_size: int,
    seconds: float,
    what: str,
) -> None:
    """Encodes pending inputs and stores their vectors.

    Args:
      store: Store to which vectors and failures are added.
      pending: Keys of the inputs, in the order of the batches.
      load: Reads the inputs of a batch; runs one batch ahead, in another thread.
      encode: Returns the vectors of a batch of inputs.
      batch_size: Number of inputs in a batch; the last batch may be smaller.
      seconds: Interval at which encoded batches are stored: the most work that is lost
        if the process is killed.
      what: Kind of input, for the progress bar and error messages.

    Raises:
      UserError: A vector is not finite.
      Preempted: The process received SIGTERM; encoded batches are stored.
    """
    batches = [pending[i : i + batch_size] for i in range(0, len(pending), batch_size)]
    encoded: list[_Batch] = []
    stored = time.monotonic()
    reported, done = stored, 0
    with (
        sigterm() as stop,
        tqdm(total=len(pending), unit=what, desc="encode", disable=None) as bar,
    ):
        for batch, loaded in zip(batches, _ahead(load, batches), strict=True):
            vectors = _checked(loaded, encode, what)
            encoded.append(_Batch(loaded.keys, vectors, loaded.failed))
            done += len(batch)
            bar.update(len(batch))
            now = time.monotonic()
            if bar.disable and now - reported >= _SECONDS_PER_LINE:
                logging.info("%d of %d %ss encoded", done, len(pending), what)
                reported = now
            last = done == len(pending)
            if last or stop.is_set or now - stored >= seconds:
                _store(store, encoded)
                encoded, stored = [], time.monotonic()
            if stop.is_set and not last:
                raise Preempted(
                    f"stopped by SIGTERM with {done} of {len(pending)} {what}s encoded"
                )


def _ahead(
    load: Callable[[Sequence[bytes]], Loaded], batches: Sequence[Sequence[bytes]]
) -> Iterator[Loaded]:
    """Yields loaded batches while the next one is being loaded."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(load, batches[0]) if batches else None
        for batch in [*batches[1:], None]:
            current = following
            if current is None:
                return
            following = None if batch is None else pool.submit(load, batch)
            yield current.result()


def _checked(
    loaded: Loaded, encode: Callable[[Any], Float32[np.ndarray, "B D"]], what: str
) -> Float32[np.ndarray, "B D"]:
    if not loaded.keys:
        return np.zeros((0, 0), np.float32)
    vectors = encode(loaded.inputs)
    if not np.isfinite(vectors).all():
        raise UserError(
            f"the vector of a {what} is not finite; set config.{what}.dtype to bfloat16"
            " or float32, or copy the checkpoint again"
        )
    return vectors


def _store(store: Store, batches: Sequence[_Batch]) -> None:
    keys = [key for batch in batches for key in batch.keys]
    failed = {key: why for batch in batches for key, why in batch.failed.items()}
    filled = [batch.vectors for batch in batches if batch.keys]
    vectors = np.concatenate(filled) if filled else np.zeros((0, 0), np.float32)
    store.add(keys, vectors, failed)
