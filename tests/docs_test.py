# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""README and docs: Python blocks run, commands, flags, keys, links and files exist.

Python blocks of a page run in order, in one namespace and in a temporary folder. Shell
blocks are checked, not run: tests/launch runs the commands. A block after the comment
`<!-- needs data: ... -->` is checked in the same way, but its Python does not run.
"""

import functools
import re
from pathlib import Path

import pytest

from rfrec.config import value_at
from tests.support.commands import ROOT, load_config, load_module

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += [*sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CHANGELOG.md"]
LINKED += [*sorted((ROOT / "results").glob("*.md")), ROOT / "launch" / "README.md"]
LINKED += [ROOT / "third_party" / "README.md"]
# Blocks of a code language, of the shell (no language) and of plain text.
BLOCK = re.compile(
    r"(?:^<!-- needs data: (?P<data>[^\n]+) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
HEAD = re.compile(r"^\|[^|]*\| configs/(\w+)\.py \|")
# Dotted keys as they are written in the pages.
KEY = re.compile(r"config\.((?:[a-z]\w*\.)*[a-z]\w*)")
COMMAND = re.compile(r"-m rfrec\.launch\.(\w+)((?: +(?!&&)\S+)*)")
FLAG = re.compile(r"--(no)?([a-z]\w*)(?:[= ]|$)")
SHARED_FLAGS = ["config", "coordinator_address", "distributed", "num_processes"]
SHARED_FLAGS += ["page", "process_id", "profile", "workdir"]


def blocks(page: Path, language: str) -> list[re.Match[str]]:
    """Returns the blocks of a page in one language; the shell has none."""
    every = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [block for block in every if block["language"] == language]


@functools.cache
def is_key(name: str, key: str) -> bool:
    try:
        value_at(load_config(name), key)
    except (KeyError, AttributeError, TypeError):
        return False
    return True


def problems_of(main: str, arguments: str) -> list[str]:
    """Returns what is wrong with the arguments of a command."""
    module = ROOT / "rfrec" / "launch" / f"{main}.py"
    if not module.exists():
        return [f"no command {main}"]
    config = re.search(r"--config=(\S+?)\.py(?::(\w+))?(?=\s|$)", arguments)
    name, variant = (config[1], config[2]) if config else (f"configs/{main}", None)
    if config and not (ROOT / f"{name}.py").exists():
        return [f"no file {name}.py"]
    name = name.removeprefix("configs/")
    problems = []
    if variant and variant not in load_module(name).VARIANTS:
        problems.append(f"no variant {variant} of configs/{name}.py")
    for key in re.findall(r"--config\.([\w.]+)=", arguments):
        if not is_key(name, key):
            problems.append(f"no key {key} in configs/{name}.py")
    own = re.findall(r'DEFINE_\w+\(\s*"(\w+)"', module.read_text(encoding="utf-8"))
    for _, flag in FLAG.findall(re.sub(r"--config\.\S+", "", arguments)):
        if flag not in [*own, *SHARED_FLAGS]:
            problems.append(f"no flag --{flag} of {main}")
    return problems


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_python_blocks_run_in_order(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for block in blocks(path, "python"):
        code = compile(block["code"], f"{path.name}: {block['code'][:40]!r}", "exec")
        if not block["data"]:
            exec(code, names)  # Our own page.


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_shell_blocks_name_commands_flags_and_keys_that_exist(path):
    for block in blocks(path, ""):
        code = block["code"].replace("\\\n", " ")
        for main, arguments in COMMAND.findall(code):
            assert problems_of(main, arguments) == [], f"{path.name}: {arguments}"


@pytest.mark.parametrize(
    ("main", "arguments", "problem"),
    [
        ("nothing", "", "no command nothing"),
        ("t5", "--config=configs/t6.py", "no file configs/t6.py"),
        ("t5", "--config=configs/t5.py:big", "no variant big of configs/t5.py"),
        ("t5", "--config.data.nothing=1", "no key data.nothing in configs/t5.py"),
        ("t5", "--config=configs/t5.py --wrkdir=x", "no flag --wrkdir of t5"),
    ],
)
def test_a_wrong_command_is_detected(main, arguments, problem):
    assert problems_of(main, arguments) == [problem]
    assert problems_of("t5", "--config=configs/t5.py:smoke --workdir=x") == []


def test_every_command_has_a_section_with_an_example():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    names = {path.stem for path in (ROOT / "rfrec" / "launch").glob("[a-z]*.py")}
    names -= {"cli"}
    sections = re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert {name for name, _ in sections} == names
    for name, text in sections:
        assert f"python -m rfrec.launch.{name}" in text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_block_is_seen(path):
    text = path.read_text(encoding="utf-8")
    fences = len(re.findall(r"^```", text, re.MULTILINE))
    assert fences == 2 * len(list(BLOCK.finditer(text)))
    assert "```" not in re.sub(r"^```", "", text, flags=re.MULTILINE)
    marked = [block for block in BLOCK.finditer(text) if block["data"]]
    assert len(marked) == text.count("<!-- needs data")


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


def test_a_key_that_does_not_exist_is_detected():
    page = (
        "| theirs | configs/t5.py | |\n|---|---|---|\n| `--x` | `config.data.nix` | |"
    )
    keys = [key for _, row in rows_of_tables(page) for key in KEY.findall(row)]
    assert keys == ["data.nix"]
    assert not is_key("t5", "data.nix") and is_key("t5", "data.mode")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_keys_in_the_text_are_those_of_some_config(path):
    if path.stem in ("configs", "CONTRIBUTING"):
        pytest.skip("generated from the configs, or about config objects")
    names = sorted(file.stem for file in (ROOT / "configs").glob("*.py"))
    keys = set(KEY.findall(path.read_text())) - {"json"}
    assert [k for k in keys if not any(is_key(name, k) for name in names)] == []


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.stem)
def test_links_scripts_and_modules_exist(path):
    text = path.read_text(encoding="utf-8")
    for module in re.findall(r"rfrec(?:\.[a-z_0-9]+)+", text):
        parts = Path(*module.split("."))
        files = (parts.with_suffix(".py"), parts, parts.parent.with_suffix(".py"))
        public = parts.parent == Path("rfrec")
        assert public or any((ROOT / file).exists() for file in files), module
    for link, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", text):
        target = path.parent / link if link else path
        assert target.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.M)
            slugs = {
                re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads
            }
            assert anchor in slugs, f"{link}#{anchor}"
    for script in re.findall(r"launch/(?:\w+/)?\w+\.s(?:h|batch)\b", text):
        assert (ROOT / script).exists(), script


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
