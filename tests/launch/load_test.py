# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that measures a server: its flags and its output."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*flags):
    return subprocess.run(
        [sys.executable, "-m", "rfrec.launch.load", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_figures_are_written_as_json(tmp_path):
    pytest.importorskip("httpx", reason="load needs httpx")
    (tmp_path / "h.jsonl").write_text('{"items": [1]}\n')
    flags = ["--url=http://127.0.0.1:9", "--clients=2", "--requests=3"]
    done = run(*flags, f"--histories={tmp_path}/h.jsonl", f"--out={tmp_path}/out.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    # No server listens on port 9.
    assert report["turns"][0]["statuses"] == {"0": 3}
    assert done.stdout.split()[:2] == ["clients", "requests"]


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--url=http://127.0.0.1:9"], 2, "--histories=FILE are required"),
        (["--client=1"], 2, "Unknown command line flag 'client'"),
        (["--help"], 1, "Numbers of concurrent clients"),
    ],
)
def test_wrong_flags_and_the_help_text(flags, code, text):
    done = run(*flags)
    assert done.returncode == code
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
