# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes a catalogue of a tokenizer's items, and lets it grow and shrink.

python -m rfrec.launch.grow --config=configs/grow.py --config.run=runs/toys \
  --config.data.path=NEW_DATA --config.removed=removed.txt --workdir=catalogues/toys

New items are rows behind the known ones. The tokenizer stays as it is: they get codes
that are free, and no code that was given changes.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Int32
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.codes import catalogue, growth, table, trie, trie_edit
from rfrec.codes.catalogue import Catalogue, Manifest
from rfrec.codes.trie import Trie
from rfrec.config import UserError
from rfrec.launch import cli
from rfrec.launch import codes as codes_main
from rfrec.pipelines import catalogue as grow_t5
from rfrec.pipelines import new_items, new_vectors
from rfrec.pipelines import tokenizer as settings
from rfrec.retrieval.options import CHECKPOINTS

RULES: cfg.Rules = {
    "checkpoint": settings.RULES["codes.checkpoint"],
    "t5_checkpoint": cfg.one_of(*CHECKPOINTS),
}


class Start(NamedTuple):
    """What is there before the change.

    Attributes:
      codes: of all rows.
      removed: rows, ascending.
      index: trie of the rows that are not removed.
      modality: of the codes.
      manifest: of the catalogue; None where there is none yet.
    """

    codes: Int32[np.ndarray, "N Q"]
    removed: Int32[np.ndarray, "_"]
    index: Trie
    modality: str
    manifest: Manifest | None


