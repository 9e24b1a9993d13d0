# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The HTTP server: answers, batches, refusals and metrics, without a network."""

import asyncio
import dataclasses
import json
import re
import socket
import threading

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.serving.recommender import Recommender
from rfrec.serving.requests import Query
from tests.support.served import draw_histories

REASON = "the HTTP server needs rfrec[serve]"
httpx = pytest.importorskip("httpx", reason=REASON)
pytest.importorskip("prometheus_client", reason=REASON)
pytest.importorskip("uvicorn", reason=REASON)
pytest.importorskip("starlette", reason=REASON)

from rfrec.serving import http  # noqa: E402

LIMITS = http.Limits(
    max_wait=0.005,
    max_queue=64,
    max_body=2000,
    body_seconds=1,
    drain_seconds=30,
)


def ask_app(recommender, limits, use):
    """Runs `use(client)` against the application, without a network."""
    app = http.Endpoint(recommender, limits).application()

    async def run():
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://rfrec") as client,
        ):
            return await use(client)

    return asyncio.run(run())


def test_concurrent_clients_get_the_answers_of_their_own_history(recommender):
    given = [
        {"user": f"u{i}", "items": items, "k": 1 + i % 12, "filter_seen": i % 3 == 0}
        for i, items in enumerate(draw_histories(48))
    ]

    async def use(client):
        posts = (client.post("/recommend", json=body) for body in given)
        responses = await asyncio.gather(*posts)
        return responses, (await client.get("/metrics")).text

    responses, metrics = ask_app(recommender, LIMITS, use)
    lists = set()
    for body, response in zip(given, responses, strict=True):
        assert response.status_code == 200, response.text
        answer = response.json()
        assert answer["user"] == body["user"]
        query = Query("", tuple(body["items"]), body["k"], body["filter_seen"])
        wanted = recommender.answer([query])[0]
        assert answer["items"] == list(wanted.items)
        np.testing.assert_allclose(answer["scores"], wanted.scores, rtol=1e-5)
        assert len(answer["items"]) == body["k"]
        if body["filter_seen"]:
            assert not set(answer["items"]) & set(body["items"])
        lists.add(tuple(answer["items"]))
    # The histories do not all have one answer.
    assert len(lists) > 24
    assert 'rfrec_requests_total{status="200"} 48.0' in metrics
    # Those that waited together were searched together.
    searches = float(re.findall(r"\nrfrec_batch_queries_count (\S+)", metrics)[0])
    assert 12 <= searches <= 24
    assert "rfrec_batch_queries_sum 48.0" in metrics


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "the request is not JSON"),
        (b"\xff", 400, "the request is not JSON"),
        (b"[" * 1500, 400, "the request is not JSON"),
        (b"", 400, "the request is not JSON"),
        (b"[1]", 400, "a request is an object"),
        (b"{}", 400, "a request is an object"),
        ({"items": [1], "top_k": 3}, 400, "unknown key 'top_k': use items, user, k"),
        ({"items": "1"}, 400, "items must be a list"),
        ({"items": []}, 422, "items is empty"),
        ({"items": [1, "900"]}, 422, "item '900' is not one of the 50 items"),
        ({"items": [-1]}, 422, "item -1 is not one of the 50 items"),
        ({"items": [True]}, 400, "item True: must be a name or a number"),
        ({"items": [1.0]}, 400, "item 1.0: must be a name or a number"),
        ({"items": [None]}, 400, "item None: must be a name or a number"),
        ({"items": ["x" * 900]}, 422, "is not one of the 50 items"),
        ({"items": [1] * 33}, 422, "33 items are too many: send only the latest 32"),
        ({"items": [1], "k": 0}, 422, "k=0: must be from 1 to 12"),
        ({"items": [1], "k": 13}, 422, "k=13: must be from 1 to 12"),
        ({"items": [1], "k": 2.5}, 400, "k=2.5: must be an integer"),
        ({"items": [1], "k": True}, 400, "k=True: must be an integer"),
        ({"items": [1], "filter_seen": 1}, 400, "filter_seen=1: must be true or"),
        ({"items": [1], "user": 5}, 400, "user=5: must be a string"),
        (b" " * 2001, 413, "a request has at most 2000 bytes"),
    ],
)
def test_bad_input_is_refused_with_a_reason(recommender, body, status, told):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def use(client):
        return await client.post("/recommend", content=content)

    response = ask_app(recommender, LIMITS, use)
    assert response.status_code == status
    assert told in response.json()["error"]
    assert len(response.text) < 300


