# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The main that serves: lines, HTTP, batching, refusals, SIGTERM under load."""

import asyncio
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.launch import serve
from rfrec.serving import artefact
from rfrec.serving.batching import Batcher, FullError
from rfrec.serving.recommender import Answer, Query, Recommender

REASON = "the endpoint needs rfrec[serve]"
httpx = pytest.importorskip("httpx", reason=REASON)
pytest.importorskip("prometheus_client", reason=REASON)
pytest.importorskip("uvicorn", reason=REASON)
pytest.importorskip("starlette", reason=REASON)

from rfrec.serving import http  # noqa: E402

ROOT = Path(__file__).parents[2]
LIMITS = http.Limits(
    max_wait=0.005,
    max_queue=64,
    max_body=2000,
    body_seconds=1,
    drain_seconds=30,
)


@pytest.fixture(scope="module")
def asked(served_artefact):
    made = Recommender(artefact.read(served_artefact), batch_sizes=(1, 4), max_items=32)
    serve.compile_all(made)
    return made


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


def histories(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 50, rng.integers(1, 12)).tolist() for _ in range(count)]


def test_concurrent_clients_get_the_answers_of_their_own_history(asked):
    given = [
        {"user": f"u{i}", "items": items, "k": 1 + i % 12, "filter_seen": i % 3 == 0}
        for i, items in enumerate(histories(48))
    ]

    async def use(client):
        posts = (client.post("/recommend", json=body) for body in given)
        responses = await asyncio.gather(*posts)
        return responses, (await client.get("/metrics")).text

    responses, metrics = ask_app(asked, LIMITS, use)
    lists = set()
    for body, response in zip(given, responses, strict=True):
        assert response.status_code == 200, response.text
        answer = response.json()
        assert answer["user"] == body["user"]
        query = Query("", tuple(body["items"]), body["k"], body["filter_seen"])
        wanted = asked.answer([query])[0]
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
        ({"items": [1], "top_k": 3}, 400, "'top_k' is no key: use items, user, k"),
        ({"items": "1"}, 400, "items must be a list"),
        ({"items": []}, 422, "items is empty"),
        ({"items": [1, "900"]}, 422, "item '900' is not among the 50 items"),
        ({"items": [-1]}, 422, "item -1 is not among the 50 items"),
        ({"items": [True]}, 400, "item True: must be a name or a number"),
        ({"items": [1.0]}, 400, "item 1.0: must be a name or a number"),
        ({"items": [None]}, 400, "item None: must be a name or a number"),
        ({"items": ["x" * 900]}, 422, "is not among the 50 items"),
        ({"items": [1] * 33}, 422, "33 items are too many: give the latest 32"),
        ({"items": [1], "k": 0}, 422, "k=0: must be from 1 to 12"),
        ({"items": [1], "k": 13}, 422, "k=13: must be from 1 to 12"),
        ({"items": [1], "k": 2.5}, 400, "k=2.5: must be an integer"),
        ({"items": [1], "k": True}, 400, "k=True: must be an integer"),
        ({"items": [1], "filter_seen": 1}, 400, "filter_seen=1: must be true or"),
        ({"items": [1], "user": 5}, 400, "user=5: must be a string"),
        (b" " * 2001, 413, "a request has 2000 bytes at most"),
    ],
)
def test_bad_input_is_refused_with_a_reason(asked, body, status, told):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def use(client):
        return await client.post("/recommend", content=content)

    response = ask_app(asked, LIMITS, use)
    assert response.status_code == status
    assert told in response.json()["error"]
    assert len(response.text) < 300


def test_a_large_body_is_refused_though_its_length_is_not_told(asked):
    sent = []

    async def body():
        for _ in range(1000):
            sent.append(1)
            yield b" " * 100

    async def use(client):
        return await client.post("/recommend", content=body())

    assert ask_app(asked, LIMITS, use).status_code == 413
    assert len(sent) < 100


def test_other_paths_and_methods(asked):
    async def use(client):
        return (
            await client.get("/recommend"),
            await client.get("/nothing"),
            await client.get("/health"),
        )

    wrong, nothing, health = ask_app(asked, LIMITS, use)
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


def test_a_full_queue_is_refused_and_all_others_answered(asked):
    slow = Slow(asked)
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
        assert "6 requests wait already" in response.json()["error"]
    assert sorted(r.status_code for r in responses) == [200] * 10 + [503] * 6
    assert slow.sizes == [4, 4, 2]


def test_a_search_that_fails_is_told_and_the_next_one_answered(asked):
    class Broken(Slow):
        def answer_batch(self, queries):
            self.sizes.append(len(queries))
            if len(self.sizes) == 1:
                raise RuntimeError("out of memory")
            return Recommender.answer_batch(self, queries)

    async def use(client):
        first = await client.post("/recommend", json={"items": [1]})
        return first, await client.post("/recommend", json={"items": [1]})

    first, second = ask_app(Broken(asked), LIMITS, use)
    assert (first.status_code, second.status_code) == (500, 200)


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
            *(batcher.ask(Query(n, (0,) * size, 1, False)) for n, size in names)
        )
        waited = time.monotonic() - started
        await batcher.close()
        with pytest.raises(FullError):
            batcher.ask(Query("late", (0,), 1, False))
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
        asks = [batcher.ask(query) for _ in range(5)]
        await asyncio.sleep(0.01)
        await asyncio.wait_for(batcher.close(), 10)
        return await asyncio.gather(*asks)

    assert asyncio.run(run()) == [Answer((), ())] * 5


