# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tables of a report: means, intervals and groups of users."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from rfrec.evaluation import groups, metrics, significance
from rfrec.evaluation.ranking import Lists

# Metrics in every report of a retrieval system.
NAMES = ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr")
# Metrics in a report of a graph recommender, whose users have several relevant items.
PAIR_NAMES = tuple(
    f"{metric}@{k}"
    for metric in ("recall", "ndcg", "precision", "map")
    for k in (5, 10, 20, 50)
)

# User u's relevant items: `items[indptr[u] : indptr[u + 1]]`, ascending.
Rows = tuple[Int[np.ndarray, " U1"], Int[np.ndarray, " E"]]


def summarize(
    values: Mapping[str, Float[np.ndarray, " U"]],
    users: Mapping[str, Bool[np.ndarray, " U"]] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Averages values over all users, and over groups of them.

    Args:
      values: Values of each user by metric; NaN is left out.
      users: Members of each group; the group `all` is added.
      resamples: Number of resamples of the bootstrap.
      seed: Seed of the bootstrap.

    Returns:
      For each group the number of users, and for each metric mean, low and high.
    """
    first = next(iter(values.values()))
    members = {"all": np.ones(len(first), bool), **(users or {})}
    table: dict[str, dict[str, Any]] = {}
    for group, mask in members.items():
        table[group] = {"users": int(mask.sum())}
        for name, value in values.items():
            mean = significance.interval(value[mask], resamples=resamples, seed=seed)
            row = mean._asdict()
            row.pop("users")
            table[group][name] = row
    return table


def evaluate(
    lists: Lists,
    targets: Int[np.ndarray, " U"],
    *,
    counts: Int[np.ndarray, " N"],
    vectors: Float[np.ndarray, "N D"] | None = None,
    codes: Int[np.ndarray, "N Q"] | None = None,
    cutoff: int = 10,
    cold_share: float = 0.2,
    cold_below: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluates lists of users with one relevant item, for all users and by group.

    Args:
      lists: Lists of all users.
      targets: Relevant item of each user.
      counts: Number of occurrences of each item in training.
      vectors: Vectors of the items, for the diversity within lists.
      codes: Codes of the items, for the diversity if there are no vectors.
      cutoff: Cut-off of coverage and diversity.
      cold_share: Share of the catalogue, see `groups.by_popularity`.
      cold_below: Bound of cold items, see `groups.by_popularity`.
      resamples: Number of resamples of the bootstrap.
      seed: Seed of the bootstrap.

    Returns:
      `metrics`: the table of `summarize`; `groups`: the bounds of the groups;
      `coverage@k`; `diversity@k` if there are vectors or codes.
    """
    matches = metrics.match(lists.items, targets)
    split = groups.by_popularity(
        targets, counts, share=cold_share, cold_below=cold_below
    )
    table = summarize(
        metrics.per_user(matches, NAMES),
        split.members(),
        resamples=resamples,
        seed=seed,
    )
    bounds = {"cold_most": split.cold_most, "popular_least": split.popular_least}
    result: dict[str, Any] = {
        "metrics": table,
        "groups": bounds,
        f"coverage@{cutoff}": metrics.coverage(lists.items, len(counts), cutoff),
    }
    if vectors is not None or codes is not None:
        kind, within = _distances(lists, vectors, codes, cutoff)
        mean = significance.interval(within, resamples=resamples, seed=seed)
        result[f"diversity@{cutoff}"] = {"distance": kind, **mean._asdict()}
    return result


def differences(
    ours: Lists,
    others: Mapping[str, Lists],
    targets: Int[np.ndarray, " U"],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Returns the differences between lists and others of the same users.

    Args:
      ours: Lists of all users.
      others: Lists of the same users, by name.
      targets: Relevant item of each user.
      resamples: Number of resamples of the bootstrap.
      seed: Seed of the bootstrap.

    Returns:
      For each of the others, mean and interval of `ours - theirs` by metric.
    """

    def values(lists: Lists) -> dict[str, Float[np.ndarray, " U"]]:
        return metrics.per_user(metrics.match(lists.items, targets), NAMES)

    mine, result = values(ours), {}
    for name, lists in others.items():
        theirs = values(lists)
        result[name] = {
            metric: significance.difference(
                mine[metric], theirs[metric], resamples=resamples, seed=seed
            )._asdict()
            for metric in NAMES
        }
    return result


def _distances(lists: Lists, vectors, codes, cutoff: int):
    """Returns the kind of distance, and its mean within each user's list."""
    if vectors is not None:
        return "cosine", metrics.vector_distance(lists.items, vectors, cutoff)
    return "codes", metrics.code_distance(lists.items, codes, cutoff)


def means(matches: metrics.Matches, names: tuple[str, ...] = NAMES) -> dict[str, float]:
    """Returns means of metrics over the users with a relevant item."""
    values = metrics.per_user(matches, names)
    return {name: float(np.nanmean(value)) for name, value in values.items()}


def evaluate_pairs(
    lists: Lists,
    positives: Rows,
    *,
    counts: Int[np.ndarray, " N"],
    names: tuple[str, ...] = PAIR_NAMES,
    cutoff: int = 20,
    share: float = 0.2,
    cold_below: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluates lists of users who may have several relevant items.

    In a group of items only its members are relevant, but lists contain all items;
    users without a relevant item in the group are left out.

    Args:
      lists: Lists of all users.
      positives: Relevant items of each user.
      counts: Number of occurrences of each item in training.
      names: Names of the metrics, see `metrics.per_user`.
      cutoff: Cut-off of coverage.
      share: Share of the catalogue, see `groups.of_items`.
      cold_below: Bound of cold items, see `groups.of_items`.
      resamples: Number of resamples of the bootstrap.
      seed: Seed of the bootstrap.

    Returns:
      `metrics`: for `all`, `cold`, `tail` and `head` the number of users and of their
      relevant items, and for each metric mean, low and high; `groups`: number of items
      and bounds; `coverage@k`.
    """
    split = groups.of_items(counts, share=share, cold_below=cold_below)
    members = {"cold": split.cold, "tail": split.tail, "head": split.head}
    chosen = {"all": positives}
    chosen |= {n: metrics.restrict(*positives, items) for n, items in members.items()}
    table: dict[str, dict[str, Any]] = {}
    for group, (indptr, items) in chosen.items():
        values = metrics.per_user(metrics.match_rows(lists.items, indptr, items), names)
        row = summarize(values, resamples=resamples, seed=seed)["all"]
        users = int(np.sum(np.diff(indptr) > 0))
        table[group] = row | {"users": users, "positives": len(items)}
    return {
        "metrics": table,
        "groups": {
            "items": {name: int(items.sum()) for name, items in members.items()},
            "cold_most": split.cold_most,
            "head_least": split.head_least,
        },
        f"coverage@{cutoff}": metrics.coverage(lists.items, len(counts), cutoff),
    }
