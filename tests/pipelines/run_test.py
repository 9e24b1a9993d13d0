# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Commands as functions: configs, overrides, errors, reports, and loaded runs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rfrec
from rfrec.config import UserError
from rfrec.pipelines import run as run_lib

SMALL = {"train.epochs": 1, "train.eval_every": 1, "data.num_users": 40}


@pytest.mark.parametrize("table", [run_lib.PIPELINES, run_lib.LOADERS])
def test_every_entry_is_a_function(table):
    for name in table:
        assert callable(run_lib._resolve(name, table, "command"))


@pytest.mark.parametrize("name", run_lib.PIPELINES)
def test_every_command_has_a_config_file(name):
    config = run_lib.make_config(name, "", {})
    assert config.is_locked
    assert "rf" in config


def test_overrides_are_dotted_or_nested():
    nested = {"model": {"width": 48, "dropout": 0}, "train": {"patience": None}}
    dotted = {"model.width": np.int64(48), "model.dropout": 0.0, "train.patience": None}
    first, second = (run_lib.make_config("sasrec", "", o) for o in (nested, dotted))
    assert first.to_json() == second.to_json()
    assert (first.model.width, first.model.dropout) == (48, 0.0)
    assert first.train.patience is None
    path = run_lib.make_config("sasrec", "", {"data.path": Path("a") / "b"}).data.path
    assert path == "a/b"


@pytest.mark.parametrize(
    "name, variant, overrides, message",
    [
        ("sasrek", "", {}, "command 'sasrek' does not exist: did you mean 'sasrec'"),
        ("sasrec", "smok", {}, "variant 'smok' does not exist: did you mean 'smoke'"),
        ("sasrec", "", {"modle": {"width": 3}}, "'modle.width' .* mean 'model'|'modle"),
        ("sasrec", "", {"model.wdth": 3}, "'model.wdth' does not exist.*width"),
        ("sasrec", "", {"seed.x": 3}, "'seed.x' does not exist"),
        ("sasrec", "", {"model": 3}, "config.model is a section"),
        ("sasrec", "", {"model.width": "wide"}, "config.model.width='wide': .* int"),
        ("sasrec", "", {"model.width": None}, "config.model.width=None: a value is"),
        ("sasrec", "", {"rf.draws": 0}, "config.rf.draws=0: must be"),
        ("sasrec", "smoke", {"model.heads": 0}, "config.model.heads=0: must be"),
    ],
)
def test_wrong_names_and_values(name, variant, overrides, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        rfrec.run(name, workdir=tmp_path / "run", variant=variant, **overrides)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_run_returns_its_report_and_is_resumed(tmp_path):
    report = rfrec.run("sasrec", variant="smoke", workdir=tmp_path / "run", **SMALL)
    assert report == json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["main"] == "sasrec"
    assert report["config"]["train"]["epochs"] == 1
    # The same call finds the finished run; other values are refused.
    again = rfrec.run("sasrec", variant="smoke", workdir=tmp_path / "run", **SMALL)
    assert again["test"] == report["test"]
    with pytest.raises(UserError, match="differs in seed"):
        rfrec.run("sasrec", variant="smoke", workdir=tmp_path / "run", **SMALL, seed=1)


def test_without_a_workdir_only_the_report_remains(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert rfrec.run("sasrec", variant="smoke", **SMALL)["users"] == 40
    assert not list(tmp_path.iterdir())


def test_it_needs_neither_flags_nor_the_checkout_as_the_current_folder(tmp_path):
    code = (
        "import rfrec, sys\n"
        "try: rfrec.run('sasrec', variant='smoke', model={'heads': 3})\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "from absl import flags\n"
        "print(flags.FLAGS.is_parsed(), 'config' in flags.FLAGS)\n"
    )
    root = Path(rfrec.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu", "PATH": ""},
        timeout=120,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("UserError config.model.width=32 is not a multiple")
    assert second == "False False"


def test_load_run_names_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match=r"report\.json: cannot be read.*finished run"):
        rfrec.load_run(tmp_path)
    (tmp_path / "report.json").write_text('{"main": "recommend"}')
    with pytest.raises(UserError, match="'recommend' does not exist"):
        rfrec.load_run(tmp_path)
