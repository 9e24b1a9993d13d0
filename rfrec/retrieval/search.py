# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Histories in, ranked items out: batches of like length through the search.

Each length bucket has one compiled program, from items of the history to beams; the
model, the trie and its filter stay on the devices.
"""

import dataclasses
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int, Int32

from rfrec.codes.trie import Trie
from rfrec.data import sequences
from rfrec.data.sequences import Windows
from rfrec.retrieval import batches, beam, constraint, lists, t5, validation
from rfrec.retrieval.lists import Answers
from rfrec.train.partition import Engine
from rfrec.typing import PyTree


class Sampling(NamedTuple):
    """How items are drawn, see `beam.sample`."""

    temperature: float
    top_p: float
    seed: int


@dataclasses.dataclass(frozen=True, eq=False)
class Settings:
    """How a model is asked.

    Attributes:
      num_beams: Of the search, or draws.
      score: As of `beam.Search`.
      top_k: Length of the lists.
      batch_size: Most histories of a batch, a multiple of the devices.
      buckets: Lengths of history with a program of their own; the longest is added.
      keep: Items that may be listed; None for all.
      filter_seen: Whether items of the history are left out.
      sampling: None searches.
    """

    num_beams: int = 20
    score: Literal["full", "level"] = "full"
    top_k: int = 20
    batch_size: int = 128
    buckets: tuple[int, ...] = ()
    keep: Bool[np.ndarray, " N"] | None = None
    filter_seen: bool = False
    sampling: Sampling | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A model and the catalogue it is asked for.

    Attributes:
      arch: Of the model.
      params: Of the model, on the host.
      trie: Of the codes of the task's target.
      tokens: Of these codes, one array a level.
      tables: Of the task; their flat items are not used.
      row: Of the task tables.
    """

    arch: t5.Architecture
    params: PyTree
    trie: Trie
    tokens: tuple[Int32[np.ndarray, "_"], ...]
    tables: batches.Tables
    row: int


class Queries(NamedTuple):
    """Histories to be continued, P of them.

    Attributes:
      items: Flat items that the others point into.
      begin: Where the history of each user begins, older than its window.
      windows: What the model is told of it.
      users: User tokens, if the tables have any.
    """

    items: Int32[np.ndarray, " E"]
    begin: Int[np.ndarray, " P"]
    windows: Windows
    users: Int32[np.ndarray, " P"] | None = None

    def take(self, rows: Int[np.ndarray, " R"]) -> "Queries":
        """Picks some of them."""
        windows = Windows(*(column[rows] for column in self.windows))
        users = None if self.users is None else self.users[rows]
        return Queries(self.items, self.begin[rows], windows, users)


class Batch(NamedTuple):
    """Queries that share a program.

    Attributes:
      history: Length bucket.
      seen: Places for items that are left out.
      rows: Of the queries; filled up with the first of its bucket.
      counted: False where it is filled up.
    """

    history: int
    seen: int
    rows: Int[np.ndarray, " B"]
    counted: Bool[np.ndarray, " B"]


class _Inputs(NamedTuple):
    histories: Any  # [1 B L]
    lengths: Any  # [1 B]
    users: Any  # [1 B] or None
    seen: Any  # [1 B H] or None
    numbers: Any  # [1 B]


