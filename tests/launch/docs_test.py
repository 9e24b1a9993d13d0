# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The generated page of the configs is current and explains every key."""

import re

import pytest

from rfrec.config import UserError, is_optional, value_at
from rfrec.launch import docs
from tests.support.commands import ROOT, load_config

NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))

SOURCE = '''"""A command of a test."""
import dataclasses
from typing import Literal

from rfrec import config as cfg
from rfrec.pipelines.options import make_config


@dataclasses.dataclass(frozen=True)
class Data:
    """Data.

    Attributes:
      kind: Kind | of
        <data>.
      path: Folder.
    """

    kind: Literal["a", "b"] = "a"
    path: str | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """Options.

    Attributes:
      seed: Seed of the test.
      data: The data.
      pair: Two numbers.
    """

    seed: int = cfg.option(3, cfg.at_least(0))
    data: Data = Data()
    pair: tuple[int, ...] = (2, 3)


def get_config(variant=""):
    config = make_config(Options)
    if variant:
        config.data.kind = "b"
        config.rf.use_rf = True
    return config.lock()


VARIANTS = {"": None, "other": None}
'''


def cells(line: str) -> list[str]:
    """Splits a row of a Markdown table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def rows_of(page: str, name: str) -> dict[str, list[str]]:
    """Returns the rows of the table of a config by key."""
    part = page.split(f"\n## configs/{name}.py\n")[1].split("\n## ")[0]
    if "| key |" not in part:
        return {}
    table = part.split("| key |")[-1].split("\n\n")[0].splitlines()[2:]
    return {row[0].strip("`"): row[1:] for row in map(cells, table)}


def keys_of(config, prefix=""):
    for name in config:
        if name == "rf" and not prefix:
            continue
        if hasattr(config[name], "items"):
            yield from keys_of(config[name], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@pytest.fixture(scope="module")
def page():
    return docs.page(ROOT / "configs")


def test_the_page_in_the_checkout_is_current(page):
    written = (ROOT / docs.PAGE).read_text(encoding="utf-8")
    assert written == page, f"{docs.PAGE} is not current: run `{docs.COMMAND}`"


@pytest.mark.parametrize("name", NAMES)
def test_every_key_has_type_default_and_meaning(page, name):
    config = load_config(name)
    rows = rows_of(page, name)
    rows = {key: row for key, row in rows.items() if not key.startswith("**")}
    assert set(rows) == set(keys_of(config))
    for key, (kind, default, _, meaning) in rows.items():
        assert default == f"`{value_at(config, key)!r}`"
        assert kind.endswith("or None") == is_optional(config, key)
        assert meaning, f"{key} of configs/{name}.py has no entry in Attributes:"


def test_every_key_of_rf_is_on_the_page(page):
    part = page.split("\n## The section rf\n")[1]
    for name in load_config("gume").rf:
        assert f"`rf.{name}`" in part


def test_options_sections_and_variants_of_a_small_config(tmp_path):
    (tmp_path / "small.py").write_text(SOURCE)
    page = docs.page(tmp_path)
    assert rows_of(page, "small") == {
        "seed": ["int", "`3`", "at least 0", "Seed of the test."],
        "**`data`**": ["", "", "", "The data."],
        "data.kind": ["str", "`'a'`", "one of a, b", r"Kind \| of \<data>."],
        "data.path": ["str or None", "`None`", "", "Folder."],
        "pair": ["tuple", "`(2, 3)`", "", "Two numbers."],
    }
    assert "| `other` | `data.kind='b'`, `rf.use_rf=True` |" in page


def test_a_folder_without_configs_is_refused(tmp_path):
    with pytest.raises(UserError, match="contains no config file"):
        docs.page(tmp_path)
    (tmp_path / "a.py").write_text("import nothing_of_this_name")
    with pytest.raises(UserError, match=r"a\.py cannot be loaded: No module"):
        docs.page(tmp_path)
