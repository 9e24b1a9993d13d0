# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The CI script runs what the README says, on a copy, without this shell's settings."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


def _house(folder: pathlib.Path, readme: str | None) -> pathlib.Path:
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    if readme is not None:
        (folder / "README.md").write_text(readme)
    return folder


def _ci(house: pathlib.Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [house / ".ci" / "run"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def _readme(command: str) -> str:
    return (
        f"```\nfalse\n```\nTests: <!-- tests -->\n\n```bash\n{command}\n```\n```\n:\n"
    )


def test_it_runs_the_command_after_the_marker_in_a_copy(tmp_path):
    command = (
        'python3 -c "import sys; assert sys.version_info >= (3, 11)" && '
        'ls && touch made && echo "secret ${SECRET-none}" && echo 3 passed'
    )
    house, scratch = tmp_path / "house", tmp_path / "scratch"
    scratch.mkdir()
    _house(house, _readme(command))
    done = _ci(house, SECRET="x", TMPDIR=str(scratch))
    assert done.returncode == 0, done.stderr
    assert f"README.md says: {command}\n" in done.stdout
    assert "README.md\nsecret none\n" in done.stdout
    assert done.stdout.endswith("\ntests: 3 passed\n")
    assert sorted(os.listdir(house)) == [".ci", "README.md"]
    assert os.listdir(scratch) == []


def test_a_failing_command_fails(tmp_path):
    done = _ci(_house(tmp_path, _readme("echo 1 failed; exit 5")))
    assert done.returncode == 5
    assert done.stdout.endswith("tests: 1 failed\n")


@pytest.mark.parametrize(
    ("readme", "message"),
    [
        (None, "there is no README.md"),
        ("```\ntrue\n```\n", "no fenced block after a line with <!-- tests -->"),
        ("<!-- tests -->\nword\n", "no fenced block after"),
    ],
)
def test_a_readme_without_the_command_fails_in_one_line(tmp_path, readme, message):
    done = _ci(_house(tmp_path, readme))
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.count("\n") == 1
