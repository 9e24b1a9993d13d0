# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The catalogue of a tokenizer's items: builds it, adds items and removes others."""

import dataclasses
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Int32
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.codes import catalogue, growth, table, trie, trie_edit
from rfrec.codes.catalogue import Catalogue, Manifest
from rfrec.codes.trie import Trie
from rfrec.config import UserError
from rfrec.pipelines import coded_histories, new_items, new_vectors, retriever
from rfrec.pipelines import options as options_lib
from rfrec.pipelines import tokenizer as tokenizer_run
from rfrec.pipelines.new_vectors import Growth
from rfrec.retrieval import corpus
from rfrec.retrieval.corpus import CodedData
from rfrec.retrieval.options import HIGHEST, LOWEST


@dataclasses.dataclass(frozen=True)
class Data:
    """The grown data set.

    Attributes:
      path: Folder with `NAME.<feature>.npy`: all known rows, then new items; None adds
        no item.
      name: One of the data sets of the tokenizer's run, required if it has several.
    """

    path: str | None = None
    name: str | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `rfrec.launch.grow`.

    Attributes:
      run: Folder of the run of `rfrec.launch.rqvae` whose tokenizer encodes new items;
        required.
      checkpoint: Checkpoint that made its codes; None takes the value of the run's
        config.
      removed: File of the items to remove, one row number in each line.
      encoder: Name of the encoder that made the vectors; it is stored, and later
        vectors must come from the same.
      t5: Folder of the run of `rfrec.launch.t5` that generates codes of these items.
      t5_checkpoint: Checkpoint of that run: the best by a criterion, or the `last`.
      data: The grown data set.
    """

    run: str | None = None
    checkpoint: Literal["collision_rate", "loss", "last"] | None = None
    removed: str | None = None
    encoder: str | None = None
    t5: str | None = None
    t5_checkpoint: str = cfg.option("ndcg@10", cfg.one_of(*HIGHEST, *LOWEST, "last"))
    data: Data = Data()


class Start(NamedTuple):
    """The state before the change.

    Attributes:
      codes: Codes of all rows.
      removed: Removed rows, ascending.
      index: Trie of the rows that are not removed.
      modality: Modality of the codes.
      manifest: Manifest of the catalogue; None if it is built now.
    """

    codes: Int32[np.ndarray, "N Q"]
    removed: Int32[np.ndarray, "_"]
    index: Trie
    modality: str
    manifest: Manifest | None


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes the next version of the catalogue in `workdir`, or the first.

    Args:
      config: Locked config of `configs/grow.py`.
      workdir: Folder of the catalogue.

    Raises:
      UserError: The config is wrong, files do not belong together, or the code space is
        full; the catalogue is unchanged.
    """
    options_lib.check(config, Options)
    options = cfg.parse(Options, config)
    if options.run is None:
        raise UserError(
            "config.run is required: --config.run=FOLDER of a run of rfrec.launch.rqvae"
        )
    path = Path(options.run).expanduser()
    finished = tokenizer_run.read_run(path)
    before = catalogue.load(workdir) if catalogue.exists(workdir) else None
    name = choose_set(options, finished.report, path, before)
    if before is not None:
        start = Start(*before[1:], before.manifest.modality, before.manifest)
    else:
        file = finished.report["codes"]["data_sets"][name]["file"]
        start = begin(path, file, finished.options.codebook.sizes)
    vectors = new_vectors.read(
        Growth(
            *(options.data.path, options.encoder, options.run, finished, name),
            start.manifest,
        )
    )
    for warning in vectors.warnings:
        logging.warning("%s", warning)
    width = vectors.values.shape[1]
    tokenizer = new_items.read(path, finished.options, options.checkpoint, width)
    if start.manifest is not None:
        catalogue.check_tokenizer(workdir, start.manifest, tokenizer.version)
    t5, sizes = choose_t5(options, start, name)
    codes = add(start, vectors, tokenizer, sizes)
    gone = read_removed(options.removed, len(codes), start.removed)
    parts = {
        "name": name,
        "modality": start.modality,
        "encoder": vectors.encoder,
        "tokenizer": tokenizer.version,
        "t5": t5,
    }
    write(workdir, start, codes, sizes, gone, parts)


