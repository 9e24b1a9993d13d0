# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists what a trained T5 recommends, to all users of a data set or to given histories.

python -m rfrec.launch.recommend --config=configs/recommend.py \
  --config.run=runs/instruments --workdir=runs/instruments_test
python -m rfrec.launch.recommend --config=configs/recommend.py \
  --config.run=runs/instruments --histories=histories.jsonl > answers.jsonl
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags, logging
from jaxtyping import Int
from ml_collections import ConfigDict

from rfrec import files
from rfrec.codes import trie
from rfrec.config import UserError, as_json
from rfrec.data import features, histories, sequences
from rfrec.data.interactions import Interactions
from rfrec.evaluation import predictions, report
from rfrec.evaluation.ranking import Lists
from rfrec.launch import cli
from rfrec.pipelines import recommend, recommend_report, run_folder, saved_lists
from rfrec.pipelines.recommend import System
from rfrec.pipelines.recommend_report import Truth
from rfrec.pipelines.saved_lists import Listed
from rfrec.retrieval import ensemble, search, validation
from rfrec.retrieval.search import Queries, Searcher


class Member(NamedTuple):
    """A system with its compiled programs and the lists it made."""

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


def main(config: ConfigDict, workdir: Path | None, place: str | None = None) -> None:
    """Evaluates, or answers to the histories at `place`."""
    if place is not None:
        answer(config, workdir, place)
    elif workdir is not None:
        evaluate(config, workdir)
    else:
        raise UserError(
            "--workdir=FOLDER is needed, lists and report go there; or --histories=FILE"
        )


def evaluate(config: ConfigDict, workdir: Path) -> None:
    """Lists items for all users, from where it stands in `workdir`, and reports."""
    recommend.check(config, evaluation=True)
    systems = recommend.systems(config)
    searchers = [recommend.searcher(config, system) for system in systems]
    queries = [heldout(system, config.which) for system in systems]
    inter = systems[0].data.inter
    truth = make_truth(config, systems[0], searchers[0], queries[0])
    # Only now, so that a refused config leaves nothing behind.
    run_folder.open_workdir(workdir, config)
    logging.info(
        "%d users, %d items on %d %s device(s)",
        *(inter.num_users, inter.num_items),
        *(jax.device_count(), jax.default_backend()),
    )
    members = []
    for system, searcher, asked in zip(systems, searchers, queries, strict=True):
        name = f"{config.which}.{system.name}"
        listed = saved_lists.collect(
            searcher, asked, folder=workdir / "lists", name=name
        )
        members.append(Member(system, searcher, listed))
    merged = None
    if len(members) > 1:
        choice = choose(config, members, workdir / "lists")
        merged = merge(config, members, choice)
    if jax.process_index() == 0:
        written = write(workdir, inter, members, merged)
        told = {"predictions": written, "lists": tell(config, members, merged, truth)}
        files.write_json(workdir / "report.json", head(config, systems[0]) | told)
        logging.info("report: %s", workdir / "report.json")


def heldout(
    system: System, which: str, users: Int[np.ndarray, " R"] | None = None
) -> Queries:
    """Returns the histories before the held-out items, of all users or of some."""
    inter, most = system.data.inter, system.model.config.data.max_history
    windows = sequences.heldout_windows(inter, which, most=most)
    asked = make_queries(system, inter, windows)
    return asked if users is None else asked.take(users)


def make_queries(
    system: System, inter: Interactions, windows: sequences.Windows
) -> Queries:
    """Returns one query for each user."""
    tokens = None
    if system.model.config.task.user_buckets > 0:
        tokens = system.model.vocabulary.user_tokens(inter.user_ids)
    return Queries(inter.items, inter.indptr[:-1], windows, tokens)


def make_truth(
    config: ConfigDict, system: System, searcher: Searcher, queries: Queries
) -> Truth:
    """Returns what the lists of all users are held against.

    Raises:
      UserError: `config.eval.vectors` are not those of the items.
    """
    inter, vectors = system.data.inter, None
    if config.eval.vectors is not None:
        path = Path(config.eval.vectors).expanduser()
        vectors = np.asarray(features.read_features(path))
        if len(vectors) != inter.num_items:
            raise UserError(
                f"config.eval.vectors={path} has {len(vectors)} rows for"
                f" {inter.num_items} items: row i must be item i"
            )
    return Truth(
        targets=queries.windows.target,
        counts=recommend_report.training_counts(
            inter.items, inter.indptr, inter.num_items
        ),
        codes=system.data.codes[system.asked.target],
        leaf_of=trie.leaf_of(searcher.source.trie),
        vectors=vectors,
        cold_share=config.eval.cold_share,
        cold_below=config.eval.cold_below,
        resamples=config.eval.resamples,
        seed=config.seed,
    )


def choose(
    config: ConfigDict, members: list[Member], folder: Path
) -> ensemble.Choice | None:
    """Picks the weight of the first list on validation lists, if it is to be picked."""
    options = config.ensemble
    if options.method != "weighted" or options.alpha is not None:
        return None
    if config.which == "valid":
        logging.warning("alpha is chosen on the very items that are evaluated")
    count = members[0].system.data.inter.num_users
    users = validation.draw_users(count, options.users, config.seed)
    targets = heldout(members[0].system, "valid", users).windows.target

    def lists(member: Member) -> Lists:
        asked = heldout(member.system, "valid", users)
        name = f"alpha.{member.system.name}"
        found = saved_lists.collect(member.searcher, asked, folder=folder, name=name)
        return member._replace(listed=found).lists

    first, second = map(lists, members)
    choice = ensemble.choose_alpha(first, second, targets, keep=config.search.top_k)
    logging.info("alpha %.2f, of %d validation users", choice.alpha, len(users))
    return choice


