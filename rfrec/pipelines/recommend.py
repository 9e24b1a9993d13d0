# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Recommends with trained retrievers: evaluates all users, or answers histories."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import Bool, Int
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.codes import trie
from rfrec.config import UserError
from rfrec.data import features, histories, sequences
from rfrec.data.interactions import Interactions
from rfrec.evaluation import predictions, report
from rfrec.evaluation.options import Evaluation
from rfrec.evaluation.ranking import Lists
from rfrec.pipelines import options as options_lib
from rfrec.pipelines import (
    recommend_report,
    retriever,
    run_folder,
    saved_lists,
    systems,
)
from rfrec.pipelines.recommend_report import Truth
from rfrec.pipelines.saved_lists import Listed
from rfrec.pipelines.systems import DataChanges, System
from rfrec.retrieval import builders, ensemble, search, validation
from rfrec.retrieval.lists import distinct_codes
from rfrec.retrieval.options import CHECKPOINTS
from rfrec.retrieval.queries import Queries
from rfrec.retrieval.search import Searcher
from rfrec.train import partition


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """Search for the items of a list.

    Attributes:
      method: `beam` searches for the best items, `sample` draws items.
      beams: Number of beams, or of draws.
      top_k: Length of the lists.
      score: `full`: log-probabilities as Hugging Face computes them; `level`:
        renormalised over the codes that can follow.
      batch_size: Maximum number of histories of a batch.
      buckets: Lengths of history with a program of their own; () uses the run's.
      temperature: Temperature of the draws.
      top_p: Probability mass from which items are drawn (nucleus sampling).
    """

    method: Literal["beam", "sample"] = "beam"
    beams: int = cfg.option(20, cfg.whole(1))
    top_k: int = cfg.option(20, cfg.whole(1))
    score: Literal["full", "level"] = "full"
    batch_size: int = cfg.option(128, cfg.whole(1))
    buckets: tuple[int, ...] = cfg.option((), cfg.each(cfg.whole(1)))
    temperature: float = cfg.option(1.0, cfg.above(0))
    top_p: float = cfg.option(
        1.0, cfg.Rule(lambda v: 0 < v <= 1, "above 0 and at most 1")
    )


@dataclasses.dataclass(frozen=True)
class Filter:
    """Items that may be recommended.

    Attributes:
      seen: Whether the items of a history are left out. MQL4GRec and TIGER do not.
      allow: File of the only items that may be recommended, one a line.
      deny: File of items that are never recommended, one a line.
    """

    seen: bool = False
    allow: str | None = None
    deny: str | None = None


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Merging of two lists.

    Attributes:
      method: How the lists are merged, see `rfrec.retrieval.ensemble`.
      task: Task of the second list; None uses the counterpart of the first task in the
        other modality.
      run: Run of the second list; None uses the first run.
      checkpoint: Checkpoint of the second list; None uses the first.
      alpha: Weight of the first list; None chooses it on validation lists.
      users: Number of users of these validation lists, drawn once; 0 uses all.
    """

    method: Literal["none", "mql4grec", "weighted", "reciprocal"] = "none"
    task: str | None = None
    run: str | None = None
    checkpoint: str | None = cfg.option(None, cfg.one_of(*CHECKPOINTS))
    alpha: float | None = cfg.option(None, cfg.between(0, 1))
    users: int = cfg.option(2000, cfg.whole(0))


@dataclasses.dataclass(frozen=True)
class Eval(Evaluation):
    """Evaluation of the lists.

    Attributes:
      vectors: File (.npy) of item vectors for the diversity within a list; None uses
        the codes.
    """

    vectors: str | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `rfrec.launch.recommend`.

    Attributes:
      seed: Seed of sampling and of the bootstrap resampling.
      run: Folder of a run of `rfrec.launch.t5`; required.
      checkpoint: Checkpoint of the run: the best by a criterion, or the last.
      task: Task of the run; None uses the task that was evaluated in training.
        `TASK:image` chooses the direction of a task that has two.
      which: Item of each user that is predicted: the last but one, or the last.
      data: Data that differ from those of the run.
      search: Search for the items of a list.
      filter: Items that may be recommended.
      ensemble: Merging of two lists.
      eval: Evaluation of the lists.
    """

    seed: int = cfg.option(0, cfg.at_least(0))
    run: str | None = None
    checkpoint: Literal["ndcg@10", "loss", "last"] = "ndcg@10"
    task: str | None = None
    which: Literal["valid", "test"] = "test"
    data: DataChanges = DataChanges()
    search: SearchOptions = SearchOptions()
    filter: Filter = Filter()
    ensemble: Ensemble = Ensemble()
    eval: Eval = Eval()


