# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds batches of tokens for the T5 from tables and rows of examples, inside jit.

`Tables` (codes as tokens, prompts, flat items) are copied to the device once. An
example is four integers; `batch` looks up its tokens inside the compiled step:

    [user] (prompt, codes of the history) per source modality, end, padding
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from rfrec.data import sequences
from rfrec.retrieval import vocab


class Examples(NamedTuple):
    """Training pairs: rows of `Tables` and ranges of its flat items.

    Attributes:
      task: Row of the task tables, see `tasks.task_rows`.
      start: First position in the flat items.
      length: Items in the history.
      target: Item row; `sequences.NO_ITEM` when there is none (serving).
    """

    task: Int32[np.ndarray | Array, "P"]
    start: Int32[np.ndarray | Array, "P"]
    length: Int32[np.ndarray | Array, "P"]
    target: Int32[np.ndarray | Array, "P"]


class Tables(NamedTuple):
    """Arrays that examples refer to; arrays only, so that it passes through jit.

    Attributes:
      items: [E + N] flat items of all histories, then each item once.
      tokens: [M, N, Q] tokens of each item's codes; padding where a modality has
        fewer levels, or an item no codes.
      levels: [M] codes of an item.
      prompts: [T, G, P] prompt of each segment, padding where there is none.
      segments: [T, G] modality of each segment; -1 where there is none.
      target: [T] modality of the target.
      weight: [T] weight of the loss.
      separator: [1] token after each item of a history, or no entry.
      users: [E + N] user token of each flat item, or no entry.
      end: [1] end token of labels, or no entry.
    """

    items: Int32[np.ndarray | Array, "F"]
    tokens: Int32[np.ndarray | Array, "M N Q"]
    levels: Int32[np.ndarray | Array, "M"]
    prompts: Int32[np.ndarray | Array, "T G P"]
    segments: Int32[np.ndarray | Array, "T G"]
    target: Int32[np.ndarray | Array, "T"]
    weight: Float[np.ndarray | Array, "T"]
    separator: Int32[np.ndarray | Array, "_"]
    users: Int32[np.ndarray | Array, "_"]
    end: Int32[np.ndarray | Array, "_"]


class Batch(NamedTuple):
    """Input and labels of the T5.

    Attributes:
      tokens: Encoder input, padding on the right.
      labels: Codes of the target, then the end token if the form has one; padding is
        ignored.
      weights: Weight of each example in the loss.
    """

    tokens: Int32[Array, "B W"]
    labels: Int32[Array, "B T"]
    weights: Float[Array, "B"]


def take(examples: Examples, rows: Int[np.ndarray | Array, "..."]) -> Examples:
    """Picks examples by row; each array gets the shape of `rows`."""
    return Examples(*(column[rows] for column in examples))


def slots(tables: Tables, examples: Examples) -> Int32[np.ndarray, "P"]:
    """Returns the length of each example for buckets: items, once per segment."""
    segments = (np.asarray(tables.segments) >= 0).sum(axis=1, dtype=np.int32)
    return np.asarray(examples.length) * segments[np.asarray(examples.task)]


def width(tables: Tables, history: int) -> int:
    """Returns the number of encoder tokens of `batch` for a bucket."""
    front = tables.users.shape[0] > 0
    prompts = tables.prompts.shape[1] * tables.prompts.shape[2]
    item = tables.tokens.shape[2] + tables.separator.shape[0]
    return front + prompts + history * item + 1


def batch(tables: Tables, examples: Examples, history: int) -> Batch:
    """Lays out the tokens of a batch; for use inside jit.

    Args:
      tables: On the device.
      examples: [B] each.
      history: Length bucket: no example has more `slots`. Static.

    Returns:
      `width(tables, history)` columns of input; as many labels as the modality with
      the most levels has, and the end token.
    """
    position = jnp.arange(width(tables, history), dtype=jnp.int32)[None, :]
    tokens = jnp.zeros((examples.task.shape[0], position.shape[1]), jnp.int32)
    begin = jnp.zeros_like(examples.start)[:, None]
    if tables.users.shape[0]:
        user = jnp.asarray(tables.users)[examples.start][:, None]
        tokens = jnp.where(position == 0, user, tokens)
        begin = begin + 1
    for segment in range(tables.segments.shape[1]):
        tokens, begin = _write_segment(
            tables, examples, segment, position, tokens, begin
        )
    return Batch(
        jnp.where(position == begin, vocab.END, tokens),
        _labels(tables, examples),
        jnp.asarray(tables.weight)[examples.task],
    )


