# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A small search with fresh weights, which tests of searches share."""

import functools

import jax
import numpy as np
from jaxtyping import Int

from rfrec.codes import trie
from rfrec.data.synthetic import histories
from rfrec.retrieval import search, t5, tasks, vocab

ITEMS, USERS, MOST = 40, 30, 12
INTER = histories(USERS, num_items=ITEMS, num_clusters=2, max_length=30, seed=0)
SIZES = (4, 4, 4)


def codes(seed: int, count: int = ITEMS) -> Int[np.ndarray, "N L"]:
    """Draws codes, no two alike."""
    keys = np.random.default_rng(seed).choice(64, count, replace=False)
    return np.stack(np.unravel_index(keys, SIZES), axis=1).astype(np.int32)


@functools.cache
def make(
    task: str, row: int = 0, *, tiger: bool = False
) -> tuple[search.Source, vocab.Vocabulary]:
    """Makes what a search needs, for a direction of a task, and its vocabulary.

    Args:
      task: Of `tasks.TASKS`.
      row: Which of its directions.
      tiger: Whether there are separators, tokens of users and a head for each level.
    """
    table = {"text": codes(0), "image": codes(1)}
    grown = {"separator": True, "user_buckets": 5} if tiger else {}
    vocabulary = vocab.build(
        {"text": SIZES, "image": SIZES},
        prompts=tasks.prompt_sizes((task,), 2),
        **grown,
    )
    form = tasks.Form(separator=True, user=True, end=False) if tiger else None
    tables = tasks.tables(vocabulary, (task,), table, INTER, form=form)
    target = tasks.TASKS[task].directions[row].target
    arch = t5.Architecture(
        vocab_size=vocabulary.size,
        level_heads=SIZES if tiger else (),
        d_model=8,
        d_ff=8,
        d_kv=4,
        num_heads=2,
        num_layers=1,
        num_decoder_layers=1,
    )
    weights = jax.jit(t5.init, static_argnums=0)(arch, jax.random.key(0))
    source = search.Source(
        arch=arch,
        params=jax.tree.map(lambda a: 2 * np.asarray(a), weights),
        trie=trie.build(table[target], SIZES),
        tokens=vocabulary.code_tokens(target),
        tables=tables,
        row=row,
    )
    return source, vocabulary
