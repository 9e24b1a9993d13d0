# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The trie's cases of the benchmark: its construction, and searches under it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfrec.benchmarks import data, retrieval, timing
from rfrec.benchmarks.retrieval import MODALITY
from rfrec.codes import trie
from rfrec.retrieval import beam, constraint, t5, training, vocab


def prepare(settings: dict[str, Any], seed: int, torch: bool) -> timing.Bench:
    """Times what the settings say: `build`, `search` or `step_overhead`, ours alone."""
    del torch
    codes = data.drawn_codes(
        np.random.default_rng(seed),
        settings["num_items"],
        settings["levels"],
        settings["codes"],
        settings["exponent"],
    )
    made = {"build": _build, "step_overhead": _overhead, "search": _search}
    make = made[settings["what"]]
    return make(codes, settings, seed)


def _build(codes, settings: dict[str, Any], seed: int) -> timing.Bench:
    """Times a build from a code table, on the host."""
    del seed
    sizes = (settings["codes"],) * settings["levels"]
    return timing.host(lambda: trie.build(codes, sizes).leaf_items)


class _Limited(NamedTuple):
    """A compiled search under a trie, and what it takes.

    Attributes:
      words: Vocabulary of the codes.
      arch: Of the T5.
      program: Takes parameters, histories and index.
      given: These.
    """

    words: vocab.Vocabulary
    arch: t5.Architecture
    program: jax.stages.Compiled
    given: tuple[Any, Any, Any]

    def __call__(self) -> np.ndarray:
        return np.asarray(self.program(*self.given))


def _limited(codes, settings: dict[str, Any], seed: int) -> _Limited:
    words = retrieval.vocabulary((settings["codes"],) * codes.shape[1])
    arch = t5.Architecture(vocab_size=words.size, **settings["model"])
    params = jax.device_put(training.fresh_weights(arch, seed))
    built = trie.build(codes, words.sizes(MODALITY))
    index = constraint.make_index(built, words.code_tokens(MODALITY))
    limited = beam.settings(arch, built, num_beams=settings["beams"])
    given = (params, *jax.device_put((_histories(words, settings, seed), index)))
    program = jax.jit(lambda p, h, i: beam.search(p, h, i, limited).scores)
    return _Limited(words, arch, program.lower(*given).compile(), given)


def _search(codes, settings: dict[str, Any], seed: int) -> timing.Bench:
    """Times a search under the trie."""
    limited = _limited(codes, settings, seed)
    return timing.Bench(
        ours=limited,
        torch=None,
        unit="users/s",
        per_block=settings["users"],
        disagreement=lambda a, b: 0.0,
        tolerance=0.0,
        peak_bytes=lambda: timing.peak(lambda: limited.program),
    )


def _overhead(codes, settings: dict[str, Any], seed: int) -> timing.Bench:
    """Times a whole search under the trie against one in which all codes are legal."""
    limited = _limited(codes, settings, seed)
    words, params, histories = limited.words, *limited.given[:2]
    free = free_search(limited.arch, words.sizes(MODALITY), settings["beams"])
    # Constants of the program: what allows everything, the compiler can leave out.
    everything = jax.tree.map(jnp.asarray, free_index(words.code_tokens(MODALITY)))
    other = jax.jit(lambda p, h: beam.search(p, h, everything, free).scores)
    return timing.Bench(
        ours=limited,
        torch=None,
        unit="fraction",
        per_block=1,
        disagreement=lambda a, b: 0.0,
        tolerance=0.0,
        peak_bytes=lambda: timing.peak(lambda: limited.program),
        against=lambda: np.asarray(other(params, histories)),
    )


def free_search(
    arch: t5.Architecture, sizes: tuple[int, ...], beams: int
) -> beam.Search:
    """Describes a search in which every code may follow every prefix."""
    return beam.Search(arch, (beams,) * len(sizes), sizes, num_beams=beams)


def free_index(tokens) -> constraint.Index:
    """Makes an index of one node for each depth, to which every code leads."""
    tables = tuple(
        trie.Table(
            indptr=np.array([0, len(level)], np.int32),
            codes=np.arange(len(level), dtype=np.int32),
            child=np.zeros((1, len(level)), np.int32),
        )
        for level in tokens
    )
    return constraint.Index(tables, tuple(tokens), np.zeros((2, 1), np.int32))


def _histories(words: vocab.Vocabulary, settings: dict[str, Any], seed: int):
    """Draws tokens of histories of equal length."""
    rng = np.random.default_rng(seed)
    shape = (settings["users"], settings["history"])
    columns = [
        rng.choice(tokens, shape).astype(np.int32)
        for tokens in words.code_tokens(MODALITY)
    ]
    tokens = np.stack(columns, axis=2).reshape(len(columns[0]), -1)
    return np.pad(tokens, ((0, 0), (0, 1)), constant_values=vocab.END)
