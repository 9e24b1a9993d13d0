# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The compare command: exit code, wrong keys, help."""

import pathlib
import types

import pytest

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.launch import compare

GOLDEN = pathlib.Path(__file__).parents[2] / "third_party" / "golden"
SMALL = ("mql4grec_repair_heavy", "mql4grec_repair_light", "rotation_trick")


def test_something_to_compare_is_required(monkeypatch):
    nothing = types.SimpleNamespace(value=None)
    monkeypatch.setattr(compare.cli.flags, "FLAGS", {"golden": nothing, "run": nothing})
    config = compare.options.make_config(compare.published.Options)
    with pytest.raises(UserError, match="--golden=FOLDER or --run=FOLDER"):
        compare.main(config, None)


def test_a_wrong_value_names_its_key():
    config = cfg.ConfigDict({"reference_numbers": ""})
    with pytest.raises(UserError, match="config.reference_numbers=''"):
        compare.main(config, None)


def test_the_command_exits_with_its_verdict(tmp_path, run_python):
    for stem in SMALL:
        content = (GOLDEN / f"{stem}.npz").read_bytes()
        (tmp_path / f"{stem}.npz").write_bytes(content)
    command = ["-m", "rfrec.launch.compare", f"--golden={tmp_path}"]
    done = run_python([*command, "--config.rf.sampling_steps=1"], devices=2)
    assert "3 files, 4 checks: 0 failed" in done.stdout
    (tmp_path / "new.npz").write_bytes(b"PK")
    done = run_python(command, devices=1, check=False)
    assert done.returncode == 1
    assert "new.npz has no check" in done.stdout