class Searcher:
    """Asks one model; keeps its compiled programs and what lies on the devices."""

    def __init__(self, source: Source, settings: Settings, engine: Engine):
        self.source, self.settings, self._engine = source, settings, engine
        self._search = beam.settings(
            source.arch,
            source.trie,
            num_beams=settings.num_beams,
            score=settings.score,
        )
        segments = np.asarray(source.tables.segments)[source.row]
        self._segments = int((segments >= 0).sum())
        tables = source.tables._replace(
            items=np.zeros(1, np.int32), users=source.tables.users[:1]
        )
        index = constraint.make_index(source.trie, source.tokens)
        self._params = engine.replicate(source.params)
        sampling = settings.sampling
        seed = np.uint32(0 if sampling is None else sampling.seed % 2**32)
        self._constants = engine.replicate((tables, index, self._filter(), seed))
        self._programs: dict[Any, Any] = {}

    def _filter(self) -> constraint.Filter | None:
        keep, filter_seen = self.settings.keep, self.settings.filter_seen
        if keep is None and not filter_seen:
            return None
        # The items of the users come with each batch.
        seen = np.full((1, 1), -1, np.int32) if filter_seen else None
        made = constraint.make_filter(self.source.trie, keep=keep, seen=seen)
        return made._replace(seen=None)

    def plan(self, queries: Queries) -> list[Batch]:
        """Splits queries into batches, the same for the same queries."""
        slots = queries.windows.length * self._segments
        longest = int(slots.max())
        shorter = [b for b in self.settings.buckets if b < longest]
        widths = np.zeros(len(slots), np.int64)
        if self.settings.filter_seen:
            widths = _seen_widths(_whole(queries).length)
        made = []
        for width in np.unique(widths):
            rows = np.flatnonzero(widths == width)
            blocks = validation.blocks(
                slots[rows],
                (*shorter, longest),
                self.settings.batch_size,
                self._engine.num_parts,
            )
            made += [
                Batch(block.history, int(width), rows[chosen], counted)
                for block in blocks
                for chosen, counted in zip(block.rows, block.counted, strict=True)
            ]
        return made

    def compile(self, queries: Queries, made: Sequence[Batch]) -> float:
        """Compiles the programs that batches need and that are not yet there.

        Returns:
          Seconds it took.
        """
        started = time.monotonic()
        for batch in made:
            if _kind(batch) not in self._programs:
                run = self._engine.compile(self._run(batch.history))
                arguments = (
                    self._params,
                    self._constants,
                    self._inputs(queries, batch),
                )
                compiled = run.lower(*arguments, np.int32(0)).compile()  # pyright: ignore[reportFunctionMemberAccess]
                self._programs[_kind(batch)] = compiled
        return time.monotonic() - started

    def answers(
        self, queries: Queries, made: Sequence[Batch]
    ) -> Iterator[tuple[Batch, Answers]]:
        """Yields batches with the answers to their counted rows, in order.

        While one is looked at, the next one is on its way.

        Args:
          queries: As given to `plan`.
          made: Some of its batches.
        """
        self.compile(queries, made)
        waiting: deque[tuple[Batch, PyTree]] = deque()
        for batch in made:
            program = self._programs[_kind(batch)]
            inputs = self._inputs(queries, batch)
            found = program(self._params, self._constants, inputs, np.int32(0))[1]
            waiting.append((batch, found))
            if len(waiting) > 1:
                yield self._collect(*waiting.popleft())
        while waiting:
            yield self._collect(*waiting.popleft())

    def _inputs(self, queries: Queries, batch: Batch) -> _Inputs:
        """Lays out a batch and spreads it over the devices."""
        chosen = queries.take(batch.rows)
        width = batch.history // self._segments
        histories = sequences.padded_histories(chosen.items, chosen.windows, width)
        seen = None
        if self.settings.filter_seen:
            whole = _whole(chosen)
            seen = _distinct(
                sequences.padded_histories(chosen.items, whole, batch.seen)
            )
        host = _Inputs(
            histories=histories,
            lengths=chosen.windows.length,
            users=chosen.users,
            seen=seen,
            numbers=batch.rows.astype(np.int32),
        )

        def put(a):
            return self._engine.shard(lambda part: a[None, part], (1, *a.shape))

        return jax.tree.map(put, host)

    def _run(self, history: int):
        """Returns the function that a bucket's program is compiled from."""

        def run(params, constants, inputs, count):
            del count
            tables, index, allowed, seed = constants
            given = jax.tree.map(lambda a: a[0], inputs)
            tokens = batches.encode_histories(
                tables,
                given.histories,
                given.lengths,
                given.users,
                history=history,
                row=self.source.row,
            )
            if allowed is not None:
                allowed = allowed._replace(seen=given.seen)
            key = jax.random.key(seed)
            beams = self._beams(params, tokens, index, allowed, key, given.numbers)
            return (), (beams.items, beams.scores, beams.leaves)

        return run

    def _beams(self, params, tokens, index, allowed, key, numbers) -> beam.Beams:
        sampling = self.settings.sampling
        if sampling is None:
            return beam.search(params, tokens, index, self._search, allowed=allowed)
        return beam.sample(
            params,
            tokens,
            index,
            self._search,
            jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            allowed=allowed,
        )

    def _collect(self, batch: Batch, found: PyTree) -> tuple[Batch, Answers]:
        """Fetches beams, and lists the items of their code tuples."""
        fetched = self._engine.fetch(found)
        items, scores, leaves = (a[batch.counted] for a in fetched)
        top_k = self.settings.top_k
        return batch, lists.from_beams(items, scores, leaves, top_k)


def distinct_codes(
    items: Int32[np.ndarray, "U K"], leaf_of: Int32[np.ndarray, " N"]
) -> Int32[np.ndarray, "U K"]:
    """Turns ranked items into ranked code tuples, each at its first rank.

    Args:
      items: -1 where there is none.
      leaf_of: Leaf of each item, see `trie.leaf_of`.
    """
    leaves = np.where(items >= 0, leaf_of[items], -1)
    return lists.to_front(np.where(lists.repeated(leaves), -1, leaves))


def _distinct(items: Int32[np.ndarray, "B H"]) -> Int32[np.ndarray, "B H"]:
    return np.where(lists.repeated(items), -1, items).astype(np.int32)


def _whole(queries: Queries) -> Windows:
    """Returns the whole histories, of which the windows are the end."""
    end = queries.windows.start + queries.windows.length
    begin = queries.begin.astype(np.int32)
    return Windows(begin, (end - begin).astype(np.int32), queries.windows.target)


def _seen_widths(lengths: Int[np.ndarray, " P"]) -> Int[np.ndarray, " P"]:
    """Rounds up to 64, 512, ..., so that few programs serve all lengths."""
    exponents = np.ceil(np.log2(np.maximum(lengths, 64)) / 3).astype(np.int64)
    return 8**exponents


def _kind(batch: Batch) -> tuple[int, int, int]:
    return batch.history, batch.seen, len(batch.rows)