def _write_segment(
    tables: Tables,
    examples: Examples,
    segment: int,
    position: Int[Array, "1 W"],
    tokens: Int[Array, "B W"],
    begin: Int[Array, "B 1"],
) -> tuple[Int[Array, "B W"], Int[Array, "B 1"]]:
    """Writes prompt and codes of one segment; returns where the next one begins."""
    modality = jnp.asarray(tables.segments)[examples.task, segment][:, None]
    present, modality = modality >= 0, jnp.maximum(modality, 0)
    prompt = jnp.asarray(tables.prompts)[examples.task, segment]
    offset = position - begin
    if prompt.shape[1]:
        size = jnp.where(prompt[:, :1] != vocab.PAD, prompt.shape[1], 0)
        column = jnp.clip(offset, 0, prompt.shape[1] - 1)
        token = jnp.take_along_axis(prompt, column, axis=1)
        tokens = jnp.where((offset >= 0) & (offset < size), token, tokens)
        begin, offset = begin + size, offset - size
    levels = jnp.asarray(tables.levels)[modality]
    stride = levels + tables.separator.shape[0]
    body = jnp.where(present, examples.length[:, None] * stride, 0)
    place, level = jnp.divmod(offset, stride)
    items = jnp.asarray(tables.items)
    place = jnp.clip(examples.start[:, None] + place, 0, items.shape[0] - 1)
    # Outside the segment this is the token of an arbitrary item; `inside` masks it.
    last = tables.tokens.shape[2] - 1
    code = jnp.asarray(tables.tokens)[modality, items[place], jnp.minimum(level, last)]
    token = code
    if tables.separator.shape[0]:
        token = jnp.where(level == levels, jnp.asarray(tables.separator), code)
    inside = (offset >= 0) & (offset < body)
    return jnp.where(inside, token, tokens), begin + body


def _labels(tables: Tables, examples: Examples) -> Int[Array, "B T"]:
    """Returns the codes of the target and the end, padded behind."""
    modality = jnp.asarray(tables.target)[examples.task][:, None]
    item = jnp.maximum(examples.target, 0)[:, None]
    most, ends = tables.tokens.shape[2], tables.end.shape[0]
    level = jnp.arange(most + ends, dtype=jnp.int32)[None, :]
    codes = jnp.asarray(tables.tokens)[modality, item, jnp.minimum(level, most - 1)]
    levels = jnp.asarray(tables.levels)[modality]
    labels = jnp.where(level < levels, codes, vocab.PAD)
    if ends:
        labels = jnp.where(level == levels, jnp.asarray(tables.end), labels)
    return jnp.where(examples.target[:, None] >= 0, labels, vocab.PAD)


def encode_histories(
    tables: Tables,
    histories: Int[Array, "B L"],
    lengths: Int[Array, "B"],
    users: Int[Array, "B"] | None = None,
    *,
    history: int,
    row: int = 0,
) -> Int32[Array, "B W"]:
    """Lays out the encoder input of given histories (serving); for use inside jit.

    Args:
      tables: On the device; their flat items are not used.
      histories: Item rows, oldest first; entries beyond `lengths` are ignored. See
        `sequences.padded_histories`.
      lengths: Number of items of each history, at least 1.
      users: User tokens, `Vocabulary.user_tokens`, if the tables have users.
      history: Bucket, as of `batch`. Static.
      row: Row of the task tables. Static.

    Raises:
      ValueError: User tokens are missing, or the tables have none.
    """
    if (users is not None) != (tables.users.shape[0] > 0):
        raise ValueError(
            "users are required if the tables have user tokens, and only then"
        )
    count, most = histories.shape
    own = jnp.zeros(0, jnp.int32) if users is None else jnp.repeat(users, most)
    here = tables._replace(items=histories.ravel(), users=own)
    start = jnp.arange(count, dtype=jnp.int32) * most
    blank = jnp.full(count, sequences.NO_ITEM, jnp.int32)
    rows = jnp.full(count, row, jnp.int32)
    return batch(here, Examples(rows, start, lengths, blank), history).tokens
