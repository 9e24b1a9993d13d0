# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Prints a table of tokenizer runs: mean over seeds and its confidence interval.

python -m rfrec.launch.summary --runs=FOLDER --out=summary.json

FOLDER/NAME/seed_N is the run of seed N; all runs of one NAME make a row.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from scipy import stats

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.launch import runner

_RUNS = flags.DEFINE_string("runs", None, "Folder of NAME/seed_N run folders.")
_OUT = flags.DEFINE_string("out", None, "JSON file for the table.")

RULES: cfg.Rules = {"confidence": cfg.within(0.5, 1), **cfg.RF_RULES}


def main(config: ConfigDict, workdir: Path | None) -> None:
    """Reads the reports and prints the table."""
    del workdir
    cfg.check(config, RULES)
    if _RUNS.value is None:
        raise UserError("--runs=FOLDER is needed")
    folder = Path(_RUNS.value).expanduser()
    rows = {
        name.name: summarise(reports, config.confidence)
        for name in sorted(p for p in folder.glob("*") if p.is_dir())
        if (reports := read_reports(name))
    }
    if not rows:
        raise UserError(f"{folder} holds no NAME/seed_N/report.json")
    print(as_markdown(rows))
    if _OUT.value:
        runner.write_json(Path(_OUT.value), rows)


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """Reads the reports of all seeds in a folder."""
    reports = []
    for path in sorted(folder.glob("seed_*/report.json")):
        try:
            reports.append(json.loads(path.read_text(encoding="utf-8")))
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path} is not JSON ({error}): run that seed again"
            ) from error
    return reports


def figures(report: dict[str, Any]) -> dict[str, float]:
    """Returns the numbers of one run that the table shows."""
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


def summarise(reports: list[dict[str, Any]], confidence: float) -> dict[str, Any]:
    """Returns for each number its mean and the half width of its t interval."""
    runs = [figures(report) for report in reports]
    row: dict[str, Any] = {
        "seeds": [report["seed"] for report in reports],
        "device": reports[0]["device"],
    }
    for name in runs[0]:
        values = np.array([run[name] for run in runs], float)
        half = float("nan")
        if len(values) > 1:
            quantile = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
            half = quantile * float(stats.sem(values))
        row[name] = {"mean": float(values.mean()), "half_width": half}
    return row


def as_markdown(rows: dict[str, dict[str, Any]]) -> str:
    """Formats the table."""
    columns = {
        "conflict_items": ("conflict items", ".1f"),
        "conflict_percent": ("%", ".2f"),
        "after_repair": ("after repair", ".0f"),
        "least_used_percent": ("least used level, %", ".1f"),
        "energy_left": ("energy left", ".3f"),
        "held_out_energy_left": ("held out", ".3f"),
        "seconds": ("s", ".0f"),
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
            spread = "" if np.isnan(half) else f" ± {half:{form}}"
            cells.append(f"{value['mean']:{form}}{spread}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    runner.run(main, config=runner.default_config("summary"), workdir=False)
