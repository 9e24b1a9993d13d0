# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the pages of docs/ name exists: keys of configs, mains, files, links."""

import re
from pathlib import Path

import pytest

from rfrec.config import value_at
from tests.support.commands import ROOT, load_config, load_module

PAGES = sorted((ROOT / "docs").glob("*.md"))
HEAD = re.compile(r"^\|[^|]*\| configs/(\w+)\.py \|")
# Dotted keys as they are written in the pages.
KEY = re.compile(r"config\.((?:[a-z]\w*\.)*[a-z]\w*)")
MAINS = re.compile(r"rfrec\.launch\.(\w+) --config=configs/(\w+)\.py(?::(\w+))?(.*)")


def is_key(name: str, key: str) -> bool:
    try:
        value_at(load_config(name), key)
    except (KeyError, AttributeError, TypeError):
        return False
    return True


def rows_of_tables(page: str):
    """Yields each row of a table that has a config file in its head, with its name."""
    name = None
    for line in page.splitlines():
        head = HEAD.match(line)
        if head:
            name = head[1]
        elif not line.startswith("|"):
            name = None
        elif name:
            yield name, line


def test_every_key_of_the_migration_tables_exists():
    rows = list(rows_of_tables((ROOT / "docs" / "migrating.md").read_text()))
    checked = [(name, key) for name, row in rows for key in KEY.findall(row)]
    assert [pair for pair in checked if not is_key(*pair)] == []
    assert len(checked) > 90
    assert {name for name, _ in checked} == {"rqvae", "t5", "recommend", "gume"}


def test_a_key_that_does_not_exist_is_found():
    page = (
        "| theirs | configs/t5.py | |\n|---|---|---|\n| `--x` | `config.data.nix` | |"
    )
    found = [key for _, row in rows_of_tables(page) for key in KEY.findall(row)]
    assert found == ["data.nix"]
    assert not is_key("t5", "data.nix") and is_key("t5", "data.mode")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_keys_in_the_text_are_those_of_some_config(path):
    if path.stem == "configs":
        pytest.skip("made of the configs by rfrec.launch.docs")
    names = sorted(file.stem for file in (ROOT / "configs").glob("*.py"))
    keys = set(KEY.findall(path.read_text())) - {"json"}
    assert [k for k in keys if not any(is_key(name, k) for name in names)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_commands_links_and_modules_exist(path):
    text = path.read_text()
    for main, name, variant, rest in MAINS.findall(text):
        assert (ROOT / "rfrec" / "launch" / f"{main}.py").exists()
        assert not variant or variant in load_module(name).VARIANTS
        keys = re.findall(r"--config\.([\w.]+)=", rest)
        assert all(is_key(name, key) for key in keys), rest
    for module in re.findall(r"rfrec(?:\.[a-z_0-9]+)+", text):
        parts = Path(*module.split("."))
        places = (parts.with_suffix(".py"), parts, parts.parent.with_suffix(".py"))
        assert any((ROOT / place).exists() for place in places), module
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (path.parent / link).exists(), link
    for script in re.findall(r"launch/(?:\w+/)?\w+\.s\w+", text):
        assert (ROOT / script).exists(), script