def write(
    workdir: Path,
    start: Start,
    codes: Int32[np.ndarray, "M Q"],
    sizes: tuple[int, ...],
    gone: Int32[np.ndarray, "_"],
    parts: dict[str, Any],
) -> None:
    """Stores the next version, unless it would be the same.

    Args:
      workdir: Folder of the catalogue.
      start: State before the change.
      codes: Codes of all rows.
      sizes: Number of codes of each level of the trie.
      gone: Rows to remove.
      parts: Further entries of the manifest.

    Raises:
      UserError: No item would be left, or another process has changed the catalogue.
    """
    before = start.manifest
    if before and before == before._replace(**parts) and not len(gone):
        logging.info(
            "%s: nothing has changed, version %d remains", workdir, before.version
        )
        return
    index = change(start, codes, sizes, gone)
    removed = np.union1d(start.removed, gone).astype(np.int32)
    with lock(workdir, before) as version:
        catalogue.store(workdir, codes, removed, index, version=version, **parts)
    logging.info(
        "%s: version %d, %d items, %d of them new; %d removed, %d of them now",
        *(workdir, version, len(codes), len(codes) - len(start.codes)),
        *(len(removed), len(gone)),
    )


def choose_set(
    options: Options, report: dict[str, Any], run: Path, before: Catalogue | None
) -> str:
    """Returns the name of the catalogue's data set.

    Raises:
      UserError: The catalogue has another data set, or the run has no data set of this
        name, or several and none is named.
    """
    names, wanted = list(report["codes"]["data_sets"]), options.data.name
    if before is not None:
        known = before.manifest.name
        if wanted not in (None, known):
            raise UserError(
                f"config.data.name={wanted!r}, but the catalogue is of {known!r};"
                " remove the override, or use another --workdir"
            )
        wanted = known
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or names[0]
    raise UserError(
        f"config.data.name={wanted!r}: {run} has the data sets {', '.join(names)}, each"
        " with its own catalogue; name one"
    )


def begin(run: Path, file: str, sizes: tuple[int, ...]) -> Start:
    """Reads the codes of a run, the first version of a catalogue.

    Args:
      run: Folder of the tokenizer's run.
      file: Name of its file of codes.
      sizes: Number of codes of each level of the tokenizer.

    Raises:
      UserError: The file is damaged, or its codes have other levels.
    """
    path = run / file
    codes, item_ids, modality = table.read_index(path)
    if item_ids != tuple(map(str, range(len(codes)))):
        raise UserError(f"{path}: a catalogue requires items that are numbered by row")
    if codes.shape[1] != len(sizes):
        raise UserError(
            f"{path} has {codes.shape[1]} codes of each item, the tokenizer"
            f" {len(sizes)} levels: a suffix cannot grow; export the codes by"
            f" rfrec.launch.codes --workdir={run} --config.repair=assign"
        )
    conflicts = table.statistics(codes, sizes).conflict_items
    if conflicts:
        logging.warning("%s: %d items share the codes of another", path, conflicts)
    index = trie.build(codes, sizes)
    return Start(codes, np.zeros(0, np.int32), index, modality, None)


def choose_t5(
    options: Options, start: Start, name: str
) -> tuple[catalogue.T5Record | None, tuple[int, ...]]:
    """Returns the T5 of the catalogue, if any, and the number of codes it allows.

    Raises:
      UserError: `config.t5` was trained on other codes.
    """
    if options.t5 is None:
        t5 = None if start.manifest is None else start.manifest.t5
        return t5, start.index.sizes
    path = Path(options.t5).expanduser()
    return bind_t5(path, options.t5_checkpoint, name, start.modality, start.codes)


