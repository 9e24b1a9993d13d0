# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Ranks what a retriever found by a graph recommender, and merges the lists of both.

python -m rfrec.launch.fuse --config=configs/fuse.py --workdir=runs/ml1m_fused \
  --config.lists.valid=runs/ml1m_valid --config.lists.test=runs/ml1m_test \
  --config.graph=runs/ml1m_gume

Lists of the test items, all held against the same truth:

  retriever   as they were given
  graph       the whole catalogue, ranked by the graph recommender alone
  rescored    two stages: the retriever's candidates, sorted by the graph recommender
  blended     the same, by a weighted sum of both scores
  fused       late fusion: the union of both lists, by a weighted sum of both scores
  reciprocal  the union, by reciprocal ranks, which has no weight

Weights are chosen on validation lists, NDCG@10, between scores of mean 0 and deviation
1 in each list.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.config import UserError, as_json
from rfrec.evaluation import groups, predictions, report
from rfrec.evaluation.ranking import Lists
from rfrec.launch import cli
from rfrec.pipelines import hybrid, run_folder
from rfrec.pipelines.hybrid import Graph
from rfrec.retrieval import ensemble

RULES: cfg.Rules = {
    "seed": cfg.whole(0),
    # Metrics look at 10 items.
    "top_k": cfg.whole(10),
    "candidates": cfg.whole(10),
    "eval.cold_share": cfg.Rule(lambda v: 0 < v <= 0.5, "above 0 and at most 0.5"),
    "eval.cold_below": cfg.whole(1),
    "eval.resamples": cfg.whole(1),
}
NAMES = ("retriever", "graph", "rescored", "blended", "fused", "reciprocal")
_NEEDED = ("lists.valid", "lists.test", "graph")
_SHOWN = ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr")


def main(config: ConfigDict, workdir: Path) -> None:
    """Merges, chooses and reports."""
    check(config)
    graph = hybrid.open_graph(config.graph)
    given = {
        part: hybrid.read_lists(config.lists[part], graph.split, f"config.lists.{part}")
        for part in hybrid.PARTS
    }
    beside = read_beside(config, graph)
    run_folder.open_workdir(workdir, config)
    choices = choose(config, graph, rank(config, graph, given["valid"], "valid"))
    alphas = {name: choice.alpha for name, choice in choices.items()}
    lists = merge(rank(config, graph, given["test"], "test"), alphas, config.top_k)
    told = tell(config, graph, lists | beside)
    if jax.process_index() == 0:
        split = graph.split
        for name, each in lists.items():
            path = workdir / f"predictions.{name}.jsonl"
            predictions.write(path, split.user_ids, each, split.item_ids)
        result = {
            "main": "fuse",
            "users": split.num_users,
            "items": split.num_items,
            "data": {"sha256": split.fingerprint},
            "graph": graph.name,
            "seed": config.seed,
            "choices": {name: choice._asdict() for name, choice in choices.items()},
            "lists": told,
            "config": as_json(config),
        }
        files.write_json(workdir / "report.json", result)
        for line in lines(told):
            logging.info("%s", line)
        logging.info("report: %s", workdir / "report.json")


def check(config: ConfigDict) -> None:
    """Checks each value, and that all that is needed is named.

    Raises:
      UserError: Names the key.
    """
    cfg.check(config, RULES)
    values = config.to_dict()
    for key in _NEEDED:
        section, _, name = key.rpartition(".")
        if (values[section] if section else values)[name] is None:
            raise UserError(f"config.{key} is needed: --config.{key}=FOLDER")
    named = [*NAMES, *(Path(place).name for place in config.beside)]
    for name in named:
        if named.count(name) > 1:
            raise UserError(
                f"config.beside: two lists would be named {name!r}, by the names of"
                " their folders: rename a folder"
            )


