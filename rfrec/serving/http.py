# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The HTTP server: routes, limits and metrics.

  POST /recommend   a request, see `rfrec.serving.requests`
  GET /health       description of the artefact, as JSON
  GET /metrics      metrics for Prometheus

A refused request gets `{"error": reason}` with status 400 (malformed), 408 (the body
did not arrive in time), 413 (too large), 422 (unknown item, empty history, `k` out of
range) or 503 (the queue is full; the header Retry-After gives the delay in seconds).
"""

import asyncio
import contextlib
import dataclasses
import signal
import socket
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import prometheus_client
import uvicorn
from absl import logging
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rfrec.config import UserError
from rfrec.serving import requests
from rfrec.serving.batching import Batcher, FullError
from rfrec.serving.recommender import Recommender
from rfrec.serving.requests import Answer, Query, RefusedError


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of the server.

    Attributes:
      max_wait: Longest time in seconds that a query waits for others of its batch.
      max_queue: Maximum number of waiting queries; further ones are refused.
      max_body: Maximum size of a request in bytes.
      body_seconds: Seconds until the body of a request must have arrived.
      drain_seconds: Seconds to answer accepted requests after SIGTERM.
    """

    max_wait: float
    max_queue: int
    max_body: int
    body_seconds: float
    drain_seconds: int


class _Meters:
    """The metrics of `/metrics`."""

    def __init__(self):
        self.registry = prometheus_client.CollectorRegistry()
        self.requests = prometheus_client.Counter(
            "rfrec_requests",
            "Requests to /recommend by status.",
            ["status"],
            registry=self.registry,
        )
        self.accepted = prometheus_client.Counter(
            "rfrec_accepted",
            "Requests that were accepted for answering.",
            registry=self.registry,
        )
        self.seconds = prometheus_client.Histogram(
            "rfrec_request_seconds",
            "Seconds from a request to its response.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.search = prometheus_client.Histogram(
            "rfrec_search_seconds",
            "Seconds to search one batch.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.batch = prometheus_client.Histogram(
            "rfrec_batch_queries",
            "Number of queries in one batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self.waiting = prometheus_client.Gauge(
            "rfrec_waiting", "Number of waiting queries.", registry=self.registry
        )


class Endpoint:
    """The handlers of a web application that answers with one recommender."""

    def __init__(self, recommender: Recommender, limits: Limits):
        self._recommender, self._limits = recommender, limits
        self._meters = _Meters()
        self._batcher = Batcher(
            self._search,
            recommender.bucket,
            sizes=recommender.batch_sizes,
            max_wait=limits.max_wait,
            max_queue=limits.max_queue,
        )
        self._meters.waiting.set_function(lambda: self._batcher.waiting)

    def application(self) -> Starlette:
        """Returns the ASGI application."""
        return Starlette(
            routes=[
                Route("/recommend", self._recommend, methods=["POST"]),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
            ],
            exception_handlers={HTTPException: _refused},
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        del app
        self._batcher.start()
        try:
            yield
        finally:
            await self._batcher.close()

    def _search(self, queries: Sequence[Query]) -> list[Answer]:
        started = time.monotonic()
        answers = self._recommender.answer_batch(queries)
        self._meters.search.observe(time.monotonic() - started)
        self._meters.batch.observe(len(queries))
        return answers

    async def _recommend(self, request: Request) -> Response:
        started = time.monotonic()
        response = await self._respond(request)
        self._meters.requests.labels(str(response.status_code)).inc()
        self._meters.seconds.observe(time.monotonic() - started)
        return response

    async def _respond(self, request: Request) -> Response:
        try:
            body = await _read_body(request, self._limits)
            query = requests.parse(body, self._recommender.accepted)
            future = self._batcher.submit(query)
            self._meters.accepted.inc()
            answer = await future
        except RefusedError as error:
            return JSONResponse({"error": str(error)}, error.status)
        except FullError:
            reason = (
                f"the queue is full ({self._limits.max_queue} requests): retry later"
            )
            return JSONResponse({"error": reason}, 503, {"Retry-After": "1"})
        except Exception:
            logging.exception("a search failed")
            return JSONResponse(
                {"error": "the search failed; the log of the server has details"}, 500
            )
        content = requests.as_json(query, answer, self._recommender.item_ids)
        return JSONResponse(content)

    async def _health(self, request: Request) -> Response:
        del request
        return JSONResponse({"status": "ok"} | describe(self._recommender))

    async def _metrics(self, request: Request) -> Response:
        del request
        return Response(
            prometheus_client.generate_latest(self._meters.registry),
            media_type=prometheus_client.CONTENT_TYPE_LATEST,
        )


def describe(recommender: Recommender) -> dict[str, Any]:
    """Returns a description of the artefact as JSON values."""
    manifest = recommender.manifest
    return {
        "items": recommender.num_items,
        "max_items": recommender.accepted.max_items,
        "max_history": manifest.max_history,
        "max_k": manifest.beams,
        "task": manifest.task,
        "t5": manifest.t5._asdict(),
    }


async def _refused(request: Request, error: Exception) -> Response:
    """Responds to a request that no route accepts."""
    del request
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _read_body(request: Request, limits: Limits) -> bytes:
    """Reads the body of a request.

    Raises:
      RefusedError: The body is too large (413) or does not arrive in time (408).
    """
    too_large = RefusedError(413, f"a request has at most {limits.max_body} bytes")
    if int(request.headers.get("content-length", 0)) > limits.max_body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.max_body:
                    raise too_large
    except (TimeoutError, ClientDisconnect) as error:
        raise RefusedError(408, "the body of the request did not arrive") from error
    return bytes(body)


def bind(host: str, port: int) -> socket.socket:
    """Binds an address; clients cannot connect until the server listens.

    Raises:
      UserError: The address is in use or not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise UserError(
            f"--host={host} --port={port}: cannot be bound ({error}): use another"
        ) from error
    return bound


def run(recommender: Recommender, limits: Limits, bound: socket.socket) -> None:
    """Serves until SIGTERM or SIGINT, then answers all accepted requests.

    Args:
      recommender: Recommender whose programs are compiled.
      limits: Limits of the server.
      bound: Socket to listen on, from `bind`.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            Endpoint(recommender, limits).application(),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=limits.drain_seconds,
        )
    )
    # After draining, uvicorn raises the signal again. A handler that does nothing lets
    # the process end with exit code 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[bound])
