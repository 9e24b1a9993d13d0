# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The layout: which package may import which, and what no source file may contain.

In: the source files of a checkout, parsed and never run. Out: one line for each breach,
`path:line: what is wrong`. The second half of the file shows on small made-up checkouts
that each rule can fail. To list the breaches of one folder:

python tests/layering_test.py rfrec/graph
"""

import ast
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A unit is a package or module directly below rfrec/. It imports units of lower tiers.
TIERS = {
    **dict.fromkeys(("config", "typing"), 0),
    **dict.fromkeys(("files", "dropout", "numerics", "tables"), 1),
    "manifests": 1.5,  # Manifests are files.
    **dict.fromkeys(("train", "data", "codes", "rf", "evaluation"), 2),
    **dict.fromkeys(("tokenizer", "retrieval", "graph", "encoders"), 3),
    **dict.fromkeys(("serving", "quantize"), 4),
    "pipelines": 5,
    **dict.fromkeys(("reports", "benchmarks", "parity"), 6),
    "launch": 7,
}
CONFIG_IMPORTS = ("ml_collections", "rfrec")
TORCH_FILES = (
    "rfrec/pipelines/exchange.py",
    "rfrec/tokenizer/mql4grec.py",
    "rfrec/benchmarks/*.py",
    "rfrec/encoders/torch_*.py",
)
OPTIONAL = ("torch", "matplotlib", "tensorboardX", "PIL", "jinja2")
# Each takes a second to load, and few commands need it.
SLOW = ("sklearn", "scipy.stats", "transformers")
PICKLERS = ("pickle", "cPickle", "_pickle", "cloudpickle", "dill", "shelve", "joblib")
MAX_LINES, MAX_FUNCTION = 600, 60
# Commands are thin: they parse a config, call a pipeline and report.
MAX_MAIN, MAX_LAUNCH_FILES, MAX_LAUNCH_LINES = 200, 26, 2500
# The command line itself, which every main imports.
CLI = "rfrec.launch.cli"
# The one import of a higher tier, inside a method: `GenerativeRetriever.export` is part
# of the public class, and only serving knows how an artefact is built.
UPWARD = ("rfrec/retrieval/retriever.py", "rfrec.serving.export")
HEADER = (
    "# Copyright 2026 The rfrec Authors.",
    "# SPDX-License-Identifier: Apache-2.0",
)


class Import(NamedTuple):
    """One imported name: the full dotted name, its line, inside a function or not."""

    name: str
    line: int
    lazy: bool


def _imports(tree: ast.Module, package: tuple[str, ...]) -> Iterator[Import]:
    """Yield what a module imports; `package` resolves relative imports."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, lazy)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            parts = (*base, *filter(None, [node.module]))
            for alias in node.names:
                yield Import(".".join((*parts, alias.name)), node.lineno, lazy)
        elif isinstance(node, ast.Call) and (name := _dynamic_import(node)):
            yield Import(name, node.lineno, lazy)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        checked: list[ast.stmt] = []  # What only a type checker sees is never loaded.
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            checked = node.body
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy or inside or child in checked)

    return visit(tree, False)


def _dynamic_import(call: ast.Call) -> str | None:
    """Return x of `import_module("x")` or `__import__("x")`."""
    function = getattr(call.func, "id", getattr(call.func, "attr", ""))
    if function not in ("import_module", "__import__") or not call.args:
        return None
    name = getattr(call.args[0], "value", None)
    return name if isinstance(name, str) else None


def _within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(f"{p}.") for p in packages)


def _tier_breaches(path: pathlib.PurePath, found: Import) -> Iterator[str]:
    """Yield what is wrong with one import of a file below rfrec/."""
    unit = path.with_suffix("").parts[1]
    if unit not in (*TIERS, "__init__"):
        yield f"rfrec.{unit} has no tier in tests/layering_test.py"
        return
    parts = found.name.split(".")
    if parts[0] == "third_party":
        yield "third_party is never imported"
    if parts[0] != "rfrec":
        return
    if _within(found.name, ("rfrec.launch",)) and not _may_import_launch(path, found):
        yield f"{found.name}: only commands import rfrec.launch, and only cli"
        return
    other = parts[1] if len(parts) > 1 else "__init__"
    if other not in TIERS or unit not in TIERS or other == unit:
        return
    if TIERS[other] == TIERS[unit]:
        yield f"rfrec.{unit} and rfrec.{other} share a tier: neither imports the other"
    elif TIERS[other] > TIERS[unit] and not (
        found.lazy and (str(path), found.name) == UPWARD
    ):
        yield f"rfrec.{unit} stands below rfrec.{other} and must not import it"


