# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The source of a config file in, what its comments say of each key out.

The comment above a key tells its meaning, that behind the value a note: other values,
or when the key acts. What no comment tells is looked up in `docs_words`.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rfrec.launch import docs_words


class Note(NamedTuple):
    """What the comments beside one key say; empty where there is none."""

    above: str
    behind: str


def read(source: str) -> dict[str, Note]:
    """Returns the notes of all keys that `get_config` sets, by dotted key.

    Args:
      source: Of a config file.
    """
    whole, behind = {}, {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            text = token.string.removeprefix("#").strip()
            (whole if alone else behind)[token.start[0]] = text
    functions = {
        node.name: node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
    }
    notes = {}
    for key, first, last in _places(functions, "get_config", ""):
        above, line = [], first - 1
        while line in whole:
            above.insert(0, whole[line])
            line -= 1
        notes[key] = Note(" ".join(above), behind.get(last, ""))
    return notes


def _places(
    functions: Mapping[str, ast.FunctionDef], name: str, prefix: str
) -> Iterator[tuple[str, int, int]]:
    """Yields the keys that a function sets, with the lines of each assignment."""
    for node in functions[name].body:
        if not isinstance(node, ast.Assign):
            continue
        target, value = node.targets[0], node.value
        parts = ast.unparse(target).split(".")
        if not isinstance(target, ast.Attribute) or not all(
            map(str.isidentifier, parts)
        ):
            continue
        # The first part is the variable that holds the section.
        key = prefix + ".".join(parts[1:])
        yield key, node.lineno, node.end_lineno or node.lineno
        called = getattr(value.func, "id", "") if isinstance(value, ast.Call) else ""
        if called in functions:
            yield from _places(functions, called, f"{key}.")
        elif isinstance(value, ast.Call) and value.args:
            yield from _in_dict(value.args[0], f"{key}.")


def _in_dict(node: ast.expr, prefix: str) -> Iterator[tuple[str, int, int]]:
    if not isinstance(node, ast.Dict):
        return
    for name, value in zip(node.keys, node.values, strict=True):
        if isinstance(name, ast.Constant):
            key = f"{prefix}{name.value}"
            yield key, name.lineno, value.end_lineno or value.lineno
            yield from _in_dict(value, f"{key}.")


def meaning(name: str, key: str, notes: Mapping[str, Note], rule: str) -> str:
    """Returns what a key means, with the note behind its value in brackets.

    Args:
      name: Of the config.
      key: Dotted.
      notes: Of the config file.
      rule: What is allowed; a comment that only repeats its choices is left out.
    """
    note, own = notes.get(key, Note("", "")), docs_words.OWN.get(name, {})
    above, behind = ("" if _repeats(text, rule) else text for text in note)
    word = own.get(key) or own.get(key.rpartition(".")[2])
    told = above or word or docs_words.COMMON.get(key, "")
    return f"{told} ({behind})".strip() if behind else told


def _repeats(comment: str, rule: str) -> bool:
    """Whether a comment lists nothing but choices that the rule tells too."""
    told = set(re.findall(r"[\w@.-]+", rule)) | {"or"}
    return "one of" in rule and set(re.findall(r"[\w@.-]+", comment)) <= told


def attributes(docstring: str) -> dict[str, str]:
    """Returns what the part `Attributes:` of a docstring says, by name."""
    part = docstring.partition("Attributes:\n")[2]
    found = re.findall(r"^ {6}(\w+): (.*(?:\n {8,}.*)*)", part, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