def main(config: ConfigDict, workdir: Path) -> None:
    """Writes the next version of the catalogue in `workdir`, the first if none is."""
    cfg.check(config, RULES)
    if config.run is None:
        raise UserError(
            "config.run is needed: the folder of a run of rfrec.launch.rqvae, given as"
            " --config.run=FOLDER"
        )
    run = Path(config.run).expanduser()
    run_config = read_run(run)
    report = codes_main.read_report(run / "report.json")
    before = catalogue.load(workdir) if catalogue.exists(workdir) else None
    name = choose_set(config, report, run, before)
    if before is not None:
        start = Start(*before[1:], before.manifest.modality, before.manifest)
    else:
        file = report["codes"]["data_sets"][name]["file"]
        start = begin(run, file, tuple(run_config.codebook.sizes))
    vectors = new_vectors.read(config, run_config, report, name, start.manifest)
    for warning in vectors.warnings:
        logging.warning("%s", warning)
    width = vectors.values.shape[1]
    tokenizer = new_items.read(run, config.checkpoint, width)
    if start.manifest is not None:
        catalogue.check_tokenizer(workdir, start.manifest, tokenizer.version)
    t5, sizes = choose_t5(config, start, name)
    codes = add(start, vectors, tokenizer, sizes)
    gone = read_removed(config.removed, len(codes), start.removed)
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
      workdir: Of the catalogue.
      start: What is there.
      codes: Of all rows.
      sizes: Codes per level of the trie.
      gone: Rows to take out.
      parts: Of the manifest.

    Raises:
      UserError: No item would be left, or another process was faster.
    """
    before = start.manifest
    if before and before == before._replace(**parts) and not len(gone):
        logging.info("%s: nothing is new, version %d stays", workdir, before.version)
        return
    index = change(start, codes, sizes, gone)
    removed = np.union1d(start.removed, gone).astype(np.int32)
    with alone(workdir, before) as version:
        catalogue.store(workdir, codes, removed, index, version=version, **parts)
    logging.info(
        "%s: version %d, %d items, %d of them new; %d removed, %d of them now",
        *(workdir, version, len(codes), len(codes) - len(start.codes)),
        *(len(removed), len(gone)),
    )


def read_run(run: Path) -> ConfigDict:
    """Reads the config of a tokenizer's run.

    Raises:
      UserError: It is no such run.
    """
    run_config = cfg.read_config(run / "config.json")
    if "codebook" not in run_config:
        raise UserError(f"{run} holds no run of rfrec.launch.rqvae: name another")
    # Value by value: what goes together was checked when the run began.
    cfg.check(run_config, settings.RULES)
    return run_config


def choose_set(
    config: ConfigDict, report: dict[str, Any], run: Path, before: Catalogue | None
) -> str:
    """Returns the data set of the catalogue; of a new one, the one that is asked for.

    Raises:
      UserError: It is another, the run has none of that name, or several.
    """
    names, wanted = list(report["codes"]["data_sets"]), config.data.name
    if before is not None:
        known = before.manifest.name
        if wanted not in (None, known):
            raise UserError(
                f"config.data.name={wanted!r}, but the catalogue is of {known!r}: leave"
                " it out, or give another --workdir"
            )
        wanted = known
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or names[0]
    raise UserError(
        f"config.data.name={wanted!r}: {run} has the data sets {', '.join(names)}, each"
        " with a catalogue of its own: name one"
    )


def begin(run: Path, file: str, sizes: tuple[int, ...]) -> Start:
    """Reads the codes of a run, with which a catalogue begins.

    Args:
      run: Of the tokenizer.
      file: Of the codes in the run.
      sizes: Codes per level of the tokenizer.

    Raises:
      UserError: The file is damaged, or its codes are not of the tokenizer's levels.
    """
    path = run / file
    found = table.read_index(path)
    if found.item_ids != tuple(map(str, range(len(found.codes)))):
        raise UserError(f"{path}: a catalogue needs items that are numbered by row")
    if found.codes.shape[1] != len(sizes):
        raise UserError(
            f"{path} has {found.codes.shape[1]} codes of each item, the tokenizer"
            f" {len(sizes)} levels: a suffix cannot grow, export the codes by"
            f" rfrec.launch.codes --workdir={run} --config.repair=assign"
        )
    conflicts = table.statistics(found.codes, sizes).conflict_items
    if conflicts:
        logging.warning(
            "%s: %d conflict items keep codes that others have", path, conflicts
        )
    index = trie.build(found.codes, sizes)
    return Start(found.codes, np.zeros(0, np.int32), index, found.modality, None)


def choose_t5(
    config: ConfigDict, start: Start, name: str
) -> tuple[catalogue.T5 | None, tuple[int, ...]]:
    """Returns the T5 of the catalogue, if any, and the codes per level it allows.

    Raises:
      UserError: The one that is asked for has other codes.
    """
    if config.t5 is None:
        t5 = None if start.manifest is None else start.manifest.t5
        return t5, start.index.sizes
    return grow_t5.bind(
        Path(config.t5).expanduser(),
        config.t5_checkpoint,
        name,
        start.modality,
        start.codes,
    )


def add(
    start: Start,
    vectors: new_vectors.Vectors,
    tokenizer: new_items.Frozen,
    sizes: tuple[int, ...],
) -> Int32[np.ndarray, "M Q"]:
    """Returns the codes of all rows; those that are there stay as they are.

    Args:
      start: What is there.
      vectors: Of the new rows.
      tokenizer: Encodes them.
      sizes: Codes per level that may be given.

    Raises:
      UserError: There is no room.
    """
    if len(start.codes) != vectors.known:
        raise UserError(
            f"{len(start.codes)} items have codes, but {vectors.known} were trained on:"
            " export the codes again by rfrec.launch.codes"
        )
    if not len(vectors.values):
        return start.codes
    limits = tuple(map(min, sizes, map(len, tokenizer.codebooks)))
    nearest, latents = new_items.tokenize(tokenizer, vectors.values, limits)
    pairs = zip(tokenizer.codebooks, limits, strict=True)
    books = [book[:size] for book, size in pairs]
    placed = growth.assign_new(start.codes, nearest, latents, books)
    free = int((placed == nearest).all(axis=1).sum())
    logging.info(
        "%d new items: %d have their nearest codes, %d the nearest that were free",
        *(len(placed), free, len(placed) - free),
    )
    return np.concatenate([start.codes, placed])


def read_removed(
    place: str | None, num_items: int, removed: Int32[np.ndarray, "_"]
) -> Int32[np.ndarray, "_"]:
    """Reads the items to take out.

    Args:
      place: A file of row numbers, one a line; None takes none out.
      num_items: Rows of the catalogue.
      removed: Rows that are out.

    Raises:
      UserError: The file cannot be read, or names an item that is not there; tells the
        line.
    """
    if place is None:
        return np.zeros(0, np.int32)
    path, known, rows = Path(place).expanduser(), set(removed.tolist()), {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config.removed={place} cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        text, where = line.strip(), f"{path}, line {number}"
        if not text:
            continue
        if not (text.isascii() and text.isdecimal()) or int(text) >= num_items:
            raise UserError(
                f"{where}: item {text!r} does not exist, the catalogue has the rows 0"
                f" to {num_items - 1}: leave it out"
            )
        row = int(text)
        if row in known:
            raise UserError(f"{where}: item {row} is removed already: leave it out")
        if row in rows:
            raise UserError(f"{where}: item {row} stands in line {rows[row]} too")
        rows[row] = number
    return np.sort(np.fromiter(rows, np.int32, len(rows)))


def change(
    start: Start,
    codes: Int32[np.ndarray, "M Q"],
    sizes: tuple[int, ...],
    gone: Int32[np.ndarray, "_"],
) -> Trie:
    """Returns the trie with the rows that are new and without those that are gone.

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
def alone(workdir: Path, before: Manifest | None) -> Iterator[int]:
    """Gives the number of the next version to the one process that may write it.

    Raises:
      UserError: The folder cannot be made, or the catalogue is no longer `before`.
    """
    version = 0 if before is None else before.version
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = os.open(workdir, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: {error.strerror}") from error
    try:
        # Ends with the process, however it ends.
        fcntl.flock(handle, fcntl.LOCK_EX)
        there = catalogue.exists(workdir)
        now = catalogue.read_manifest(workdir).version if there else 0
        if now != version:
            raise UserError(
                f"{workdir} went from version {version} to {now} meanwhile: another"
                " process has changed it, run the command again"
            )
        yield version + 1
    finally:
        os.close(handle)


if __name__ == "__main__":
    cli.config_main(main, "grow")