def test_a_large_body_is_refused_though_its_length_is_not_told(recommender):
    sent = []

    async def body():
        for _ in range(1000):
            sent.append(1)
            yield b" " * 100

    async def use(client):
        return await client.post("/recommend", content=body())

    assert ask_app(recommender, LIMITS, use).status_code == 413
    assert len(sent) < 100


def test_other_paths_and_methods(recommender):
    async def use(client):
        return (
            await client.get("/recommend"),
            await client.get("/nothing"),
            await client.get("/health"),
        )

    wrong, nothing, health = ask_app(recommender, LIMITS, use)
    assert (wrong.status_code, wrong.json()) == (405, {"error": "Method Not Allowed"})
    assert (nothing.status_code, nothing.json()) == (404, {"error": "Not Found"})
    told = health.json()
    assert (health.status_code, told["status"], told["items"]) == (200, "ok", 50)
    assert (told["max_k"], told["max_items"], told["t5"]["step"]) == (12, 32, 4)


class Slow(Recommender):
    """A recommender whose searches last until they are let go."""

    def __init__(self, real):
        vars(self).update(vars(real))
        self.go, self.sizes = threading.Event(), []

    def answer_batch(self, queries):
        self.sizes.append(len(queries))
        self.go.wait(20)
        return super().answer_batch(queries)


def test_a_full_queue_is_refused_and_all_others_answered(recommender):
    slow = Slow(recommender)
    limits = dataclasses.replace(LIMITS, max_queue=6)

    async def use(client):
        def post(item):
            asks = client.post("/recommend", json={"items": [1, item]})
            return asyncio.create_task(asks)

        # Four are searched, six wait, six are refused.
        posts = [post(i) for i in range(4)]
        while slow.sizes != [4]:
            await asyncio.sleep(0.01)
        posts += [post(i) for i in range(4, 16)]
        while sum(post.done() for post in posts) < 6:
            await asyncio.sleep(0.01)
        refused = [post.result() for post in posts if post.done()]
        metrics = (await client.get("/metrics")).text
        slow.go.set()
        return refused, await asyncio.gather(*posts), metrics

    refused, responses, metrics = ask_app(slow, limits, use)
    assert "rfrec_waiting 6.0" in metrics
    for response in refused:
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert "the queue is full (6 requests)" in response.json()["error"]
    assert sorted(r.status_code for r in responses) == [200] * 10 + [503] * 6
    assert slow.sizes == [4, 4, 2]


def test_a_search_that_fails_is_told_and_the_next_one_answered(recommender):
    class Broken(Slow):
        def answer_batch(self, queries):
            self.sizes.append(len(queries))
            if len(self.sizes) == 1:
                raise RuntimeError("out of memory")
            return Recommender.answer_batch(self, queries)

    async def use(client):
        first = await client.post("/recommend", json={"items": [1]})
        return first, await client.post("/recommend", json={"items": [1]})

    first, second = ask_app(Broken(recommender), LIMITS, use)
    assert (first.status_code, second.status_code) == (500, 200)


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port}: cannot be bound"):
            http.bind("127.0.0.1", port)
    with pytest.raises(UserError, match="--port=70000: cannot be bound"):
        http.bind("127.0.0.1", 70000)
