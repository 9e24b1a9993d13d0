# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists in files: answers of a search, which resumes after a restart, and item lists.

Answers are stored in parts. A part is a file `NAME.00003.npz`, written atomically, with
a hash of everything that its answers depend on.
"""

import hashlib
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import Int
from tqdm import tqdm

from rfrec import files
from rfrec.config import UserError
from rfrec.data.pairs import PairSplit
from rfrec.evaluation import predictions
from rfrec.evaluation.ranking import Lists
from rfrec.retrieval.lists import Answers
from rfrec.retrieval.queries import Queries
from rfrec.retrieval.search import Batch, Searcher

# Number of queries in a part, rounded up to whole batches.
_PART = 1024


class Listed(NamedTuple):
    """Answers, and what they cost.

    Attributes:
      answers: Answers in the order of the queries.
      seconds: Seconds of the search over all restarts, without compilation.
      compiling: Seconds of compilation in this process.
    """

    answers: Answers
    seconds: float
    compiling: float

    @property
    def users_per_second(self) -> float:
        """Answers per second of the search."""
        return len(self.answers.items) / max(self.seconds, 1e-9)


class _Part(NamedTuple):
    rows: Int[np.ndarray, " R"]
    answers: Answers
    seconds: float


def make_key(searcher: Searcher, queries: Queries) -> str:
    """Returns a hash of model, catalogue and queries, on which the answers depend."""
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
    """Answers all queries; parts that exist are read.

    Args:
      searcher: Search of one model.
      queries: Histories to continue.
      folder: Folder of the parts; None stores none.
      name: Name of the list in its parts and in the progress bar.

    Raises:
      UserError: The folder contains parts of another model, catalogue or other queries.
    """
    key, compiling, parts = make_key(searcher, queries), 0.0, []
    total = len(queries.begin)
    hidden = None if jax.process_index() == 0 else True
    with tqdm(total=total, unit="user", desc=name, disable=hidden) as bar:
        for number, batches in enumerate(_split(searcher.plan(queries))):
            path = folder / f"{name}.{number:05d}.npz" if folder else None
            if path is not None and path.exists():
                rows = np.concatenate([batch.rows[batch.counted] for batch in batches])
                parts.append(_read(path, key, rows))
                bar.update(len(parts[-1].rows))
                continue
            compiling += searcher.compile(queries, batches)
            parts.append(_answer(searcher, queries, batches, bar))
            if path is not None and jax.process_index() == 0:
                _write(path, key, parts[-1])
            if bar.disable and jax.process_index() == 0:
                done = sum(len(part.rows) for part in parts)
                pace = len(parts[-1].rows) / max(parts[-1].seconds, 1e-9)
                logging.info("%s: %d of %d users, %.1f/s", name, done, total, pace)
    return Listed(_in_order(parts), sum(part.seconds for part in parts), compiling)


def _split(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """Groups batches into parts."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if sum(int(b.counted.sum()) for b in group) >= _PART:
            yield group
            group = []
    if group:
        yield group


def _answer(
    searcher: Searcher, queries: Queries, batches: list[Batch], bar: tqdm
) -> _Part:
    started, rows, results = time.monotonic(), [], []
    for batch, answers in searcher.answers(queries, batches):
        rows.append(batch.rows[batch.counted])
        results.append(answers)
        bar.update(len(rows[-1]))
    joined = Answers(*(np.concatenate(column) for column in zip(*results, strict=True)))
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


def read_items(place: str, names: Mapping[str, int], key: str) -> list[int]:
    """Reads a file of items, one a line.

    Args:
      place: Path of the file; empty lines are ignored.
      names: Row of each item.
      key: Key of the config, for errors.

    Returns:
      Rows of the items, in the order of the file.

    Raises:
      UserError: The file cannot be read, or names an unknown item; names the line.
    """
    path, rows = Path(place).expanduser(), []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key}={place} cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        item = line.strip()
        if item and item not in names:
            raise UserError(
                f"{path}, line {number}: item {item!r} is not in the catalogue of"
                f" {len(names)} items; remove the line"
            )
        rows += [names[item]] if item else []
    return rows


def read_lists(place: str, split: PairSplit, key: str) -> Lists:
    """Reads the ranked lists of a run, in the order of a split's users.

    Args:
      place: Folder with `predictions.jsonl`, or such a file.
      split: Split with the users and items.
      key: Key of the config, for errors.

    Raises:
      UserError: The file is missing or damaged, or has other users or items.
    """
    path = Path(place).expanduser()
    path = path / "predictions.jsonl" if path.is_dir() else path
    users, lists = predictions.read(path, split.item_ids)
    rows = {user: row for row, user in enumerate(users)}
    missing = [user for user in split.user_ids if user not in rows]
    if missing or len(rows) != split.num_users:
        example = f" (none for user {missing[0]!r})" if missing else ""
        raise UserError(
            f"{key}={place} has lists for {len(rows)} users{example}, the graph"
            f" recommender has {split.num_users}; both need the same data"
        )
    if lists.items.max(initial=-1) >= split.num_items:
        raise UserError(
            f"{key}={place} lists item {lists.items.max()}, the graph recommender has"
            f" {split.num_items} items; both need the same data"
        )
    order = [rows[user] for user in split.user_ids]
    return Lists(lists.items[order], lists.scores[order])
