# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What tests of the mains share: configs, processes, runs that are killed."""

import hashlib
import importlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from ml_collections import ConfigDict

ROOT = Path(__file__).resolve().parents[2]


def load_module(name: str) -> ModuleType:
    """Loads the config file of a main."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_config(name: str, variant: str = "", **overrides: Any) -> ConfigDict:
    """Returns the config of a main's variant, some keys overridden."""
    config = load_module(name).get_config(variant)
    config.update_from_flattened_dict(overrides)
    return config


def digest(folder: Path) -> dict[Path, str]:
    """Returns the hash of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


_WRITTEN: dict[str, dict[tuple[str, str], dict[str, np.ndarray]]] = {}


def split_by_engine(
    script: str, folder: Path, run_python: Callable[..., Any]
) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Runs a test file as a script on 8 devices, once, and reads what it writes.

    Args:
      script: Writes an .npz of arrays `case|engine|name` to the path it is given.
      folder: For the file.
      run_python: The fixture.

    Returns:
      By case and engine, the arrays by name.
    """
    if script not in _WRITTEN:
        path = folder / "arrays.npz"
        # Most of the time goes to compiling; what is compared does not depend on it.
        fast = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        run_python([script, str(path)], devices=8, env=fast)
        made = _WRITTEN[script] = {}
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                case, engine, name = key.split("|")
                made.setdefault((case, engine), {})[name] = file[key]
    return _WRITTEN[script]


def command(
    name: str, workdir: Path, *more: str, variant: str = "smoke", **overrides: Any
) -> list[str]:
    """Returns what runs a main in a process of its own."""
    return [
        *(sys.executable, "-m", f"rfrec.launch.{name}"),
        *(f"--config=configs/{name}.py:{variant}", f"--workdir={workdir}"),
        *(f"--config.{key}={value}" for key, value in overrides.items()),
        *more,
    ]


def begin(args: list[str], log: Path, devices: int = 1) -> subprocess.Popen:
    """Starts a process that sees so many virtual devices and writes to `log`."""
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": " ".join(
            [
                os.environ.get("XLA_FLAGS", ""),
                f"--xla_force_host_platform_device_count={devices}",
            ]
        ),
    }
    with log.open("w") as file:
        return subprocess.Popen(args, cwd=ROOT, env=env, stdout=file, stderr=file)


def run_together(
    name: str, workdir: Path, logs: Path, *, devices: int, **overrides: Any
) -> None:
    """Runs a main as two processes of so many virtual devices, which end well.

    Args:
      name: Of the main.
      workdir: Of the run.
      logs: Folder of what they write.
      devices: Of each process.
      overrides: Of its config `smoke`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = (f"--coordinator_address=127.0.0.1:{port}", "--num_processes=2")
    files = [logs / f"{i}.log" for i in range(2)]
    processes = [
        begin(
            command(name, workdir, *together, f"--process_id={i}", **overrides),
            log,
            devices,
        )
        for i, log in enumerate(files)
    ]
    try:
        codes = [process.wait(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], "\n".join(log.read_text() for log in files)


def wait_for_rows(
    workdir: Path, process: subprocess.Popen, more: int, *, seconds: float = 240
) -> None:
    """Waits until a run's metrics file has so many lines more than it has now."""
    path, until = workdir / "metrics.jsonl", time.monotonic() + seconds

    def count() -> int:
        return path.read_bytes().count(b"\n") if path.exists() else 0

    # A resumed process first cuts the file, so only what follows counts.
    before = count()
    while count() < before + more:
        before = min(before, count())
        assert time.monotonic() < until, "the run takes too long"
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)


def run_whole_and_killed(
    name: str, folder: Path, overrides: Mapping[str, Any]
) -> tuple[Path, Path]:
    """Runs a main to its end, and once more with a kill -9 after its first checkpoint.

    Returns:
      The folders of both runs.
    """
    whole, killed = folder / "whole", folder / "killed"
    main = importlib.import_module(f"rfrec.launch.{name}").main
    config = load_config(name, "smoke", **overrides)
    main(config, whole)
    process = begin(command(name, killed, **overrides), folder / "killed.log")
    until = time.monotonic() + 120
    while not any((killed / "checkpoints").glob("[1-9]*")):
        assert time.monotonic() < until, "nothing was stored"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    main(config, killed)
    return whole, killed


def check_command(
    name: str,
    folder: Path,
    *more: str,
    wrong: str,
    variant: str = "smoke",
    **overrides: Any,
) -> None:
    """Runs a main to its end, with a misspelt key, and with --help.

    Args:
      name: Name of the main.
      folder: Folder for what it writes.
      *more: Further arguments.
      wrong: `key=value` of a key that does not exist.
      variant: Variant of its config.
      **overrides: Values of its config.
    """

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            args, cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )

    refused = command(name, folder / "refused", *more, variant=variant)
    result = run(*refused, f"--config.{wrong}")
    key = wrong.partition("=")[0]
    assert result.returncode == 2, result.stderr
    assert f"--config.{key}" in result.stderr.strip().splitlines()[-1]
    assert not (folder / "refused").exists()
    helped = run(sys.executable, "-m", f"rfrec.launch.{name}", "--help")
    assert "--config" in helped.stdout
    smoke = command(name, folder / "run", *more, variant=variant, **overrides)
    result = run(*smoke)
    assert result.returncode == 0, result.stderr
    assert (folder / "run" / "report.json").exists()
