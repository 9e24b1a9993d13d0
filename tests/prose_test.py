# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The language of docstrings, comments, messages, names and pages.

In: the text of a checkout. Out: one line for each breach, `path:line: what is wrong`.
The second half of the file shows that each rule can fail. To list those of a folder:

python tests/prose_test.py rfrec/graph docs/data.md
"""

import ast
import io
import pathlib
import re
import sys
import tokenize
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Words of a private idiom, and what the field says instead.
WORDS = {
    r"told|tells?": "report, state or show",
    r"mend(s|ed|ing)?": "fix",
    r"anew": "again",
    r"hears?|heard": "depends on or receives",
    r"feels?": "receives gradients from",
    r"(do|does|did) not go together|go together|goes together": "cannot be combined",
    r"which is of": "of, or name the thing",
    r"floors": "baselines",
}
_WORDS = re.compile("|".join(rf"\b(?:{word})\b" for word in WORDS), re.IGNORECASE)
# Names that say nothing about the value.
NAMES = {"made", "told", "found", "given", "asked", "again", "heard", "room", "places"}
# Keys of stored files and configs, which stay as they are: fields of classes only.
STORED = {"room"}
_ENTRY = re.compile(r"^(?P<indent> +)(?P<name>\*{0,2}\w+): (?P<text>.*)")
_SECTIONS = ("Args:", "Attributes:", "Raises:")
_TEXT_FOLDERS = ("docs/*.md", "results/*.md", "*.md", "launch/**/*.sh", "launch/*.md")


def _entries(docstring: str) -> Iterator[tuple[int, str, str]]:
    """Yield line offset, name and whole text of the entries of a docstring."""
    lines = docstring.splitlines()
    depth, entry, start, name = 0, "", 0, ""
    inside = False
    for number, line in enumerate(lines):
        if line.strip() in _SECTIONS:
            inside, depth = True, len(line) - len(line.lstrip()) + 2
            continue
        indent = len(line) - len(line.lstrip())
        match = _ENTRY.match(line)
        if inside and line.strip() and indent < depth:
            inside = False
        if inside and match and indent == depth:
            if name:
                yield start, name, entry
            start, name, entry = number, match["name"], match["text"]
        elif inside and name and line.strip():
            entry += " " + line.strip()
        elif not inside and name:
            yield start, name, entry
            name = ""
    if name:
        yield start, name, entry


def _docstring_breaches(tree: ast.Module) -> Iterator[tuple[int, str]]:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if not isinstance(node, kinds) or not ast.get_docstring(node, clean=False):
            continue
        first = node.body[0]
        for offset, name, text in _entries(ast.get_docstring(node, clean=False) or ""):
            line = first.lineno + offset
            if re.match(r"Of\b", text):
                yield line, f"entry {name!r} starts with 'Of': use a noun phrase"
            elif text[:1].islower():
                yield line, f"entry {name!r} starts with a small letter"
            elif not text.rstrip().endswith((".", ":", ")")):
                yield line, f"entry {name!r} does not end with a full stop"


def _name_breaches(tree: ast.Module) -> Iterator[tuple[int, str]]:
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    fields = [field for node in classes for field in node.body]
    stored = [field.target for field in fields if isinstance(field, ast.AnnAssign)]
    for node in ast.walk(tree):
        name = ""
        if node in stored and getattr(node, "id", "") in STORED:
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = node.name
        if name.strip("_").lower() in NAMES:
            yield getattr(node, "lineno", 1), f"name {name!r} does not say what it is"


def _prose_of_code(source: str) -> Iterator[tuple[int, str]]:
    """Yield the comments and strings of Python code, line by line."""
    kinds = {tokenize.COMMENT, tokenize.STRING}
    kinds.add(getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line


def _word_breaches(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for number, line in lines:
        for match in _WORDS.finditer(line):
            better = next(
                b for w, b in WORDS.items() if re.fullmatch(w, match[0], re.I)
            )
            yield number, f"{match[0]!r}: write {better}"


def breaches(root: pathlib.Path) -> list[str]:
    """Lists the breaches of a checkout, one line each, in order of path."""
    found = []
    for path in sorted([*root.glob("rfrec/**/*.py"), *root.glob("configs/*.py")]):
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        rows = [*_docstring_breaches(tree), *_name_breaches(tree)]
        rows += _word_breaches(_prose_of_code(source))
        found += [f"{path.relative_to(root)}:{n}: {what}" for n, what in sorted(rows)]
    for path in sorted({p for glob in _TEXT_FOLDERS for p in root.glob(glob)}):
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        rows = _word_breaches(lines)
        found += [f"{path.relative_to(root)}:{n}: {what}" for n, what in rows]
    return found


def test_the_language_is_plain():
    assert breaches(ROOT) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('def f(x):\n  """F.\n\n  Args:\n    x: Of it.\n  """', "starts with 'Of'"),
        ('def f(x):\n  """F.\n\n  Args:\n    x: the x.\n  """', "small letter"),
        ('def f(x):\n  """F.\n\n  Args:\n    x: An x\n  """', "full stop"),
        ("made = 1", "'made' does not say"),
        ("def f(told): pass", "'told' does not say"),
        ("# It is told.", "'told': write report"),
        ('x = "a and b do not go together"', "cannot be combined"),
        ('x = f"{1} tells of it"', "'tells': write"),
    ],
)
def test_a_breach_is_one_line_that_names_the_file(tmp_path, body, message):
    path = tmp_path / "rfrec" / "a.py"
    path.parent.mkdir()
    path.write_text(body + "\n")
    lines = breaches(tmp_path)
    assert len(lines) == 1, lines
    assert lines[0].startswith("rfrec/a.py:")
    assert message in lines[0]


def test_pages_are_read_too(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("fine\nmend it\n")
    assert breaches(tmp_path) == ["docs/a.md:2: 'mend': write fix"]


def test_plain_text_passes(tmp_path):
    body = '"""M."""\n\n\ndef f(x):\n  """F.\n\n  Args:\n    x: Width of it.\n  """'
    path = tmp_path / "rfrec" / "a.py"
    path.parent.mkdir()
    path.write_text(body + "\n")
    assert breaches(tmp_path) == []


if __name__ == "__main__":
    chosen = tuple(sys.argv[1:]) or ("",)
    for breach in breaches(ROOT):
        if breach.startswith(chosen):
            print(breach)
