# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers histories by an exported search, over HTTP or line by line.

python -m rfrec.launch.serve --artefact=artefacts/instruments
python -m rfrec.launch.serve --artefact=artefacts/instruments --histories=- \
  < histories.jsonl > answers.jsonl

It needs the folder that rfrec.launch.export made and nothing else of the run: no
config, no checkpoint, no code of the model.
"""

import contextlib
import json
import queue
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from absl import flags, logging
from tqdm import tqdm

from rfrec.codes import catalogue
from rfrec.config import UserError
from rfrec.launch import cli
from rfrec.serving import artefact, requests
from rfrec.serving.recommender import Query, Recommender
from rfrec.serving.requests import RefusedError


def main() -> None:
    """Loads an artefact, compiles its programs, and answers."""
    values = flags.FLAGS
    if not values.artefact:
        raise UserError("--artefact=FOLDER is needed: what rfrec.launch.export made")
    sizes = batch_sizes(values.batch_sizes)
    # What is wrong with a place is told before anything is compiled.
    if values.histories is not None:
        with _opened(values.histories) as stream:
            for line in answer_lines(load(sizes), stream, values.histories):
                print(line, flush=True)
        return
    http = _http()
    with bind(values.host, values.port) as bound:
        recommender = load(sizes)
        compile_all(recommender)
        host, port = bound.getsockname()[:2]
        logging.info("http://%s:%d answers POST /recommend", host, port)
        limits = http.Limits(
            max_wait=values.max_wait_ms / 1000,
            max_queue=values.max_queue,
            max_body=values.max_body,
            body_seconds=values.body_seconds,
            drain_seconds=values.drain_seconds,
        )
        http.run(recommender, limits, bound)
    logging.info("all that was accepted is answered")


def batch_sizes(given: Iterable[str]) -> tuple[int, ...]:
    """Reads `--batch_sizes`.

    Raises:
      UserError: They are no ascending positive integers.
    """
    told = ",".join(given)
    sizes = [int(size) for size in given if size.strip().isdecimal()]
    if ",".join(map(str, sizes)) != told or sizes != sorted(set(sizes)) or not sizes:
        raise UserError(f"--batch_sizes={told}: must be ascending integers, as 1,4,16")
    if sizes[0] < 1:
        raise UserError(f"--batch_sizes={told}: a batch has one history at least")
    return tuple(sizes)


def load(sizes: tuple[int, ...]) -> Recommender:
    """Loads what the flags name.

    Raises:
      UserError: The artefact or the catalogue is damaged, or they do not fit.
    """
    values = flags.FLAGS
    grown = None
    if values.catalogue:
        grown = catalogue.load(Path(values.catalogue).expanduser())
    return Recommender(
        artefact.read(Path(values.artefact).expanduser()),
        batch_sizes=sizes,
        max_items=values.max_items,
        grown=grown,
        origin=values.catalogue or "",
    )


def compile_all(recommender: Recommender) -> None:
    """Compiles every program, so that no request waits for it."""
    for slots, size in tqdm(recommender.programs(), unit="program", desc="compiling"):
        recommender.compile(slots, size)


def _http():
    """Imports the endpoint, whose packages are optional."""
    try:
        from rfrec.serving import http as serve_http
    except ModuleNotFoundError as error:
        raise UserError(
            f"the endpoint needs the package {error.name}: install rfrec[serve], or"
            " answer lines by --histories=FILE"
        ) from error
    return serve_http


def bind(host: str, port: int) -> socket.socket:
    """Takes an address; nothing can connect before the server listens.

    Raises:
      UserError: It cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise UserError(
            f"--host={host} --port={port}: cannot be bound ({error}): name another"
        ) from error
    return bound


@contextlib.contextmanager
def _opened(place: str) -> Iterator[TextIO]:
    if place == "-":
        yield sys.stdin
        return
    try:
        file = Path(place).expanduser().open(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--histories={place} cannot be read: {error.strerror}"
        ) from error
    with file:
        yield file


def answer_lines(
    recommender: Recommender, stream: Iterable[str], place: str
) -> Iterator[str]:
    """Yields a line for each line of a stream, in order, as soon as it can.

    Lines that have come meanwhile are answered together. A program is compiled when it
    is first needed.

    Args:
      recommender: To ask.
      stream: JSON lines, see `serve_requests`; where `user` is missing, it is the
        number of the line.
      place: Of the stream, for errors.

    Raises:
      UserError: A line is no request; told once those before it are answered.
    """
    origin = "standard input" if place == "-" else place
    most = 4 * recommender.batch_sizes[-1]
    with tqdm(unit="history", disable=None) as bar:
        for lines in _batches(stream, most):
            queries, refused = [], None
            for number, line in lines:
                try:
                    queries.append(_query(line, number, recommender))
                except RefusedError as error:
                    refused = UserError(f"{origin}, line {number}: {error}")
                    refused.__cause__ = error
                    break
            answers = recommender.answer(queries)
            for query, answer in zip(queries, answers, strict=True):
                yield json.dumps(requests.as_json(query.user, answer, recommender))
                bar.update()
            if refused is not None:
                raise refused


def _query(line: str, number: int, recommender: Recommender) -> Query:
    query = requests.parse(line, recommender)
    return query if query.user else query._replace(user=str(number))


def _batches(stream: Iterable[str], most: int) -> Iterator[list[tuple[int, str]]]:
    """Yields the lines that have come, with their numbers, at least one at a time.

    Raises:
      UserError: The stream cannot be read on.
    """
    waiting: queue.Queue[tuple[int, str] | Exception | None] = queue.Queue(2 * most)

    def read() -> None:
        end = None
        try:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    waiting.put((number, line))
        except (OSError, UnicodeDecodeError) as error:
            end = error
        waiting.put(end)

    threading.Thread(target=read, daemon=True).start()
    end: tuple[int, str] | Exception | None = (0, "")
    while isinstance(end, tuple):
        lines = []
        # Nobody else takes from the queue.
        while not lines or (len(lines) < most and not waiting.empty()):
            end = waiting.get()
            if not isinstance(end, tuple):
                break
            lines.append(end)
        if lines:
            yield lines
    if end is not None:
        raise UserError(f"--histories cannot be read on ({end}): give UTF-8 text")


def _define_flags() -> None:
    flags.DEFINE_string("artefact", None, "Folder that rfrec.launch.export made.")
    flags.DEFINE_string(
        "catalogue", None, "Grown catalogue in place of the artefact's."
    )
    flags.DEFINE_string(
        "histories", None, "JSON lines to answer instead; - reads standard input."
    )
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on.")
    flags.DEFINE_integer("port", 8000, "Port; 0 takes a free one.", lower_bound=0)
    flags.DEFINE_list(
        "batch_sizes", ["1", "4", "16"], "Sizes that programs are compiled for."
    )
    flags.DEFINE_float(
        "max_wait_ms", 3, "Milliseconds that a request waits for others.", lower_bound=0
    )
    flags.DEFINE_integer("max_queue", 256, "Requests that may wait.", lower_bound=1)
    flags.DEFINE_integer(
        "max_items", 256, "Items of a history; the model is told the latest.", 1
    )
    flags.DEFINE_integer("max_body", 65_536, "Bytes of a request.", lower_bound=1)
    flags.DEFINE_float("body_seconds", 10, "For a request to come in.", lower_bound=0)
    flags.DEFINE_integer(
        "drain_seconds", 60, "For accepted requests after SIGTERM.", lower_bound=1
    )


if __name__ == "__main__":
    _define_flags()
    cli.flags_main(main)
