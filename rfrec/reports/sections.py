# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sections of the page of a run: notes, tables and figures, made from its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.pipelines import run_folder
from rfrec.reports.examples import Example

Row = tuple[str, ...]


class Table(NamedTuple):
    """Table of a page.

    Attributes:
      caption: Caption.
      head: Column names; all empty for a table without a head.
      rows: Cells.
      folded: Whether the table is collapsed until the reader opens it.
    """

    caption: str
    head: Row
    rows: tuple[Row, ...]
    folded: bool = False


class Figure(NamedTuple):
    """Image of a page: its caption, and the content as a data URI."""

    caption: str
    uri: str


class Section(NamedTuple):
    """Section of a page."""

    title: str
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    examples: tuple[Example, ...] = ()


class Report(NamedTuple):
    """Content of a `report.json`, which may be damaged, and its path."""

    path: Path
    content: dict[str, Any]

    def at(self, *keys: str | int, kind: type) -> Any:
        """Returns a value; see `run_folder.at`."""
        return run_folder.at(self.path, self.content, *keys, kind=kind)


# Keys at the top of a report, and their names on the page.
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
# Numbers of a checkpoint that other tables show.
_SHOWN_ELSEWHERE = ("items", "largest_group")
# Metrics that the page shows.
METRICS = {
    "gume": ("recall@10", "recall@20", "ndcg@10", "ndcg@20"),
    "sasrec": ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr"),
    "recommend": ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr"),
}


def show(value: Any) -> str:
    """Formats a value of a report or config."""
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
    """Returns the section about command, seed, device and data."""
    content = report.content
    facts = [("command", f"rfrec.launch.{report.at('main', kind=str)}")]
    facts += [(word, show(content[k])) for k, word in _FACTS.items() if k in content]
    data = [(word, show(content[k])) for k, word in _DATA.items() if k in content]
    source = report.at("data", kind=dict)
    name = source.get("names", source.get("name"))
    data = [("data set", show(name)), *data]
    counts = report.at("pairs", kind=dict) if "pairs" in content else {}
    data += [(f"pairs, {k}", show(v)) for k, v in counts.items()]
    data.append(("SHA-256", show(source.get("sha256"))))
    notes = list(report.at("warnings", kind=list)) if "warnings" in content else []
    notes.append(content.get("warning"))
    return Section(
        "Run",
        tuple(f"Warning: {note}" for note in notes if note),
        (Table("Run", ("", ""), tuple(facts)), Table("Data", ("", ""), tuple(data))),
    )


def config_section(config: ConfigDict) -> Section:
    """Returns the section with the config, without the keys of `rf` that are None."""
    rows = [
        (key, show(value))
        for key, value in _flat(cfg.as_json(config))
        if not (key.startswith("rf.") and value is None)
    ]
    return Section(
        "Configuration", (), (Table("All keys", ("key", "value"), tuple(rows), True),)
    )


def _flat(values: Mapping[str, Any], prefix: str = ""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def code_health(report: Report) -> Section:
    """Returns the section about collisions, levels and checkpoints of a tokenizer."""
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
    note = f"Relative reconstruction error of the item vectors (squared): {left:.4f}."
    return Section("Codes and levels", (note,), (*tables, *models(report)))


def models(report: Report) -> tuple[Table, ...]:
    """Returns the table of a run's checkpoints; none if the report has none."""
    if not report.content.get("models"):
        return ()
    names = report.at("models", kind=dict)
    checkpoints = {name: report.at("models", name, kind=dict) for name in names}
    columns = [
        name
        for name in next(iter(checkpoints.values()))
        if name not in _SHOWN_ELSEWHERE
        and all(isinstance(row.get(name), int | float) for row in checkpoints.values())
    ]
    rows = tuple(
        (name, *(show(row[column]) for column in columns))
        for name, row in checkpoints.items()
    )
    heads = (column.replace("_", " ") for column in columns)
    return (Table("Checkpoints, by selection criterion", ("", *heads), rows),)


def metrics(report: Report) -> Section:
    """Returns the section with the metrics of every list and group of users."""
    main = report.at("main", kind=str)
    tables: list[Table] = []
    if main == "recommend":
        for name in report.at("lists", kind=dict):
            for how in ("by_item", "by_code"):
                at = ("lists", name, how)
                caption = f"{name}, {how.replace('_', ' ')}"
                tables.append(_groups(report, at, caption, METRICS[main]))
    else:
        # Validation results of SASRec are means without groups.
        parts = ("test", "valid") if main == "gume" else ("test",)
        tables += [_groups(report, (p,), p, METRICS[main]) for p in parts]
    note = "Means over users with 95% bootstrap confidence intervals."
    return Section("Metrics", (note,), tuple(tables))


def _groups(report: Report, at: Row, caption: str, names: Sequence[str]) -> Table:
    rows = []
    for group in report.at(*at, "metrics", kind=dict):
        users = report.at(*at, "metrics", group, "users", kind=int)
        cells = [interval(report, (*at, "metrics", group, name)) for name in names]
        rows.append((group, show(users), *cells))
    return Table(caption, ("", "users", *map(label, names)), tuple(rows))


def interval(report: Report, at: Row) -> str:
    """Returns the mean of one metric with its confidence interval."""
    if report.at(*at, kind=dict).get("mean") is None:
        return "–"
    mean, low, high = (report.at(*at, k, kind=float) for k in ("mean", "low", "high"))
    # A narrow column breaks before the interval, not within it.
    return f"{mean:.4f} [{low:.4f},\N{NO-BREAK SPACE}{high:.4f}]"


def label(metric: str) -> str:
    """Returns the name of a metric as papers write it."""
    return metric.upper() if not metric.startswith("recall") else metric.capitalize()
