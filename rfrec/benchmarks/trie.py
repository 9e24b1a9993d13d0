# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cases of the trie: its construction, and searches that it constrains."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfrec.benchmarks import data, retrieval, timing
from rfrec.benchmarks.options import Options
from rfrec.benchmarks.retrieval import MODALITY
from rfrec.codes import trie
from rfrec.retrieval import beam, constraint, t5, training, vocab


def _draw_codes(options: Options, num_items: int, levels: int):
    rng, sizes = np.random.default_rng(options.seed), options.trie
    return data.drawn_codes(rng, num_items, levels, sizes.codes, sizes.exponent)


def build(
    options: Options, torch: bool, *, num_items: int, levels: int
) -> timing.Bench:
    """Times the construction from a code table, on the host."""
    del torch
    codes = _draw_codes(options, num_items, levels)
    sizes = (options.trie.codes,) * levels
    return timing.host(lambda: trie.build(codes, sizes).leaf_items)


class _Limited(NamedTuple):
    """Compiled search with a trie, and its arguments.

    Attributes:
      words: Vocabulary of the codes.
      arch: Architecture of the T5.
      program: Function of parameters, histories and index.
      args: Arguments of the program.
    """

    words: vocab.Vocabulary
    arch: t5.Architecture
    program: jax.stages.Compiled
    args: tuple[Any, Any, Any]

    def __call__(self) -> np.ndarray:
        return np.asarray(self.program(*self.args))


def _limited(options: Options, num_items: int, levels: int) -> _Limited:
    codes = _draw_codes(options, num_items, levels)
    words = retrieval.vocabulary((options.trie.codes,) * levels)
    arch = retrieval.build_architecture(options, words)
    params = jax.device_put(training.fresh_weights(arch, options.seed))
    built = trie.build(codes, words.sizes(MODALITY))
    index = constraint.make_index(built, words.code_tokens(MODALITY))
    limited = beam.settings(arch, built, num_beams=options.trie.beams)
    args = (params, *jax.device_put((_histories(words, options), index)))
    program = jax.jit(lambda p, h, i: beam.search(p, h, i, limited).scores)
    return _Limited(words, arch, program.lower(*args).compile(), args)


def search(
    options: Options, torch: bool, *, num_items: int, levels: int
) -> timing.Bench:
    """Times a search with the trie."""
    del torch
    limited = _limited(options, num_items, levels)
    return timing.Bench(
        ours=limited,
        unit="users/s",
        per_block=options.trie.users,
        peak_bytes=lambda: timing.peak(lambda: limited.program),
    )


def step_overhead(
    options: Options, torch: bool, *, num_items: int, levels: int
) -> timing.Bench:
    """Times a search with the trie against one that allows all codes."""
    del torch
    limited = _limited(options, num_items, levels)
    words, (params, histories, _) = limited.words, limited.args
    free = free_search(limited.arch, words.sizes(MODALITY), options.trie.beams)
    # Constants of the program, so that the compiler can remove the constraint.
    everything = jax.tree.map(jnp.asarray, free_index(words.code_tokens(MODALITY)))
    other = jax.jit(lambda p, h: beam.search(p, h, everything, free).scores)
    return timing.Bench(
        ours=limited,
        unit="fraction",
        per_block=1,
        peak_bytes=lambda: timing.peak(lambda: limited.program),
        against=lambda: np.asarray(other(params, histories)),
    )


def free_search(
    arch: t5.Architecture, sizes: tuple[int, ...], beams: int
) -> beam.Search:
    """Returns settings of a search in which every code may follow every prefix."""
    return beam.Search(arch, (beams,) * len(sizes), sizes, num_beams=beams)


def free_index(tokens) -> constraint.Index:
    """Returns an index with one node for each depth, to which every code leads."""
    tables = tuple(
        trie.Table(
            indptr=np.array([0, len(level)], np.int32),
            codes=np.arange(len(level), dtype=np.int32),
            child=np.zeros((1, len(level)), np.int32),
        )
        for level in tokens
    )
    return constraint.Index(tables, tuple(tokens), np.zeros((2, 1), np.int32))


def _histories(words: vocab.Vocabulary, options: Options):
    """Draws tokens of histories of equal length."""
    rng = np.random.default_rng(options.seed)
    shape = (options.trie.users, options.trie.history)
    columns = [
        rng.choice(tokens, shape).astype(np.int32)
        for tokens in words.code_tokens(MODALITY)
    ]
    tokens = np.stack(columns, axis=2).reshape(len(columns[0]), -1)
    return np.pad(tokens, ((0, 0), (0, 1)), constant_values=vocab.END)
