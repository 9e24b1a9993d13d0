# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Requests as JSON lines, answered in order from a file or a pipe."""

import contextlib
import json
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from rfrec.config import UserError
from rfrec.serving import requests
from rfrec.serving.recommender import Recommender
from rfrec.serving.requests import RefusedError


@contextlib.contextmanager
def open_lines(path: str) -> Iterator[TextIO]:
    """Opens a text file; `-` is standard input.

    Raises:
      UserError: The file cannot be opened.
    """
    if path == "-":
        yield sys.stdin
        return
    try:
        file = Path(path).expanduser().open(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--histories={path} cannot be read: {error.strerror}"
        ) from error
    with file:
        yield file


def answer_lines(
    recommender: Recommender, stream: Iterable[str], path: str
) -> Iterator[str]:
    """Yields one answer for each request of a stream, in order and without delay.

    Requests that have arrived in the meantime are answered in one batch. A program is
    compiled when the first request needs it.

    Args:
      recommender: Recommender that answers.
      stream: JSON lines, see `rfrec.serving.requests`. A request without `user` gets
        its line number as user; empty lines are skipped.
      path: Name of the stream for errors; `-` is standard input.

    Raises:
      UserError: A line is not a valid request. Earlier lines have been answered.
    """
    origin = "standard input" if path == "-" else path
    max_batch = 4 * recommender.batch_sizes[-1]
    with tqdm(unit="history", disable=None) as bar:
        for lines in _read_batches(stream, max_batch):
            queries, failure = [], None
            for number, line in lines:
                try:
                    query = requests.parse(
                        line, recommender.accepted, default_user=str(number)
                    )
                except RefusedError as error:
                    failure = UserError(f"{origin}, line {number}: {error}")
                    failure.__cause__ = error
                    break
                queries.append(query)
            answers = recommender.answer(queries)
            for query, answer in zip(queries, answers, strict=True):
                yield json.dumps(requests.as_json(query, answer, recommender.item_ids))
                bar.update()
            if failure is not None:
                raise failure


def _read_batches(
    stream: Iterable[str], max_batch: int
) -> Iterator[list[tuple[int, str]]]:
    """Yields the lines that have arrived with their numbers, at least one at a time.

    A thread reads the stream, because reading from a pipe blocks.

    Raises:
      UserError: Reading fails.
    """
    arrived: queue.Queue[tuple[int, str] | Exception | None] = queue.Queue(
        2 * max_batch
    )

    def read() -> None:
        end = None
        try:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    arrived.put((number, line))
        except (OSError, UnicodeDecodeError) as error:
            end = error
        arrived.put(end)

    threading.Thread(target=read, daemon=True).start()
    entry: tuple[int, str] | Exception | None = (0, "")
    while isinstance(entry, tuple):
        lines = []
        # This is the only reader of the queue, so `empty` cannot change to True.
        while not lines or (len(lines) < max_batch and not arrived.empty()):
            entry = arrived.get()
            if not isinstance(entry, tuple):
                break
            lines.append(entry)
        if lines:
            yield lines
    if entry is not None:
        raise UserError(f"--histories cannot be read to its end ({entry}): use UTF-8")
