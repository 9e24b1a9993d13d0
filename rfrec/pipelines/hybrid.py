# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run of a graph recommender and files of lists in; lists of the same users out."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Float64, Int

from rfrec.config import UserError
from rfrec.data.pairs import PairSplit, Positives, select
from rfrec.evaluation import predictions, ranking
from rfrec.evaluation.ranking import Lists
from rfrec.graph import training
from rfrec.pipelines import finished_graph

PARTS = ("valid", "test")


class Graph(NamedTuple):
    """What a trained graph recommender says of users and items.

    Attributes:
      name: Of its model.
      split: That it was trained on, with one item of each user in valid and in test.
      users: Embeddings.
      items: Embeddings; scores are inner products.
    """

    name: str
    split: PairSplit
    users: Float[np.ndarray, "U D"]
    items: Float[np.ndarray, "I D"]

    def targets(self, part: str) -> Int[np.ndarray, " U"]:
        """Returns the held-out item of each user."""
        return getattr(self.split, part).items

    def before(self, part: str) -> Positives:
        """Returns what came before the held-out item of each user."""
        split = self.split
        if part == "valid":
            return split.train
        return _join(split.train, split.valid, split.num_users)

    def rank(self, part: str, k: int) -> Lists:
        """Ranks the catalogue, but for what came before the held-out item."""
        before = self.before(part)
        return ranking.rank_products(
            self.users, self.items, k=k, seen=(before.indptr, before.items)
        )

    def unseen(self, lists: Lists, part: str) -> Lists:
        """Takes what came before the held-out item out of lists; the rest moves up."""
        before, count = self.before(part), self.split.num_items
        pairs = np.arange(len(lists.items))[:, None] * count + lists.items
        seen = np.isin(pairs, before.users * count + before.items) & lists.valid
        order = np.argsort(seen, axis=1, kind="stable")
        items, scores = (np.take_along_axis(x, order, axis=1) for x in lists)
        ended = np.take_along_axis(seen, order, axis=1)
        return Lists(np.where(ended, -1, items), scores)

    def scores(self, lists: Lists) -> Float64[np.ndarray, "U K"]:
        """Scores the items of lists; those of entries that are none mean nothing."""
        chosen = self.items[np.maximum(lists.items, 0)].astype(np.float64)
        return np.einsum("ud,ukd->uk", self.users.astype(np.float64), chosen)


def _join(a: Positives, b: Positives, num_users: int) -> Positives:
    users = np.concatenate([a.users, b.users])
    return select(users, np.concatenate([a.items, b.items]), num_users)


def open_graph(place: str) -> Graph:
    """Loads a run of a graph recommender and encodes users and items once.

    Raises:
      UserError: There is no finished run, or it does not hold out one item a user.
    """
    workdir = Path(place).expanduser()
    found = finished_graph.open_run(workdir)
    split = found.data.split
    for part in PARTS:
        if (getattr(split, part).counts != 1).any():
            raise UserError(
                f"config.graph={place} does not hold out one item of each user: train"
                " it with --config.data.split=leave_one_out"
            )
    run = training.Run(found.trainer)
    choice = run.choose(found.state)
    encoded = jax.device_get(run.encode(found.state, choice.arguments))
    return Graph(found.config.model.name, split, encoded.users, encoded.items)


def read_lists(place: str, split: PairSplit, key: str) -> Lists:
    """Reads the lists of a run, in the order of a split's users.

    Args:
      place: Folder with `predictions.jsonl`, or such a file.
      split: Whose users are listed for.
      key: Of the config, named in errors.

    Raises:
      UserError: The file is missing or damaged, or of other users or items.
    """
    path = Path(place).expanduser()
    path = path / "predictions.jsonl" if path.is_dir() else path
    users, lists = predictions.read(path, split.item_ids)
    rows = {user: row for row, user in enumerate(users)}
    strange = [user for user in split.user_ids if user not in rows]
    if strange or len(rows) != split.num_users:
        of = f" (none for user {strange[0]!r})" if strange else ""
        raise UserError(
            f"{key}={place} lists for {len(rows)} users{of}, the graph recommender has"
            f" {split.num_users}: both need the same data"
        )
    if lists.items.max(initial=-1) >= split.num_items:
        raise UserError(
            f"{key}={place} lists item {lists.items.max()}, the graph recommender has"
            f" {split.num_items} items: both need the same data"
        )
    order = [rows[user] for user in split.user_ids]
    return Lists(lists.items[order], lists.scores[order])
