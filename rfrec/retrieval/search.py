# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches of histories through the compiled search of one model.

Each length bucket has one compiled program, from histories to beams. The model, the
trie and its filter stay on the devices.
"""

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int, Int32

from rfrec.codes.trie import Trie
from rfrec.retrieval import batches, beam, constraint, lists, t5, validation
from rfrec.retrieval import queries as queries_lib
from rfrec.retrieval.constraint import SearchSpace
from rfrec.retrieval.lists import Answers
from rfrec.retrieval.queries import Queries
from rfrec.train.partition import Engine
from rfrec.typing import PyTree


class Sampling(NamedTuple):
    """How items are drawn, see `beam.sample`."""

    temperature: float
    top_p: float
    seed: int


@dataclasses.dataclass(frozen=True, eq=False)
class Settings:
    """Options of a search.

    Attributes:
      num_beams: Beams of the search, or number of draws.
      score: Score of an item, see `beam.Search`.
      top_k: Length of the lists.
      batch_size: Maximum number of histories of a batch, a multiple of the number of
        devices.
      buckets: History lengths with their own program; the longest length is added.
      longest: Longest length, so that all queries share the programs; None uses the
        longest length of the queries.
      keep: Whether each item may be recommended; None allows all items.
      filter_seen: Whether items of the history are excluded.
      sampling: How items are drawn; None searches with beams.
    """

    num_beams: int = 20
    score: Literal["full", "level"] = "full"
    top_k: int = 20
    batch_size: int = 128
    buckets: tuple[int, ...] = ()
    longest: int | None = None
    keep: Bool[np.ndarray, " N"] | None = None
    filter_seen: bool = False
    sampling: Sampling | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A model and the catalogue that it searches.

    Attributes:
      arch: Architecture of the model.
      params: Parameters of the model, on the host.
      trie: Trie of the target modality's codes.
      tokens: Tokens of these codes, one array for each level.
      tables: Tables of the task; their flat items are not used.
      row: Row of the task tables.
    """

    arch: t5.Architecture
    params: PyTree
    trie: Trie
    tokens: tuple[Int32[np.ndarray, "_"], ...]
    tables: batches.Tables
    row: int


class Batch(NamedTuple):
    """Queries that are searched together.

    Attributes:
      history: Length bucket.
      seen: Columns for items that are excluded.
      rows: Rows of the queries; padded with the first row of the bucket.
      counted: False for padding.
    """

    history: int
    seen: int
    rows: Int[np.ndarray, " B"]
    counted: Bool[np.ndarray, " B"]


def search_function(
    search: beam.Search, *, row: int, history: int, sampling: Sampling | None = None
) -> Callable[[PyTree, SearchSpace, dict[str, Any]], beam.Beams]:
    """Returns the function of a length bucket, from histories to beams.

    Args:
      search: Options of the search.
      row: Row of the task tables.
      history: Slots of the bucket, see `batches.encode_histories`.
      sampling: How items are drawn; None searches with beams.

    Returns:
      Function of the parameters, the search space and the inputs of `queries.pad`; a
      function that samples also needs `numbers` [B], one for each query.
    """

    def run(params, space, inputs):
        tokens = batches.encode_histories(
            space.tables,
            inputs["histories"],
            inputs["lengths"],
            inputs.get("users"),
            history=history,
            row=row,
        )
        allowed = space.allowed
        if allowed is not None:
            allowed = allowed._replace(seen=inputs.get("seen"))
        if sampling is None:
            return beam.search(params, tokens, space.index, search, allowed=allowed)
        key = jax.random.key(np.uint32(sampling.seed % 2**32))
        return beam.sample(
            params,
            tokens,
            space.index,
            search,
            jax.vmap(lambda n: jax.random.fold_in(key, n))(inputs["numbers"]),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            allowed=allowed,
        )

    return run


