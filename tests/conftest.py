# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What all tests share: shape checks, strict broadcasting, a compilation cache.

The test process itself sees the devices that the machine has. Tests of several devices
start their own processes through the fixture `run_python`, because the number of
virtual devices is fixed when JAX starts.
"""

import hashlib
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

import jaxtyping

pytest_plugins = ["tests.support.served"]

# The hook rewrites modules as they are imported: it has to stand before the first
# import of rfrec, and pytest loads this file before any test module. An int passes for
# a float, as it does for a static type checker.
_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
jaxtyping.install_import_hook("rfrec", _CHECKER)

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
_DEVICE_FLAG = "--xla_force_host_platform_device_count"
_LEVEL_FLAG = "--xla_backend_optimization_level"


def _cache_folder() -> pathlib.Path:
    """Name this user's cache for this kind of CPU: its code does not run on others."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    try:
        cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        cpuinfo = ""
    features = re.search(r"^(?:flags|Features)\s*:.*$", cpuinfo, re.MULTILINE)
    kind = hashlib.sha256((features[0] if features else "").encode()).hexdigest()[:8]
    return pathlib.Path(base) / "rfrec" / f"jax-{kind}"


def _use_compilation_cache() -> None:
    """Keep compiled programs between runs, here and in the processes of tests.

    The smallest too: tests compile some 20 each, one for each operation and shape. A
    second run of `rf/contrast_test.py` takes a third of the first's CPU time.

    `RFREC_NO_COMPILATION_CACHE=1` turns it off; a `JAX_COMPILATION_CACHE_DIR` that is
    already set is respected.
    """
    if os.environ.get("RFREC_NO_COMPILATION_CACHE"):
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
        jax.config.update("jax_enable_compilation_cache", False)
        return
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache_folder()))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _compile_quickly() -> None:
    """Spare the compiler its optimisations, here and in the processes of tests.

    Tests run small programs once: most of their time is compilation, which takes a
    third less so. Flags that are already set are respected.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _LEVEL_FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_LEVEL_FLAG}=0".strip()


_use_compilation_cache()
_compile_quickly()
jax.config.update("jax_numpy_rank_promotion", "raise")
# The first example of a property compiles: a deadline would measure the compiler.
hypothesis.settings.register_profile("rfrec", deadline=None, derandomize=True)
hypothesis.settings.load_profile("rfrec")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run."""
    here = {
        "gpu": jax.default_backend() == "gpu",
        "tpu": jax.default_backend() == "tpu",
        "realdata": bool(os.environ.get("RFREC_DATA")),
    }
    needs = {"gpu": "a GPU", "tpu": "a TPU", "realdata": "RFREC_DATA"}
    for item in items:
        for marker, present in here.items():
            if not present and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"needs {needs[marker]}"))


def _environment(devices: int, extra: Mapping[str, str]) -> dict[str, str]:
    """Build the environment of a process with virtual CPU devices."""
    flags = [
        flag
        for flag in os.environ.get("XLA_FLAGS", "").split()
        if not flag.startswith(_DEVICE_FLAG)
    ]
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join([*flags, f"{_DEVICE_FLAG}={devices}"]),
        "PYTHONPATH": os.pathsep.join(path),
        **extra,
    }


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give a function that runs Python in its own process with virtual devices.

    `run_python(code)` or `run_python([arg, ...])`, with `devices` virtual CPU devices
    (8), `env` added to the environment, a `timeout` in seconds (300) and `check` (True:
    a failure fails the test with both streams of the process). It runs in the
    repository root and returns the completed process, streams as text.
    """

    def run(
        code_or_args: str | Sequence[str],
        devices: int = 8,
        env: Mapping[str, str] | None = None,
        timeout: float = 300,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        one_string = isinstance(code_or_args, str)
        args = ["-c", code_or_args] if one_string else list(code_or_args)
        done = subprocess.run(
            [sys.executable, *args],
            cwd=ROOT,
            env=_environment(devices, env or {}),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            pytest.fail(f"exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    return run