def add(
    start: Start,
    vectors: new_vectors.Vectors,
    tokenizer: new_items.Tokenizer,
    sizes: tuple[int, ...],
) -> Int32[np.ndarray, "M Q"]:
    """Returns the codes of all rows; known codes are unchanged.

    Args:
      start: State before the change.
      vectors: Vectors of the new rows.
      tokenizer: Encodes them.
      sizes: Number of codes of each level that may be assigned.

    Raises:
      UserError: The code space is full.
    """
    if len(start.codes) != vectors.known:
        raise UserError(
            f"{len(start.codes)} items have codes, but {vectors.known} were trained on;"
            " export the codes again with rfrec.launch.codes"
        )
    if not len(vectors.values):
        return start.codes
    encoder = tokenizer.encoder
    limits = tuple(map(min, sizes, encoder.sizes))
    nearest, latents = encoder.encode(vectors.values, limits)
    books = [b[:size] for b, size in zip(encoder.codebooks, limits, strict=True)]
    assigned = growth.assign_new(start.codes, nearest, latents, books)
    same = int((assigned == nearest).all(axis=1).sum())
    logging.info(
        "%d new items: %d have their nearest codes, %d the nearest free ones",
        *(len(assigned), same, len(assigned) - same),
    )
    return np.concatenate([start.codes, assigned])


def read_removed(
    file: str | None, num_items: int, removed: Int32[np.ndarray, "_"]
) -> Int32[np.ndarray, "_"]:
    """Reads the items to remove.

    Args:
      file: File of row numbers, one in each line; None removes nothing.
      num_items: Number of rows of the catalogue.
      removed: Rows that are already removed.

    Raises:
      UserError: The file cannot be read, or names an item that does not exist or is
        already removed; the message names the line.
    """
    if file is None:
        return np.zeros(0, np.int32)
    path, known, rows = Path(file).expanduser(), set(removed.tolist()), {}
    text = files.read_text(path, "correct config.removed")
    for number, line in enumerate(text.splitlines(), start=1):
        item, where = line.strip(), f"{path}, line {number}"
        if not item:
            continue
        if not (item.isascii() and item.isdecimal()) or int(item) >= num_items:
            raise UserError(
                f"{where}: item {item!r} does not exist, the catalogue has the rows 0"
                f" to {num_items - 1}; delete the line"
            )
        row = int(item)
        if row in known:
            raise UserError(f"{where}: item {row} is already removed; delete the line")
        if row in rows:
            raise UserError(f"{where}: item {row} is also in line {rows[row]}")
        rows[row] = number
    return np.sort(np.fromiter(rows, np.int32, len(rows)))


def change(
    start: Start,
    codes: Int32[np.ndarray, "M Q"],
    sizes: tuple[int, ...],
    gone: Int32[np.ndarray, "_"],
) -> Trie:
    """Returns the trie with the new rows and without the removed ones.

    Raises:
      UserError: No item would be left.
    """
    index = start.index
    index = trie.from_levels(sizes, index.pointers, index.values, index.num_items)
    fresh = np.arange(len(start.codes), len(codes))
    if len(fresh):
        index = trie_edit.add(index, codes[fresh], fresh)
    return trie_edit.remove(index, gone) if len(gone) else index