class Member(NamedTuple):
    """A system with its compiled search and its lists."""

    system: System
    searcher: Searcher
    listed: Listed

    @property
    def lists(self) -> Lists:
        """Items and scores."""
        return Lists(self.listed.answers.items, self.listed.answers.scores)


class Merged(NamedTuple):
    """Lists of an ensemble, the weight of the first, and how it was chosen."""

    lists: Lists
    alpha: float | None = None
    choice: ensemble.Choice | None = None


def check(config: ConfigDict, *, evaluation: bool) -> Options:
    """Returns the options of a config.

    Args:
      config: Config to check.
      evaluation: Whether all users are evaluated, rather than given histories.

    Raises:
      UserError: A value is not allowed, or values cannot be combined; names the keys.
    """
    options_lib.check(config, Options)
    options = cfg.parse(Options, config)
    merging, searching = options.ensemble, options.search
    if options.run is None:
        raise UserError(
            "config.run is required: --config.run=FOLDER of a run of rfrec.launch.t5"
        )
    if evaluation and searching.top_k < 10:
        raise UserError(
            f"config.search.top_k={searching.top_k}: an evaluation needs at least 10"
            " items"
        )
    if not evaluation and merging.method == "weighted" and merging.alpha is None:
        raise UserError(
            "config.ensemble.alpha is required with --histories; use the value that an"
            " evaluation chose, see its report.json"
        )
    if (np.diff(searching.buckets) <= 0).any():
        raise UserError(f"config.search.buckets={searching.buckets}: must ascend")
    beam, alone = searching.method == "beam", merging.method == "none"
    cfg.refuse_together(
        {
            "search.method=beam and search.temperature": beam
            and searching.temperature != 1,
            "search.method=beam and search.top_p": beam and searching.top_p != 1,
            f"ensemble.alpha and ensemble.method={merging.method}": merging.alpha
            is not None
            and merging.method != "weighted",
            "ensemble.method=none and ensemble.task": alone
            and merging.task is not None,
            "ensemble.method=none and ensemble.run": alone and merging.run is not None,
            "ensemble.method=none and ensemble.checkpoint": alone
            and merging.checkpoint is not None,
            "ensemble.method and search.method=sample": not alone and not beam,
        }
    )
    return options


def evaluate(config: ConfigDict, workdir: Path) -> None:
    """Evaluates the lists of all users, resuming what `workdir` contains."""
    options = check(config, evaluation=True)
    loaded = load_systems(options)
    searchers = [build_searcher(options, system) for system in loaded]
    queries = [heldout_queries(system, options.which) for system in loaded]
    inter = loaded[0].data.inter
    truth = build_truth(options, inter, queries[0])
    # Only now, so that a refused config leaves nothing behind.
    run_folder.open_workdir(workdir, config)
    logging.info(
        "%d users, %d items on %d %s device(s)",
        *(inter.num_users, inter.num_items),
        *(jax.device_count(), jax.default_backend()),
    )
    members = []
    for system, searcher, each in zip(loaded, searchers, queries, strict=True):
        name = f"{options.which}.{system.name}"
        listed = saved_lists.collect(
            searcher, each, folder=workdir / "lists", name=name
        )
        members.append(Member(system, searcher, listed))
    merged = None
    if len(members) > 1:
        choice = choose_weight(options, members, workdir / "lists")
        merged = merge(options, members, choice)
    if jax.process_index() == 0:
        files = write_predictions(workdir, inter, members, merged)
        result = {
            **run_folder.report_head("recommend", config),
            "which": options.which,
            "users": inter.num_users,
            "items": inter.num_items,
            "data": {
                "names": list(loaded[0].data.names),
                "sha256": loaded[0].data.fingerprint,
            },
            "warnings": list(loaded[0].data.warnings),
            "predictions": files,
            "lists": report_lists(options, members, merged, truth),
        }
        run_folder.write_report(workdir, result)


