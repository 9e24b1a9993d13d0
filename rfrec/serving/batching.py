# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Single queries in, their answers out, searched together with others that wait.

The oldest query chooses the program. The queries that need the same one go with it; it
waits a little for them if they are few. Programs take batches of a few sizes: places
that would be filled up go to waiting queries of smaller programs. One search runs at a
time, in a thread of its own, so that requests are read and refused meanwhile.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from rfrec.serving.recommender import Answer, Query


class FullError(Exception):
    """As many queries wait as may."""


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
        """Makes a batcher; nothing is answered before `start`.

        Args:
          answer: Searches by the largest program that a query needs; called in one
            thread.
          program: Returns the program that a query needs; a larger one does as well.
          sizes: Of batches, ascending.
          max_wait: Seconds that the oldest query waits for others.
          max_queue: Most queries that wait, beside those that are searched.
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
        """Queries that wait."""
        return len(self._waiting)

    def start(self) -> None:
        """Begins to answer, on the running event loop."""
        self._task = asyncio.create_task(self._work())

    def ask(self, query: Query) -> asyncio.Future[Answer]:
        """Accepts a query; what is returned will be its answer.

        Raises:
          FullError: Too many wait, or no more are taken.
        """
        if self._closing or len(self._waiting) >= self._max_queue:
            raise FullError
        loop = asyncio.get_running_loop()
        one = _Waiting(query, self._program(query), loop.create_future(), loop.time())
        self._waiting.append(one)
        self._changed.set()
        return one.future

    async def close(self) -> None:
        """Answers what waits, and ends."""
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
                await self._change()
            chosen = await self._collect()
            queries = [one.query for one in chosen]
            try:
                answers = await loop.run_in_executor(
                    self._thread, self._answer, queries
                )
            # Whoever asked is told; the next batch may well be answered.
            except Exception as error:
                for one in chosen:
                    _settle(one, error)
                continue
            for one, answer in zip(chosen, answers, strict=True):
                _settle(one, answer)

    async def _collect(self) -> list[_Waiting]:
        """Takes the next batch out of the queue."""
        oldest, most = self._waiting[0], self._sizes[-1]
        try:
            async with asyncio.timeout_at(oldest.since + self._max_wait):
                while not self._closing and len(self._like(oldest)) < most:
                    await self._change()
        except TimeoutError:
            pass
        chosen = self._like(oldest)[:most]
        size = next(size for size in self._sizes if size >= len(chosen))
        smaller = [one for one in self._waiting if one.program < oldest.program]
        chosen += smaller[: size - len(chosen)]
        taken = set(map(id, chosen))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return chosen

    def _like(self, oldest: _Waiting) -> list[_Waiting]:
        return [one for one in self._waiting if one.program == oldest.program]

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _settle(one: _Waiting, result: Answer | Exception) -> None:
    # A future is done already where whoever asked has gone.
    if one.future.done():
        return
    if isinstance(result, Exception):
        one.future.set_exception(result)
    else:
        one.future.set_result(result)
