# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A config of `configs/recommend.py` in; models with their data and searches out."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.pipelines import finished_retriever, recommend_data, retriever
from rfrec.pipelines.coded_histories import CodedData
from rfrec.retrieval import search as serving
from rfrec.retrieval import tasks
from rfrec.train import partition

METHODS = ("none", "mql4grec", "weighted", "reciprocal")
# Tasks that ask the same in the other modality.
_MIRROR = {"seqrec": "seqimage", "seqitem2image": "seqimage2item"}
_MIRROR |= {image: text for text, image in _MIRROR.items()}
_OTHER = {"text": "image", "image": "text"}

RULES: cfg.Rules = {
    "seed": cfg.at_least(0),
    "checkpoint": cfg.one_of(*retriever.HIGHEST, *retriever.LOWEST, "last"),
    "which": cfg.one_of("valid", "test"),
    "search.method": cfg.one_of("beam", "sample"),
    "search.beams": cfg.whole(1),
    "search.top_k": cfg.whole(1),
    "search.score": cfg.one_of("full", "level"),
    "search.batch_size": cfg.whole(1),
    "search.buckets": cfg.each(cfg.whole(1)),
    "search.temperature": cfg.above(0),
    "search.top_p": cfg.Rule(lambda v: 0 < v <= 1, "above 0 and at most 1"),
    "ensemble.method": cfg.one_of(*METHODS),
    "ensemble.alpha": cfg.Rule(lambda v: 0 <= v <= 1, "from 0 to 1"),
    "ensemble.users": cfg.whole(0),
    "ensemble.checkpoint": cfg.one_of(*retriever.HIGHEST, *retriever.LOWEST, "last"),
    "eval.cold_share": cfg.Rule(lambda v: 0 < v <= 0.5, "above 0 and at most 0.5"),
    "eval.cold_below": cfg.whole(1),
    "eval.resamples": cfg.whole(1),
}


class Asked(NamedTuple):
    """A task of a run that makes a list.

    Attributes:
      task: Its name.
      row: Its direction.
      sources: Modalities of the history.
      target: Modality of the codes it names.
    """

    task: str
    row: int
    sources: tuple[str, ...]
    target: str

    @property
    def modalities(self) -> tuple[str, ...]:
        """Whose codes are used."""
        return (*self.sources, self.target)


class System(NamedTuple):
    """What makes one list of each user.

    Attributes:
      name: In reports and of files: the modality of its target.
      run: Folder of the run.
      asked: What it is asked.
      model: Of the run.
      data: The one data set.
    """

    name: str
    run: Path
    asked: Asked
    model: finished_retriever.Model
    data: CodedData


def check(config: ConfigDict, *, evaluation: bool) -> None:
    """Checks each value, then what does not go together.

    Args:
      config: To check.
      evaluation: Whether all users are evaluated, rather than given histories.

    Raises:
      UserError: Names the keys.
    """
    cfg.check(config, RULES)
    if config.run is None:
        raise UserError(
            "config.run is needed: the folder of a run of rfrec.launch.t5, given as"
            " --config.run=FOLDER"
        )
    ensemble, search = config.ensemble, config.search
    if evaluation and search.top_k < 10:
        raise UserError(
            f"config.search.top_k={search.top_k}: an evaluation looks at 10 items, use"
            " 10 or more"
        )
    if not evaluation and ensemble.method == "weighted" and ensemble.alpha is None:
        raise UserError(
            "config.ensemble.alpha is needed with --histories: take the one that an"
            " evaluation chose, see its report.json"
        )
    for keys, true in _impossible(config).items():
        if true:
            raise UserError(f"config: {keys} do not go together: change one")


def _impossible(config: ConfigDict) -> dict[str, bool]:
    """Returns what would contradict, and whether it does."""
    ensemble, search = config.ensemble, config.search
    beam, alone = search.method == "beam", ensemble.method == "none"
    return {
        "search.buckets that do not ascend and": bool(
            (np.diff(search.buckets) <= 0).any()
        ),
        "search.method=beam and search.temperature": beam and search.temperature != 1,
        "search.method=beam and search.top_p": beam and search.top_p != 1,
        "ensemble.alpha and a method other than weighted": ensemble.alpha is not None
        and ensemble.method != "weighted",
        "ensemble.method=none and ensemble.task": alone and ensemble.task is not None,
        "ensemble.method=none and ensemble.run": alone and ensemble.run is not None,
        "ensemble.method=none and ensemble.checkpoint": alone
        and ensemble.checkpoint is not None,
        "ensemble.method and search.method=sample": not alone and not beam,
    }


