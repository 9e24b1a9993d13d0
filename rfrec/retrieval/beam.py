# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exact beam search over a trie of codes, one compiled program for the whole search.

Tokens of histories and the trie's tables flow in; codes, scores and leaves come out.
The encoder and its cross-attention keys are computed once a user and shared by the
beams. The decoder's memory is never reordered: rows of all levels stay where they were
computed, and each beam reads those of its ancestors.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from rfrec.codes import trie
from rfrec.codes.trie import Table
from rfrec.retrieval import t5
from rfrec.typing import PyTree

# The score of a beam that is none. Finite, so that nothing computed from it is NaN.
INVALID = -1e9
END = 1


@dataclasses.dataclass(frozen=True)
class Search:
    """What a search does; part of the compiled program.

    Attributes:
      arch: Of the model.
      nodes: Nodes of each depth 1..Q of the trie; counts above `num_beams` are as good
        as `num_beams`.
      widths: Children to look at below a node of each depth 0..Q-1, at least as many as
        any has.
      num_beams: Beams kept at each level.
      score: `full` is the mean log-probability of the codes and the end token over the
        whole vocabulary, as Hugging Face scores; `level` the log-probability of the
        codes, renormalised over the legal codes of each level: over all items these
        probabilities sum to one.
    """

    arch: t5.Architecture
    nodes: tuple[int, ...]
    widths: tuple[int, ...]
    num_beams: int = 20
    score: Literal["full", "level"] = "full"

    @property
    def beams(self) -> tuple[int, ...]:
        """Rows of the decoder before each level, and beams at the end."""
        rows = [1]
        for nodes, width in zip(self.nodes, self.widths, strict=True):
            rows.append(min(self.num_beams, nodes, rows[-1] * width))
        return tuple(rows)


def settings(
    arch: t5.Architecture,
    index: trie.Trie,
    *,
    num_beams: int = 20,
    score: Literal["full", "level"] = "full",
) -> Search:
    """Describes a search in a trie; the same for tries of about the same size."""
    return Search(
        arch=arch,
        nodes=tuple(min(nodes, num_beams) for nodes in index.num_nodes),
        widths=trie.slots(index),
        num_beams=num_beams,
        score=score,
    )


class Beams(NamedTuple):
    """Ranked code tuples of each user, best first.

    Attributes:
      codes: -1 where invalid.
      scores: Finite; `INVALID` where invalid.
      leaves: Nodes of the trie's last depth; -1 where invalid.
      valid: False where there are fewer legal items than beams.
    """

    codes: Int[Array, "B S Q"]
    scores: Float[Array, "B S"]
    leaves: Int[Array, "B S"]
    valid: Bool[Array, "B S"]


class Filter(NamedTuple):
    """Items that may be recommended: a mask over the trie, which stays as it is.

    Attributes:
      counts: For each depth 1..Q, allowed items below every node.
      paths: Node of each depth 1..Q above every item, [N Q].
      seen: Distinct allowed items that a user must not get, -1 as padding, [B H].
    """

    counts: tuple[PyTree, ...]
    paths: PyTree
    seen: PyTree


class _Rows(NamedTuple):
    """Beams between two levels."""

    nodes: Int[Array, "B W"]
    scores: Float[Array, "B W"]
    codes: Int[Array, "B W l"]
    ancestors: Int[Array, "B W l"]


def search(
    params: PyTree,
    tokens: Int[Array, "B L"],
    tables: tuple[Table, ...],
    level_tokens: tuple[Int[Array, "_"], ...],
    settings: Search,
    *,
    allowed: Filter | None = None,
) -> Beams:
    """Searches the best items of each history.

    Args:
      params: Of the model.
      tokens: Of histories; 0 is padding.
      tables: Of the trie, one a level.
      level_tokens: Token of each code, one array a level.
      settings: Static.
      allowed: What may be recommended; None allows all items of the trie.

    Returns:
      Beams, best first; ties go to the smaller code.
    """
    decoder = _Decoder(params, tokens, level_tokens, settings)
    batch = tokens.shape[0]
    rows = _Rows(
        nodes=jnp.zeros((batch, 1), jnp.int32),
        scores=jnp.zeros((batch, 1), jnp.float32),
        codes=jnp.zeros((batch, 1, 0), jnp.int32),
        ancestors=jnp.zeros((batch, 1, 0), jnp.int32),
    )
    for level, table in enumerate(tables):
        logits, total = decoder.step(rows, level)
        children, codes, legal = _children(table, rows.nodes, settings.widths[level])
        if allowed is not None:
            legal &= _allowed(allowed, level, table, rows.nodes, children)
        if table.child is None:
            logits = jnp.take_along_axis(logits, codes, axis=2)
        if settings.score == "level":
            masked = jnp.where(legal, logits, INVALID)
            total = jax.nn.logsumexp(masked, axis=2)
        scores = rows.scores[..., None] + logits - total[..., None]
        legal &= (rows.scores > INVALID / 2)[..., None]
        scores = jnp.where(legal, scores, INVALID)
        rows = _select(rows, scores, children, codes, settings.beams[level + 1])
    valid = rows.scores > INVALID / 2
    scores, order = rows.scores, None
    if settings.score == "full" and not settings.arch.level_heads:
        scores = jnp.where(valid, decoder.finish(rows), INVALID)
        scores, order = lax.top_k(scores, scores.shape[1])
        rows = jax.tree.map(lambda a: _take(a, order), rows)
        valid = _take(valid, order)
    return Beams(
        codes=jnp.where(valid[..., None], rows.codes, -1),
        scores=scores,
        leaves=jnp.where(valid, rows.nodes, -1),
        valid=valid,
    )


