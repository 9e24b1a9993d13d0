# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the cases of decoding and of training share: histories in, models of one another
out, as they are with the compact vocabulary and with T5's.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from rfrec.benchmarks.data import CodedHistories
from rfrec.data.interactions import Interactions
from rfrec.retrieval import batches, hf, t5, tasks, training, vocab
from rfrec.retrieval.batches import Batch, Examples, Tables
from rfrec.retrieval.vocab import Vocabulary

NAMES = ("seqrec",)
MODALITY = "text"
# First coordinate of the embedding's rows: of tokens that occur, and of T5's pieces,
# which do not. The logits of the latter are some hundreds below, so that their
# probability is 0, as training makes it: scores do not depend on the vocabulary.
_IN_USE, _OUT_OF_USE = 8.0, -1000.0


class Side(NamedTuple):
    """A model and what it reads, in one vocabulary.

    Attributes:
      vocabulary: Text and image codes, as MQL4GRec has them.
      weights: Those of the other vocabulary, but for the rows of the embedding.
      tables: What examples point into.
    """

    vocabulary: Vocabulary
    weights: hf.Weights
    tables: Tables


def make_side(
    settings: dict[str, Any], layout: str, found: CodedHistories, seed: int
) -> Side:
    """Makes one side of a case.

    Args:
      settings: Sections `data` and `model`; `dropout` if it is trained.
      layout: Of the vocabulary.
      found: Histories and codes.
      seed: Of the weights, which are random.
    """
    words, small = (vocabulary(found.sizes, name) for name in (layout, "compact"))
    arch = t5.Architecture(
        vocab_size=words.size,
        dropout=settings.get("dropout", 0.0),
        **settings["model"],
    )
    params = training.fresh_weights(arch, seed)
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((small.size, arch.d_model), np.float32)
    rows[:, 0] = _IN_USE
    embedding = rng.standard_normal((words.size, arch.d_model), np.float32)
    embedding[:, 0] = _OUT_OF_USE
    embedding[_tokens(words)] = rows[_tokens(small)]
    return Side(
        words,
        hf.Weights(arch, params | {"embedding": embedding}),
        tasks.tables(words, NAMES, {MODALITY: found.codes}, found.inter),
    )


def vocabulary(sizes: tuple[int, ...], layout: str = "compact") -> Vocabulary:
    """Builds the vocabulary of text codes, and of image codes of the same sizes."""
    return vocab.build({MODALITY: sizes, "image": sizes}, layout=layout)


def _tokens(words: Vocabulary) -> Int[np.ndarray, " T"]:
    """Returns all tokens that occur, in an order that is the same for every layout."""
    codes = [tokens for m in words.modalities for tokens in words.code_tokens(m)]
    return np.concatenate([[vocab.PAD, vocab.END], *codes])


def some_users(inter: Interactions, examples: int, seed: int) -> Interactions:
    """Draws as many users as it takes to have so many training examples, if there are.

    The last two items of each are held out, and the first is no target.
    """
    order = np.random.default_rng(seed).permutation(inter.num_users)
    made = np.cumsum(np.diff(inter.indptr)[order] - 3)
    users = order[: 1 + int(np.searchsorted(made, examples))].tolist()
    histories = [inter.history(user) for user in users]
    return Interactions(
        indptr=np.cumsum([0, *map(len, histories)], dtype=np.int64),
        items=np.concatenate(histories),
        num_items=inter.num_items,
        user_ids=tuple(inter.user_ids[user] for user in users),
        item_ids=inter.item_ids,
    )


def padded(side: Side, examples: Examples, history: int) -> Batch:
    """Lays a batch out as MQL4GRec does: padded to its longest."""
    made = batches.batch(side.tables, examples, history)
    tokens = np.asarray(made.tokens)
    width = int((tokens != vocab.PAD).sum(axis=1).max())
    return made._replace(tokens=jnp.asarray(tokens[:, :width]))


def relative_gap(a: float, b: float) -> float:
    """Returns how far apart two numbers are, as a share of the second."""
    return abs(a / b - 1)


def list_gap(
    ours: Float[np.ndarray, "U S 2"], theirs: Float[np.ndarray, "U T 2"]
) -> float:
    """Returns how far apart two sides' lists are, by their scores.

    A list has rows of a leaf and its score, best first; -1 is no leaf, and one that
    comes again counts once. A leaf of both lists counts with its two scores, one of a
    single list with its own and the last of the other list, which it should have been
    below: so ties may be broken either way, and nothing else.
    """
    gaps = [0.0]
    for user in zip(ours, theirs, strict=True):
        lists = [rows[rows[:, 0] >= 0] for rows in user]
        if any((np.diff(rows[:, 1]) > 0).any() or not len(rows) for rows in lists):
            return np.inf
        (a, last_a), (b, last_b) = ((dict(rows), rows[-1, 1]) for rows in lists)
        if len(a) != len(b):
            return np.inf
        gaps += [
            relative_gap(a.get(leaf, last_a), b.get(leaf, last_b))
            for leaf in a.keys() | b.keys()
        ]
    return float(np.max(gaps))
