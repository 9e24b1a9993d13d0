# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Inputs without a vector in; a store that has one for each, or the reason, out.

The order of the inputs and the size of a batch decide who is encoded beside whom, and
with it the last bits of a vector. Batches are stored in that order and whole, so that
what a kill leaves to do falls into the batches of an uninterrupted run.
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
from rfrec.encoders.store import Store
from rfrec.train.loop import Preempted, sigterm

# Between the lines that tell of progress where there is no terminal.
_SECONDS_PER_LINE = 60.0


class Loaded(NamedTuple):
    """A batch ready for the encoder.

    Attributes:
      keys: Of the inputs that could be read.
      inputs: Of these, as the encoder takes them.
      failed: Reasons, by the keys of the others.
    """

    keys: list[bytes]
    inputs: Any
    failed: dict[bytes, str]


class _Made(NamedTuple):
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
    """Encodes what is pending and stores it.

    Args:
      store: Gets vectors and failures.
      pending: Keys, in the order of the batches.
      load: Reads the inputs of a batch; runs one batch ahead, in another thread.
      encode: Turns them into vectors.
      batch_size: Inputs of a batch, but for the last.
      seconds: After which the batches made since are stored: the most a kill loses.
      what: Names an input in the progress bar and in errors.

    Raises:
      UserError: A vector is not finite.
      Preempted: SIGTERM came; what was encoded is stored.
    """
    batches = [pending[i : i + batch_size] for i in range(0, len(pending), batch_size)]
    made: list[_Made] = []
    stored = time.monotonic()
    told, done = stored, 0
    with (
        sigterm() as stop,
        tqdm(total=len(pending), unit=what, desc="encode", disable=None) as bar,
    ):
        for batch, loaded in zip(batches, _ahead(load, batches), strict=True):
            vectors = _checked(loaded, encode, what)
            made.append(_Made(loaded.keys, vectors, loaded.failed))
            done += len(batch)
            bar.update(len(batch))
            now = time.monotonic()
            if bar.disable and now - told >= _SECONDS_PER_LINE:
                logging.info("%d of %d %ss encoded", done, len(pending), what)
                told = now
            last = done == len(pending)
            if last or stop.is_set or now - stored >= seconds:
                _store(store, made)
                made, stored = [], time.monotonic()
            if stop.is_set and not last:
                raise Preempted(
                    f"stopped by SIGTERM with {done} of {len(pending)} {what}s encoded"
                )


def _ahead(
    load: Callable[[Sequence[bytes]], Loaded], batches: Sequence[Sequence[bytes]]
) -> Iterator[Loaded]:
    """Yields loaded batches, the next one being loaded meanwhile."""
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
            f"the vector of a {what} is not finite: set config.{what}.dtype to bfloat16"
            " or float32, or copy the checkpoint again"
        )
    return vectors


def _store(store: Store, made: Sequence[_Made]) -> None:
    keys = [key for batch in made for key in batch.keys]
    failed = {key: why for batch in made for key, why in batch.failed.items()}
    filled = [batch.vectors for batch in made if batch.keys]
    vectors = np.concatenate(filled) if filled else np.zeros((0, 0), np.float32)
    store.add(keys, vectors, failed)
