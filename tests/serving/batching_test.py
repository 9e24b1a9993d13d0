# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches of concurrent queries: their sizes, their programs and their waiting time."""

import asyncio
import time

import pytest

from rfrec.serving.batching import Batcher, FullError
from rfrec.serving.requests import Answer, Query


def batches_of(names, sizes):
    """Queries `(user, program)` that come at once, as they are searched together."""
    taken = []

    def answer(queries):
        taken.append("".join(query.user for query in queries))
        return [Answer((len(query.items),), (0.0,)) for query in queries]

    async def run():
        batcher = Batcher(
            answer, lambda q: len(q.items), sizes=sizes, max_wait=0.05, max_queue=99
        )
        batcher.start()
        started = time.monotonic()
        found = await asyncio.gather(
            *(batcher.submit(Query(n, (0,) * size, 1, False)) for n, size in names)
        )
        waited = time.monotonic() - started
        await batcher.close()
        with pytest.raises(FullError):
            batcher.submit(Query("late", (0,), 1, False))
        return found, waited

    found, waited = asyncio.run(run())
    assert [answer.items[0] for answer in found] == [size for _, size in names]
    return taken, waited


def test_a_batch_is_of_one_program_and_waits_no_longer_than_it_may():
    names = [("a", 1), ("b", 2), ("c", 1), ("d", 1), ("e", 2), ("f", 1)]
    taken, waited = batches_of(names, (1, 2, 3))
    # The full batch goes at once, the others when their oldest has waited.
    assert taken == ["acd", "be", "f"]
    assert waited >= 0.04


def test_places_that_would_be_filled_up_go_to_smaller_programs():
    names = [("a", 2), ("b", 1), ("c", 2), ("d", 3), ("e", 1), ("f", 1)]
    # Two and then one need program 2 and 3; of four places the rest is for program 1.
    assert batches_of(names, (1, 4))[0] == ["acbe", "d", "f"]
    assert batches_of(names, (4,))[0] == ["acbe", "df"]


def test_closing_answers_what_waits_at_once():
    async def run():
        batcher = Batcher(
            lambda queries: [Answer((), ()) for _ in queries],
            lambda query: 0,
            sizes=(99,),
            max_wait=60,
            max_queue=99,
        )
        batcher.start()
        query = Query("u", (1,), 1, False)
        asks = [batcher.submit(query) for _ in range(5)]
        await asyncio.sleep(0.01)
        await asyncio.wait_for(batcher.close(), 10)
        return await asyncio.gather(*asks)

    assert asyncio.run(run()) == [Answer((), ())] * 5
