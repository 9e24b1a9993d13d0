# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The results of a run of a graph recommender: lists, metrics by user, report."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float64
from ml_collections import ConfigDict

from rfrec import files
from rfrec.config import UserError
from rfrec.data import pairs
from rfrec.evaluation import groups, metrics, predictions, ranking, report
from rfrec.graph import baselines, training
from rfrec.pipelines import run_folder
from rfrec.train import loop, writer

PREDICTIONS, PER_USER = "predictions.jsonl", "per_user.npz"
# Training that has converged falls fast at first and slowly later. If this share of the
# whole fall of the loss came after the best evaluation, the run stopped too early.
_FALLING = 0.5


class PerUser(NamedTuple):
    """Test metrics of each user; NaN for users without a test item.

    Attributes:
      users: Names of the users.
      values: One value for each user, by metric.
    """

    users: tuple[str, ...]
    values: dict[str, Float64[np.ndarray, " U"]]


def write(
    config: ConfigDict,
    run: training.Run,
    workdir: Path,
    lists: ranking.Lists,
    details: dict[str, Any],
) -> None:
    """Writes predictions, metrics of each user and the report of a run.

    Args:
      config: Config of the run.
      run: Run that made the lists.
      workdir: Folder of the run.
      lists: Ranked lists of all users.
      details: Further entries of the report.
    """
    split = run.trainer.split
    predictions.write(workdir / PREDICTIONS, split.user_ids, lists, split.item_ids)
    matches = metrics.match_rows(lists.items, *split.test)
    values = metrics.per_user(matches, report.PAIR_NAMES)
    write_per_user(workdir / PER_USER, PerUser(split.user_ids, values))
    tables = {
        part: _evaluate(config, split, lists, positives)
        for part, positives in (("valid", split.valid), ("test", split.test))
    }
    warning = _warn(config, run, workdir)
    head = {
        **run_folder.report_head("gume", config),
        "model": config.model.name,
        "users": split.num_users,
        "items": split.num_items,
        "pairs": {part: len(getattr(split, part).items) for part in pairs.PARTS},
        "data": {"name": config.data.name, "sha256": split.fingerprint},
    }
    run_folder.write_report(workdir, head | details | {"warning": warning} | tables)
    if warning:
        logging.warning("%s", warning)
    row = tables["test"]["metrics"]["all"]
    shown = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
    logging.info("test: %s", "  ".join(f"{n} {row[n]['mean']:.4f}" for n in shown))


def _evaluate(
    config: ConfigDict,
    split: pairs.PairSplit,
    lists: ranking.Lists,
    positives: pairs.Positives,
) -> dict[str, Any]:
    """Returns metrics with intervals, overall and by groups of items."""
    return report.evaluate_pairs(
        lists,
        (positives.indptr, positives.items),
        counts=groups.count_items(split.train.items, split.num_items),
        share=config.eval.cold_share,
        cold_below=config.eval.cold_below,
        resamples=config.eval.resamples,
        seed=config.seed,
    )


def _warn(config: ConfigDict, run: training.Run, workdir: Path) -> str | None:
    """Returns a warning if training ended too early; None if it did not."""
    logged = workdir / "metrics.jsonl"
    # A finished run that was evaluated again has no metrics of training.
    if config.model.name == "popularity" or not logged.exists():
        return None
    rows, schedule = writer.read_metrics(logged), run.trainer.schedule
    return notice_plateau(rows, schedule, score_popularity(run), config.optim.lr)


def was_evaluated_again(workdir: Path) -> bool:
    """Whether a folder contains the results of `--again`, not those of a training."""
    path = workdir / run_folder.REPORT
    return path.is_file() and "again" in files.read_json(path, "move it away")


def score_popularity(run: training.Run) -> float:
    """Returns the validation criterion of the most popular items."""
    split = run.trainer.split
    counts = baselines.count_items(split.train.items, split.num_items)
    model = baselines.Popularity(split.num_users)
    lists = run.rank(model.encode({}, {}, counts, 0))
    return run.validate(lists)[training.CRITERION]


def notice_plateau(
    rows: Sequence[dict[str, Any]],
    schedule: loop.Schedule,
    popular: float,
    lr: float,
) -> str | None:
    """Returns a warning if a run ended before it had learned much.

    Args:
      rows: Metrics of the run.
      schedule: Schedule of the run.
      popular: Validation criterion of the most popular items.
      lr: Learning rate, for the message.

    Returns:
      One line, or None if nothing is wrong.
    """
    name = training.CRITERION
    scores = [row[name] for row in rows if row["split"] == "eval"]
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    if not scores or len(losses) < 2:
        return None
    # The option that ended the run.
    key = "patience" if len(losses) < schedule.epochs else "epochs"
    bound = getattr(schedule, key)
    remedy = f"raise config.optim.lr={lr:g} or config.train.{key}={bound}"
    if max(scores) <= popular:
        return (
            f"validation {name} never exceeded that of the most popular items"
            f" ({max(scores):.4f} and {popular:.4f}): the run ended on a plateau;"
            f" {remedy}"
        )
    window = (schedule.patience or 0) * schedule.eval_every
    if len(losses) >= schedule.epochs or len(losses) <= window:
        return None
    whole, last = (losses[at] - losses[-1] for at in (0, -1 - window))
    if last > _FALLING * whole > 0:
        return (
            f"the loss was still falling when {name} stopped improving:"
            f" {last / whole:.0%} of its whole fall was in the last {window} epochs;"
            f" {remedy}"
        )
    return None


def write_per_user(path: Path, per_user: PerUser) -> None:
    """Writes metrics by user; the file is replaced as a whole."""
    arrays: dict[str, Any] = {"users": np.array(per_user.users), **per_user.values}
    with files.replacing(path) as partial:
        np.savez(partial, **arrays)


def read_per_user(path: Path) -> PerUser:
    """Reads what `write_per_user` wrote.

    Raises:
      UserError: The file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        users = tuple(arrays.pop("users").tolist())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read ({error}): is this the folder of a finished run?"
        ) from error
    return PerUser(users, arrays)