def answer(config: ConfigDict, workdir: Path | None, source: str) -> None:
    """Recommends items for given histories.

    Args:
      config: Config; its sections `data`, `search`, `filter` and `ensemble` are used.
      workdir: Folder of `answers.jsonl`; None writes its lines to standard output.
      source: File of histories, see `rfrec.data.histories`; `-` is standard input.

    Raises:
      UserError: A history is empty or names an unknown item; names the line.
    """
    options = check(config, evaluation=False)
    loaded = load_systems(options)
    item_ids = loaded[0].data.inter.item_ids
    inter = read_histories(source, loaded)
    searchers = [build_searcher(options, system) for system in loaded]
    if workdir is not None:
        run_folder.open_workdir(workdir, config)
    members = []
    for system, searcher in zip(loaded, searchers, strict=True):
        most = system.model.options.data.max_history
        windows = sequences.latest_windows(inter, most=most)
        queries = build_queries(system, inter, windows)
        folder, name = workdir and workdir / "lists", f"histories.{system.name}"
        listed = saved_lists.collect(searcher, queries, folder=folder, name=name)
        members.append(Member(system, searcher, listed))
    final = members[0].lists
    if len(members) > 1:
        final = merge(options, members, None).lists
    if jax.process_index() != 0:
        return
    if workdir is None:
        for line in predictions.as_lines(inter.user_ids, final, item_ids):
            print(line)
        sys.stdout.flush()
        return
    predictions.write(workdir / "answers.jsonl", inter.user_ids, final, item_ids)
    logging.info("answers: %s", workdir / "answers.jsonl")


def load_systems(options: Options) -> tuple[System, ...]:
    """Loads the model, or the two models of an ensemble, with their data.

    Raises:
      UserError: A run, a task or the data are missing or do not match.
    """
    assert options.run is not None
    run = Path(options.run).expanduser()
    model = retriever.read_model(run, options.checkpoint)
    first = systems.find_task(options.task, model.options, "config.task")
    if options.ensemble.method == "none":
        data = systems.load_data(options.data, run, model, first.modalities)
        return (System(first.target, run, first, model, data),)
    run_2, model_2 = run, model
    checkpoint_2 = options.ensemble.checkpoint or options.checkpoint
    if options.ensemble.run is not None:
        run_2 = Path(options.ensemble.run).expanduser()
    if (run_2, checkpoint_2) != (run, options.checkpoint):
        model_2 = retriever.read_model(run_2, checkpoint_2)
    second = systems.find_second_task(
        options.ensemble.task, first, model_2.options, "config.ensemble.task"
    )
    used = (*first.modalities, *second.modalities)
    data = data_2 = systems.load_data(options.data, run, model, used)
    if run_2 != run:
        data_2 = systems.load_data(options.data, run_2, model_2, used)
    if (run_2, checkpoint_2, second) == (run, options.checkpoint, first):
        raise UserError(
            f"config.ensemble: both lists are those of {first.name} of {run}; set"
            " another config.ensemble.task or .run"
        )
    systems.check_same_users(data, data_2, (run, run_2))
    name = second.target if second.target != first.target else f"{second.target}_2"
    return (
        System(first.target, run, first, model, data),
        System(name, run_2, second, model_2, data_2),
    )


