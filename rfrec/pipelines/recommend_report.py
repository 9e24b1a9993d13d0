# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluates the lists of all users, by item and by code."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32

from rfrec.data.interactions import Interactions
from rfrec.evaluation import groups, metrics, report
from rfrec.evaluation.options import Evaluation
from rfrec.evaluation.ranking import Lists


class Truth(NamedTuple):
    """What lists are compared with.

    Attributes:
      targets: The held-out item of each user.
      counts: Occurrences of each item in training.
      vectors: Item vectors for the diversity of lists; None uses the codes.
      options: Options of the evaluation.
      seed: Seed of the bootstrap resampling.
    """

    targets: Int[np.ndarray, " U"]
    counts: Int[np.ndarray, " N"]
    vectors: Float[np.ndarray, "N D"] | None
    options: Evaluation
    seed: int

    @property
    def bootstrap(self) -> dict[str, int]:
        """Keywords of bootstrap intervals."""
        return {"resamples": self.options.resamples, "seed": self.seed}


def training_counts(inter: Interactions) -> Int[np.ndarray, " N"]:
    """Counts how often each item occurs, without the last two items of each user."""
    end = np.repeat(inter.indptr[1:], np.diff(inter.indptr))
    trained = np.arange(len(inter.items)) < end - 2
    return groups.count_items(inter.items[trained], inter.num_items)


def evaluate(
    lists: Lists,
    leaves: Int[np.ndarray, "U S"],
    truth: Truth,
    *,
    codes: Int[np.ndarray, "N Q"],
    leaf_of: Int32[np.ndarray, " N"],
) -> dict[str, Any]:
    """Evaluates lists by item and by code.

    By code, a list contains the target if it contains the target's codes. Papers count
    this way if items share codes.

    Args:
      lists: Lists of all users.
      leaves: Code tuples of the lists, numbered as in `leaf_of`.
      truth: What to compare them with.
      codes: Codes of the items.
      leaf_of: Number of the code tuple of each item.

    Returns:
      `by_item`, from `report.evaluate`, and `by_code`.
    """
    options = truth.options
    by_item = report.evaluate(
        lists,
        truth.targets,
        counts=truth.counts,
        vectors=truth.vectors,
        codes=codes,
        cold_share=options.cold_share,
        cold_below=options.cold_below,
        **truth.bootstrap,
    )
    split = groups.by_popularity(
        truth.targets,
        truth.counts,
        share=options.cold_share,
        cold_below=options.cold_below,
    )
    matches = metrics.match(leaves, leaf_of[truth.targets])
    by_code = report.summarize(
        metrics.per_user(matches, report.NAMES), split.members(), **truth.bootstrap
    )
    for table in (by_item["metrics"], by_code):
        _add_recall(table)
    return {"by_item": by_item, "by_code": {"metrics": by_code}}


def _add_recall(table: dict[str, dict[str, Any]]) -> None:
    """Adds the recall, which equals the hit rate for one relevant item."""
    for row in table.values():
        rates = {name: cell for name, cell in row.items() if name.startswith("hr@")}
        row |= {name.replace("hr", "recall"): cell for name, cell in rates.items()}


def format_means(result: Mapping[str, Any]) -> list[str]:
    """Returns the means over all users, by item and by code, in one line each."""
    lines = []
    for how in ("by_item", "by_code"):
        row = result[how]["metrics"]["all"]
        cells = (f"{name} {row[name]['mean']:.4f}" for name in report.NAMES)
        lines.append(f"{how.replace('_', ' ')}: {'  '.join(cells)}")
    return lines
