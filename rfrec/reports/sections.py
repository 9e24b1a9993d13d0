# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run's report in; the sections of its page out, as texts and tables."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.pipelines import run_folder
from rfrec.reports.examples import Example

Row = tuple[str, ...]


class Table(NamedTuple):
    """Rows under a head; a folded one is opened by a click."""

    caption: str
    head: Row
    rows: tuple[Row, ...]
    folded: bool = False


class Picture(NamedTuple):
    """A picture as a data URI, and what it shows."""

    alt: str
    uri: str


class Section(NamedTuple):
    """A part of the page."""

    title: str
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    examples: tuple[Example, ...] = ()


class Report(NamedTuple):
    """A report that may be damaged, and its file."""

    path: Path
    content: dict[str, Any]

    def at(self, *keys: str | int, kind: type) -> Any:
        """Returns a value, as of `report_file.at`."""
        return run_folder.at(self.path, self.content, *keys, kind=kind)


# What a report tells at its top, in words.
_FACTS = {
    "model": "model",
    "which": "held-out items",
    "seed": "seed",
    "device": "device",
    "seconds": "seconds",
    "steps": "steps",
    "epochs": "epochs",
    "best_step": "best step",
    "best_epoch": "best epoch",
    "seconds_per_epoch": "seconds per epoch",
    "parameters": "parameters",
}
_DATA = {"users": "users", "items": "items", "vocabulary": "tokens"}
# Names of data sets as the published numbers have them.
_PUBLISHED_AS = {"ml100k": "movielens100k", "ml1m": "movielens1m", "elec": "electronic"}
_SAID_ELSEWHERE = ("items", "largest_group")
_SHOWN = {
    "gume": ("recall@10", "recall@20", "ndcg@10", "ndcg@20"),
    "sasrec": ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr"),
    "recommend": ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr"),
}


def show(value: Any) -> str:
    """Writes a value for a reader."""
    if isinstance(value, bool) or value is None:
        return "–" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(show, value)) or "–"
    return str(value)


def what_ran(report: Report) -> Section:
    """Tells main, seed, device and data."""
    content = report.content
    facts = [("main", f"rfrec.launch.{report.at('main', kind=str)}")]
    facts += [(word, show(content[k])) for k, word in _FACTS.items() if k in content]
    data = [(word, show(content[k])) for k, word in _DATA.items() if k in content]
    told = report.at("data", kind=dict)
    name = told.get("names", told.get("name"))
    data = [("data set", show(name)), *data]
    counts = report.at("pairs", kind=dict) if "pairs" in content else {}
    data += [(f"pairs, {k}", show(v)) for k, v in counts.items()]
    data.append(("SHA-256", show(told.get("sha256"))))
    notes = list(report.at("warnings", kind=list)) if "warnings" in content else []
    notes.append(content.get("warning"))
    return Section(
        "What ran",
        tuple(f"Warning: {note}" for note in notes if note),
        (Table("Run", ("", ""), tuple(facts)), Table("Data", ("", ""), tuple(data))),
    )


def config_section(config: ConfigDict) -> Section:
    """Tells all keys of a config but those of rf that are None."""
    rows = [
        (key, show(value))
        for key, value in _flat(cfg.as_json(config))
        if not (key.startswith("rf.") and value is None)
    ]
    return Section(
        "Config", (), (Table("All keys", ("key", "value"), tuple(rows), True),)
    )


