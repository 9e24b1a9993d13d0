# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads trained retrievers with the data set for which they recommend."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from rfrec.codes import catalogue
from rfrec.config import UserError
from rfrec.pipelines import coded_histories, retriever
from rfrec.pipelines.retriever import Model
from rfrec.retrieval import tasks
from rfrec.retrieval.corpus import CodedData
from rfrec.retrieval.retriever import GenerativeRetriever
from rfrec.retrieval.tasks import ListTask
from rfrec.retrieval.vocab import Vocabulary

# Tasks that do the same in the other modality.
_MIRROR = {"seqrec": "seqimage", "seqitem2image": "seqimage2item"}
_MIRROR |= {image: text for text, image in _MIRROR.items()}
_OTHER = {"text": "image", "image": "text"}


@dataclasses.dataclass(frozen=True)
class DataChanges:
    """Data that differ from those of the run; None uses the value of its config.

    Attributes:
      path: Folder of the data.
      name: Data set, one of the run's or another; required if the run has several.
      text: Text codes, as `data.text` of configs/t5.py; may be the `catalogue.json` of
        a catalogue that has grown.
      image: Image codes, likewise.
    """

    path: str | None = None
    name: str | None = None
    text: str | None = None
    image: str | None = None


class System(NamedTuple):
    """A trained model that makes one list for each user.

    Attributes:
      name: Name in reports and files: the modality of its target.
      run: Folder of the run.
      task: Task that makes the list.
      model: Model of the run.
      data: The one data set.
    """

    name: str
    run: Path
    task: ListTask
    model: Model
    data: CodedData


def open_retriever(
    run: Path, checkpoint: str | None = None, name: str | None = None
) -> GenerativeRetriever:
    """Loads a finished run of `rfrec.launch.t5` with its data.

    Args:
      run: Folder of the run.
      checkpoint: The best checkpoint by a criterion, or `last`; None uses the criterion
        of the run.
      name: Data set; required if the run has several.

    Raises:
      UserError: The folder contains no such run, or its data have changed.
    """
    model = retriever.read_model(run, checkpoint)
    changes = DataChanges(name=name)
    data = load_data(changes, run, model, model.options.modalities)
    return GenerativeRetriever.from_fitted(
        model.options, data, model.vocabulary, model.params
    )


def find_task(wanted: str | None, options: retriever.Options, key: str) -> ListTask:
    """Returns a task of a run by name, `TASK` or `TASK:MODALITY`.

    Args:
      wanted: Name of the task; None uses the task that was evaluated in training.
      options: Options of the run.
      key: Key of the config, for errors.

    Raises:
      UserError: The run was not trained on the task, or it continues no history.
    """
    trained = [n for n in options.task.names if not tasks.TASKS[n].pairs]
    name, _, modality = (wanted or options.watched).partition(":")
    if name not in trained:
        raise UserError(
            f"{key}={wanted!r}: the run was not trained to continue histories by it;"
            f" use one of {', '.join(trained)}"
        )
    try:
        return tasks.list_task(name, modality)
    except KeyError as error:
        raise UserError(
            f"{key}={wanted!r}: {name} generates no {modality} codes; leave it out"
        ) from error


def find_second_task(
    wanted: str | None, first: ListTask, options: retriever.Options, key: str
) -> ListTask:
    """Returns the task of the second list of an ensemble.

    Args:
      wanted: Name of the task; None uses the counterpart of the first task in the
        other modality.
      first: Task of the first list.
      options: Options of the run of the second list.
      key: Key of the config, for errors.

    Raises:
      UserError: As `find_task`, or the run has no counterpart of the first task.
    """
    if wanted is not None:
        return find_task(wanted, options, key)
    other = _OTHER[first.target]
    for name in (_MIRROR.get(first.name, ""), f"{first.name}:{other}"):
        ways = tasks.TASKS[name.partition(":")[0]].directions if name else ()
        trained = name.partition(":")[0] in options.task.names
        if trained and any(way.target == other for way in ways):
            return find_task(name, options, key)
    raise UserError(
        f"{key} is required: the run has no task like {first.name} that generates"
        f" {other} codes; it has {', '.join(options.task.names)}"
    )


