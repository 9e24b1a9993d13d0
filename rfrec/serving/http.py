# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The HTTP endpoint: requests in, answers, refusals and metrics out.

  POST /recommend   a request of `serve_requests`, answered or refused
  GET /health       what is served, as JSON
  GET /metrics      for Prometheus

A refusal is `{"error": reason}` with 400 (no such request), 408 (its body does not
come), 413 (too large), 422 (unknown item, empty history, k out of range) or 503 (as
many wait as may; Retry-After tells when to come again).
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

from rfrec.serving import requests
from rfrec.serving.batching import Batcher, FullError
from rfrec.serving.recommender import Answer, Query, Recommender
from rfrec.serving.requests import RefusedError


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the endpoint takes.

    Attributes:
      max_wait: Seconds that a query waits for others.
      max_queue: Queries that wait; more are refused.
      max_body: Bytes of a request.
      body_seconds: For a request to come in.
      drain_seconds: For what was accepted to be answered after SIGTERM.
    """

    max_wait: float
    max_queue: int
    max_body: int
    body_seconds: float
    drain_seconds: int


class _Meters:
    """What /metrics tells."""

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
            "Requests that are answered, or will be.",
            registry=self.registry,
        )
        self.seconds = prometheus_client.Histogram(
            "rfrec_request_seconds",
            "From a request to its answer.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.search = prometheus_client.Histogram(
            "rfrec_search_seconds",
            "Of one batch.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.batch = prometheus_client.Histogram(
            "rfrec_batch_queries",
            "Queries of one search.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self.waiting = prometheus_client.Gauge(
            "rfrec_waiting", "Queries that wait.", registry=self.registry
        )


class Endpoint:
    """Answers the requests of an application."""

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
        """Returns the application."""
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
            query = requests.parse(body, self._recommender)
            coming = self._batcher.ask(query)
            self._meters.accepted.inc()
            answer = await coming
        except RefusedError as error:
            return JSONResponse({"error": str(error)}, error.status)
        except FullError:
            reason = f"{self._limits.max_queue} requests wait already: come again"
            return JSONResponse({"error": reason}, 503, {"Retry-After": "1"})
        except Exception:
            logging.exception("a search failed")
            return JSONResponse({"error": "the search failed, see the log"}, 500)
        return JSONResponse(requests.as_json(query.user, answer, self._recommender))

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
    """Tells what is served."""
    manifest = recommender.manifest
    return {
        "items": len(recommender.names),
        "max_items": recommender.max_items,
        "max_history": manifest.max_history,
        "max_k": manifest.beams,
        "task": manifest.task,
        "t5": manifest.t5._asdict(),
    }


async def _refused(request: Request, error: Exception) -> Response:
    """Answers what no route takes."""
    del request
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _read_body(request: Request, limits: Limits) -> bytes:
    """Reads a body as far as it may go.

    Raises:
      RefusedError: It is too large, or does not come.
    """
    too_large = RefusedError(413, f"a request has {limits.max_body} bytes at most")
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
        raise RefusedError(408, "the body of the request did not come") from error
    return bytes(body)


def run(recommender: Recommender, limits: Limits, bound: socket.socket) -> None:
    """Serves until SIGTERM or SIGINT, and answers all that was accepted.

    Args:
      recommender: Compiled.
      limits: Of the endpoint.
      bound: Socket to listen on.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            Endpoint(recommender, limits).application(),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=limits.drain_seconds,
        )
    )
    # The server raises the signal again once it has drained: to end with 0, it must
    # find a handler that lets it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[bound])
