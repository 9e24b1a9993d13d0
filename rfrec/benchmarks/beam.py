# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoding, as a case of the benchmark: users' histories in, ranked items out.

Both sides search the best items with the same weights. A block of ours answers all
users through `rfrec.retrieval.search`, in batches of like length. A block of theirs
takes the next batch of them, padded to its longest as MQL4GRec pads: as many turns as
it has batches do the same users.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from rfrec.benchmarks import data, retrieval, timing, torch_t5
from rfrec.benchmarks.retrieval import MODALITY, Side
from rfrec.codes import trie, trie_edit
from rfrec.data import sequences
from rfrec.retrieval import batches, tasks
from rfrec.retrieval import search as serving
from rfrec.train import partition


class _Users(NamedTuple):
    """Some users of the test split, and the items to search among."""

    found: data.CodedHistories
    rows: Int[np.ndarray, " U"]
    windows: sequences.Windows
    built: trie.Trie


def decode(settings: dict[str, Any], seed: int, torch: bool) -> timing.Bench:
    """Times searches from history to items, each side with its own vocabulary."""
    users = _draw(settings, seed)
    side = retrieval.make_side(settings, settings["ours"], users.found, seed)
    search = _Search(side, users, settings)
    theirs = None
    if torch:
        other = retrieval.make_side(settings, settings["theirs"], users.found, seed)
        theirs = torch_t5.decode(
            other.weights,
            _in_order(other, users, settings),
            users.found.codes,
            other.vocabulary.code_tokens(MODALITY),
            beams=settings["beams"],
            device=timing.torch_device(),
        )

    def disagreement(ours: np.ndarray, theirs: np.ndarray) -> float:
        return retrieval.list_gap(ours[: len(theirs)], by_leaf(users.built, theirs))

    return timing.Bench(
        ours=search.run,
        torch=theirs,
        unit="users/s",
        per_block=len(users.rows),
        disagreement=disagreement,
        # Scores are means of log-probabilities in float32, some -5.
        tolerance=1e-4,
        peak_bytes=lambda: timing.peak(search.largest),
        torch_per_block=min(settings["torch_batch_size"], len(users.rows)),
    )


def _draw(settings: dict[str, Any], seed: int) -> _Users:
    found = data.coded_histories(settings["data"], seed)
    held = sequences.heldout_windows(
        found.inter, "test", most=settings["data"]["max_history"]
    )
    count, batch = settings["users"], settings["torch_batch_size"]
    count = min(count, found.inter.num_users)
    # Batches of theirs are full.
    count -= count % batch if count > batch else 0
    rng = np.random.default_rng(seed)
    rows = rng.choice(found.inter.num_users, count, replace=False)
    windows = sequences.Windows(*(column[rows] for column in held))
    return _Users(found, rows, windows, trie.build(found.codes, found.sizes))


def _in_order(
    side: Side, users: _Users, settings: dict[str, Any]
) -> list[Int[np.ndarray, "_ _"]]:
    """Lays users out as they come, batch by batch."""
    most, size = settings["data"]["max_history"], settings["torch_batch_size"]
    examples, count = tasks.window_examples(users.windows), len(users.rows)
    parts = [
        batches.take(examples, np.arange(count)[i : i + size])
        for i in range(0, count, size)
    ]
    laid = [retrieval.padded(side, part, most) for part in parts]
    return [np.asarray(batch.tokens) for batch in laid]


def by_leaf(
    built: trie.Trie, lists: Float[np.ndarray, "U S C"]
) -> Float[np.ndarray, "U S 2"]:
    """Turns rows of codes and a score into leaf and score; -1 is no item's codes."""
    codes = lists[..., :-1].astype(np.int64)
    leaves = trie_edit.find(built, codes.reshape(-1, codes.shape[2]))
    return np.stack([leaves.reshape(codes.shape[:2]), lists[..., -1]], axis=2)


class _Search:
    """Our side, as `rfrec.launch.recommend` asks a model."""

    def __init__(self, side: Side, users: _Users, settings: dict[str, Any]):
        built = users.built
        source = serving.Source(
            arch=side.weights.arch,
            params=side.weights.params,
            trie=built,
            tokens=side.vocabulary.code_tokens(MODALITY),
            tables=side.tables,
            row=0,
        )
        asked = serving.Settings(
            num_beams=settings["beams"],
            # All items of every beam, so that the lists can be compared.
            top_k=settings["beams"] * int(np.diff(built.leaf_indptr).max()),
            batch_size=settings["batch_size"],
            buckets=settings["buckets"],
        )
        # PyTorch's side has one device too.
        engine = partition.make_engine("jit", devices=jax.local_devices()[:1])
        self._searcher = serving.Searcher(source, asked, engine)
        inter = users.found.inter
        begin = inter.indptr[:-1][users.rows]
        self._queries = serving.Queries(inter.items, begin, users.windows)
        self._leaf_of = trie.leaf_of(built)

    def run(self) -> Float[np.ndarray, "U K 2"]:
        """Returns leaf and score of each user's items; -1 behind the last."""
        made = self._searcher.plan(self._queries)
        count, width = len(self._queries.begin), self._searcher.settings.top_k
        lists = np.empty((count, width, 2))
        for batch, answers in self._searcher.answers(self._queries, made):
            rows, items = batch.rows[batch.counted], answers.items
            lists[rows, :, 0] = np.where(items >= 0, self._leaf_of[items], -1)
            lists[rows, :, 1] = answers.scores
        return lists

    def largest(self) -> jax.stages.Compiled:
        """Returns the program that needs most memory."""
        programs = self._searcher._programs.values()
        return max(programs, key=lambda p: p.memory_analysis().temp_size_in_bytes)
