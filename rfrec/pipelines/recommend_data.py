# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The data set that a trained T5 is asked for, checked against the model's own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Bool
from ml_collections import ConfigDict

from rfrec.codes import catalogue
from rfrec.config import UserError
from rfrec.pipelines import coded_histories, finished_retriever, item_lists
from rfrec.pipelines.coded_histories import CodedData
from rfrec.retrieval import tasks
from rfrec.retrieval.vocab import Vocabulary


def load(
    config: ConfigDict,
    run: Path,
    model: finished_retriever.Model,
    needed: Sequence[str],
) -> CodedData:
    """Loads the data set that is asked for.

    Args:
      config: Its section `data` says what differs from the run's.
      run: Folder of the run.
      model: Of the run.
      needed: Modalities whose codes are used.

    Raises:
      UserError: Codes are not those the model was trained on, or one is to be chosen.
    """
    changed, name = _changed(model.config, config), config.data.name
    own = changed.data == model.config.data
    if not own and changed.data.source == "synthetic":
        raise UserError("config.data: synthetic data are the run's own: leave it empty")
    # All codes of the run's own data are loaded: its fingerprint is of them all.
    used = tasks.modalities(changed.task.names)
    used = used if own else tuple(m for m in used if m in needed)
    data = coded_histories.load(changed, used)
    for warning in data.warnings:
        logging.warning("%s", warning)
    check_codes(model.vocabulary, data, run)
    if own and model.data == data.fingerprint:
        vouched = True
    else:
        vouched = check_catalogues(changed.data, used, model, run)
    if own and model.data and not vouched:
        raise UserError(
            f"{run} was trained on other histories or codes than there are now: restore"
            " them, or name others by config.data.path, .text or .image"
        )
    if len(data.names) > 1 and name is None:
        raise UserError(
            f"config.data.name is needed: {run} has the data sets"
            f" {', '.join(data.names)}"
        )
    return select(data, data.names.index(name) if len(data.names) > 1 else 0)


def _changed(run_config: ConfigDict, config: ConfigDict) -> ConfigDict:
    """Returns a run's config with what `config.data` says otherwise."""
    changed = run_config.copy_and_resolve_references()
    with changed.unlocked():
        for key, value in config.data.items():
            if value is not None and key != "name":
                changed.data[key] = value
        if config.data.name is not None and config.data.name not in changed.data.names:
            changed.data.names = (config.data.name,)
    return changed


def check_catalogues(
    data_config: ConfigDict,
    used: Sequence[str],
    model: finished_retriever.Model,
    run: Path,
) -> bool:
    """Refuses catalogues that are for another model.

    Args:
      data_config: Section `data` of a config.
      used: Modalities whose codes are used.
      model: Of the run.
      run: Its folder.

    Returns:
      Whether the codes of all modalities are those of catalogues.

    Raises:
      UserError: Names catalogue and run.
    """
    names = tuple(data_config.names) or (data_config.source,)
    texts = [data_config[m].replace("{name}", name) for m in used for name in names]
    # The suffix of an index file is no path of a catalogue.
    places = [Path(text).expanduser() for text in texts]
    grown = [place for place in places if place.name == catalogue.MANIFEST]
    for place in grown:
        manifest = catalogue.read_manifest(place.parent)
        catalogue.check_t5(
            place.parent, manifest, finished_retriever.version(run, model)
        )
    return len(grown) == len(places)


def check_codes(vocabulary: Vocabulary, data: CodedData, run: Path) -> None:
    """Refuses codes for which a model has no tokens.

    Raises:
      UserError: Names the run and what differs.
    """
    for modality, codes in data.codes.items():
        sizes = vocabulary.sizes(modality)
        found = tuple((codes.max(axis=0) + 1).tolist())
        fits = len(found) == len(sizes)
        if not fits or any(n > size for n, size in zip(found, sizes, strict=True)):
            raise UserError(
                f"{run}: its vocabulary has {modality} codes of sizes {sizes}, the code"
                f" file of {', '.join(data.names)} needs {found}: give the file that"
                " it was trained on"
            )


def select(data: CodedData, number: int) -> CodedData:
    """Cuts one data set out; its items are numbered from 0 again.

    Users keep the names they had among all, which is what user tokens are made of.
    """
    if len(data.names) == 1:
        return data
    name, rows, users = data.names[number], data.rows(number), data.users(number)
    inter = data.inter
    indptr = inter.indptr[users.start : users.stop + 1]
    assert inter.item_ids is not None, "stacked data sets name their items"
    names = tuple(i.removeprefix(f"{name}/") for i in inter.item_ids[rows])
    plain = names == tuple(map(str, range(len(names))))
    return data._replace(
        names=(name,),
        num_items=(data.num_items[number],),
        num_users=(data.num_users[number],),
        inter=replace(
            inter,
            indptr=indptr - indptr[0],
            items=inter.items[indptr[0] : indptr[-1]] - np.int32(rows.start),
            num_items=data.num_items[number],
            user_ids=inter.user_ids[users],
            item_ids=None if plain else names,
        ),
        codes={modality: codes[rows] for modality, codes in data.codes.items()},
        removed={modality: gone[rows] for modality, gone in data.removed.items()},
    )


def check_same_users(both: tuple[CodedData, CodedData], run: Path, there: Path) -> None:
    """Refuses lists that are not of the same users and items.

    Raises:
      UserError: Names both runs.
    """
    a, b = (data.inter for data in both)
    same = a.user_ids == b.user_ids and a.item_ids == b.item_ids
    same = same and a.num_items == b.num_items and np.array_equal(a.items, b.items)
    if not same:
        raise UserError(
            f"{run} and {there} have other users, items or histories: an ensemble"
            " needs two runs on the same data set"
        )


def keep_items(config: ConfigDict, names: Mapping[str, int]) -> Bool[np.ndarray, " N"]:
    """Reads the allow and the deny list.

    Args:
      config: Section `filter`.
      names: Row of each item.

    Raises:
      UserError: A file cannot be read, names an unknown item, or nothing is left.
    """
    keep = np.ones(len(names), bool)
    if config.filter.allow is not None:
        keep[:] = False
        keep[item_lists.read(config.filter.allow, names, "config.filter.allow")] = True
    if config.filter.deny is not None:
        keep[item_lists.read(config.filter.deny, names, "config.filter.deny")] = False
    if not keep.any():
        raise UserError("config.filter.allow and .deny leave no item: change one")
    return keep
