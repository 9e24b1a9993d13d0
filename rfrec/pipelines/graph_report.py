# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run of a graph recommender leaves: lists, metrics by user, report."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import Float64
from ml_collections import ConfigDict

from rfrec import files
from rfrec.config import UserError, as_json
from rfrec.data import pairs
from rfrec.evaluation import groups, metrics, predictions, ranking, report
from rfrec.graph import popularity, training
from rfrec.train import loop, writer

PREDICTIONS, PER_USER, REPORT = "predictions.jsonl", "per_user.npz", "report.json"
# A run stopped too early if this share of the loss's whole fall came after the best
# evaluation: a training that has learned what it can falls fast first, then slowly.
_FALLING = 0.5


class PerUser(NamedTuple):
    """Test metrics of each user; NaN for users without a test item.

    Attributes:
      users: Names.
      values: One for each user, by metric.
    """

    users: tuple[str, ...]
    values: dict[str, Float64[np.ndarray, " U"]]


def write(
    config: ConfigDict,
    run: training.Run,
    workdir: Path,
    lists: ranking.Lists,
    told: dict[str, Any],
) -> None:
    """Writes predictions, metrics of each user and the report of a run.

    Args:
      config: Of the run.
      run: That made the lists.
      workdir: Of the run.
      lists: Of all users.
      told: What else the report tells.
    """
    split = run.trainer.split
    predictions.write(workdir / PREDICTIONS, split.user_ids, lists, split.item_ids)
    found = metrics.match_rows(lists.items, *split.test)
    values = metrics.per_user(found, report.PAIR_NAMES)
    write_per_user(workdir / PER_USER, PerUser(split.user_ids, values))
    tables = {
        part: report.evaluate_pairs(
            lists,
            (positives.indptr, positives.items),
            counts=groups.count_items(split.train.items, split.num_items),
            share=config.eval.cold_share,
            cold_below=config.eval.cold_below,
            resamples=config.eval.resamples,
            seed=config.seed,
        )
        for part, positives in (("valid", split.valid), ("test", split.test))
    }
    warning, logged = None, workdir / "metrics.jsonl"
    # There is none where a finished run was ranked again.
    if config.model.name != "popularity" and logged.exists():
        rows = writer.read_metrics(logged)
        schedule, lr = run.trainer.schedule, config.optim.lr
        warning = notice_plateau(rows, schedule, popular(run), lr)
    device = jax.devices()[0]
    result = {
        "main": "gume",
        "model": config.model.name,
        "users": split.num_users,
        "items": split.num_items,
        "pairs": {part: len(getattr(split, part).items) for part in pairs.PARTS},
        "data": {"name": config.data.name, "sha256": split.fingerprint},
        "seed": config.seed,
        "device": f"{device.device_kind} x {jax.device_count()}",
        **told,
        "warning": warning,
        **tables,
        "config": as_json(config),
    }
    files.write_json(workdir / REPORT, result)
    if warning:
        logging.warning("%s", warning)
    row = tables["test"]["metrics"]["all"]
    shown = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
    logging.info("test: %s", "  ".join(f"{n} {row[n]['mean']:.4f}" for n in shown))
    logging.info("report: %s", workdir / REPORT)


def was_ranked_again(workdir: Path) -> bool:
    """Whether a folder holds what `--again` made of a run in another one.

    Raises:
      UserError: Its report is damaged.
    """
    path = workdir / REPORT
    return path.is_file() and "again" in files.read_json(path, "move it away")


def popular(run: training.Run) -> float:
    """Returns the criterion's value on validation for the most popular items."""
    split = run.trainer.split
    model = popularity.model(split.num_users)
    counts = popularity.constants(split.train.items, split.num_items)
    lists = run.rank(model.encode({}, {}, counts, 0))
    return run.validate(lists)[training.CRITERION]


def notice_plateau(
    rows: Sequence[dict[str, Any]],
    schedule: loop.Schedule,
    popular: float,
    lr: float,
) -> str | None:
    """Says so if a run ended where it had hardly begun to learn.

    Args:
      rows: Metrics of the run.
      schedule: Of the run.
      popular: Criterion of the most popular items on validation.
      lr: Learning rate, which the remedy names.

    Returns:
      One line, None if nothing is wrong.
    """
    name = training.CRITERION
    scores = [row[name] for row in rows if row["split"] == "eval"]
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    if not scores or len(losses) < 2:
        return None
    # What ended the run.
    key = "patience" if len(losses) < schedule.epochs else "epochs"
    bound = getattr(schedule, key)
    remedy = f"raise config.optim.lr={lr:g} or config.train.{key}={bound}"
    if max(scores) <= popular:
        return (
            f"{name} of validation never rose above that of the most popular items"
            f" ({max(scores):.4f} against {popular:.4f}): the run ended on a plateau;"
            f" {remedy}"
        )
    window = (schedule.patience or 0) * schedule.eval_every
    if len(losses) >= schedule.epochs or len(losses) <= window:
        return None
    whole, last = (losses[at] - losses[-1] for at in (0, -1 - window))
    if last > _FALLING * whole > 0:
        return (
            f"the loss was still falling, {last / whole:.0%} of its whole fall in the"
            f" last {window} epochs, when the run ended for want of a better {name};"
            f" {remedy}"
        )
    return None


def write_per_user(path: Path, found: PerUser) -> None:
    """Writes metrics by user, the whole file or nothing."""
    arrays: dict[str, Any] = {"users": np.array(found.users), **found.values}
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
