# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that serves: processes, signals, exit codes and imports."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from rfrec.config import UserError
from rfrec.launch import serve
from rfrec.serving.requests import Query
from tests.support.served import draw_histories

REASON = "the HTTP server needs rfrec[serve]"
httpx = pytest.importorskip("httpx", reason=REASON)
pytest.importorskip("uvicorn", reason=REASON)

ROOT = Path(__file__).parents[2]


def start(folder, *flags, **streams):
    return subprocess.Popen(
        [sys.executable, "-m", "rfrec.launch.serve", f"--artefact={folder}", *flags],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": jax.default_backend()},
        text=True,
        **streams,
    )


@pytest.mark.slow
def test_every_accepted_request_is_answered_after_sigterm(served_artefact, recommender):
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
        given = draw_histories(60, seed=3)

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
            wanted = recommender.answer([Query("", tuple(items), 5, False)])[0]
            assert response.json()["items"] == list(wanted.items)
        assert server.wait(30) == 0
        assert "all accepted requests have been answered" in server.stderr.read()
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
    lines = "".join(json.dumps({"items": h}) + "\n" for h in draw_histories(3))
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


@pytest.mark.parametrize("given", [[], ["0"], ["4", "x"], ["8", "4"], ["4", "4"]])
def test_sizes_that_are_none_are_told(given):
    with pytest.raises(UserError, match="--batch_sizes="):
        serve.parse_batch_sizes(given)
    assert serve.parse_batch_sizes(["1", "16"]) == (1, 16)


def test_serving_imports_no_training_code(run_python):
    code = """
import sys
import rfrec.launch.serve
import rfrec.serving.recommender
slow = {"flax", "optax", "orbax", "transformers", "sklearn", "scipy", "diffrax"}
print(sorted(slow & sys.modules.keys()))
print(sorted(m for m in sys.modules if m.startswith(("rfrec.train", "rfrec.rf"))))
"""
    assert run_python(code, devices=1).stdout.splitlines() == ["[]", "[]"]
