# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists of all users in; what a report tells of them out, by item and by code."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32

from rfrec.evaluation import groups, metrics, report
from rfrec.evaluation.ranking import Lists


class Truth(NamedTuple):
    """What lists are held against.

    Attributes:
      targets: The item that each user took.
      counts: Occurrences of each item in training.
      codes: Of the items, as the first list names them.
      leaf_of: The number of each item's code tuple.
      vectors: Of the items, for the diversity of lists; None takes the codes.
      cold_share: As of `groups.by_popularity`.
      cold_below: As of `groups.by_popularity`.
      resamples: Of the bootstrap.
      seed: Of the bootstrap.
    """

    targets: Int[np.ndarray, " U"]
    counts: Int[np.ndarray, " N"]
    codes: Int[np.ndarray, "N Q"]
    leaf_of: Int32[np.ndarray, " N"]
    vectors: Float[np.ndarray, "N D"] | None
    cold_share: float
    cold_below: int | None
    resamples: int
    seed: int


def training_counts(
    items: Int[np.ndarray, " E"], indptr: Int[np.ndarray, " U1"], num_items: int
) -> Int[np.ndarray, " N"]:
    """Counts how often each item occurs, but for the last two of each user."""
    end = np.repeat(indptr[1:], np.diff(indptr))
    return groups.count_items(items[np.arange(len(items)) < end - 2], num_items)


def evaluate(
    lists: Lists, leaves: Int[np.ndarray, "U S"], truth: Truth
) -> dict[str, Any]:
    """Evaluates lists by item and by code.

    By code, a list names the target if it holds the target's codes: papers count so
    where items share codes.

    Args:
      lists: Of all users.
      leaves: Code tuples of the lists, numbered as in `truth.leaf_of`.
      truth: To hold them against.

    Returns:
      `by_item`, from `report.evaluate`, and `by_code`.
    """
    options = {"resamples": truth.resamples, "seed": truth.seed}
    by_item = report.evaluate(
        lists,
        truth.targets,
        counts=truth.counts,
        vectors=truth.vectors,
        codes=truth.codes,
        cold_share=truth.cold_share,
        cold_below=truth.cold_below,
        **options,
    )
    split = groups.by_popularity(
        truth.targets,
        truth.counts,
        share=truth.cold_share,
        cold_below=truth.cold_below,
    )
    found = metrics.match(leaves, truth.leaf_of[truth.targets])
    by_code = report.summarize(
        metrics.per_user(found, report.NAMES),
        split.members(),
        **options,
    )
    for table in (by_item["metrics"], by_code):
        _add_recall(table)
    return {"by_item": by_item, "by_code": {"metrics": by_code}}


def _add_recall(table: dict[str, dict[str, Any]]) -> None:
    """Tells the recall, which with one relevant item is the hit rate."""
    for row in table.values():
        rates = {name: cell for name, cell in row.items() if name.startswith("hr@")}
        row |= {name.replace("hr", "recall"): cell for name, cell in rates.items()}


def lines(result: Mapping[str, Any]) -> list[str]:
    """Tells the means of all users, by item and by code, in a line each."""
    told = []
    for how in ("by_item", "by_code"):
        row = result[how]["metrics"]["all"]
        cells = (f"{name} {row[name]['mean']:.4f}" for name in report.NAMES)
        told.append(f"{how.replace('_', ' ')}: {'  '.join(cells)}")
    return told
