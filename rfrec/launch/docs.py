# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes docs/configs.md, every key of every config, and docs/scale.md.

Meanings are the comments beside the keys, types and defaults those of `get_config`,
what is allowed the rules of the main. Run it in the checkout after a config changed:

python -m rfrec.launch.docs
"""

import dataclasses
import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from absl import flags, logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.config import UserError
from rfrec.launch import cli, docs_comments, docs_scale
from rfrec.rf import settings as rf_settings

COMMAND = "python -m rfrec.launch.docs"
PAGE = Path("docs") / "configs.md"
# Where the rules of a config stand that are not in the module of its name.
_RULES_AT = {
    "features": "features_settings",
    "gume": "gume_settings",
    "recommend": "recommend_settings",
    "rqvae": "settings",
    "t5": "t5_settings",
}
_KEY_HEAD = "| key | type | default | allowed | meaning |\n|---|---|---|---|---|"


def main() -> None:
    """Writes the page into the checkout."""
    root = Path(flags.FLAGS.root)
    if not (root / "configs").is_dir():
        raise UserError(f"--root={root}: no checkout, it has no folder configs")
    (root / PAGE).parent.mkdir(exist_ok=True)
    pages = {PAGE: page(root / "configs"), docs_scale.PAGE: docs_scale.page(root)}
    for path, text in pages.items():
        with files.replacing(root / path) as partial:
            partial.write_text(text, encoding="utf-8")
        logging.info("written: %s", root / path)


def page(folder: Path) -> str:
    """Returns the page of all config files of a folder, as Markdown.

    Args:
      folder: Of the config files.

    Raises:
      UserError: There is none, or one does not load.
    """
    paths = sorted(folder.glob("*.py"))
    if not paths:
        raise UserError(f"{folder} holds no config file")
    names = [path.stem for path in paths]
    links = ", ".join(f"[{name}](#configs{name}py)" for name in names)
    parts = [_INTRODUCTION.format(command=COMMAND, links=links)]
    parts += [section(path) for path in paths]
    return "\n\n".join([*parts, rf_part()]) + "\n"


_INTRODUCTION = """\
# Configs

Made by `{command}` from `configs/*.py`; do not edit it here.

A main is started with `--config=configs/NAME.py[:variant]`, and each key can be set
beside it: `--config.train.epochs=5`. Tuples are quoted:
`--config.codebook.sizes='(64,64)'`. Where the type says `or None`, `--config.KEY=None`
is allowed. A misspelt key, a wrong type or a value that is not allowed is one line and
exit code 2. What stands in brackets is a note to the value, such as other values or the
case in which the key acts.