def build_searcher(options: Options, system: System) -> Searcher:
    """Builds the search of a system.

    Raises:
      UserError: The batch does not divide among the devices, or a filter is refused.
    """
    model, data, searching = system.model, system.data, options.search
    engine = partition.make_engine("jit")
    engine.check_batch(searching.batch_size, "config.search.batch_size")
    sampling = None
    if searching.method == "sample":
        sampling = search.Sampling(searching.temperature, searching.top_p, options.seed)
    settings = search.Settings(
        num_beams=searching.beams,
        score=searching.score,
        top_k=searching.top_k,
        batch_size=searching.batch_size,
        buckets=tuple(searching.buckets or model.options.train.buckets),
        keep=read_filter(options.filter, data.inter),
        filter_seen=options.filter.seen,
        sampling=sampling,
    )
    source = builders.build_source(
        model.options, model.params, model.vocabulary, data, system.task
    )
    return Searcher(source, settings, engine)


def read_filter(filter: Filter, inter: Interactions) -> Bool[np.ndarray, " N"] | None:
    """Returns which items may be recommended; None for all.

    Raises:
      UserError: A file cannot be read, names an unknown item, or nothing is left.
    """
    if filter.allow is None and filter.deny is None:
        return None
    ids = inter.item_ids or map(str, range(inter.num_items))
    names = {item: row for row, item in enumerate(ids)}
    keep = np.full(len(names), filter.allow is None)
    if filter.allow is not None:
        keep[saved_lists.read_items(filter.allow, names, "config.filter.allow")] = True
    if filter.deny is not None:
        keep[saved_lists.read_items(filter.deny, names, "config.filter.deny")] = False
    if not keep.any():
        raise UserError("config.filter.allow and .deny leave no item; change one")
    return keep


def heldout_queries(
    system: System, which: str, users: Int[np.ndarray, " R"] | None = None
) -> Queries:
    """Returns the histories before the held-out items, of all users or of some."""
    inter, most = system.data.inter, system.model.options.data.max_history
    windows = sequences.heldout_windows(inter, which, most=most)
    queries = build_queries(system, inter, windows)
    return queries if users is None else queries.take(users)


def build_queries(
    system: System, inter: Interactions, windows: sequences.Windows
) -> Queries:
    """Returns one query for each user."""
    model = system.model
    return builders.build_queries(model.options, model.vocabulary, inter, windows)


def read_histories(source: str, loaded: tuple[System, ...]) -> Interactions:
    """Reads histories of items that all systems know.

    Args:
      source: File, or `-` for standard input.
      loaded: Systems that will recommend.

    Raises:
      UserError: The file cannot be read, or a history is refused.
    """
    try:
        if source == "-":
            text = sys.stdin.read()
        else:
            text = Path(source).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--histories={source} cannot be read ({error})") from error
    inter = loaded[0].data.inter
    coded = [s.data.codes[m][:, 0] >= 0 for s in loaded for m in s.task.sources]
    return histories.read(
        text,
        inter.num_items,
        item_ids=inter.item_ids,
        coded=np.all(coded, axis=0),
        origin="standard input" if source == "-" else source,
    )


def choose_weight(
    options: Options, members: list[Member], folder: Path
) -> ensemble.Choice | None:
    """Chooses the weight of the first list on validation lists, if it is not set."""
    merging = options.ensemble
    if merging.method != "weighted" or merging.alpha is not None:
        return None
    if options.which == "valid":
        logging.warning("alpha is chosen on the same items that are evaluated")
    count = members[0].system.data.inter.num_users
    users = validation.draw_users(count, merging.users, options.seed)
    targets = heldout_queries(members[0].system, "valid", users).windows.target

    def rank(member: Member) -> Lists:
        queries = heldout_queries(member.system, "valid", users)
        name = f"alpha.{member.system.name}"
        listed = saved_lists.collect(member.searcher, queries, folder=folder, name=name)
        return member._replace(listed=listed).lists

    first, second = map(rank, members)
    choice = ensemble.choose_alpha(first, second, targets, keep=options.search.top_k)
    logging.info("alpha %.2f, of %d validation users", choice.alpha, len(users))
    return choice


