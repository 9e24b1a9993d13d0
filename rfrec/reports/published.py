# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Published results, next to those of a run: as text, and as a section of the page."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfrec import config as cfg
from rfrec import files, tables
from rfrec.pipelines import run_folder
from rfrec.reports.sections import (
    METRICS,
    Report,
    Row,
    Section,
    Table,
    interval,
    label,
    show,
)

_REMEDY = "it belongs to the checkout"
_CODES = ("items", "distinct_codes", "conflict_items", "level1_perplexity")
# Names of data sets in our runs, and in the file of published results.
_PUBLISHED_AS = {"ml100k": "movielens100k", "ml1m": "movielens1m", "elec": "electronic"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the comparison.

    Attributes:
      reference_numbers: JSON file with published results.
    """

    reference_numbers: str = cfg.option(
        "third_party/reference_numbers.json", cfg.Rule(bool, "a file")
    )


def compare_run(run: Path, reference_numbers: Path) -> str:
    """Returns tables of a tokenizer run and of all published tokenizers, as text.

    Raises:
      UserError: A file is missing or damaged; names it and the key.
    """
    path = run / "report.json"
    report = Report(path, files.read_json(path, "finish the run of rfrec.launch.rqvae"))
    head = ("", "items", "distinct", "conflicts", "level 1 perplexity")
    codes = [head, _own_codes(report, "before"), _own_codes(report, "after")]
    levels = [("level", "size", "used", "share", "perplexity", "entropy")]
    for i, _ in enumerate(report.at("levels", kind=list)):
        size, used = (report.at("levels", i, k, kind=int) for k in ("size", "used"))
        spread = (
            show(report.at("levels", i, k, kind=float))
            for k in ("perplexity", "entropy")
        )
        share = f"{used / max(size, 1):.1%}"
        levels.append((str(i + 1), show(size), show(used), share, *spread))
    texts = [f"{run}\n{tables.align(codes)}", tables.align(levels)]
    for data in _read(reference_numbers, "tokenizer"):
        title = f"published: {data.get('dataset')} ({data.get('protocol')})"
        rows = tables.align([head, *_theirs(reference_numbers, data, _CODES)])
        texts.append(f"{title}\n{rows}")
    return "\n\n".join(texts)


def section(path: Path, report: Report) -> Section:
    """Returns the section with the published results for the data set of a run.

    Args:
      path: JSON file with published results.
      report: Report of the run.

    Raises:
      UserError: A file is damaged.
    """
    title, main = "Published results", report.at("main", kind=str)
    if not path.exists():
        return Section(title, (f"Not shown: {path} does not exist.",))
    if main == "t5":
        note = (
            "Not shown: published results are for test lists, which"
            " rfrec.launch.recommend writes."
        )
        return Section(title, (note,))
    kind = {"rqvae": "tokenizer", "gume": "graph"}.get(main, "retrieval")
    names = _data_names(report)
    shown = tuple(
        _table(path, data, report, main)
        for data in _read(path, kind)
        if any(_is_same(name, str(data.get("dataset"))) for name in names)
    )
    if not shown:
        which = show(names) if names else "data without a name"
        return Section(title, (f"There are none for {which}.",))
    note = "Results are comparable only on the same data and with the same protocol."
    return Section(title, (note,), shown)


def _read(path: Path, kind: str) -> list[dict[str, Any]]:
    """Returns the data sets of one kind in the file of published results."""
    numbers = files.read_json(path, _REMEDY)
    count = len(run_folder.at(path, numbers, kind, kind=list))
    return [run_folder.at(path, numbers, kind, i, kind=dict) for i in range(count)]


def _theirs(path: Path, data: dict[str, Any], columns: Sequence[str]) -> list[Row]:
    """Returns one row for each published system of a data set."""
    rows = []
    for i, _ in enumerate(run_folder.at(path, data, "rows", kind=list)):
        row = run_folder.at(path, data, "rows", i, kind=dict)
        system = run_folder.at(path, row, "system", kind=str)
        rows.append((system, *(show(row.get(column)) for column in columns)))
    return rows


def _own_codes(report: Report, when: str) -> Row:
    """Returns the row of a run's codes; its perplexity is known before repair only."""
    perplexity = report.at("levels", 0, "perplexity", kind=float)
    items = report.at("items", kind=int)
    counts = (
        report.at("codes", when, name, kind=int)
        for name in ("distinct", "conflict_items")
    )
    last = perplexity if when == "before" else None
    return (f"this run, {when} repair", *map(show, (items, *counts, last)))


def _data_names(report: Report) -> list[str]:
    data = report.at("data", kind=dict)
    names = report.at("data", "names", kind=list) if data.get("names") else []
    return [str(name) for name in [*names, data.get("name")] if name]


def _is_same(name: str, dataset: str) -> bool:
    """Whether a run's data set is a published one, by their names."""
    first = re.split(r"[^a-z0-9]+", name.lower())[0]
    wanted = _PUBLISHED_AS.get(first, first)
    return len(wanted) > 3 and wanted in re.sub(r"[^a-z0-9]", "", dataset.lower())


def _table(path: Path, data: dict[str, Any], report: Report, main: str) -> Table:
    caption = f"{data.get('dataset')}; {data.get('protocol')}"
    if main == "rqvae":
        columns, own = _CODES, [_own_codes(report, "before")]
        heads = tuple(column.replace("_", " ") for column in columns)
    else:
        rows = run_folder.at(path, data, "rows", kind=list)
        columns = heads = tuple(
            label(name)
            for name in METRICS[main]
            if any(label(name) in row for row in rows)
        )
        own = _own_metrics(report, main, columns)
    return Table(caption, ("", *heads), (*own, *_theirs(path, data, columns)))


def _own_metrics(report: Report, main: str, columns: Sequence[str]) -> list[Row]:
    keys: dict[str, Row] = {"this run, test": ("test",)}
    if main == "recommend":
        which = report.at("which", kind=str)
        keys = {
            f"this run, {which}, {name}, {how.replace('_', ' ')}": ("lists", name, how)
            for name in report.at("lists", kind=dict)
            for how in ("by_item", "by_code")
        }
    return [
        (
            name,
            *(
                interval(report, (*at, "metrics", "all", column.lower()))
                for column in columns
            ),
        )
        for name, at in keys.items()
    ]
