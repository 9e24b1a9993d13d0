# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Histories in, ranked items out, by the programs of an artefact alone.

No code of the model is imported. Each length bucket is compiled for a few sizes of
batch, and a batch is filled up to the next one.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import export
from jaxtyping import Bool, Float32

from rfrec.codes import catalogue
from rfrec.config import UserError
from rfrec.retrieval import lists, vocab
from rfrec.retrieval.batches import Tables
from rfrec.serving import artefact, capacity
from rfrec.serving.artefact import Artefact


class Query(NamedTuple):
    """A history to be continued.

    Attributes:
      user: Name, of which the model may have a token.
      items: Rows, oldest first, at least one.
      top_k: Length of the list.
      filter_seen: Whether items of the history are left out.
    """

    user: str
    items: tuple[int, ...]
    top_k: int
    filter_seen: bool


class Answer(NamedTuple):
    """Ranked rows, best first, and their scores; fewer where no more are legal."""

    items: tuple[int, ...]
    scores: tuple[float, ...]


class Recommender:
    """Answers queries by an artefact; one thread at a time.

    Attributes:
      names: Name of each row.
      has_users: Whether the model has tokens of users.
      named: Whether they are more than the row's number.
      rows: Row of each item that a history may name, by name.
    """

    def __init__(
        self,
        read: Artefact,
        *,
        batch_sizes: Sequence[int],
        max_items: int,
        grown: catalogue.Catalogue | None = None,
        origin: str = "",
    ):
        """Puts weights and catalogue on the device.

        Args:
          read: The artefact.
          batch_sizes: Ascending; a larger batch is split.
          max_items: Of a history, the oldest ones included.
          grown: Catalogue in place of the artefact's.
          origin: Of that catalogue, for errors.

        Raises:
          UserError: The device is none of the artefact's platforms, or it has no room
            for the catalogue, or the catalogue is not for its model.
        """
        parts = read.parts
        self._manifest, self._vocabulary = read.manifest, parts.vocabulary
        self.batch_sizes, self.max_items = tuple(batch_sizes), max_items
        _check_platform(read)
        index, tables = parts.trie, parts.tables
        self.named = parts.item_ids is not None
        self.names = parts.item_ids or tuple(map(str, range(index.num_items)))
        if grown is not None:
            tables = grown_tables(read, grown, origin)
            index, self.names = grown.trie, tuple(map(str, range(len(grown.codes))))
        capacity.check_fits(read.manifest.room, index, origin or str(read.folder))
        known = np.flatnonzero(_coded(tables, read.manifest.row))
        self.rows = {self.names[row]: int(row) for row in known}
        tokens = parts.vocabulary.code_tokens(read.manifest.target)
        laid = capacity.lay_out(read.manifest.room, index, tokens, tables)
        self._constants = jax.device_put((parts.weights, laid))
        self._exported = {
            slots: _deserialize(read, slots) for slots in sorted(parts.programs)
        }
        self.has_users = bool(tables.users.shape[0])
        self._compiled = {}

    @property
    def manifest(self) -> artefact.Manifest:
        """Of the artefact."""
        return self._manifest

    def programs(self) -> list[tuple[int, int]]:
        """Lists slots and batch size of every program, to be compiled."""
        return list(itertools.product(self._exported, self.batch_sizes))

    def compile(self, slots: int, size: int) -> None:
        """Compiles the program of a bucket for a batch size, if it is not yet."""
        if (slots, size) not in self._compiled:
            inputs = self._inputs([], slots, size)
            run = jax.jit(self._exported[slots].call)
            self._compiled[slots, size] = run.lower(*self._constants, inputs).compile()

    def bucket(self, query: Query) -> int:
        """Returns the slots of the program that a query needs."""
        length = min(len(query.items), self._manifest.max_history)
        needed = length * self._manifest.segments
        return next(slots for slots in self._exported if slots >= needed)

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """Answers queries, in their order; each list is that of its history alone."""
        found: list[Answer] = [Answer((), ())] * len(queries)
        places: dict[int, list[int]] = {}
        for place, query in enumerate(queries):
            places.setdefault(self.bucket(query), []).append(place)
        for slots, chosen in places.items():
            for part in _parts(chosen, self.batch_sizes[-1]):
                answers = self._answer([queries[i] for i in part], slots)
                for place, answer in zip(part, answers, strict=True):
                    found[place] = answer
        return found

    def answer_batch(self, queries: Sequence[Query]) -> list[Answer]:
        """Answers queries by one program, that of the longest history.

        Args:
          queries: As many as the largest batch at most.
        """
        return self._answer(list(queries), max(map(self.bucket, queries)))

    def _answer(self, queries: list[Query], slots: int) -> list[Answer]:
        size = next(s for s in self.batch_sizes if s >= len(queries))
        self.compile(slots, size)
        inputs = self._inputs(queries, slots, size)
        beams = self._compiled[slots, size](*self._constants, inputs)
        items, scores, leaves = (
            np.asarray(beams[name])[: len(queries)]
            for name in ("items", "scores", "leaves")
        )
        ranked = lists.from_beams(items, scores, leaves, self._manifest.beams)
        answers = []
        for query, row, value in zip(queries, *ranked[:2], strict=True):
            count = min(int((row >= 0).sum()), query.top_k)
            answers.append(Answer(tuple(row[:count].tolist()), _digits(value[:count])))
        return answers

    def _inputs(self, queries: list[Query], slots: int, size: int) -> capacity.Arrays:
        """Lays queries out, filled up with histories of item 0, which are not read."""
        width = slots // self._manifest.segments
        most = min(width, self._manifest.max_history)
        histories = np.zeros((size, width), np.int32)
        lengths = np.ones(size, np.int32)
        seen = np.full((size, self.max_items), -1, np.int32)
        for row, query in enumerate(queries):
            told = query.items[-most:]
            histories[row, : len(told)], lengths[row] = told, len(told)
            if query.filter_seen:
                distinct = list(dict.fromkeys(query.items))
                seen[row, : len(distinct)] = distinct
        inputs = {"histories": histories, "lengths": lengths, "seen": seen}
        if self.has_users:
            names = [query.user for query in queries] + [""] * (size - len(queries))
            inputs["users"] = self._vocabulary.user_tokens(names)
        return inputs


