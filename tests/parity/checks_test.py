# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The recorded files pass their checks; changed and unknown files are refused."""

import pathlib

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.parity import arrays, checks

GOLDEN = pathlib.Path(__file__).parents[2] / "third_party" / "golden"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.npz")), ids=lambda p: p.stem)
def test_a_recorded_file_passes(path):
    results = checks.check(path.name, checks.read(path))
    assert results
    assert [check for check in results if not check.ok] == []


def test_every_recorded_file_has_a_check():
    assert {path.name for path in GOLDEN.glob("*.npz")} == checks.FILES.keys()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rotation_trick.npz", b"", "differs from the recorded file"),
        ("other.npz", b"x", "has no check"),
    ],
)
def test_a_file_that_is_not_the_recorded_one_fails(
    tmp_path, capsys, name, content, message
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        checks.read(tmp_path / name)
    good = GOLDEN / "mql4grec_repair_heavy.npz"
    (tmp_path / good.name).write_bytes(good.read_bytes())
    assert not checks.check_folder(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(f"FAIL: {tmp_path / name}")]
    assert [line for line in lines if line.startswith(f"{good.name} codes_after")]
    assert lines[-1] == "2 files, 1 checks: 0 failed, 1 files not read"


def test_a_folder_without_files_does_not_pass(tmp_path, capsys):
    assert not checks.check_folder(tmp_path)
    assert "there is no .npz file" in capsys.readouterr().out
    with pytest.raises(UserError, match="nowhere is not a folder"):
        checks.check_folder(tmp_path / "nowhere")


def test_a_real_array_is_compared_relative_to_the_largest_value():
    check = arrays.near("x", [1.0, 3.98], np.array([1.0, 4.0]))
    assert check.error == pytest.approx(0.005) and not check.ok
    assert arrays.near("x", [0.0, 1e-6], np.zeros(2)).ok


def test_nan_and_other_shapes_fail():
    assert not arrays.near("x", [np.nan], np.array([np.nan])).ok
    assert not arrays.near("x", [1.0, 1.0], np.array([1.0])).ok
    assert not arrays.exact("x", [[1]], np.array([1])).ok
    assert arrays.exact("x", [1, 2, 3], np.array([1, 0, 0])).error == 2
