# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A load generator: many clients that send requests to a server on this machine.

Each client sends its next request when its last one has been answered.
"""

import asyncio
import ipaddress
import itertools
import logging
import time
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from rfrec.config import UserError

# Longest time that one request may take, in seconds.
_TIMEOUT = 60
_COLUMNS = ("clients", "requests", "requests/s", "median ms", "p99 ms", "not answered")


class Measurement(NamedTuple):
    """What a number of concurrent clients observed.

    Attributes:
      clients: Number of concurrent clients.
      seconds: Duration of the measurement.
      latencies: Seconds from request to response, of requests with status 200.
      statuses: Number of responses by HTTP status; 0 stands for no response.
    """

    clients: int
    seconds: float
    latencies: list[float]
    statuses: dict[int, int]


def check_loopback(url: str) -> None:
    """Refuses to put load on another machine.

    Raises:
      UserError: The URL does not name a loopback address.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
        local = local and parts.scheme in ("http", "https")
    except ValueError:
        local = False
    if not local:
        raise UserError(
            f"--url={url}: only this machine may be loaded, as in http://127.0.0.1:8000"
        )


def read_requests(path: Path) -> list[bytes]:
    """Reads request bodies, one on each line.

    Raises:
      UserError: The file cannot be read or is empty.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(
            f"--histories={path} cannot be read: {error.strerror}"
        ) from error
    bodies = [line for line in lines if line.strip()]
    if not bodies:
        raise UserError(f"--histories={path} is empty: write one request on each line")
    return bodies


def measure(
    url: str, bodies: Sequence[bytes], clients: int, requests: int, seconds: float
) -> Measurement:
    """Sends requests from concurrent clients until the number or the time is reached.

    Args:
      url: URL of the server.
      bodies: Request bodies, sent in order and repeated from the first.
      clients: Number of concurrent clients.
      requests: Maximum number of requests.
      seconds: Time after which no further request is sent.

    Raises:
      UserError: The package httpx is not installed.
    """
    try:
        import httpx
    except ModuleNotFoundError as error:
        raise UserError("load needs the package httpx: install rfrec[serve]") from error
    # By default, httpx logs every request.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    queue = itertools.islice(itertools.cycle(bodies), requests)

    async def run_client(session: httpx.AsyncClient, end: float, bar: tqdm) -> None:
        for body in queue:
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

    async def run_all() -> float:
        limits = httpx.Limits(max_connections=clients)
        with tqdm(total=requests, unit="request", desc=f"{clients} clients") as bar:
            async with httpx.AsyncClient(
                base_url=url, limits=limits, timeout=_TIMEOUT, trust_env=False
            ) as session:
                started = time.monotonic()
                end = started + seconds
                await asyncio.gather(
                    *(run_client(session, end, bar) for _ in range(clients))
                )
                return time.monotonic() - started

    duration = asyncio.run(run_all())
    return Measurement(clients, duration, latencies, dict(statuses))


def summarise(measurement: Measurement) -> dict[str, Any]:
    """Returns the figures of a measurement as JSON values.

    Latencies are in milliseconds; they are None if no request was answered.
    """
    answered = len(measurement.latencies)
    median, p99 = None, None
    if answered:
        median, p99 = (np.percentile(measurement.latencies, (50, 99)) * 1000).tolist()
    statuses = sorted(measurement.statuses.items())
    return {
        "clients": measurement.clients,
        "seconds": measurement.seconds,
        "answered": answered,
        "requests_per_second": answered / measurement.seconds,
        "median_ms": median,
        "p99_ms": p99,
        "statuses": {str(status): count for status, count in statuses},
    }


def format_table(measurements: Sequence[Measurement]) -> list[str]:
    """Returns the lines of a table with one row for each measurement."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for measurement in measurements:
        summary = summarise(measurement)
        times = [summary["median_ms"], summary["p99_ms"]]
        sent = sum(measurement.statuses.values())
        rows.append(
            (
                *(str(measurement.clients), str(sent)),
                f"{summary['requests_per_second']:.1f}",
                *("-" if t is None else f"{t:.1f}" for t in times),
                str(sent - summary["answered"]),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True))
        for row in rows
    ]