def _parts(places: list[int], most: int) -> Iterator[list[int]]:
    for first in range(0, len(places), most):
        yield places[first : first + most]


def _digits(scores: Float32[np.ndarray, " K"]) -> tuple[float, ...]:
    """Returns the fewest digits that give the same float32 when they are read."""
    return tuple(float(str(score)) for score in scores)


def _coded(tables: Tables, row: int) -> Bool[np.ndarray, " N"]:
    """Marks items that have the codes of all sources of a task."""
    sources = np.asarray(tables.segments)[row]
    first = np.asarray(tables.tokens)[sources[sources >= 0], :, 0]
    return (first != vocab.PAD).all(axis=0)


def _check_platform(read: Artefact) -> None:
    here = jax.default_backend()
    names = ("cuda", "rocm") if here == "gpu" else (here,)
    if not set(names) & set(read.manifest.platforms):
        raise UserError(
            f"{read.folder} was exported for {', '.join(read.manifest.platforms)}, this"
            f" machine has {here}: export it with config.platforms, or set"
            " JAX_PLATFORMS"
        )


def _deserialize(read: Artefact, slots: int) -> export.Exported:
    try:
        return export.deserialize(bytearray(read.parts.programs[slots]))
    except ImportError as error:
        raise UserError(
            "an artefact needs the package flatbuffers: install rfrec[serve]"
        ) from error
    # Whatever a program of another time meets first.
    except Exception as error:
        raise UserError(
            f"{read.folder}: this jax ({jax.__version__}) cannot read the programs of"
            f" jax {read.manifest.jax} ({error}): export again by rfrec.launch.export"
        ) from error


def grown_tables(read: Artefact, grown: catalogue.Catalogue, origin: str) -> Tables:
    """Returns the task's tables with the items of a catalogue that has grown.

    Raises:
      UserError: The catalogue is not for this model, or cannot be read in place of the
        one that was exported; names both.
    """
    manifest, parts = read.manifest, read.parts
    catalogue.check_t5(origin, grown.manifest, manifest.t5)
    if parts.item_ids is not None:
        raise UserError(
            f"{read.folder} names its items, {origin} numbers them: export again"
        )
    used = {*manifest.sources, manifest.target}
    if len(parts.tables.tokens) > 1 or used != {grown.manifest.modality}:
        raise UserError(
            f"{read.folder} reads {' and '.join(manifest.sources)} codes and names"
            f" {manifest.target} codes, {origin} has {grown.manifest.modality} codes:"
            " export a task of these alone"
        )
    capacity.check_fits(manifest.room, grown.trie, origin)
    tokens = vocab.item_tokens(parts.vocabulary, manifest.target, grown.codes)
    return parts.tables._replace(tokens=tokens[None])