def merge(
    options: Options, members: list[Member], choice: ensemble.Choice | None
) -> Merged:
    """Merges the two lists of each user."""
    first, second = (member.lists for member in members)
    keep, method = options.search.top_k, options.ensemble.method
    if method == "mql4grec":
        return Merged(ensemble.mql4grec(first, second, keep=keep))
    if method == "reciprocal":
        return Merged(ensemble.reciprocal_ranks(first, second, keep=keep))
    alpha = options.ensemble.alpha if choice is None else choice.alpha
    assert alpha is not None
    return Merged(ensemble.weighted(first, second, alpha, keep=keep), alpha, choice)


def write_predictions(
    workdir: Path, inter: Interactions, members: list[Member], merged: Merged | None
) -> list[str]:
    """Writes the lists; returns the names of the files, the final one first."""
    lists = {"predictions.jsonl": members[0].lists}
    if merged is not None:
        lists["predictions.jsonl"] = merged.lists
        for member in members:
            lists[f"predictions.{member.system.name}.jsonl"] = member.lists
    for name, each in lists.items():
        predictions.write(workdir / name, inter.user_ids, each, inter.item_ids)
    return list(lists)


def build_truth(options: Options, inter: Interactions, queries: Queries) -> Truth:
    """Returns what the lists of all users are compared with.

    Raises:
      UserError: `config.eval.vectors` has another number of rows than items.
    """
    vectors = None
    if options.eval.vectors is not None:
        path = Path(options.eval.vectors).expanduser()
        vectors = np.asarray(features.read_features(path))
        if len(vectors) != inter.num_items:
            raise UserError(
                f"config.eval.vectors={path} has {len(vectors)} rows for"
                f" {inter.num_items} items; row i must be item i"
            )
    counts = recommend_report.training_counts(inter)
    return Truth(queries.windows.target, counts, vectors, options.eval, options.seed)


def report_lists(
    options: Options, members: list[Member], merged: Merged | None, truth: Truth
) -> dict[str, Any]:
    """Returns what the report states about each list."""
    results = {}
    for member in members:
        system = member.system
        results[system.name] = describe(member) | recommend_report.evaluate(
            member.lists,
            member.listed.answers.leaves,
            truth,
            codes=system.data.codes[system.task.target],
            leaf_of=trie.leaf_of(member.searcher.source.trie),
        )
    if merged is not None:
        first = members[0]
        leaf_of = trie.leaf_of(first.searcher.source.trie)
        others = {member.system.name: member.lists for member in members}
        results["ensemble"] = {
            "method": options.ensemble.method,
            "alpha": merged.alpha,
            "choice": merged.choice and merged.choice._asdict(),
            **recommend_report.evaluate(
                merged.lists,
                distinct_codes(merged.lists.items, leaf_of),
                truth,
                codes=first.system.data.codes[first.system.task.target],
                leaf_of=leaf_of,
            ),
            "minus": report.differences(
                merged.lists, others, truth.targets, **truth.bootstrap
            ),
        }
    for name, result in results.items():
        for line in recommend_report.format_means(result):
            logging.info("%-8s %s %s", name, options.which, line)
    return results


def describe(member: Member) -> dict[str, Any]:
    """Returns where a list comes from and what it cost."""
    system, listed = member.system, member.listed
    trained_on = system.model.data
    return {
        "run": str(system.run),
        "step": system.model.step,
        "task": system.task.name,
        "target": system.task.target,
        "trained_on_these_data": trained_on == system.data.fingerprint
        if trained_on
        else None,
        "seconds": listed.seconds,
        "users_per_second": listed.users_per_second,
    }
