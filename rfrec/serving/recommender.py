# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Recommendations from an exported search, without the code of the model."""

import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from jaxtyping import Bool, Float32, Shaped

from rfrec.codes import catalogue as catalogue_files
from rfrec.codes.catalogue import Catalogue
from rfrec.config import UserError
from rfrec.retrieval import lists, queries, vocab
from rfrec.retrieval.batches import Tables
from rfrec.serving import artefact, capacity, requests
from rfrec.serving.artefact import Artefact
from rfrec.serving.requests import Accepted, Answer, Query


class Recommender:
    """Recommends items with an exported search.

    Each length bucket is compiled for a few batch sizes; a batch is padded to the next
    size. A program is compiled when it is first used. Use one thread at a time.

    ```python
    import rfrec

    recommender = rfrec.Recommender("artefacts/movies")
    items, scores = recommender.recommend([["50", "181"]], k=10, filter_seen=True)
    ```

    Attributes:
      manifest: Manifest of the artefact.
      batch_sizes: Batch sizes, ascending.
      num_items: Number of rows of the catalogue.
      item_ids: Item id of each row; None if the rows are the ids.
      accepted: What the recommender accepts as a request.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | Artefact,
        *,
        batch_sizes: Sequence[int] = (1, 4, 16),
        max_items: int = 256,
        catalogue: str | os.PathLike[str] | Catalogue | None = None,
    ):
        """Reads an artefact, and moves its weights and catalogue to the device.

        Args:
          folder: Folder that `rfrec.launch.export` or `GenerativeRetriever.export`
            wrote, or an artefact that has been read.
          batch_sizes: Batch sizes to compile programs for, ascending. A larger batch is
            split.
          max_items: Maximum number of items of a history; the model reads the latest.
          catalogue: Grown catalogue that replaces the one of the artefact: its folder,
            or a catalogue that has been read.

        Raises:
          UserError: The artefact is damaged or was exported for another platform, or
            the catalogue belongs to another model or exceeds the artefact's capacity.
        """
        source = folder if isinstance(folder, Artefact) else artefact.read(Path(folder))
        _check_platform(source)
        self.manifest, parts = source.manifest, source.parts
        self.batch_sizes = tuple(batch_sizes)
        self._vocabulary, self._trie = parts.vocabulary, parts.trie
        self.item_ids, tables = parts.item_ids, parts.tables
        if catalogue is not None:
            grown, origin = _read_catalogue(catalogue)
            tables, self._trie = grown_tables(source, grown, origin), grown.trie
        else:
            capacity.check_fits(self.manifest.capacity, self._trie, str(source.folder))
        self.num_items = self._trie.num_items
        ids = self.item_ids or tuple(map(str, range(self.num_items)))
        self._rows = {item: row for row, item in enumerate(ids)}
        coded = np.flatnonzero(_has_codes(tables, self.manifest.row))
        self.accepted = Accepted(
            rows={ids[row]: int(row) for row in coded},
            max_items=max_items,
            max_k=self.manifest.beams,
            default_k=self.manifest.top_k,
            requires_user=bool(tables.users.shape[0]),
        )
        tokens = parts.vocabulary.code_tokens(self.manifest.target)
        arrays = capacity.lay_out(self.manifest.capacity, self._trie, tokens, tables)
        self._weights, self._catalogue = jax.device_put((parts.weights, arrays))
        self._exported = {
            slots: _deserialize(source, slots) for slots in sorted(parts.programs)
        }
        self._compiled = {}

    @classmethod
    def load(cls, folder: str | os.PathLike[str], **options: Any) -> "Recommender":
        """Returns `Recommender(folder, **options)`, for symmetry with the models."""
        return cls(folder, **options)

    def __repr__(self) -> str:
        manifest = self.manifest
        return (
            f"Recommender(task={manifest.task!r}, items={self.num_items},"
            f" max_history={manifest.max_history}, max_k={manifest.beams})"
        )

    def recommend(
        self,
        histories: Sequence[Sequence[str | int] | np.ndarray],
        k: int = 10,
        filter_seen: bool = False,
        allow: Iterable[str | int] | None = None,
        deny: Iterable[str | int] | None = None,
        *,
        users: Sequence[str] | None = None,
    ) -> tuple[Shaped[np.ndarray, "B {k}"], Float32[np.ndarray, "B {k}"]]:
        """Recommends items that may follow each history.

        Args:
          histories: Item ids of each history, oldest first. Ids are row numbers if the
            exported data set has no names.
          k: Length of the lists, at most the beams of the artefact.
          filter_seen: Whether items of the history are excluded.
          allow: Item ids that may be recommended; None allows all.
          deny: Item ids that may not be recommended.
          users: Name of the user of each history; required if the model has user
            tokens.

        Returns:
          Item ids, best first, and their scores. A list with fewer than `k` legal items
          ends with None (or -1, if ids are row numbers) with the score -1e9.

        Raises:
          UserError: A history is empty or too long, an item is unknown, or `k` is out
            of range.
        """
        names: Sequence[str | None] = users or [None] * len(histories)
        batch = []
        for history, user in zip(histories, names, strict=True):
            items = [i.item() if isinstance(i, np.generic) else i for i in history]
            content = {"items": items, "user": user, "k": k, "filter_seen": filter_seen}
            batch.append(requests.check(content, self.accepted))
        answers = self._answer_all(batch, self._filtered(allow, deny))
        items = np.full((len(batch), k), -1, np.int64)
        scores = np.full((len(batch), k), lists.INVALID, np.float32)
        for row, answer in enumerate(answers):
            items[row, : len(answer.items)] = answer.items
            scores[row, : len(answer.scores)] = answer.scores
        if self.item_ids is not None:
            items = np.array([*self.item_ids, None], object)[items]
        return items, scores

    def programs(self) -> list[tuple[int, int]]:
        """Returns the history slots and the batch size of every program."""
        return list(itertools.product(self._exported, self.batch_sizes))

    def compile(self, slots: int, size: int) -> None:
        """Compiles the program of a bucket and a batch size, if it is not compiled."""
        if (slots, size) not in self._compiled:
            inputs = self._inputs([], slots, size)
            run = jax.jit(self._exported[slots].call)
            lowered = run.lower(self._weights, self._catalogue, inputs)
            self._compiled[slots, size] = lowered.compile()

    def bucket(self, query: Query) -> int:
        """Returns the slots of the smallest program that can answer a query."""
        length = min(len(query.items), self.manifest.max_history)
        needed = length * self.manifest.segments
        return next(slots for slots in self._exported if slots >= needed)

    def answer(self, batch: Sequence[Query]) -> list[Answer]:
        """Answers queries in their order, independently of each other."""
        return self._answer_all(batch, self._catalogue)

    def answer_batch(self, batch: Sequence[Query]) -> list[Answer]:
        """Answers queries with one program, the one of the longest history.

        Args:
          batch: At most as many queries as the largest batch size.
        """
        slots = max(map(self.bucket, batch))
        return self._answer(batch, slots, self._catalogue)

    def _answer_all(self, batch: Sequence[Query], arrays) -> list[Answer]:
        answers = [Answer((), ())] * len(batch)
        buckets: dict[int, list[int]] = {}
        for number, query in enumerate(batch):
            buckets.setdefault(self.bucket(query), []).append(number)
        for slots, numbers in buckets.items():
            for first in range(0, len(numbers), self.batch_sizes[-1]):
                part = numbers[first : first + self.batch_sizes[-1]]
                group = self._answer([batch[i] for i in part], slots, arrays)
                for number, answer in zip(part, group, strict=True):
                    answers[number] = answer
        return answers

    def _answer(self, batch: Sequence[Query], slots: int, arrays) -> list[Answer]:
        size = next(s for s in self.batch_sizes if s >= len(batch))
        self.compile(slots, size)
        inputs = self._inputs(batch, slots, size)
        beams = self._compiled[slots, size](self._weights, arrays, inputs)
        items, scores, leaves = (
            np.asarray(beams[key])[: len(batch)]
            for key in ("items", "scores", "leaves")
        )
        ranked = lists.from_beams(items, scores, leaves, self.manifest.beams)
        answers = []
        for query, items, scores in zip(batch, *ranked[:2], strict=True):
            count = min(int((items >= 0).sum()), query.top_k)
            items, scores = tuple(items[:count].tolist()), _digits(scores[:count])
            answers.append(Answer(items, scores))
        return answers

    def _inputs(self, batch: Sequence[Query], slots: int, size: int) -> capacity.Arrays:
        """Returns the padded arrays of a batch; padding rows contain item 0."""
        batch = [*batch, *[Query("", (0,), 1, False)] * (size - len(batch))]
        width = slots // self.manifest.segments
        packed = queries.pack(
            [query.items for query in batch], min(width, self.manifest.max_history)
        )
        if self.accepted.requires_user:
            users = self._vocabulary.user_tokens([query.user for query in batch])
            packed = packed._replace(users=users)
        filtered = [query.filter_seen for query in batch]
        most = self.accepted.max_items
        inputs = queries.pad(packed, width, most if any(filtered) else 0)
        seen = inputs.get("seen", np.full((size, most), -1, np.int32))
        seen[np.logical_not(filtered)] = -1
        inputs["seen"] = seen
        return inputs

    def _filtered(
        self, allow: Iterable[str | int] | None, deny: Iterable[str | int] | None
    ):
        """Returns the catalogue's arrays, in which some items are not legal."""
        if allow is None and deny is None:
            return self._catalogue
        keep = np.full(self.num_items, allow is None)
        keep[self._find_rows(allow)] = True
        keep[self._find_rows(deny)] = False
        arrays = capacity.lay_out_filter(self.manifest.capacity, self._trie, keep)
        return self._catalogue | jax.device_put(arrays)

    def _find_rows(self, items: Iterable[str | int] | None) -> list[int]:
        if items is None:
            return []
        try:
            return [self._rows[str(item)] for item in items]
        except KeyError as error:
            raise UserError(f"item {error} is not in the catalogue") from error