def load_data(
    changes: DataChanges, run: Path, model: Model, needed: Sequence[str]
) -> CodedData:
    """Loads the data set for which a model recommends.

    Args:
      changes: Data that differ from those of the run.
      run: Folder of the run.
      model: Model of the run.
      needed: Modalities whose codes are used.

    Raises:
      UserError: Codes are not those that the model was trained on, or the run has
        several data sets and none is named.
    """
    data_options = _apply_changes(model.options.data, changes)
    unchanged = data_options == model.options.data
    if not unchanged and data_options.source == "synthetic":
        raise UserError("config.data: a run on synthetic data has no other data")
    # All codes of the run's own data are loaded: its fingerprint covers all of them.
    used = model.options.modalities
    used = used if unchanged else tuple(m for m in used if m in needed)
    data = coded_histories.load(data_options, used, seed=model.options.seed)
    for warning in data.warnings:
        logging.warning("%s", warning)
    check_codes(model.vocabulary, data, run)
    known = unchanged and model.data == data.fingerprint
    known = known or check_catalogues(data_options, used, model, run)
    if unchanged and model.data and not known:
        raise UserError(
            f"{run} was trained on other histories or codes than there are now;"
            " restore them, or set config.data.path, .text or .image"
        )
    if len(data.names) == 1:
        return data
    if changes.name is None:
        raise UserError(
            f"config.data.name is required: {run} has the data sets"
            f" {', '.join(data.names)}"
        )
    return data.select(data.names.index(changes.name))


def _apply_changes(
    data: coded_histories.Data, changes: DataChanges
) -> coded_histories.Data:
    """Returns the data options of a run with the changes."""
    names = data.names
    if changes.name is not None and changes.name not in names:
        names = (changes.name,)
    return dataclasses.replace(
        data,
        path=data.path if changes.path is None else changes.path,
        names=names,
        text=data.text if changes.text is None else changes.text,
        image=data.image if changes.image is None else changes.image,
    )


def check_catalogues(
    data: coded_histories.Data, used: Sequence[str], model: Model, run: Path
) -> bool:
    """Refuses catalogues that belong to another model.

    Args:
      data: Where the codes are.
      used: Modalities whose codes are used.
      model: Model of the run.
      run: Folder of the run.

    Returns:
      Whether the codes of all modalities come from catalogues.

    Raises:
      UserError: Names catalogue and run.
    """
    names = tuple(data.names) or (data.source,)
    texts = [getattr(data, m).replace("{name}", name) for m in used for name in names]
    paths = [Path(text).expanduser() for text in texts]
    # The suffix of an index file is never the name of a manifest.
    manifests = [path for path in paths if path.name == catalogue.MANIFEST]
    for path in manifests:
        manifest = catalogue.read_manifest(path.parent)
        catalogue.check_t5(path.parent, manifest, retriever.version(run, model))
    return len(manifests) == len(paths)


def check_codes(vocabulary: Vocabulary, data: CodedData, run: Path) -> None:
    """Refuses codes for which a model has no tokens.

    Raises:
      UserError: Names the run and the sizes that differ.
    """
    for modality, codes in data.codes.items():
        sizes = vocabulary.sizes(modality)
        needed = tuple((codes.max(axis=0) + 1).tolist())
        fits = len(needed) == len(sizes)
        if not fits or any(n > size for n, size in zip(needed, sizes, strict=True)):
            raise UserError(
                f"{run}: its vocabulary has {modality} codes of sizes {sizes}, the code"
                f" file of {', '.join(data.names)} needs {needed}; use the file of its"
                " training"
            )


def check_same_users(first: CodedData, second: CodedData, runs: Sequence[Path]) -> None:
    """Refuses an ensemble of lists for different users or items.

    Raises:
      UserError: Names both runs.
    """
    a, b = first.inter, second.inter
    same = a.user_ids == b.user_ids and a.item_ids == b.item_ids
    same = same and a.num_items == b.num_items and np.array_equal(a.items, b.items)
    if not same:
        raise UserError(
            f"{runs[0]} and {runs[1]} have other users, items or histories; an ensemble"
            " requires two runs on the same data set"
        )