def read_beside(config: ConfigDict, graph: Graph) -> dict[str, Lists]:
    """Reads the test lists of further runs, by the names of their folders.

    Graph recommenders list validation items too, which are known before the test: all
    lists are of the same candidates, and as long.
    """
    read = {
        Path(place).name: hybrid.read_lists(place, graph.split, "config.beside")
        for place in config.beside
    }
    unseen = {name: graph.unseen(lists, "test") for name, lists in read.items()}
    return {name: _cut(lists, config.top_k) for name, lists in unseen.items()}


class Sources(NamedTuple):
    """The lists of one part of the data that all others are made of.

    Attributes:
      retriever: As given.
      graph: The best of the whole catalogue.
      rescored: The retriever's candidates, sorted by the graph recommender.
    """

    retriever: Lists
    graph: Lists
    rescored: Lists

    def weighed(self) -> dict[str, tuple[Lists, Lists]]:
        """Returns what each weighted list is made of, on one scale."""
        first, whole, again = map(ensemble.standardized, self)
        return {"blended": (first, again), "fused": (first, whole)}


def rank(config: ConfigDict, graph: Graph, given: Lists, part: str) -> Sources:
    """Ranks by the graph recommender, the candidates and the whole catalogue."""
    again = ensemble.rescored(given, graph.scores(given), keep=given.items.shape[1])
    return Sources(given, graph.rank(part, config.candidates), again)


def choose(
    config: ConfigDict, graph: Graph, sources: Sources
) -> dict[str, ensemble.Choice]:
    """Picks the weights of the retriever.

    Args:
      config: Length of the lists.
      graph: Knows the targets.
      sources: Of the validation items.
    """
    targets, result = graph.targets("valid"), {}
    for name, pair in sources.weighed().items():
        result[name] = ensemble.choose_alpha(*pair, targets, keep=config.top_k)
        logging.info(
            "%s: weight %.2f of the retriever, ndcg@10 %.4f on validation",
            *(name, result[name].alpha, result[name].value),
        )
    return result


def merge(sources: Sources, alphas: Mapping[str, float], keep: int) -> dict[str, Lists]:
    """Makes all lists of one part of the data, in the order of `NAMES`.

    Args:
      sources: Of the part.
      alphas: Weight of the retriever in `blended` and in `fused`.
      keep: Length of the lists.
    """
    made = {
        **{name: _cut(lists, keep) for name, lists in sources._asdict().items()},
        "reciprocal": ensemble.reciprocal_ranks(*sources[:2], keep=keep),
    }
    for name, pair in sources.weighed().items():
        made[name] = ensemble.weighted(*pair, alphas[name], keep=keep)
    return {name: made[name] for name in NAMES}


def _cut(lists: Lists, keep: int) -> Lists:
    return Lists(lists.items[:, :keep], lists.scores[:, :keep])


def tell(
    config: ConfigDict, graph: Graph, lists: Mapping[str, Lists]
) -> dict[str, dict[str, Any]]:
    """Returns what the report says of each list, and what it gains over each alone."""
    split, targets = graph.split, graph.targets("test")
    counts = groups.count_items(split.train.items, split.num_items)
    options = {"resamples": config.eval.resamples, "seed": config.seed}
    alone = {name: lists[name] for name in ("retriever", "graph")}
    told = {}
    for name, each in lists.items():
        found = report.evaluate(
            each,
            targets,
            counts=counts,
            cold_share=config.eval.cold_share,
            cold_below=config.eval.cold_below,
            **options,
        )
        others = {other: its for other, its in alone.items() if other != name}
        minus = report.differences(each, others, targets, **options)
        told[name] = found | {"minus": minus}
    return told


def lines(told: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a Markdown table of the means of all users."""
    head = ["| lists | " + " | ".join(_SHOWN) + " |", "|---|" + "---|" * len(_SHOWN)]
    rows = []
    for name, found in told.items():
        row = found["metrics"]["all"]
        cells = (f"{row[metric]['mean']:.4f}" for metric in _SHOWN)
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*head, *rows]


if __name__ == "__main__":
    cli.config_main(main, "fuse")
