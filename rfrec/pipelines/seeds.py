# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Summary of the runs of several seeds: mean, interval and paired comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from rfrec import config as cfg
from rfrec import files
from rfrec.config import UserError
from rfrec.evaluation import significance
from rfrec.pipelines import graph_report, run_folder
from rfrec.pipelines.graph_report import PerUser

SUMMARY = "summary.json"
_LEVEL = 0.95
_SHOWN = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")


def read(folder: Path) -> dict[str, PerUser]:
    """Reads the metrics by user of a run, or of the seeds of one.

    Args:
      folder: Folder of a run, or of `seed_N` folders.

    Returns:
      The metrics by the name of the run's folder.

    Raises:
      UserError: There is no finished run, there are several that are not seeds of one,
        or files are damaged.
    """
    own = folder / graph_report.PER_USER
    seeds = sorted(folder.glob(f"seed_*/{own.name}"))
    if not own.is_file() and not seeds:
        raise UserError(
            f"{folder} contains no {own.name} and no seed_N/{own.name}: pass the folder"
            " of finished runs of rfrec.launch.gume"
        )
    if own.is_file() and seeds:
        raise UserError(
            f"{folder} contains a single run and {seeds[0].parent.name}: keep one run,"
            " or the seeds of one, in a folder"
        )
    return read_runs([path.parent for path in seeds] or [folder])


def read_runs(folders: Sequence[Path]) -> dict[str, PerUser]:
    """Reads the metrics by user of runs that differ in their seed alone.

    Args:
      folders: Folders of the runs, at least one.

    Raises:
      UserError: They differ in more, or files are missing or damaged.
    """
    runs = {
        f.name: graph_report.read_per_user(f / graph_report.PER_USER) for f in folders
    }
    configs = [cfg.as_json(cfg.read_config(f / "config.json")) for f in folders]
    for folder, config in zip(folders, configs, strict=True):
        keys = set(cfg.differing_keys(configs[0], config)) - {"seed"}
        if keys:
            raise UserError(
                f"{folders[0]} and {folder} are not seeds of one config, they differ in"
                f" {', '.join(sorted(keys))}: keep them in separate folders"
            )
    return runs


def read_data(folder: Path) -> str:
    """Returns the fingerprint of the pairs of a finished run, or of seeds of one.

    Raises:
      UserError: A report is missing or damaged, or they are of several pairs.
    """
    paths = sorted(folder.glob("seed_*/report.json")) or [folder / "report.json"]
    fingerprints = {
        run_folder.at(
            path,
            files.read_json(path, "run it to its end"),
            "data",
            "sha256",
            kind=str,
        )
        for path in paths
    }
    if len(fingerprints) > 1:
        raise UserError(f"{folder}: its seeds have different data or splits")
    return fingerprints.pop()


def check_same_pairs(against: Path, data: str) -> None:
    """Refuses to compare with runs of other pairs or another split.

    Args:
      against: Folder of finished runs.
      data: Fingerprint of the pairs of the new runs.

    Raises:
      UserError: The pairs differ, or files are missing or damaged.
    """
    if read_data(against) != data:
        raise UserError(
            f"--against={against} has other pairs or another split: both runs require"
            " the same data and data.split"
        )


def summarise(runs: dict[str, PerUser]) -> dict[str, dict[str, Any]]:
    """Returns for each metric the mean over seeds, and its t interval.

    Args:
      runs: Result of `read`.

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
    """Returns the paired differences of two systems over users, as means of seeds.

    Args:
      ours: Result of `read`.
      theirs: Result of `read`.
      resamples: Number of bootstrap resamples.

    Returns:
      By metric the fields of `significance.Paired`, of `ours - theirs`.

    Raises:
      UserError: They were not evaluated for the same users.
    """
    users = {run.users for run in (*ours.values(), *theirs.values())}
    if len(users) > 1:
        raise UserError(
            "--against: its runs have other users: both require the same data and"
            " data.split"
        )
    table = {}
    for name in next(iter(ours.values())).values:
        sides = (
            np.mean([run.values[name] for run in runs.values()], axis=0)
            for runs in (ours, theirs)
        )
        paired = significance.paired(*sides, level=_LEVEL, resamples=resamples)
        table[name] = paired._asdict()
    return table


def write(
    workdir: Path, folders: Sequence[Path], *, against: Path | None, resamples: int
) -> None:
    """Writes and logs the summary of runs.

    Args:
      workdir: Folder of the summary.
      folders: Folders of the runs.
      against: Folder of the runs to compare with.
      resamples: Number of bootstrap resamples.

    Raises:
      UserError: Runs are missing, damaged, or of other users.
    """
    runs = read_runs(folders)
    summary: dict[str, Any] = {"runs": list(runs), "test": summarise(runs)}
    if against is not None:
        summary["against"] = {
            "runs": str(against),
            "test": compare(runs, read(against), resamples=resamples),
        }
    files.write_json(workdir / SUMMARY, summary)
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
