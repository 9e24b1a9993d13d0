# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that exports: a run, a wrong key, and the help text."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*flags):
    return subprocess.run(
        [sys.executable, "-m", "rfrec.launch.export", *flags],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_run_is_exported(served_run, tmp_path):
    pytest.importorskip("flatbuffers", reason="an export needs flatbuffers")
    folder = tmp_path / "artefact"
    done = run(f"--config.run={served_run}", f"--workdir={folder}")
    assert done.returncode == 0, done.stderr
    assert (folder / "manifest.json").exists()
    assert "50 items, 2 programs for cpu, cuda, tpu" in done.stderr


@pytest.mark.parametrize(
    ("flag", "code", "text"),
    [
        ("--config.search.beam=3", 2, "--config.search.beam=3: no such key"),
        ("--help", 1, "Exports the search of a trained T5"),
    ],
)
def test_a_wrong_key_and_the_help_text(tmp_path, flag, code, text):
    done = run(f"--workdir={tmp_path}/a", flag)
    assert done.returncode == code
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
