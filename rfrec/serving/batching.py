# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Batching of concurrent queries: queries that wait are searched together.

The oldest waiting query determines the program of the next batch. The batch consists of
the queries that need the same program; a small batch waits a short time for more of
them. Programs exist for a few batch sizes, and rows that would be padding are filled
with waiting queries of smaller programs. One search runs at a time, in its own thread,
so that requests are read and refused meanwhile.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from rfrec.serving.requests import Answer, Query


class FullError(Exception):
    """The queue is full or closed."""


class _Waiting(NamedTuple):
    query: Query
    program: int
    future: asyncio.Future[Answer]
    since: float


class Batcher:
    """Collects queries of an event loop into batches."""

    def __init__(
        self,
        answer: Callable[[Sequence[Query]], list[Answer]],
        program: Callable[[Query], int],
        *,
        sizes: Sequence[int],
        max_wait: float,
        max_queue: int,
    ):
        """Creates a batcher, which answers after `start`.

        Args:
          answer: Function that answers a batch with the largest program that one of
            its queries needs; always called in the same thread.
          program: Function that returns the number of the program that a query needs;
            a program with a larger number can answer the query, too.
          sizes: Batch sizes, ascending.
          max_wait: Longest time in seconds that the oldest query waits for others.
          max_queue: Maximum number of waiting queries, excluding the current batch.
        """
        self._answer, self._program = answer, program
        self._sizes, self._max_wait = tuple(sizes), max_wait
        self._max_queue = max_queue
        self._waiting: list[_Waiting] = []
        self._changed = asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(1)
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """The number of waiting queries."""
        return len(self._waiting)

    def start(self) -> None:
        """Starts answering, on the running event loop."""
        self._task = asyncio.create_task(self._work())

    def submit(self, query: Query) -> asyncio.Future[Answer]:
        """Accepts a query and returns the future of its answer.

        Raises:
          FullError: The queue is full, or the batcher is closing.
        """
        if self._closing or len(self._waiting) >= self._max_queue:
            raise FullError
        loop = asyncio.get_running_loop()
        entry = _Waiting(query, self._program(query), loop.create_future(), loop.time())
        self._waiting.append(entry)
        self._changed.set()
        return entry.future

    async def close(self) -> None:
        """Answers the waiting queries, then stops."""
        self._closing = True
        self._changed.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._waiting:
                if self._closing:
                    return
                await self._wait_for_change()
            chosen = await self._collect()
            queries = [entry.query for entry in chosen]
            try:
                answers = await loop.run_in_executor(
                    self._thread, self._answer, queries
                )
            # The queries of this batch fail; the next batch may succeed.
            except Exception as error:
                for entry in chosen:
                    _settle(entry, error)
                continue
            for entry, answer in zip(chosen, answers, strict=True):
                _settle(entry, answer)

    async def _collect(self) -> list[_Waiting]:
        """Waits for the next batch and removes it from the queue."""
        oldest, most = self._waiting[0], self._sizes[-1]
        try:
            async with asyncio.timeout_at(oldest.since + self._max_wait):
                while not self._closing and len(self._like(oldest)) < most:
                    await self._wait_for_change()
        except TimeoutError:
            pass
        chosen = self._like(oldest)[:most]
        size = next(size for size in self._sizes if size >= len(chosen))
        smaller = [entry for entry in self._waiting if entry.program < oldest.program]
        chosen += smaller[: size - len(chosen)]
        taken = set(map(id, chosen))
        self._waiting = [entry for entry in self._waiting if id(entry) not in taken]
        return chosen

    def _like(self, oldest: _Waiting) -> list[_Waiting]:
        return [entry for entry in self._waiting if entry.program == oldest.program]

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _settle(entry: _Waiting, result: Answer | Exception) -> None:
    # The future is cancelled if the client has disconnected.
    if entry.future.done():
        return
    if isinstance(result, Exception):
        entry.future.set_exception(result)
    else:
        entry.future.set_result(result)