class _Decoder:
    """The model at one level after the other; holds what is computed once a user."""

    def __init__(self, params, tokens, level_tokens, settings: Search):
        self._model = t5.T5(settings.arch)
        self._params = {"params": params}
        self._settings = settings
        self._level_tokens = level_tokens
        encoded = self._apply("encode", tokens)
        self._encoded = self._apply("remember", encoded)
        self._pad_bias = t5.padding_bias(tokens)
        self._past: tuple[PyTree, ...] = ()

    def _apply(self, method: str, *args, **kwargs):
        return self._model.apply(self._params, *args, method=method, **kwargs)

    def _run(self, rows: _Rows, level: int) -> Float[Array, "B W D"]:
        """Passes the rows of a level through the decoder."""
        tokens = jnp.zeros(rows.nodes.shape, jnp.int32)
        if level > 0:
            tokens = self._level_tokens[level - 1][rows.codes[..., -1]]
        hidden, memory = self._apply(
            "grow", tokens, self._encoded, self._pad_bias, self._past, rows.ancestors
        )
        self._past = (*self._past, memory)
        return hidden

    def step(self, rows: _Rows, level: int):
        """Returns the logits of a level's codes [B W K] and their log-sum-exp.

        The latter is over all that the score mode normalises by, [B W].
        """
        hidden, settings = self._run(rows, level), self._settings
        if settings.arch.level_heads:
            logits = self._apply("level_logits", hidden, level)
            return logits, jax.nn.logsumexp(logits, axis=2)
        logits = self._apply("logits", hidden, self._level_tokens[level])
        if settings.score == "level":
            return logits, jnp.zeros(logits.shape[:2])
        return logits, self._normaliser(hidden)

    def _normaliser(self, hidden) -> Float[Array, "B W"]:
        return jax.nn.logsumexp(self._apply("logits", hidden), axis=2)

    def finish(self, rows: _Rows) -> Float[Array, "B W"]:
        """Returns the scores with the end token, a mean over the tokens."""
        level = len(self._settings.nodes)
        hidden = self._run(rows, level)
        end = self._apply("logits", hidden, jnp.array([END]))[..., 0]
        return (rows.scores + end - self._normaliser(hidden)) / (level + 1)


def _children(table: Table, nodes: Int[Array, "B W"], width: int):
    """Returns nodes and codes of the children of each node, and which exist."""
    if table.child is not None:
        children = table.child[nodes]
        codes = jnp.arange(children.shape[2], dtype=jnp.int32)
        return children, jnp.broadcast_to(codes, children.shape), children >= 0
    children = table.indptr[nodes][..., None] + jnp.arange(width, dtype=jnp.int32)
    legal = children < table.indptr[nodes + 1][..., None]
    children = jnp.where(legal, children, 0)
    return children, table.codes[children], legal


def _allowed(allowed: Filter, level: int, table: Table, nodes, children):
    """Returns which children lead to an item that may be recommended."""
    legal = allowed.counts[level][children] > 0
    if allowed.seen is None:
        return legal
    batch, _, width = children.shape
    users = jnp.arange(batch)[:, None]
    paths = jnp.where(allowed.seen[..., None] >= 0, allowed.paths[allowed.seen], -1)
    path = paths[..., level]  # [B H]
    below = jnp.sum(path[:, :, None] == path[:, None, :], axis=2)
    dead = (path >= 0) & (below >= allowed.counts[level][path])
    # The beam that stands on the parent, if any, and the place among its children.
    parent = paths[..., level - 1] if level else jnp.zeros_like(path)
    at = parent[:, :, None] == nodes[:, None, :]
    beam = jnp.argmax(at, axis=2)
    dead &= jnp.any(at, axis=2)
    place = path - table.indptr[parent]
    if table.child is not None:
        place = table.codes[path]
    flat = jnp.where(dead, beam * width + place, legal[0].size)
    reached = legal.reshape(batch, -1).at[users, flat].set(False, mode="drop")
    return reached.reshape(legal.shape)


def _select(rows: _Rows, scores, children, codes, count: int) -> _Rows:
    """Keeps the best candidates [B W C] of each user."""
    batch, _, width = scores.shape
    best, index = lax.top_k(scores.reshape(batch, -1), count)
    parent = index // width
    code = jnp.take_along_axis(codes.reshape(batch, -1), index, axis=1)
    node = jnp.take_along_axis(children.reshape(batch, -1), index, axis=1)
    kept = _Rows(*(_take(a, parent) for a in rows))
    return _Rows(
        nodes=jnp.where(best > INVALID / 2, node, 0),
        scores=best,
        codes=jnp.concatenate([kept.codes, code[..., None]], axis=2),
        ancestors=jnp.concatenate([kept.ancestors, parent[..., None]], axis=2),
    )


def _take(a: Array, index: Int[Array, "B W"]) -> Array:
    """Picks rows of each user."""
    return jnp.take_along_axis(a, index.reshape(*index.shape, *(1,) * (a.ndim - 2)), 1)
