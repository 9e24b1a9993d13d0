# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs of several seeds in; their mean, its interval, and a comparison out."""

from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from rfrec.config import UserError
from rfrec.evaluation import significance
from rfrec.launch import gume_report, runner
from rfrec.launch.gume_report import PerUser

SUMMARY = "summary.json"
_LEVEL = 0.95
_SHOWN = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")


def read(folder: Path) -> dict[str, PerUser]:
    """Reads the metrics by user of a run, or of the seeds of one.

    Args:
      folder: That of a run, or one that holds `seed_N` folders.

    Returns:
      By the name of the run's folder.

    Raises:
      UserError: There is no finished run, or its files are damaged.
    """
    own = folder / gume_report.PER_USER
    paths = [own] if own.is_file() else sorted(folder.glob(f"seed_*/{own.name}"))
    if not paths:
        raise UserError(
            f"{folder} holds no {own.name} and no seed_N/{own.name}: give the folder of"
            " finished runs of rfrec.launch.gume"
        )
    return {path.parent.name: gume_report.read_per_user(path) for path in paths}


def summarise(runs: dict[str, PerUser]) -> dict[str, dict[str, Any]]:
    """Returns for each metric the mean over seeds, and its t interval.

    Args:
      runs: Of `read`.

    Returns:
      By metric: `values`, one for each run; `mean`; `half_width` of the 95% interval of
      the mean over seeds (Student 1908), None with one seed.
    """
    table: dict[str, dict[str, Any]] = {}
    for name in next(iter(runs.values())).values:
        values = np.array([np.nanmean(run.values[name]) for run in runs.values()])
        mean, half = significance.over_seeds(values, level=_LEVEL)
        table[name] = {"mean": mean, "half_width": half, "values": values.tolist()}
    return table


def compare(
    ours: dict[str, PerUser], theirs: dict[str, PerUser], *, resamples: int
) -> dict[str, dict[str, Any]]:
    """Returns how two systems differ over users, each the mean of its seeds.

    Args:
      ours: Of `read`.
      theirs: Of `read`.
      resamples: Of the bootstrap.

    Returns:
      By metric the fields of `significance.Paired`, of `ours - theirs`.

    Raises:
      UserError: They were not evaluated for the same users.
    """
    users = {run.users for run in (*ours.values(), *theirs.values())}
    if len(users) > 1:
        raise UserError(
            "--against: its runs and these tell of different users: both need the same"
            " data and split"
        )
    table = {}
    for name in next(iter(ours.values())).values:
        sides = (
            np.mean([run.values[name] for run in runs.values()], axis=0)
            for runs in (ours, theirs)
        )
        found = significance.paired(*sides, level=_LEVEL, resamples=resamples)
        table[name] = found._asdict()
    return table


def write(workdir: Path, *, against: Path | None, resamples: int) -> None:
    """Writes and tells the summary of the runs in a folder.

    Args:
      workdir: Of the runs.
      against: Folder of the runs to compare with.
      resamples: Of the bootstrap.

    Raises:
      UserError: Runs are missing, damaged, or of other users.
    """
    runs = read(workdir)
    summary: dict[str, Any] = {"runs": list(runs), "test": summarise(runs)}
    if against is not None:
        summary["against"] = {
            "runs": str(against),
            "test": compare(runs, read(against), resamples=resamples),
        }
    runner.write_json(workdir / SUMMARY, summary)
    for name in _SHOWN:
        logging.info("%s", _line(name, summary))
    logging.info("summary: %s", workdir / SUMMARY)


def _line(name: str, summary: dict[str, Any]) -> str:
    row = summary["test"][name]
    spread = "" if row["half_width"] is None else f" ± {row['half_width']:.4f}"
    line = f"{name} {row['mean']:.4f}{spread} over {len(row['values'])} seed(s)"
    if "against" not in summary:
        return line
    gain = summary["against"]["test"][name]
    return (
        f"{line}; against the other {gain['mean']:+.4f}"
        f" ({gain['low']:+.4f} to {gain['high']:+.4f}, p {gain['p_t']:.2g} by t,"
        f" {gain['p_wilcoxon']:.2g} by Wilcoxon)"
    )
