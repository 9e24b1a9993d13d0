# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The load that clients put on a server, against a server that counts."""

import http.server
import json
import threading
import time

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.serving import load
from rfrec.serving.load import Measurement

pytest.importorskip("httpx", reason="load needs httpx")


class Counting(http.server.ThreadingHTTPServer):
    """Answers after 20 ms; every fifth request is refused."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.open, self.most = [], 0, 0
        self.lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        assert isinstance(server, Counting)
        body = self.rfile.read(int(self.headers["content-length"]))
        with server.lock:
            server.bodies.append((self.path, body))
            status = 503 if len(server.bodies) % 5 == 0 else 200
            server.open += 1
            server.most = max(server.most, server.open)
        time.sleep(0.02)
        with server.lock:
            server.open -= 1
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = Counting()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.mark.parametrize("clients", [1, 6])
def test_so_many_requests_are_sent_by_so_many_clients(server, clients):
    bodies = [b'{"items": [1]}', b'{"items": [2]}', b'{"items": [3]}']
    url = f"http://127.0.0.1:{server.server_port}"
    one = load.measure(url, bodies, clients, 30, 60.0)
    assert server.most == clients
    assert len(server.bodies) == 30
    assert {path for path, _ in server.bodies} == {"/recommend"}
    assert sorted(body for _, body in server.bodies) == sorted(bodies * 10)
    assert one.statuses == {200: 24, 503: 6}
    assert len(one.latencies) == 24
    assert 0.02 <= min(one.latencies) <= max(one.latencies) <= one.seconds


def test_a_turn_ends_in_time(server):
    url = f"http://127.0.0.1:{server.server_port}"
    one = load.measure(url, [b"{}"], 2, 10_000, 0.2)
    assert one.seconds < 5
    assert 0 < len(server.bodies) < 1000


def test_who_does_not_answer_is_counted():
    one = load.measure("http://127.0.0.1:9", [b"{}"], 2, 4, 5.0)
    assert one.statuses == {0: 4}
    assert load.summarise(one)["median_ms"] is None
    assert load.format_table([one])[1].split()[-3:] == ["-", "-", "4"]


def test_the_summary_is_that_of_the_latencies():
    latencies = np.random.default_rng(0).exponential(0.1, 200).tolist()
    told = load.summarise(Measurement(8, 4.0, latencies, {200: 200, 503: 3}))
    ranked = sorted(latencies)
    assert told["requests_per_second"] == 50
    middle = (ranked[99] + ranked[100]) / 2
    assert told["median_ms"] == pytest.approx(1000 * middle)
    # Rank .99 * 199 = 197.01, between its neighbours.
    high = ranked[197] + 0.01 * (ranked[198] - ranked[197])
    assert told["p99_ms"] == pytest.approx(1000 * high)
    assert json.loads(json.dumps(told))["statuses"] == {"200": 200, "503": 3}
    head, row = load.format_table([Measurement(8, 4.0, latencies, {200: 200, 503: 3})])
    assert len(head) == len(row)
    assert row.split() == [
        *("8", "203", "50.0"),
        *(f"{1000 * middle:.1f}", f"{1000 * high:.1f}", "3"),
    ]


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com", "http://10.0.0.1:80", "ftp://127.0.0.1", "127.0.0.1"),
        *("http://[::1", "http://127.0.0.1.example.com"),
    ],
)
def test_no_other_machine_is_asked(url):
    with pytest.raises(UserError, match="only this machine"):
        load.check_loopback(url)


@pytest.mark.parametrize("url", ["http://localhost:1", "http://[::1]:1"])
def test_this_machine_is(url):
    load.check_loopback(url)


def test_a_file_without_requests_is_told(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load.read_requests(tmp_path / "none")
    (tmp_path / "empty").write_text("\n \n")
    with pytest.raises(UserError, match="is empty"):
        load.read_requests(tmp_path / "empty")