Every config has the section [rf](#the-section-rf). The others: {links}."""


def section(path: Path) -> str:
    """Returns what the page says of one config file."""
    name, module = path.stem, load(path)
    config = module.get_config()
    text = (module.__doc__ or "").strip()
    notes = docs_comments.read(path.read_text(encoding="utf-8"))
    rules = _rules(name)
    rows = []
    for key in in_order(config, notes):
        if isinstance(cfg.value_at(config, key), ConfigDict):
            # Of a section the comment alone is of interest.
            rows.append(_table_row((f"**`{key}`**", "", "", "", notes[key].above)))
            continue
        rule = rules[key].text if key in rules else ""
        told = docs_comments.meaning(name, key, notes, rule)
        rows.append(_row(key, config, rule, told))
    parts = [f"## configs/{name}.py", f"```\n{text}\n```"]
    parts.append("\n".join([_KEY_HEAD, *rows]) if rows else "It has no key but `rf`.")
    variants = [v for v in getattr(module, "VARIANTS", {}) if v]
    if variants:
        lines = [
            _table_row((f"`{v}`", differences(config, module.get_config(v))))
            for v in variants
        ]
        parts.append("\n".join(["| variant | sets |", "|---|---|", *lines]))
    return "\n\n".join(parts)


def load(path: Path) -> ModuleType:
    """Loads a config file.

    Raises:
      UserError: It does not load.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError, AttributeError, TypeError) as error:
        raise UserError(f"{path} does not load: {error}") from error
    return module


def keys(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    """Yields the dotted keys of a config in their order, but for the section rf."""
    for name in config:
        value = config[name]
        if not prefix and name == "rf":
            continue
        if isinstance(value, ConfigDict):
            yield from keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def in_order(config: ConfigDict, notes: Mapping[str, docs_comments.Note]) -> list[str]:
    """Returns the keys in the order of the file, and its sections with a comment."""
    known = set(keys(config))
    written = [key for key in notes if key in known or notes[key].above]
    written = [key for key in written if key.partition(".")[0] in config]
    return written + [key for key in keys(config) if key not in notes]


def differences(config: ConfigDict, variant: ConfigDict) -> str:
    """Tells in which keys a variant departs from the default."""
    before = {key: cfg.value_at(config, key) for key in keys(config)}
    after = {key: cfg.value_at(variant, key) for key in keys(variant)}
    told = [
        f"`{key}={value!r}`"
        for key, value in after.items()
        if key not in before or before[key] != value
    ]
    told += [
        f"`rf.{name}={variant.rf[name]!r}`"
        for name in variant.rf
        if config.rf[name] != variant.rf[name]
    ]
    told += [f"no `{key}`" for key in before if key not in after]
    return ", ".join(told) or "nothing: it is the default"


def _row(key: str, config: ConfigDict, rule: str, meaning: str) -> str:
    *sections, name = key.split(".")
    holder = cfg.value_at(config, ".".join(sections)) if sections else config
    kind = holder.get_type(name).__name__
    kind += " or None" if cfg.is_optional(config, key) else ""
    cells = (f"`{key}`", kind, f"`{holder[name]!r}`", rule, meaning)
    return _table_row(cells)


def _table_row(cells: tuple[str, ...]) -> str:
    # Markdown takes these for a border and for a tag of HTML.
    safe = (re.sub(r"[|<]", r"\\\g<0>", cell) for cell in cells)
    return f"| {' | '.join(safe)} |"


def _rules(name: str) -> cfg.Rules:
    """Returns the rules of a main, none where it keeps none in public."""
    module = importlib.import_module(f"rfrec.launch.{_RULES_AT.get(name, name)}")
    return getattr(module, "RULES", {})


def rf_part() -> str:
    """Returns the table of the section `rf`, with the values of the presets."""
    presets = rf_settings.PRESETS
    head = ["key", "type", *(f"`{name}`" for name in presets), "allowed", "meaning"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    meanings = docs_comments.attributes(rf_settings.Settings.__doc__ or "")
    section = rf_settings.section()
    for field in dataclasses.fields(rf_settings.Settings):
        values = [f"`{getattr(made, field.name)!r}`" for made in presets.values()]
        kind = section.get_type(field.name).__name__
        rule = rf_settings.RULES[f"rf.{field.name}"].text
        cells = (f"`rf.{field.name}`", kind, *values, rule, meanings[field.name])
        lines.append(_table_row(cells))
    aliases = ", ".join(
        f"`rf.{alias}` is `rf.{name}`" for alias, name in rf_settings.ALIASES.items()
    )
    listed = ", ".join(f"`{preset}`" for preset in presets)
    return (
        "## The section rf\n\n"
        "`rf.use_rf` (bool, `False`) puts the flow to work, in `rfrec.launch.gume`;"
        f" `rf.preset` (`{section.preset}`) is one of {listed}."
        " Every other key is None and has then the value of the preset; what is set"
        f" wins. Names that the documents give to one parameter: {aliases}.\n\n"
        + "\n".join(lines)
    )


def _define_flags() -> None:
    flags.DEFINE_string("root", ".", "Folder of the checkout.")


if __name__ == "__main__":
    _define_flags()
    cli.flags_main(main)
