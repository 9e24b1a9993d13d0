# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hybrid ranking: a graph recommender ranks what a retriever retrieved.

Lists of the test items, all compared with the same truth:

  retriever   lists of the retriever
  graph       the whole catalogue, ranked by the graph recommender alone
  rescored    two stages: the retriever's candidates, sorted by the graph recommender
  blended     the same candidates, sorted by a weighted sum of both scores
  fused       late fusion: the union of both lists, sorted by a weighted sum
  reciprocal  the union, sorted by reciprocal ranks, which has no weight

The weights maximise NDCG@10 of validation lists, after the scores of each list are
standardised to mean 0 and standard deviation 1.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import Float, Float64, Int
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.data.pairs import PairSplit, Positives, select
from rfrec.evaluation import groups, predictions, ranking, report
from rfrec.evaluation.options import Evaluation
from rfrec.evaluation.ranking import Lists
from rfrec.graph import training
from rfrec.pipelines import finished_graph, run_folder, saved_lists
from rfrec.pipelines import options as options_lib
from rfrec.retrieval import ensemble

PARTS = ("valid", "test")
NAMES = ("retriever", "graph", "rescored", "blended", "fused", "reciprocal")
_SHOWN = ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr")


@dataclasses.dataclass(frozen=True)
class ListOptions:
    """Lists of the retriever; required.

    Attributes:
      valid: Folder of a run of `rfrec.launch.recommend` with which=valid, or a file of
        predictions in its format; weights are chosen on it.
      test: The same for the test items.
    """

    valid: str | None = None
    test: str | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `rfrec.launch.fuse`.

    Attributes:
      seed: Seed of the bootstrap resampling.
      lists: Lists of the retriever.
      graph: Folder of a run of `rfrec.launch.gume`; required.
      beside: Folders of further runs (sasrec, gume, recommend) whose test lists are
        reported for comparison.
      top_k: Length of the lists.
      candidates: Number of items of the graph recommender that late fusion uses.
      eval: Evaluation of the lists.
    """

    seed: int = cfg.option(0, cfg.whole(0))
    lists: ListOptions = ListOptions()
    graph: str | None = None
    beside: tuple[str, ...] = ()
    # The metrics look at 10 items.
    top_k: int = cfg.option(20, cfg.whole(10))
    candidates: int = cfg.option(50, cfg.whole(10))
    eval: Evaluation = Evaluation()


class Graph(NamedTuple):
    """Embeddings of a trained graph recommender.

    Attributes:
      name: Name of the model.
      split: Split of its training, with one item of each user in valid and in test.
      users: Embeddings of users.
      items: Embeddings of items; scores are inner products.
    """

    name: str
    split: PairSplit
    users: Float[np.ndarray, "U D"]
    items: Float[np.ndarray, "I D"]

    def targets(self, part: str) -> Int[np.ndarray, " U"]:
        """Returns the held-out item of each user."""
        return getattr(self.split, part).items

    def before(self, part: str) -> Positives:
        """Returns the items before the held-out item of each user."""
        split = self.split
        if part == "valid":
            return split.train
        return _join(split.train, split.valid, split.num_users)

    def rank(self, part: str, k: int) -> Lists:
        """Ranks the catalogue without the items before the held-out item."""
        before = self.before(part)
        return ranking.rank_products(
            self.users, self.items, k=k, seen=(before.indptr, before.items)
        )

    def unseen(self, lists: Lists, part: str) -> Lists:
        """Removes the items before the held-out item from lists."""
        before, count = self.before(part), self.split.num_items
        pairs = np.arange(len(lists.items))[:, None] * count + lists.items
        seen = np.isin(pairs, before.users * count + before.items) & lists.valid
        order = np.argsort(seen, axis=1, kind="stable")
        items, scores = (np.take_along_axis(x, order, axis=1) for x in lists)
        removed = np.take_along_axis(seen, order, axis=1)
        return Lists(np.where(removed, -1, items), scores)

    def scores(self, lists: Lists) -> Float64[np.ndarray, "U K"]:
        """Returns the scores of the items of lists; arbitrary for missing items."""
        chosen = self.items[np.maximum(lists.items, 0)].astype(np.float64)
        return np.einsum("ud,ukd->uk", self.users.astype(np.float64), chosen)


def _join(a: Positives, b: Positives, num_users: int) -> Positives:
    users = np.concatenate([a.users, b.users])
    return select(users, np.concatenate([a.items, b.items]), num_users)


def open_graph(place: str) -> Graph:
    """Loads a run of a graph recommender and encodes users and items once.

    Raises:
      UserError: There is no finished run, or it does not hold out one item per user.
    """
    workdir = Path(place).expanduser()
    finished = finished_graph.open_run(workdir)
    split = finished.data.split
    for part in PARTS:
        if (getattr(split, part).counts != 1).any():
            raise UserError(
                f"config.graph={place} does not hold out one item of each user; train"
                " it with --config.data.split=leave_one_out"
            )
    run = training.Run(finished.trainer)
    choice = run.choose(finished.state)
    encoded = jax.device_get(run.encode(finished.state, choice.arguments))
    return Graph(finished.config.model.name, split, encoded.users, encoded.items)


def check(config: ConfigDict) -> Options:
    """Returns the options of a config.

    Raises:
      UserError: A value is not allowed or missing; names the key.
    """
    options_lib.check(config, Options)
    options = cfg.parse(Options, config)
    required = {
        "lists.valid": options.lists.valid,
        "lists.test": options.lists.test,
        "graph": options.graph,
    }
    for key, value in required.items():
        if value is None:
            raise UserError(f"config.{key} is required: --config.{key}=FOLDER")
    names = [*NAMES, *(Path(place).name for place in options.beside)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"config.beside: two lists would be named {name!r} after their folders;"
                " rename a folder"
            )
    return options


def run(config: ConfigDict, workdir: Path) -> None:
    """Merges the lists, chooses the weights and reports."""
    options = check(config)
    assert options.graph is not None
    graph = open_graph(options.graph)
    retrieved = {
        part: saved_lists.read_lists(
            getattr(options.lists, part), graph.split, f"config.lists.{part}"
        )
        for part in PARTS
    }
    beside = read_beside(options, graph)
    run_folder.open_workdir(workdir, config)
    choices = choose_weights(
        options, graph, rank(options, graph, retrieved["valid"], "valid")
    )
    alphas = {name: choice.alpha for name, choice in choices.items()}
    test = rank(options, graph, retrieved["test"], "test")
    lists = merge(test, alphas, options.top_k)
    results = evaluate(options, graph, lists | beside)
    if jax.process_index() != 0:
        return
    split = graph.split
    for name, each in lists.items():
        path = workdir / f"predictions.{name}.jsonl"
        predictions.write(path, split.user_ids, each, split.item_ids)
    head = run_folder.report_head("fuse", config)
    described = {
        "users": split.num_users,
        "items": split.num_items,
        "data": {"sha256": split.fingerprint},
        "graph": graph.name,
        "choices": {name: choice._asdict() for name, choice in choices.items()},
        "lists": results,
    }
    run_folder.write_report(workdir, head | described)
    for line in format_table(results):
        logging.info("%s", line)


def read_beside(options: Options, graph: Graph) -> dict[str, Lists]:
    """Reads the test lists of further runs, by the names of their folders.

    Graph recommenders list validation items too, which are known before the test. They
    are removed, so that all lists have the same candidates and the same length.
    """
    lists = {
        Path(place).name: saved_lists.read_lists(place, graph.split, "config.beside")
        for place in options.beside
    }
    unseen = {name: graph.unseen(each, "test") for name, each in lists.items()}
    return {name: _cut(each, options.top_k) for name, each in unseen.items()}


class Sources(NamedTuple):
    """The lists of one part of the data from which all others are made.

    Attributes:
      retriever: Lists of the retriever.
      graph: Best items of the whole catalogue.
      rescored: The retriever's candidates, sorted by the graph recommender.
    """

    retriever: Lists
    graph: Lists
    rescored: Lists

    def pairs(self) -> dict[str, tuple[Lists, Lists]]:
        """Returns the two standardised lists of each weighted list."""
        retriever, graph, rescored = map(ensemble.standardized, self)
        return {"blended": (retriever, rescored), "fused": (retriever, graph)}


def rank(options: Options, graph: Graph, lists: Lists, part: str) -> Sources:
    """Ranks the candidates and the whole catalogue by the graph recommender."""
    rescored = ensemble.rescored(lists, graph.scores(lists), keep=lists.items.shape[1])
    return Sources(lists, graph.rank(part, options.candidates), rescored)


def choose_weights(
    options: Options, graph: Graph, sources: Sources
) -> dict[str, ensemble.Choice]:
    """Chooses the weights of the retriever.

    Args:
      options: Length of the lists.
      graph: Graph recommender, with the targets.
      sources: Lists of the validation items.
    """
    targets, choices = graph.targets("valid"), {}
    for name, pair in sources.pairs().items():
        choices[name] = ensemble.choose_alpha(*pair, targets, keep=options.top_k)
        logging.info(
            "%s: weight %.2f of the retriever, ndcg@10 %.4f on validation",
            *(name, choices[name].alpha, choices[name].value),
        )
    return choices


def merge(sources: Sources, alphas: Mapping[str, float], keep: int) -> dict[str, Lists]:
    """Returns all lists of one part of the data, in the order of `NAMES`.

    Args:
      sources: Lists of the part.
      alphas: Weight of the retriever in `blended` and in `fused`.
      keep: Length of the lists.
    """
    lists = {name: _cut(each, keep) for name, each in sources._asdict().items()}
    for name, pair in sources.pairs().items():
        lists[name] = ensemble.weighted(*pair, alphas[name], keep=keep)
    lists["reciprocal"] = ensemble.reciprocal_ranks(*sources[:2], keep=keep)
    return {name: lists[name] for name in NAMES}


def _cut(lists: Lists, keep: int) -> Lists:
    return Lists(lists.items[:, :keep], lists.scores[:, :keep])


def evaluate(
    options: Options, graph: Graph, lists: Mapping[str, Lists]
) -> dict[str, dict[str, Any]]:
    """Returns the metrics of each list, and its differences to each source alone."""
    split, targets = graph.split, graph.targets("test")
    counts = groups.count_items(split.train.items, split.num_items)
    bootstrap = {"resamples": options.eval.resamples, "seed": options.seed}
    alone = {name: lists[name] for name in ("retriever", "graph")}
    results = {}
    for name, each in lists.items():
        result = report.evaluate(
            each,
            targets,
            counts=counts,
            cold_share=options.eval.cold_share,
            cold_below=options.eval.cold_below,
            **bootstrap,
        )
        others = {other: its for other, its in alone.items() if other != name}
        minus = report.differences(each, others, targets, **bootstrap)
        results[name] = result | {"minus": minus}
    return results


def format_table(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a Markdown table of the means over all users."""
    head = ["| lists | " + " | ".join(_SHOWN) + " |", "|---|" + "---|" * len(_SHOWN)]
    rows = []
    for name, result in results.items():
        row = result["metrics"]["all"]
        cells = (f"{row[metric]['mean']:.4f}" for metric in _SHOWN)
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*head, *rows]