def _flat(values: Mapping[str, Any], prefix: str = ""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def code_health(report: Report) -> Section:
    """Tells collisions, use of the levels and the models of a tokenizer's run."""
    names = ("items", "distinct", "conflict_items", "largest_group")
    codes = tuple(
        (
            f"{when} repair",
            *(show(report.at("codes", when, name, kind=int)) for name in names),
            f"{report.at('codes', when, 'collision_rate', kind=float):.2%}",
        )
        for when in ("before", "after")
    )
    head = ("", "items", "distinct codes", "conflict items", "largest group", "share")
    levels = []
    for i in range(len(report.at("levels", kind=list))):
        size, used = (report.at("levels", i, k, kind=int) for k in ("size", "used"))
        perplexity = report.at("levels", i, "perplexity", kind=float)
        share = f"{used / max(size, 1):.1%}"
        levels.append((str(i + 1), show(size), show(used), share, f"{perplexity:.1f}"))
    tables = [
        Table("Codes", head, codes),
        Table(
            "Levels", ("level", "codes", "used", "share", "perplexity"), tuple(levels)
        ),
    ]
    left = report.at("energy_left", kind=float)
    note = f"Energy left of the items, squared error over squares: {left:.4f}."
    return Section("Code health", (note,), (*tables, *models(report)))


def models(report: Report) -> tuple[Table, ...]:
    """Returns the table of a run's checkpoints side by side; none if it tells none."""
    if not report.content.get("models"):
        return ()
    names = report.at("models", kind=dict)
    found = {name: report.at("models", name, kind=dict) for name in names}
    columns = [
        name
        for name in next(iter(found.values()))
        if name not in _SAID_ELSEWHERE
        and all(isinstance(row.get(name), int | float) for row in found.values())
    ]
    rows = tuple(
        (name, *(show(row[column]) for column in columns))
        for name, row in found.items()
    )
    heads = (column.replace("_", " ") for column in columns)
    return (Table("Checkpoints, by what was best", ("", *heads), rows),)


def metrics(report: Report) -> Section:
    """Tells metrics with their intervals, of every list and group."""
    main = report.at("main", kind=str)
    tables: list[Table] = []
    if main == "recommend":
        for name in report.at("lists", kind=dict):
            for how in ("by_item", "by_code"):
                at = ("lists", name, how)
                caption = f"{name}, {how.replace('_', ' ')}"
                tables.append(_groups(report, at, caption, _SHOWN[main]))
    else:
        # The validation of SASRec has means alone, without groups.
        parts = ("test", "valid") if main == "gume" else ("test",)
        tables += [_groups(report, (p,), p, _SHOWN[main]) for p in parts]
    note = "Means over users, with 95% bootstrap intervals."
    return Section("Metrics", (note,), tuple(tables))


def _groups(report: Report, at: Row, caption: str, names: Sequence[str]) -> Table:
    rows = []
    for group in report.at(*at, "metrics", kind=dict):
        users = report.at(*at, "metrics", group, "users", kind=int)
        cells = [interval(report, (*at, "metrics", group, name)) for name in names]
        rows.append((group, show(users), *cells))
    return Table(caption, ("", "users", *map(label, names)), tuple(rows))


def interval(report: Report, at: Row) -> str:
    """Returns mean and interval of one metric."""
    if report.at(*at, kind=dict).get("mean") is None:
        return "–"
    mean, low, high = (report.at(*at, k, kind=float) for k in ("mean", "low", "high"))
    # A narrow column breaks between the two, not within the interval.
    return f"{mean:.4f} [{low:.4f},\N{NO-BREAK SPACE}{high:.4f}]"


def label(metric: str) -> str:
    """Returns a metric as papers write it."""
    return metric.upper() if not metric.startswith("recall") else metric.capitalize()


def published(path: Path, report: Report) -> Section:
    """Tells the published numbers for a run's data set, beside the run's.

    Args:
      path: Of the published numbers.
      report: Of the run.

    Raises:
      UserError: The file is damaged.
    """
    title, main = "Published numbers", report.at("main", kind=str)
    if not path.exists():
        return Section(title, (f"Not shown: {path} does not exist.",))
    if main == "t5":
        told = "Not shown: they are of test lists, which rfrec.launch.recommend makes."
        return Section(title, (told,))
    numbers = files.read_json(path, "it belongs to the checkout")
    kind = {"rqvae": "tokenizer", "gume": "graph"}.get(main, "retrieval")
    names, tables = _data_names(report), []
    for i, _ in enumerate(run_folder.at(path, numbers, kind, kind=list)):
        data = run_folder.at(path, numbers, kind, i, kind=dict)
        if any(_same(name, str(data.get("dataset"))) for name in names):
            tables.append(_table(path, data, report, main))
    if not tables:
        told = f"for {show(names)}" if names else "for data without a name"
        return Section(title, (f"None are known {told}.",))
    note = "Compare only what has the same data and the same protocol."
    return Section(title, (note,), tuple(tables))


def _data_names(report: Report) -> list[str]:
    told = report.at("data", kind=dict)
    names = report.at("data", "names", kind=list) if told.get("names") else []
    return [str(name) for name in [*names, told.get("name")] if name]


def _same(name: str, dataset: str) -> bool:
    first = re.split(r"[^a-z0-9]+", name.lower())[0]
    wanted = _PUBLISHED_AS.get(first, first)
    return len(wanted) > 3 and wanted in re.sub(r"[^a-z0-9]", "", dataset.lower())


def _table(path: Path, data: dict[str, Any], report: Report, main: str) -> Table:
    rows = run_folder.at(path, data, "rows", kind=list)
    caption = f"{data.get('dataset')}; {data.get('protocol')}"
    if main == "rqvae":
        columns = ("items", "distinct_codes", "conflict_items", "level1_perplexity")
        heads = tuple(column.replace("_", " ") for column in columns)
        own = [_own_codes(report)]
    else:
        columns = heads = tuple(
            label(name)
            for name in _SHOWN[main]
            if any(label(name) in row for row in rows)
        )
        own = _own_metrics(report, main, columns)
    theirs = [
        (str(row.get("system")), *(show(row.get(column)) for column in columns))
        for row in rows
    ]
    return Table(caption, ("", *heads), (*own, *theirs))


def _own_codes(report: Report) -> Row:
    before = [
        show(report.at("codes", "before", name, kind=int))
        for name in ("items", "distinct", "conflict_items")
    ]
    perplexity = report.at("levels", 0, "perplexity", kind=float)
    return ("this run, before repair", *before, show(perplexity))


def _own_metrics(report: Report, main: str, columns: Sequence[str]) -> list[Row]:
    places = {"this run, test": ("test",)}
    if main == "recommend":
        which = report.at("which", kind=str)
        places = {
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
        for name, at in places.items()
    ]