def systems(config: ConfigDict) -> tuple[System, ...]:
    """Loads what makes the lists: one model, or the two of an ensemble.

    Raises:
      UserError: A run, a task or the data are missing or do not belong together.
    """
    run = Path(config.run).expanduser()
    model = finished_retriever.read_model(run, config.checkpoint)
    first = find_task(config.task, model.config, "config.task")
    if config.ensemble.method == "none":
        data = recommend_data.load(config, run, model, first.modalities)
        return (System(first.target, run, first, model, data),)
    there, other = run, model
    kept = config.ensemble.checkpoint or config.checkpoint
    if config.ensemble.run is not None:
        there = Path(config.ensemble.run).expanduser()
    if (there, kept) != (run, config.checkpoint):
        other = finished_retriever.read_model(there, kept)
    second = second_task(config, first, other.config)
    used = (*first.modalities, *second.modalities)
    data = recommend_data.load(config, run, model, used)
    both = (data, data)
    if there != run:
        both = (data, recommend_data.load(config, there, other, used))
    if (there, kept, second) == (run, config.checkpoint, first):
        raise UserError(
            f"config.ensemble: both lists are those of {first.task} of {run}: name"
            " another config.ensemble.task or .run"
        )
    recommend_data.check_same_users(both, run, there)
    name = second.target if second.target != first.target else f"{second.target}_2"
    return (
        System(first.target, run, first, model, both[0]),
        System(name, there, second, other, both[1]),
    )


def find_task(asked: str | None, run_config: ConfigDict, key: str) -> Asked:
    """Returns a task of a run by name, `TASK` or `TASK:MODALITY`.

    Raises:
      UserError: The run was not trained on it, or it continues no history.
    """
    trained = [n for n in run_config.task.names if not tasks.TASKS[n].pairs]
    name, _, modality = (asked or retriever.watched(run_config)).partition(":")
    if name not in trained:
        raise UserError(
            f"{key}={asked!r}: the run was not trained to continue histories by it:"
            f" use one of {', '.join(trained)}"
        )
    for row, way in enumerate(tasks.TASKS[name].directions):
        if modality in ("", way.target):
            return Asked(name, row, way.sources, way.target)
    raise UserError(f"{key}={asked!r}: {name} names no {modality} codes: leave it out")


def second_task(config: ConfigDict, first: Asked, run_config: ConfigDict) -> Asked:
    """Returns what an ensemble asks beside the first task.

    Raises:
      UserError: As `find_task`, or nothing goes with the first.
    """
    key, other = "config.ensemble.task", _OTHER[first.target]
    if config.ensemble.task is not None:
        return find_task(config.ensemble.task, run_config, key)
    for name in (_MIRROR.get(first.task, ""), f"{first.task}:{other}"):
        ways = tasks.TASKS[name.partition(":")[0]].directions if name else ()
        trained = name.partition(":")[0] in run_config.task.names
        if trained and any(way.target == other for way in ways):
            return find_task(name, run_config, key)
    raise UserError(
        f"{key} is needed: the run has no task like {first.task} that names {other}"
        f" codes; it has {', '.join(run_config.task.names)}"
    )


def searcher(config: ConfigDict, system: System) -> serving.Searcher:
    """Builds what asks a model.

    Raises:
      UserError: The batch does not divide among the devices, or a filter is refused.
    """
    model, data, asked = system.model, system.data, system.asked
    search, vocabulary = config.search, model.vocabulary
    engine = partition.make_engine("jit")
    engine.check_batch(search.batch_size, "config.search.batch_size")
    ids = data.inter.item_ids or map(str, range(data.inter.num_items))
    names = {item: row for row, item in enumerate(ids)}
    filtered = config.filter.allow is not None or config.filter.deny is not None
    sampling = None
    if search.method == "sample":
        sampling = serving.Sampling(search.temperature, search.top_p, config.seed)
    source = serving.Source(
        arch=model.arch,
        params=model.params,
        trie=retriever.item_trie(data, 0, asked.target, vocabulary.sizes(asked.target)),
        tokens=vocabulary.code_tokens(asked.target),
        tables=tasks.tables(
            vocabulary,
            (asked.task,),
            data.codes,
            data.inter,
            form=retriever.form(model.config),
        ),
        row=asked.row,
    )
    settings = serving.Settings(
        num_beams=search.beams,
        score=search.score,
        top_k=search.top_k,
        batch_size=search.batch_size,
        buckets=tuple(search.buckets or model.config.train.buckets),
        keep=recommend_data.keep_items(config, names) if filtered else None,
        filter_seen=config.filter.seen,
        sampling=sampling,
    )
    return serving.Searcher(source, settings, engine)
