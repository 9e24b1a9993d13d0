# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What `import rfrec` and the commands import, and the public names."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rfrec

ROOT = Path(rfrec.__file__).parents[1]
HEAVY = {
    *("jax", "flax", "optax", "diffrax", "orbax", "ml_collections", "absl"),
    *("transformers", "tokenizers", "torch", "sklearn", "scipy", "numpy"),
    *("matplotlib", "jinja2", "PIL", "starlette", "uvicorn", "httpx"),
}
# Imported by a command only when it needs them.
LATE = {
    *("transformers", "torch", "matplotlib", "PIL", "tensorboardX", "starlette"),
    *("uvicorn", "httpx"),
}
COMMANDS = sorted(
    f"rfrec.launch.{path.stem}"
    for path in (ROOT / "rfrec" / "launch").glob("*.py")
    if path.stem not in ("__init__", "cli")
)


def imported_by(code: str) -> set[str]:
    """Returns the top-level modules that a new process has imported after `code`."""
    names = "sorted({name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys, json; print(json.dumps({names}))"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_rfrec_is_quick_and_loads_nothing_heavy():
    assert not imported_by("import rfrec") & HEAVY
    # The interpreter itself takes most of the time.
    start, empty = time.monotonic(), "import sys"
    subprocess.run([sys.executable, "-c", empty], cwd=ROOT, check=True)
    between = time.monotonic()
    subprocess.run([sys.executable, "-c", "import rfrec"], cwd=ROOT, check=True)
    assert time.monotonic() - between - (between - start) < 0.5


def test_what_is_refused_above_would_be_seen():
    assert "ml_collections" in imported_by("import rfrec.config") & HEAVY


def test_dir_lists_the_public_names():
    assert set(rfrec.__all__) <= set(dir(rfrec))
    assert {"run", "load_run", "RFEmbeddingGenerator"} <= set(rfrec.__all__)


@pytest.mark.parametrize("name", rfrec.__all__)
def test_every_public_name_is_documented(name):
    value = getattr(rfrec, name)
    assert value.__doc__
    assert value is importlib.import_module("rfrec").__dict__[name]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'Tokenizer'"):
        _ = rfrec.Tokenizer  # pyright: ignore[reportAttributeAccessIssue]


def test_commands_import_optional_packages_late():
    """One process imports all of them; so does their --help."""
    code = "\n".join(f"import {name}" for name in COMMANDS)
    assert len(COMMANDS) > 15
    assert not imported_by(code) & LATE