def _digits(scores: Float32[np.ndarray, " K"]) -> tuple[float, ...]:
    """Returns floats with the fewest digits that read as the same float32."""
    return tuple(float(str(score)) for score in scores)


def _has_codes(tables: Tables, row: int) -> Bool[np.ndarray, " N"]:
    """Returns which items have the codes of all source modalities of a task."""
    sources = np.asarray(tables.segments)[row]
    first = np.asarray(tables.tokens)[sources[sources >= 0], :, 0]
    return (first != vocab.PAD).all(axis=0)


def _check_platform(source: Artefact) -> None:
    backend = jax.default_backend()
    names = ("cuda", "rocm") if backend == "gpu" else (backend,)
    if not set(names) & set(source.manifest.platforms):
        raise UserError(
            f"{source.folder} was exported for {', '.join(source.manifest.platforms)},"
            f" but this machine has {backend}: export it with another config.platforms,"
            " or set JAX_PLATFORMS"
        )


def _deserialize(source: Artefact, slots: int) -> export.Exported:
    try:
        return export.deserialize(bytearray(source.parts.programs[slots]))
    except ImportError as error:
        raise UserError(
            "an artefact needs the package flatbuffers: install rfrec[serve]"
        ) from error
    # JAX does not document which errors a program of another version causes.
    except Exception as error:
        raise UserError(
            f"{source.folder}: jax {jax.__version__} cannot read programs of jax"
            f" {source.manifest.jax} ({error}); export again with rfrec.launch.export"
        ) from error


