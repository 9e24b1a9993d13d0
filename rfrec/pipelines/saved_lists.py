# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Queries in, answers to all of them out; parts are kept, so that a restart goes on.

A part is a file `NAME.00003.npz`, there whole or not at all, and holds a key of all
that its answers follow from.
"""

import hashlib
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import Int
from tqdm import tqdm

from rfrec import files
from rfrec.config import UserError
from rfrec.retrieval.search import Answers, Batch, Queries, Searcher

# A part is a few batches of about so many queries.
_PART = 1024


class Listed(NamedTuple):
    """Answers, and what they cost.

    Attributes:
      answers: In the order of the queries.
      seconds: Spent searching, over all restarts; compiling is not in it.
      compiling: Seconds spent compiling, by this process.
    """

    answers: Answers
    seconds: float
    compiling: float

    @property
    def users_per_second(self) -> float:
        """Answers by the seconds of the search."""
        return len(self.answers.items) / max(self.seconds, 1e-9)


class _Part(NamedTuple):
    rows: Int[np.ndarray, " R"]
    answers: Answers
    seconds: float


def make_key(searcher: Searcher, queries: Queries) -> str:
    """Hashes what answers follow from, beside the config: model, catalogue, queries."""
    digest = hashlib.sha256()
    source, keep = searcher.source, searcher.settings.keep
    arrays = [
        *jax.tree.leaves(source.params),
        *jax.tree.leaves((source.trie.pointers, source.trie.values, source.tokens)),
        *jax.tree.leaves((source.tables.tokens, source.tables.prompts)),
        *jax.tree.leaves(queries),
        *([] if keep is None else [keep]),
    ]
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def collect(
    searcher: Searcher, queries: Queries, *, folder: Path | None, name: str
) -> Listed:
    """Answers all queries, or what is left of them.

    Args:
      searcher: To ask.
      queries: To answer.
      folder: Of the parts; None keeps none.
      name: Of the list, of its parts and in the progress bar.

    Raises:
      UserError: The folder has parts of another model, catalogue or other queries.
    """
    key, compiling, parts = make_key(searcher, queries), 0.0, []
    total = len(queries.begin)
    hidden = None if jax.process_index() == 0 else True
    with tqdm(total=total, unit="user", desc=name, disable=hidden) as bar:
        for number, made in enumerate(_split(searcher.plan(queries))):
            path = folder / f"{name}.{number:05d}.npz" if folder else None
            if path is not None and path.exists():
                rows = np.concatenate([batch.rows[batch.counted] for batch in made])
                parts.append(_read(path, key, rows))
                bar.update(len(parts[-1].rows))
                continue
            compiling += searcher.compile(queries, made)
            parts.append(_answer(searcher, queries, made, bar))
            if path is not None and jax.process_index() == 0:
                _write(path, key, parts[-1])
            if bar.disable and jax.process_index() == 0:
                done = sum(len(part.rows) for part in parts)
                pace = len(parts[-1].rows) / max(parts[-1].seconds, 1e-9)
                logging.info("%s: %d of %d users, %.1f/s", name, done, total, pace)
    return Listed(_in_order(parts), sum(part.seconds for part in parts), compiling)


def _split(made: Sequence[Batch]) -> Iterator[list[Batch]]:
    """Groups batches into parts."""
    group: list[Batch] = []
    for batch in made:
        group.append(batch)
        if sum(int(b.counted.sum()) for b in group) >= _PART:
            yield group
            group = []
    if group:
        yield group


def _answer(searcher: Searcher, queries: Queries, made: list[Batch], bar) -> _Part:
    started, rows, found = time.monotonic(), [], []
    for batch, answers in searcher.answers(queries, made):
        rows.append(batch.rows[batch.counted])
        found.append(answers)
        bar.update(len(rows[-1]))
    joined = Answers(*(np.concatenate(column) for column in zip(*found, strict=True)))
    return _Part(np.concatenate(rows), joined, time.monotonic() - started)


def _in_order(parts: Sequence[_Part]) -> Answers:
    order = np.argsort(np.concatenate([part.rows for part in parts]))
    columns = zip(*(part.answers for part in parts), strict=True)
    return Answers(*(np.concatenate(column)[order] for column in columns))


def _write(path: Path, key: str, part: _Part) -> None:
    path.parent.mkdir(exist_ok=True)
    with files.replacing(path) as partial:
        np.savez(
            partial,
            allow_pickle=False,
            key=np.asarray(key),
            rows=part.rows,
            seconds=np.asarray(part.seconds),
            **part.answers._asdict(),
        )


def _read(path: Path, key: str, rows: Int[np.ndarray, " R"]) -> _Part:
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) != key:
                raise UserError(
                    f"{path} was made by another model, of another catalogue or for"
                    " other histories: use another --workdir"
                )
            if not np.array_equal(file["rows"], rows):
                raise UserError(f"{path} is made of other batches: remove it")
            answers = Answers(*(file[name] for name in Answers._fields))
            return _Part(rows, answers, float(file["seconds"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}): remove it") from error