def test_lines_are_answered_in_order_and_a_bad_one_ends_it(asked):
    given = [{"items": items} for items in histories(9)] + [{"items": [77]}]
    lines = "\n\n".join(map(json.dumps, given)).splitlines(keepends=True)
    answers = []
    with pytest.raises(UserError, match=r"h.jsonl, line 19: item 77 is not among"):
        for line in serve.answer_lines(asked, lines, "h.jsonl"):
            answers.append(json.loads(line))
    # Who is not named has the number of the line.
    assert [answer["user"] for answer in answers] == [str(n) for n in range(1, 19, 2)]
    for body, answer in zip(given, answers, strict=False):
        wanted = asked.answer([Query("", tuple(body["items"]), 5, False)])[0]
        assert answer["items"] == list(wanted.items)
        np.testing.assert_allclose(answer["scores"], wanted.scores, rtol=1e-5)


def test_a_line_is_answered_before_the_next_one_comes(asked):
    reading, writing = os.pipe()
    with os.fdopen(reading) as stream:
        answers = serve.answer_lines(asked, stream, "-")
        for number in range(1, 4):
            # This line alone has been written when its answer comes.
            os.write(writing, b'{"items": [1, 2]}\n')
            assert json.loads(next(answers))["user"] == str(number)
        os.close(writing)
        assert list(answers) == []


def test_text_that_is_none_is_told(asked, tmp_path):
    path = tmp_path / "h.jsonl"
    path.write_bytes(b'{"items": [1]}\n' * 3 + b"\xff\xfe\n")
    with (
        path.open(encoding="utf-8") as stream,
        pytest.raises(UserError, match="give UTF-8 text"),
    ):
        list(serve.answer_lines(asked, stream, "h.jsonl"))


def start(folder, *flags, **streams):
    return subprocess.Popen(
        [sys.executable, "-m", "rfrec.launch.serve", f"--artefact={folder}", *flags],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": jax.default_backend()},
        text=True,
        **streams,
    )


@pytest.mark.slow
def test_every_accepted_request_is_answered_after_sigterm(served_artefact, asked):
    server = start(
        served_artefact,
        # Requests wait long enough to be waiting when the signal comes.
        *("--port=0", "--batch_sizes=64", "--max_wait_ms=3000", "--max_items=32"),
        stderr=subprocess.PIPE,
    )
    assert server.stderr is not None
    try:
        log, url = [], None
        for line in server.stderr:
            log.append(line)
            # By default it listens to this machine alone.
            if found := re.search(r"(http://127\.0\.0\.1:\d+) answers", line):
                url = found[1]
                break
        assert url, "".join(log)
        given = histories(60, seed=3)

        async def load():
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(
                base_url=url, limits=limits, timeout=60, trust_env=False
            ) as client:
                while True:
                    try:
                        await client.get("/health")
                        break
                    except httpx.ConnectError:
                        await asyncio.sleep(0.05)
                posts = [
                    asyncio.create_task(client.post("/recommend", json={"items": h}))
                    for h in given
                ]
                # All are accepted once the server counts them as waiting or answered.
                while not await accepted(client, len(posts)):
                    await asyncio.sleep(0.01)
                open_ = sum(not post.done() for post in posts)
                server.send_signal(signal.SIGTERM)
                responses = await asyncio.gather(*posts)
                with pytest.raises(httpx.TransportError):
                    while True:
                        await client.get("/health")
                        await asyncio.sleep(0.05)
                return responses, open_

        responses, open_ = asyncio.run(load())
        # None was answered before the signal.
        assert open_ == len(given)
        for items, response in zip(given, responses, strict=True):
            assert response.status_code == 200
            wanted = asked.answer([Query("", tuple(items), 5, False)])[0]
            assert response.json()["items"] == list(wanted.items)
        assert server.wait(30) == 0
        assert "all that was accepted is answered" in server.stderr.read()
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


async def accepted(client, count):
    """Whether so many requests wait, are searched or have been answered."""
    text = (await client.get("/metrics")).text
    numbers = re.findall(r"^rfrec_accepted_total (\S+)", text, re.MULTILINE)
    return float(numbers[0]) >= count


@pytest.mark.slow
def test_the_main_answers_lines_and_tells_errors_in_one(served_artefact, tmp_path):
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    lines = "".join(json.dumps({"items": h}) + "\n" for h in histories(3))
    for flags, given, code, told in (
        (["--histories=-", "--batch_sizes=4"], lines, 0, ""),
        (["--histories=-"], "no\n", 2, "standard input, line 1: the request is not"),
        ([f"--histories={tmp_path}/none"], "", 2, "cannot be read: No such file"),
        (["--prot=1"], "", 2, "Unknown command line flag 'prot'"),
    ):
        with start(served_artefact, *flags, stdin=subprocess.PIPE, **piped) as process:
            out, error = process.communicate(given, timeout=120)
        assert process.returncode == code, error
        own = [line for line in error.splitlines() if line.startswith("rfrec: ")]
        assert len(own) == (code > 0), error
        assert told in "".join(own)
        assert "Traceback" not in error
        assert out.count("\n") == (3 if code == 0 else 0)


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port}: cannot be bound"):
            serve.bind("127.0.0.1", port)
    with pytest.raises(UserError, match="--port=70000: cannot be bound"):
        serve.bind("127.0.0.1", 70000)


@pytest.mark.parametrize("given", [[], ["0"], ["4", "x"], ["8", "4"], ["4", "4"]])
def test_sizes_that_are_none_are_told(given):
    with pytest.raises(UserError, match="--batch_sizes="):
        serve.batch_sizes(given)
    assert serve.batch_sizes(["1", "16"]) == (1, 16)