def _read_catalogue(
    folder: str | os.PathLike[str] | Catalogue,
) -> tuple[Catalogue, str]:
    if isinstance(folder, Catalogue):
        return folder, "catalogue"
    return catalogue_files.load(Path(folder)), str(folder)


def grown_tables(source: Artefact, grown: Catalogue, origin: str) -> Tables:
    """Returns the task's tables with the items of a grown catalogue.

    Args:
      source: The artefact.
      grown: Catalogue that replaces the exported one.
      origin: Name of that catalogue for errors.

    Raises:
      UserError: The catalogue belongs to another model, exceeds the capacity, or the
        artefact does not consist of the catalogue's codes alone.
    """
    manifest, parts = source.manifest, source.parts
    catalogue_files.check_t5(origin, grown.manifest, manifest.t5)
    if parts.item_ids is not None:
        raise UserError(
            f"{source.folder} has names of items, but {origin} has row numbers: export"
            " again"
        )
    modalities = {*manifest.sources, manifest.target}
    if len(parts.tables.tokens) > 1 or modalities != {grown.manifest.modality}:
        raise UserError(
            f"{source.folder} reads {' and '.join(manifest.sources)} codes and produces"
            f" {manifest.target} codes, but {origin} has {grown.manifest.modality}"
            " codes: export a task of these codes alone"
        )
    capacity.check_fits(manifest.capacity, grown.trie, origin)
    tokens = vocab.item_tokens(parts.vocabulary, manifest.target, grown.codes)
    return parts.tables._replace(tokens=tokens[None])