def _may_import_launch(path: pathlib.PurePath, found: Import) -> bool:
    return path.parent.parts == ("rfrec", "launch") and _within(found.name, (CLI,))


def _import_breaches(path: pathlib.PurePath, found: Import) -> Iterator[str]:
    if path.parts[0] == "configs":
        if not _within(found.name, CONFIG_IMPORTS):
            allowed = " and ".join(CONFIG_IMPORTS)
            yield f"a config imports only {allowed}, not {found.name}"
        return
    yield from _tier_breaches(path, found)
    if _within(found.name, ("torch",)) and not any(map(path.match, TORCH_FILES)):
        yield "torch is imported only by " + ", ".join(TORCH_FILES)
    elif _within(found.name, OPTIONAL) and not found.lazy:
        yield f"{found.name} is optional: import it inside the function that needs it"
    elif _within(found.name, SLOW) and not found.lazy:
        yield f"{found.name} is slow to load: import it inside the function"
    if _within(found.name, PICKLERS):
        yield f"no pickle: {found.name}"


def _pickle_breaches(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the calls that would read or write a pickle."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        if given.get("allow_pickle", False) is not False:
            yield node.lineno, "allow_pickle is False"
        safe = given.get("weights_only") is True
        if ast.unparse(node.func) == "torch.load" and not safe:
            yield node.lineno, "torch.load has weights_only=True"


def _is_docstring_only(tree: ast.Module) -> bool:
    return len(tree.body) == 1 and ast.get_docstring(tree) is not None


def _long_functions(tree: ast.Module) -> Iterator[tuple[int, str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION:
                yield node.lineno, node.name, length


def _code_breaches(root: pathlib.Path, path: pathlib.PurePath) -> Iterator[str]:
    """Yield the breaches of one Python file of rfrec/ or configs/."""
    tree = ast.parse((root / path).read_text(encoding="utf-8"))
    public = path.parts == ("rfrec", "__init__.py")
    if path.name == "__init__.py" and not public and not _is_docstring_only(tree):
        yield f"{path}:1: an __init__ contains a docstring and nothing else"
    for line, name, length in _long_functions(tree):
        yield f"{path}:{line}: {name} has {length} lines, more than {MAX_FUNCTION}"
    for found in _imports(tree, path.parent.parts):
        for what in _import_breaches(path, found):
            yield f"{path}:{found.line}: {what}"
    for line, what in _pickle_breaches(tree):
        yield f"{path}:{line}: {what}"


def _text_breaches(root: pathlib.Path, path: pathlib.PurePath) -> Iterator[str]:
    """Yield the breaches that any source file can have: header and length."""
    lines = (root / path).read_text(encoding="utf-8").splitlines()
    start = 1 if lines and lines[0].startswith("#!") else 0
    if tuple(lines[start : start + 2]) != HEADER:
        yield f"{path}:1: the licence header is missing"
    # A test file is read test by test, so its length does not matter.
    most = MAX_MAIN if path.parent.parts == ("rfrec", "launch") else MAX_LINES
    most = MAX_LINES if path.name == "cli.py" else most
    if len(lines) > most and path.parts[0] != "tests":
        yield f"{path}:{most}: the file has {len(lines)} lines, more than {most}"


def _launch_breaches(root: pathlib.Path) -> Iterator[str]:
    """Yield what is wrong with the size of rfrec/launch."""
    files = sorted(root.glob("rfrec/launch/*.py"))
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    if len(files) > MAX_LAUNCH_FILES:
        yield f"rfrec/launch:1: {len(files)} files, more than {MAX_LAUNCH_FILES}"
    if lines > MAX_LAUNCH_LINES:
        yield f"rfrec/launch:1: {lines} lines, more than {MAX_LAUNCH_LINES}"


def breaches(root: pathlib.Path) -> list[str]:
    """List the breaches of a checkout, one line each, in order of path.

    Args:
      root: The folder that contains rfrec/, configs/ and the rest of the checkout.

    Returns:
      Lines `path:line: what is wrong`; none if the layout is right.
    """
    code = [*root.glob("rfrec/**/*.py"), *root.glob("configs/**/*.py")]
    other = [
        *root.glob("tests/**/*.py"),
        *root.glob("launch/**/*.s*"),
        root / "setup.py",
    ]
    other = [path for path in [*other, root / ".ci" / "run"] if path.exists()]
    found = []
    for path in sorted(file.relative_to(root) for file in code):
        found.extend(_code_breaches(root, path))
    for path in sorted(file.relative_to(root) for file in [*code, *other]):
        found.extend(_text_breaches(root, path))
    return [*found, *_launch_breaches(root)]


def stray_tests(root: pathlib.Path) -> list[str]:
    """Returns the tests in a folder of `tests` that belong to no module.

    `tests/PACKAGE/NAME_test.py` tests `rfrec/PACKAGE/NAME.py` or the package of that
    name; `NAME_TOPIC_test.py` tests a part of it. `tests/support` has no tests.
    """
    stray = []
    for path in sorted((root / "tests").glob("*/**/*_test.py")):
        test = path.relative_to(root / "tests")
        words = test.name.removesuffix("_test.py").split("_")
        names = ["_".join(words[:n]) for n in range(1, len(words) + 1)]
        package = root / "rfrec" / test.parent
        exists = (
            (package / f"{n}.py").exists() or (package / n).is_dir() for n in names
        )
        if not any(exists):
            stray.append(
                f"tests/{test}: rfrec/{test.parent} has no module of that name"
            )
    return stray


def test_the_layout_holds():
    assert breaches(ROOT) == []


def test_tests_mirror_the_tree():
    assert stray_tests(ROOT) == []


def test_every_package_has_an_init():
    folders = {file.parent for file in (ROOT / "rfrec").glob("**/*.py")}
    assert [str(d) for d in folders if not (d / "__init__.py").exists()] == []


# The rules on made-up checkouts.


def _tree(root: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
    for name, body in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*HEADER, body]) + "\n")
    return root


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("rfrec/codes/a.py", "import rfrec.serving.http", "stands below rfrec.serving"),
        ("rfrec/codes/a.py", "from rfrec import tokenizer", "stands below"),
        ("rfrec/train/a.py", "from rfrec.data import sources", "share a tier"),
        ("rfrec/graph/a.py", "def f():\n  from rfrec import retrieval", "share a tier"),
        ("rfrec/graph/a.py", "from ..tokenizer import rqvae", "share a tier"),
        ("rfrec/config.py", "from rfrec import typing", "share a tier"),
        ("rfrec/typing.py", "from .codes import table", "stands below rfrec.codes"),
        ("rfrec/utils.py", "import os", "rfrec.utils has no tier"),
        ("rfrec/data/a.py", "import importlib as i\ni.import_module('torch')", "torch"),
        ("rfrec/data/a.py", "def f():\n  import torch.nn", "torch is imported only by"),
        ("rfrec/benchmarks/x.py", "import torch", "inside the function"),
        ("rfrec/data/a.py", "from scipy import stats", "slow to load"),
        (
            "rfrec/data/a.py",
            "if TYPE_CHECKING:\n  pass\nelse:\n  import sklearn",
            "slow to load",
        ),
        (
            "rfrec/pipelines/exchange.py",
            "try:\n  import torch\nexcept: 1",
            "inside the",
        ),
        ("rfrec/reports/a.py", "from matplotlib import figure", "inside the"),
        ("rfrec/data/a.py", "from third_party import mmrec", "third_party is never"),
        ("rfrec/data/a.py", "import pickle", "no pickle"),
        ("rfrec/data/a.py", "f('x', allow_pickle=True)", "allow_pickle is False"),
        ("rfrec/data/a.py", "f('x', allow_pickle=flag)", "allow_pickle is False"),
        ("rfrec/pipelines/exchange.py", "torch.load('x')", "weights_only=True"),
        ("configs/a.py", "import numpy", "imports only"),
        ("rfrec/codes/a.py", "import rfrec.launch.cli", "only commands import"),
        ("rfrec/launch/a.py", "from rfrec.launch import rqvae", "only commands import"),
        ("rfrec/reports/a.py", "from rfrec import parity", "share a tier"),
        ("rfrec/serving/a.py", "from rfrec.pipelines import run", "stands below"),
        ("rfrec/retrieval/retriever.py", "from rfrec.serving import export", "below"),
        (
            "rfrec/retrieval/beam.py",
            "def f():\n  from rfrec.serving import export",
            "stands below",
        ),
        (
            "rfrec/data/a.py",
            "def f():\n" + "  x = 1\n" * MAX_FUNCTION,
            "f has 61 lines",
        ),
        ("rfrec/data/__init__.py", '"""D."""\nfrom rfrec.data import a', "docstring"),
        ("rfrec/data/__init__.py", "", "docstring"),
        ("rfrec/data/a.py", "x = 1\n" * MAX_LINES, "more than 600"),
        ("rfrec/launch/a.py", "x = 1\n" * MAX_MAIN, "more than 200"),
        ("configs/a.py", "x = 1\n" * MAX_LINES, "more than 600"),
    ],
)
def test_a_breach_is_one_line_that_names_the_file(tmp_path, path, body, message):
    found = breaches(_tree(tmp_path, {path: body}))
    assert len(found) == 1, found
    assert re.match(rf"{path}:\d+: ", found[0])
    assert message in found[0]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("rfrec/launch/rqvae.py", "from rfrec.tokenizer import rqvae, loss"),
        ("rfrec/launch/plots.py", "from rfrec.launch import cli"),
        ("rfrec/__init__.py", "NAMES = {}"),
        (
            "rfrec/retrieval/retriever.py",
            "def f():\n  from rfrec.serving import export",
        ),
        ("rfrec/reports/a.py", "def f():\n  from matplotlib import figure"),
        ("rfrec/tokenizer/rqvae.py", "from rfrec.tokenizer import loss\nimport jax"),
        ("rfrec/tokenizer/rqvae.py", "from . import loss\nfrom ..config import E"),
        ("rfrec/train/loop.py", "from rfrec import config, typing"),
        ("rfrec/data/a.py", "import torchaudio_like\nf('x', allow_pickle=False)"),
        ("rfrec/benchmarks/x.py", "def f():\n  import torch"),
        ("rfrec/data/a.py", "if TYPE_CHECKING:\n  import transformers"),
        (
            "rfrec/pipelines/exchange.py",
            "def f(p):\n  import torch\n  return torch.load(p, weights_only=True)",
        ),
        ("rfrec/data/__init__.py", '"""Item vectors and histories."""'),
        ("configs/a.py", "import ml_collections\nfrom rfrec import config"),
        ("configs/a.py", "from ml_collections import config_dict"),
        ("configs/a.py", "from rfrec.config import base"),
    ],
)
def test_what_the_design_allows_passes(tmp_path, path, body):
    assert breaches(_tree(tmp_path, {path: body})) == []


