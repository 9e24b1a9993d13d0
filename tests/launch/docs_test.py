# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of the configs is that of the config files, and tells of each key."""

import re
from pathlib import Path

import pytest

from rfrec.config import UserError, is_optional, value_at
from rfrec.launch import docs, docs_comments
from tests.support.commands import load_config

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))

SOURCE = '''# Copyright 2026 The rfrec Authors.
"""A made-up main."""
from ml_collections import ConfigDict
from rfrec.config import optional
from rfrec.rf import settings as rf_settings


def get_config(variant=""):
    config = ConfigDict()
    config.seed = 3
    config.data = _data()
    # Of the table.
    config.table = ConfigDict(
        {
            "left": 1,
            "right": (2, 3),  # whole
        }
    )
    config.rf = rf_settings.section()
    for name in VARIANTS[variant]:
        config.data[name] = "b|c"
    return config.lock()


def _data():
    data = ConfigDict()
    # What a | b <c>
    # means.
    data.kind = "a"  # b, c
    data.path = optional(str)
    return data


VARIANTS = {"": (), "other": ("kind",)}
'''


def cells(line: str) -> list[str]:
    """Splits a row of a Markdown table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def rows_of(page: str, name: str) -> dict[str, list[str]]:
    """Returns the rows of a config's table by key."""
    part = page.split(f"\n## configs/{name}.py\n")[1].split("\n## ")[0]
    table = part.split("| key |")[-1].split("\n\n")[0].splitlines()[2:]
    rows = {row[0].strip("`"): row[1:] for row in map(cells, table)}
    return {key: row for key, row in rows.items() if not key.startswith("**")}


def flat(config, prefix=""):
    for name in config:
        value = config[name]
        if name == "rf" and not prefix:
            continue
        if hasattr(value, "items"):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@pytest.fixture(scope="module")
def made():
    return docs.page(ROOT / "configs")


def test_the_page_in_the_checkout_is_up_to_date(made):
    written = (ROOT / docs.PAGE).read_text(encoding="utf-8")
    assert written == made, f"{docs.PAGE} is stale: run `{docs.COMMAND}`"


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_told_with_type_default_and_meaning(made, name):
    config = load_config(name)
    rows = rows_of(made, name) if list(flat(config)) else {}
    assert set(rows) == set(flat(config))
    for key, (kind, default, _, meaning) in rows.items():
        assert default == f"`{value_at(config, key)!r}`"
        assert kind.endswith("or None") == is_optional(config, key)
        assert meaning, f"configs/{name}.py: write a comment above {key}"


def test_every_key_of_rf_is_told(made):
    part = made.split("\n## The section rf\n")[1]
    for name in load_config("gume").rf:
        assert f"`rf.{name}`" in part


def test_comments_and_variants_of_a_made_up_config(tmp_path):
    (tmp_path / "summary.py").write_text(SOURCE)
    page = docs.page(tmp_path)
    assert rows_of(page, "summary") == {
        "seed": ["int", "`3`", "", "Of all random numbers."],
        "data.kind": ["str", "`'a'`", "", r"What a \| b \<c> means. (b, c)"],
        "data.path": ["str or None", "`None`", "", ""],
        "table.left": ["int", "`1`", "", ""],
        "table.right": ["tuple", "`(2, 3)`", "", "(whole)"],
    }
    assert cells(r"| **`table`** |  |  |  | Of the table. |") in [
        cells(line) for line in page.splitlines() if line.startswith("| **")
    ]
    assert r"| `other` | `data.kind='b\|c'` |" in page


def test_a_docstring_is_read_by_attribute():
    text = """Of it.

    Attributes:
      one: First
        and more.
      two: Second: `x`.
    """
    found = docs_comments.attributes(text)
    assert found == {"one": "First and more.", "two": "Second: `x`."}


def test_a_folder_without_configs_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no config file"):
        docs.page(tmp_path)
    (tmp_path / "a.py").write_text("import nothing_of_this_name")
    with pytest.raises(UserError, match=r"a\.py does not load: No module"):
        docs.page(tmp_path)
