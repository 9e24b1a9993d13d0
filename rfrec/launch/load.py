# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Asks a server on this machine from many clients at once, and tells how fast it was.

python -m rfrec.launch.load --url=http://127.0.0.1:8000 --histories=histories.jsonl \
  --out=load.json

Each client sends its next request when the last one is answered. The clients share
the machine with the server.
"""

import asyncio
import ipaddress
import itertools
import json
import logging
import time
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from tqdm import tqdm

from rfrec import files
from rfrec.config import UserError
from rfrec.launch import cli

# Longest a single request may take, in seconds.
_PATIENCE = 60
_COLUMNS = ("clients", "requests", "requests/s", "median ms", "p99 ms", "not answered")


class Turn(NamedTuple):
    """What some number of clients saw.

    Attributes:
      clients: At once.
      seconds: In all.
      latencies: Of the requests that were answered, in seconds.
      statuses: Number of responses of each status; 0 is no response.
    """

    clients: int
    seconds: float
    latencies: list[float]
    statuses: dict[int, int]


def main() -> None:
    """Asks with each number of clients in turn, and prints a table and JSON."""
    values = flags.FLAGS
    if not values.url or not values.histories:
        raise UserError(
            "--url=URL and --histories=FILE are needed: whom and what to ask"
        )
    check_loopback(values.url)
    clients = [int(c) for c in values.clients if c.strip().isdecimal() and int(c) > 0]
    if len(clients) != len(values.clients) or not clients:
        told = ",".join(values.clients)
        raise UserError(f"--clients={told}: must be positive integers, as 1,8,32")
    bodies = read_bodies(Path(values.histories).expanduser())
    # It tells of every request.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    turns = [
        turn(values.url, bodies, number, values.requests, values.seconds)
        for number in clients
    ]
    report = {"url": values.url, "turns": [summary(one) for one in turns]}
    for line in table(turns):
        print(line)
    if values.out:
        with files.replacing(values.out) as partial:
            partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(report))


def check_loopback(url: str) -> None:
    """Refuses to put load on another machine.

    Raises:
      UserError: The address is not of this machine.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        own = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        own, parts = False, None
    if not own or parts is None or parts.scheme not in ("http", "https"):
        raise UserError(
            f"--url={url}: load is put on this machine alone, as http://127.0.0.1:8000"
        )


def read_bodies(path: Path) -> list[bytes]:
    """Reads the requests, one a line.

    Raises:
      UserError: There is none.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(
            f"--histories={path} cannot be read: {error.strerror}"
        ) from error
    bodies = [line for line in lines if line.strip()]
    if not bodies:
        raise UserError(f"--histories={path} holds no line: give at least one request")
    return bodies


def turn(
    url: str, bodies: Sequence[bytes], clients: int, requests: int, seconds: float
) -> Turn:
    """Asks from some clients at once, so often or so long, whichever ends first.

    Args:
      url: Of the server.
      bodies: Sent in turn, again from the first where they end.
      clients: At once.
      requests: At most.
      seconds: After which no further request is sent.

    Raises:
      UserError: The package httpx is missing.
    """
    try:
        import httpx
    except ModuleNotFoundError as error:
        raise UserError("load needs the package httpx: install rfrec[serve]") from error
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    sent = itertools.islice(itertools.cycle(bodies), requests)

    async def client(session: httpx.AsyncClient, end: float, bar: tqdm) -> None:
        for body in sent:
            if time.monotonic() >= end:
                return
            started = time.monotonic()
            try:
                status = (await session.post("/recommend", content=body)).status_code
            except httpx.HTTPError:
                status = 0
            statuses[status] += 1
            if status == 200:
                latencies.append(time.monotonic() - started)
            bar.update()

    async def everyone() -> float:
        limits = httpx.Limits(max_connections=clients)
        with tqdm(total=requests, unit="request", desc=f"{clients} clients") as bar:
            async with httpx.AsyncClient(
                base_url=url, limits=limits, timeout=_PATIENCE, trust_env=False
            ) as session:
                started = time.monotonic()
                end = started + seconds
                await asyncio.gather(
                    *(client(session, end, bar) for _ in range(clients))
                )
                return time.monotonic() - started

    taken = asyncio.run(everyone())
    return Turn(clients, taken, latencies, dict(statuses))


def summary(one: Turn) -> dict[str, Any]:
    """Returns the numbers of a turn; times in milliseconds, None without an answer."""
    answered = len(one.latencies)
    middle, high = (None, None)
    if answered:
        middle, high = (np.percentile(one.latencies, (50, 99)) * 1000).tolist()
    return {
        "clients": one.clients,
        "seconds": one.seconds,
        "answered": answered,
        "requests_per_second": answered / one.seconds,
        "median_ms": middle,
        "p99_ms": high,
        "statuses": {str(status): n for status, n in sorted(one.statuses.items())},
    }


def table(turns: Sequence[Turn]) -> list[str]:
    """Returns the lines of a table of turns."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for one in turns:
        told = summary(one)
        times = [told["median_ms"], told["p99_ms"]]
        rows.append(
            (
                *(str(one.clients), str(sum(one.statuses.values()))),
                f"{told['requests_per_second']:.1f}",
                *("-" if t is None else f"{t:.1f}" for t in times),
                str(sum(one.statuses.values()) - told["answered"]),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True))
        for row in rows
    ]


def _define_flags() -> None:
    flags.DEFINE_string("url", None, "Of the server, on this machine.")
    flags.DEFINE_string("histories", None, "JSON lines, each a request.")
    flags.DEFINE_list("clients", ["1", "8", "32"], "Numbers of clients, in turn.")
    flags.DEFINE_integer("requests", 512, "Most requests of a turn.", lower_bound=1)
    flags.DEFINE_float("seconds", 30, "Longest that a turn sends.", lower_bound=0)
    flags.DEFINE_string("out", None, "File of the numbers as JSON; none prints them.")


if __name__ == "__main__":
    _define_flags()
    cli.flags_main(main)