@pytest.mark.parametrize(
    "name", ["rfrec/data/a.py", "launch/a.sh", "launch/a.sbatch", ".ci/run"]
)
def test_a_missing_licence_header_is_found(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("x=1\n")
    assert breaches(tmp_path) == [f"{name}:1: the licence header is missing"]
    path.write_text("\n".join(["#!/usr/bin/env bash", *HEADER]))
    assert breaches(tmp_path) == []


def test_launch_has_a_limited_number_of_files_and_lines(tmp_path):
    _tree(tmp_path, {f"rfrec/launch/m{n}.py": "x = 1\n" * 150 for n in range(27)})
    found = [line for line in breaches(tmp_path) if line.startswith("rfrec/launch:")]
    assert found == [
        "rfrec/launch:1: 27 files, more than 26",
        f"rfrec/launch:1: {27 * 153} lines, more than 2500",
    ]


def test_a_test_without_its_module_is_found(tmp_path):
    _tree(tmp_path, {"rfrec/data/pairs.py": "", "rfrec/retrieval/sasrec/model.py": ""})
    good = (
        "data/pairs_test.py",
        "data/pairs_split_test.py",
        "retrieval/sasrec_test.py",
    )
    _tree(tmp_path, {f"tests/{name}": "" for name in (*good, "whole_test.py")})
    assert stray_tests(tmp_path) == []
    _tree(tmp_path, {"tests/data/pair_test.py": "", "tests/graph/pairs_test.py": ""})
    assert stray_tests(tmp_path) == [
        "tests/data/pair_test.py: rfrec/data has no module of that name",
        "tests/graph/pairs_test.py: rfrec/graph has no module of that name",
    ]


if __name__ == "__main__":
    chosen = tuple(sys.argv[1:]) or ("",)
    for breach in breaches(ROOT):
        if breach.startswith(chosen):
            print(breach)