def merge(
    config: ConfigDict, members: list[Member], choice: ensemble.Choice | None
) -> Merged:
    """Merges the two lists of each user."""
    first, second = (member.lists for member in members)
    keep, method = config.search.top_k, config.ensemble.method
    if method == "mql4grec":
        return Merged(ensemble.mql4grec(first, second, keep=keep))
    if method == "reciprocal":
        return Merged(ensemble.reciprocal_ranks(first, second, keep=keep))
    alpha = config.ensemble.alpha if choice is None else choice.alpha
    return Merged(ensemble.weighted(first, second, alpha, keep=keep), alpha, choice)


def tell(
    config: ConfigDict, members: list[Member], merged: Merged | None, truth: Truth
) -> dict[str, Any]:
    """Returns what the report says of each list."""
    told = {}
    for member in members:
        system = member.system
        own = truth._replace(
            codes=system.data.codes[system.asked.target],
            leaf_of=trie.leaf_of(member.searcher.source.trie),
        )
        found = recommend_report.evaluate(
            member.lists, member.listed.answers.leaves, own
        )
        told[system.name] = describe(member) | found
    if merged is not None:
        leaves = search.distinct_codes(merged.lists.items, truth.leaf_of)
        others = {member.system.name: member.lists for member in members}
        told["ensemble"] = {
            "method": config.ensemble.method,
            "alpha": merged.alpha,
            "choice": merged.choice and merged.choice._asdict(),
            **recommend_report.evaluate(merged.lists, leaves, truth),
            "minus": report.differences(
                merged.lists,
                others,
                truth.targets,
                resamples=truth.resamples,
                seed=truth.seed,
            ),
        }
    for name, found in told.items():
        for row in recommend_report.lines(found):
            logging.info("%-8s %s %s", name, config.which, row)
    return told


def head(config: ConfigDict, system: System) -> dict[str, Any]:
    """Tells of what the report is."""
    device, data = jax.devices()[0], system.data
    return {
        "main": "recommend",
        "which": config.which,
        "users": data.inter.num_users,
        "items": data.inter.num_items,
        "data": {"names": list(data.names), "sha256": data.fingerprint},
        "warnings": list(data.warnings),
        "seed": config.seed,
        "device": f"{device.device_kind} x {jax.device_count()}",
        "config": as_json(config),
    }


def describe(member: Member) -> dict[str, Any]:
    """Tells where a list comes from and what it cost."""
    system, listed = member.system, member.listed
    known = system.model.data
    return {
        "run": str(system.run),
        "step": system.model.step,
        "task": system.asked.task,
        "target": system.asked.target,
        "trained_on_these_data": known == system.data.fingerprint if known else None,
        "seconds": listed.seconds,
        "users_per_second": listed.users_per_second,
    }


def write(
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


def answer(config: ConfigDict, workdir: Path | None, place: str) -> None:
    """Lists items for given histories.

    Args:
      config: Its sections `data`, `search`, `filter` and `ensemble`.
      workdir: Of `answers.jsonl`; None writes its lines to standard output.
      place: File, see `rfrec.data.histories`; `-` reads standard input.

    Raises:
      UserError: A history is empty or names an unknown item; tells the line.
    """
    recommend.check(config, evaluation=False)
    systems = recommend.systems(config)
    inter = systems[0].data.inter
    asked = read_histories(place, systems)
    searchers = [recommend.searcher(config, system) for system in systems]
    if workdir is not None:
        run_folder.open_workdir(workdir, config)
    members = []
    for system, searcher in zip(systems, searchers, strict=True):
        most = system.model.config.data.max_history
        queries = make_queries(
            system, asked, sequences.latest_windows(asked, most=most)
        )
        folder, name = workdir and workdir / "lists", f"histories.{system.name}"
        listed = saved_lists.collect(searcher, queries, folder=folder, name=name)
        members.append(Member(system, searcher, listed))
    final = members[0].lists
    if len(members) > 1:
        final = merge(config, members, None).lists
    if jax.process_index() == 0:
        write_answers(workdir, asked.user_ids, final, inter.item_ids)


def read_histories(place: str, systems: tuple[System, ...]) -> Interactions:
    """Reads the histories at `place`, of items that all systems know."""
    inter = systems[0].data.inter
    coded = [s.data.codes[m][:, 0] >= 0 for s in systems for m in s.asked.sources]
    return histories.read(
        read_text(place),
        inter.num_items,
        item_ids=inter.item_ids,
        coded=np.all(coded, axis=0),
        origin="standard input" if place == "-" else place,
    )


def read_text(place: str) -> str:
    """Reads a file, or standard input.

    Raises:
      UserError: It cannot be read.
    """
    try:
        if place == "-":
            return sys.stdin.read()
        return Path(place).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--histories={place} cannot be read ({error})") from error


def write_answers(
    workdir: Path | None,
    users: tuple[str, ...],
    lists: Lists,
    item_ids: tuple[str, ...] | None,
) -> None:
    """Writes `answers.jsonl`, or its lines to standard output."""
    if workdir is None:
        for line in predictions.as_lines(users, lists, item_ids):
            print(line)
        sys.stdout.flush()
        return
    predictions.write(workdir / "answers.jsonl", users, lists, item_ids)
    logging.info("answers: %s", workdir / "answers.jsonl")


def _define_flags() -> None:
    flags.DEFINE_string(
        "histories", None, "JSON lines of users and items to answer; - reads stdin."
    )


if __name__ == "__main__":
    _define_flags()
    cli.config_main(
        lambda config, workdir: main(config, workdir, flags.FLAGS.histories),
        "recommend",
        workdir=False,
        page=True,
    )