@contextmanager
def lock(workdir: Path, before: Manifest | None) -> Iterator[int]:
    """Yields the number of the next version; no other process writes meanwhile.

    Raises:
      UserError: The folder cannot be created, or the catalogue is no longer `before`.
    """
    version = 0 if before is None else before.version
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = os.open(workdir, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: {error.strerror}") from error
    try:
        # The lock ends with the process, however it ends.
        fcntl.flock(handle, fcntl.LOCK_EX)
        exists = catalogue.exists(workdir)
        now = catalogue.read_manifest(workdir).version if exists else 0
        if now != version:
            raise UserError(
                f"{workdir} went from version {version} to {now} meanwhile: another"
                " process has changed it; run the command again"
            )
        yield version + 1
    finally:
        os.close(handle)


class Bound(NamedTuple):
    """A T5 that reads a catalogue's codes.

    Attributes:
      version: Identifies the model.
      sizes: Number of codes of each level for which it has tokens.
    """

    version: catalogue.T5Record
    sizes: tuple[int, ...]


def bind_t5(
    run: Path,
    checkpoint: str,
    name: str,
    modality: str,
    codes: Int32[np.ndarray, "M Q"],
) -> Bound:
    """Checks that a T5 was trained on codes of this or an earlier catalogue version.

    Args:
      run: Folder of its run.
      checkpoint: Criterion whose best checkpoint is used, or `last`.
      name: Data set of the catalogue.
      modality: Modality of the codes.
      codes: Codes of the catalogue.

    Raises:
      UserError: It was trained on other codes, or has no tokens for some of them.
    """
    model = retriever.read_model(run, checkpoint)
    used = model.options.modalities
    if modality not in used:
        raise UserError(
            f"config.t5={run} was trained on {' and '.join(used)} codes, the catalogue"
            f" has {modality} codes: name another run"
        )
    data = coded_histories.load(model.options.data, used, seed=model.options.seed)
    if not _is_known(run, model, data):
        raise UserError(
            f"config.t5={run} was trained on other histories or codes than there are"
            f" now in {getattr(model.options.data, modality)}: restore them"
        )
    number = 0
    if len(data.names) > 1:
        if name not in data.names:
            raise UserError(
                f"config.t5={run} was trained on {', '.join(data.names)}, the catalogue"
                f" is of {name}: name another run"
            )
        number = data.names.index(name)
    own = data.select(number)
    _check_same(run, own, modality, codes)
    sizes = model.vocabulary.sizes(modality)
    beyond = np.argwhere(codes >= np.asarray(sizes))
    if len(beyond):
        row, level = beyond[0].tolist()
        raise UserError(
            f"config.t5={run} has tokens for {modality} codes of sizes {sizes}; item"
            f" {row} of the catalogue has the code {codes[row, level]} at level"
            f" {level}: train a T5 on the catalogue, or build it again with this one"
        )
    return Bound(retriever.version(run, model), sizes)


def _is_known(run: Path, model: retriever.Model, data: CodedData) -> bool:
    """Returns whether a model was trained on these data.

    Those of a catalogue may have had fewer rows then.
    """
    if model.data in ("", data.fingerprint):
        return True
    report = run / "report.json"
    if len(data.names) > 1 or not report.exists():
        return False
    rows = files.read_json(report, "finish that run")["items"]
    then = {modality: codes[:rows] for modality, codes in data.codes.items()}
    return model.data == corpus.fingerprint(data.inter, then)


def _check_same(
    run: Path, own: CodedData, modality: str, codes: Int32[np.ndarray, "M Q"]
) -> None:
    """Refuses a model whose codes of an item are not the catalogue's."""
    trained = own.codes[modality]
    if own.inter.item_ids is not None:
        raise UserError(
            f"config.t5={run}: its histories name their items, a catalogue numbers"
            " them: number them by row"
        )
    known = np.flatnonzero(trained[:, 0] >= 0)
    rows, levels = codes.shape
    if known[-1] >= rows or trained.shape[1] != levels:
        raise UserError(
            f"config.t5={run} was trained on {trained.shape[1]} {modality} codes for"
            f" each of {known[-1] + 1} items, the catalogue has {levels} for each of"
            f" {rows}: it is of another tokenizer, name another run"
        )
    other = known[(trained[known] != codes[known]).any(axis=1)]
    if len(other):
        item = int(other[0])
        raise UserError(
            f"config.t5={run} was trained on the {modality} codes"
            f" {trained[item].tolist()} of item {item}, the catalogue has"
            f" {codes[item].tolist()} ({len(other)} items differ): they are of another"
            " tokenizer, name another run"
        )