class Searcher:
    """Searches with one model; keeps compiled programs, and arrays on the devices."""

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
        space = constraint.make_space(
            source.trie,
            source.tokens,
            source.tables,
            keep=settings.keep,
            filter_seen=settings.filter_seen,
        )
        self._arguments = engine.replicate(source.params), engine.replicate(space)
        self._programs: dict[Any, Any] = {}

    def plan(self, queries: Queries) -> list[Batch]:
        """Splits queries into batches, in a deterministic way."""
        slots = queries.windows.length * self._segments
        longest = self.settings.longest or int(slots.max())
        shorter = [b for b in self.settings.buckets if b < longest]
        widths = np.zeros(len(slots), np.int64)
        if self.settings.filter_seen:
            widths = _seen_widths(queries.whole.length)
        plan = []
        for width in np.unique(widths):
            rows = np.flatnonzero(widths == width)
            blocks = validation.blocks(
                slots[rows],
                (*shorter, longest),
                self.settings.batch_size,
                self._engine.num_parts,
            )
            plan += [
                Batch(block.history, int(width), rows[chosen], counted)
                for block in blocks
                for chosen, counted in zip(block.rows, block.counted, strict=True)
            ]
        return plan

    def compile(self, queries: Queries, plan: Sequence[Batch]) -> float:
        """Compiles the programs of batches that are not yet compiled.

        Returns:
          Duration in seconds.
        """
        started = time.monotonic()
        for batch in plan:
            if _kind(batch) not in self._programs:
                run = self._engine.compile(self._run(batch.history))
                arguments = (*self._arguments, self._inputs(queries, batch))
                compiled = run.lower(*arguments, np.int32(0)).compile()  # pyright: ignore[reportFunctionMemberAccess]
                self._programs[_kind(batch)] = compiled
        return time.monotonic() - started

    def answers(
        self, queries: Queries, plan: Sequence[Batch]
    ) -> Iterator[tuple[Batch, Answers]]:
        """Yields batches with the answers to their counted rows, in order.

        The next batch is dispatched before an answer is fetched.

        Args:
          queries: The queries that were passed to `plan`.
          plan: Some of its batches.
        """
        self.compile(queries, plan)
        running: deque[tuple[Batch, PyTree]] = deque()
        for batch in plan:
            program = self._programs[_kind(batch)]
            inputs = self._inputs(queries, batch)
            running.append((batch, program(*self._arguments, inputs, np.int32(0))[1]))
            if len(running) > 1:
                yield self._collect(*running.popleft())
        while running:
            yield self._collect(*running.popleft())

    def _inputs(self, queries: Queries, batch: Batch) -> dict[str, Any]:
        """Pads a batch and distributes it over the devices."""
        width = batch.history // self._segments
        inputs = queries_lib.pad(queries.take(batch.rows), width, batch.seen)
        if self.settings.sampling is not None:
            inputs["numbers"] = batch.rows.astype(np.int32)

        def put(a):
            return self._engine.shard(lambda part: a[None, part], (1, *a.shape))

        return jax.tree.map(put, inputs)

    def _run(self, history: int):
        """Returns the function that the program of a bucket is compiled from."""
        search = search_function(
            self._search,
            row=self.source.row,
            history=history,
            sampling=self.settings.sampling,
        )

        def run(params, space, inputs, count):
            del count
            beams = search(params, space, jax.tree.map(lambda a: a[0], inputs))
            return (), (beams.items, beams.scores, beams.leaves)

        return run

    def _collect(self, batch: Batch, beams: PyTree) -> tuple[Batch, Answers]:
        """Fetches beams and lists their items."""
        fetched = self._engine.fetch(beams)
        items, scores, leaves = (a[batch.counted] for a in fetched)
        top_k = self.settings.top_k
        return batch, lists.from_beams(items, scores, leaves, top_k)


def _seen_widths(lengths: Int[np.ndarray, " P"]) -> Int[np.ndarray, " P"]:
    """Rounds up to 64, 512, ..., so that few programs suffice for all lengths."""
    exponents = np.ceil(np.log2(np.maximum(lengths, 64)) / 3).astype(np.int64)
    return 8**exponents


def _kind(batch: Batch) -> tuple[int, int, int]:
    return batch.history, batch.seen, len(batch.rows)
