# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A table of runs: the mean of each number over seeds, with its confidence interval.

FOLDER/NAME/seed_N is the run of seed N, of a tokenizer or of a graph recommender; all
runs of one NAME make a row.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rfrec import config as cfg
from rfrec import files
from rfrec.config import UserError
from rfrec.evaluation import significance
from rfrec.pipelines import seeds


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `rfrec.launch.summary`.

    Attributes:
      confidence: Confidence level of the intervals.
    """

    confidence: float = cfg.option(0.95, cfg.within(0.5, 1))


class Kind(NamedTuple):
    """The numbers of one kind of run, and the columns of its table.

    Attributes:
      figures: Function `report -> numbers` of one run.
      columns: Title and format of each number in the table, by name.
    """

    figures: Callable[[dict[str, Any]], dict[str, float]]
    columns: Mapping[str, tuple[str, str]]


def build_rows(
    folder: Path, confidence: float, against: str | None
) -> tuple[dict[str, dict[str, Any]], Kind]:
    """Reads the reports in a folder; returns the rows by name and their kind.

    Args:
      folder: Folder with the folders NAME/seed_N.
      confidence: Confidence level of the intervals.
      against: Row with which the others are compared, user by user; None compares
        nothing.

    Raises:
      UserError: There are no runs, runs of several kinds, or runs that cannot be
        compared.
    """
    reports = {
        name.name: runs
        for name in sorted(p for p in folder.glob("*") if p.is_dir())
        if (runs := read_reports(name))
    }
    if not reports:
        raise UserError(f"{folder} contains no NAME/seed_N/report.json")
    kind = find_kind(reports)
    rows = {name: summarise(runs, confidence, kind) for name, runs in reports.items()}
    if against:
        add_tests(rows, folder, against)
    return rows, kind


def find_kind(reports: dict[str, list[dict[str, Any]]]) -> Kind:
    """Returns the kind of all runs.

    Raises:
      UserError: There are several kinds, or one that has no table.
    """
    kinds = {report["main"] for runs in reports.values() for report in runs}
    if len(kinds) > 1 or not kinds <= KINDS.keys():
        raise UserError(
            f"--runs contains runs of {', '.join(sorted(kinds))}: a table is made of"
            f" runs of one of {', '.join(KINDS)}"
        )
    return KINDS[kinds.pop()]


def add_tests(rows: dict[str, dict[str, Any]], folder: Path, against: str) -> None:
    """Adds to each row paired tests of its difference to one of them, user by user.

    Args:
      rows: Results of `summarise` by name.
      folder: Folder of the runs.
      against: Name of the row to compare with.

    Raises:
      UserError: There is no such row, its runs are not of a graph recommender, or a row
        has other pairs.
    """
    if against not in rows:
        raise UserError(f"--against={against}: the rows are {', '.join(rows)}")
    theirs = seeds.read(folder / against)
    data = seeds.read_data(folder / against)
    for name, row in rows.items():
        if name != against:
            if seeds.read_data(folder / name) != data:
                raise UserError(
                    f"--against={against}: {name} has other pairs or another split:"
                    " both require the same data and data.split"
                )
            ours = seeds.read(folder / name)
            row["against"] = {
                "row": against,
                "test": seeds.compare(ours, theirs, resamples=1000),
            }


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """Reads the reports of all seeds in a folder."""
    return [
        files.read_json(path, "run that seed again")
        for path in sorted(folder.glob("seed_*/report.json"))
    ]


def read_tokenizer(report: dict[str, Any]) -> dict[str, float]:
    """Returns the numbers of one tokenizer run."""
    before, after = report["codes"]["before"], report["codes"]["after"]
    numbers = {
        "conflict_items": before["conflict_items"],
        "conflict_percent": 100 * before["collision_rate"],
        "after_repair": after["conflict_items"],
        "least_used_percent": min(
            100 * level["used"] / level["size"] for level in report["levels"]
        ),
        "least_perplexity": min(level["perplexity"] for level in report["levels"]),
        "energy_left": report["energy_left"],
        "seconds": report["seconds"],
    }
    chosen = report.get("models", {}).get(report["config"]["codes"]["checkpoint"])
    if chosen:
        numbers["held_out_energy_left"] = chosen["held_out_energy_left"]
    return numbers


def read_recommender(report: dict[str, Any]) -> dict[str, float]:
    """Returns the numbers of one run of a graph recommender."""
    test, valid = (report[part]["metrics"]["all"] for part in ("test", "valid"))
    numbers = {name: test[name]["mean"] for name in _RANKING}
    numbers["valid_recall@20"] = valid["recall@20"]["mean"]
    for name in ("best_epoch", "epochs", "seconds_per_epoch"):
        if name in report:
            numbers[name] = report[name]
    if "ratio" in report["choice"]:
        numbers["ratio"] = report["choice"]["ratio"]
    for name in ("rf_error", "rf_error_heldout", "rf_error_heldout_linear"):
        if name in report["numbers"]:
            numbers[name] = report["numbers"][name]
    return numbers


_RANKING = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
KINDS: Mapping[str, Kind] = {
    "rqvae": Kind(
        read_tokenizer,
        {
            "conflict_items": ("conflict items", ".1f"),
            "conflict_percent": ("%", ".2f"),
            "after_repair": ("after repair", ".0f"),
            "least_used_percent": ("least used level, %", ".1f"),
            "energy_left": ("energy left", ".3f"),
            "held_out_energy_left": ("held out", ".3f"),
            "seconds": ("s", ".0f"),
        },
    ),
    "gume": Kind(
        read_recommender,
        {
            "recall@10": ("Recall@10", ".4f"),
            "recall@20": ("Recall@20", ".4f"),
            "ndcg@10": ("NDCG@10", ".4f"),
            "ndcg@20": ("NDCG@20", ".4f"),
            "rf_error_heldout": ("error held out", ".3f"),
            "ratio": ("ratio", ".2f"),
            "best_epoch": ("best epoch", ".1f"),
            "seconds_per_epoch": ("s/epoch", ".1f"),
        },
    ),
}


def summarise(
    reports: list[dict[str, Any]], confidence: float, kind: Kind
) -> dict[str, Any]:
    """Returns the mean of each number and the half width of its t interval.

    Args:
      reports: Reports of runs that differ in their seed.
      confidence: Confidence level of the interval.
      kind: Kind of the runs.
    """
    runs = [kind.figures(report) for report in reports]
    row: dict[str, Any] = {
        "seeds": [report["seed"] for report in reports],
        "device": reports[0]["device"],
    }
    for name in runs[0]:
        values = np.array([run[name] for run in runs], float)
        mean, half = significance.over_seeds(values, level=confidence)
        row[name] = {"mean": mean, "half_width": half}
    return row


def as_markdown(rows: dict[str, dict[str, Any]], kind: Kind) -> str:
    """Formats the rows as a Markdown table."""
    columns = {
        name: shown
        for name, shown in kind.columns.items()
        if any(name in row for row in rows.values())
    }
    head = ["run", "seeds", *(title for title, _ in columns.values())]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in rows.items():
        cells = [name, str(len(row["seeds"]))]
        for key, (_, form) in columns.items():
            value = row.get(key)
            if value is None:
                cells.append("–")
                continue
            half = value["half_width"]
            spread = "" if half is None else f" ± {half:{form}}"
            cells.append(f"{value['mean']:{form}}{spread}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
