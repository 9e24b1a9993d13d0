# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Beam search within a trie of codes, as one compiled program.

The encoder and its cross-attention keys are computed once for each user and shared by
the beams. The decoder's keys and values are never reordered: the rows of each level
stay where they were computed, and a beam reads the rows of its ancestors.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from rfrec.codes import trie
from rfrec.retrieval import constraint, t5, vocab
from rfrec.retrieval.lists import INVALID
from rfrec.typing import PyTree

END = vocab.END


@dataclasses.dataclass(frozen=True)
class Search:
    """Static options of a search, which are part of the compiled program.

    Attributes:
      arch: Architecture of the model.
      nodes: Number of trie nodes of each depth 1..Q; larger numbers than `num_beams`
        have the same effect as `num_beams`.
      widths: Number of children to look at below a node of each depth 0..Q-1, at least
        the largest number that occurs.
      num_beams: Beams kept at each level.
      score: `full` is the mean log-probability of the codes and the end token over the
        whole vocabulary, as in Hugging Face. `level` is the log-probability of the
        codes, normalised over the legal codes of each level; the probabilities of all
        items sum to 1.
    """

    arch: t5.Architecture
    nodes: tuple[int, ...]
    widths: tuple[int, ...]
    num_beams: int = 20
    score: Literal["full", "level"] = "full"

    @property
    def beams(self) -> tuple[int, ...]:
        """Number of decoder rows before each level, and of beams at the end."""
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
    """Returns the options of a search; tries of similar size have the same."""
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
      codes: Code tuples; -1 where invalid.
      scores: Finite scores; `INVALID` where invalid.
      leaves: Nodes of the trie's last depth; -1 where invalid.
      items: Items with these codes that may be recommended; -1 is padding.
      valid: False where there are fewer legal code tuples than beams.
    """

    codes: Int[Array, "B S Q"]
    scores: Float[Array, "B S"]
    leaves: Int[Array, "B S"]
    items: Int[Array, "B S G"]
    valid: Bool[Array, "B S"]


class _Rows(NamedTuple):
    """Beams between two levels, W for each user."""

    nodes: Int[Array, "B W"]
    scores: Float[Array, "B W"]
    codes: Int[Array, "B W l"]
    ancestors: Int[Array, "B W l"]


def search(
    params: PyTree,
    tokens: Int[Array, "B L"],
    index: constraint.Index,
    settings: Search,
    *,
    allowed: constraint.Filter | None = None,
) -> Beams:
    """Searches for the best items of each history.

    Args:
      params: Parameters of the model.
      tokens: Encoder tokens of the histories; 0 is padding.
      index: Trie of the items.
      settings: Static options.
      allowed: Filter of the items; None allows all items of the trie.

    Returns:
      Beams, best first; of equal scores the smaller code is first.
    """

    def best(level: int, options: _Options) -> tuple[Array, Array]:
        flat = options.scores.reshape(options.scores.shape[0], -1)
        scores, picked = lax.top_k(flat, settings.beams[level + 1])
        return scores, picked

    decoder = _Decoder(params, tokens, index.tokens, settings)
    rows = _walk(decoder, index, settings, allowed, best)
    if decoder.ends:
        scores, order = lax.top_k(decoder.finish(rows), rows.scores.shape[1])
        rows = _Rows(*(_take(a, order) for a in rows))._replace(scores=scores)
    return _beams(rows, index, allowed)


def sample(
    params: PyTree,
    tokens: Int[Array, "B L"],
    index: constraint.Index,
    settings: Search,
    keys: Key[Array, "B"],
    *,
    temperature: float | Float[Array, ""] = 1.0,
    top_p: float = 1.0,
    allowed: constraint.Filter | None = None,
) -> Beams:
    """Draws `num_beams` legal items for each history, independently of each other.

    At each level, the probabilities of the legal codes are raised to the power
    1 / `temperature`; draws are from the smallest set of the most probable codes whose
    probabilities sum to at least `top_p` (Holtzman et al. 2020, "The Curious Case of
    Neural Text Degeneration").

    Args:
      params: Parameters of the model.
      tokens: Encoder tokens of the histories; 0 is padding.
      index: Trie of the items.
      settings: Static options; `score` determines the scores, not the draws.
      keys: One key for each history, so that draws do not depend on the batch.
      temperature: Temperature, above 0.
      top_p: Probability mass in (0, 1], static.
      allowed: Filter of the items; None allows all items of the trie.

    Returns:
      Beams in the order drawn; an item may occur several times.
    """
    count = settings.num_beams

    def draw(level: int, options: _Options) -> tuple[Array, Array]:
        logits = jnp.where(options.legal, options.logits / temperature, INVALID)
        logits = _nucleus(logits, top_p)
        here = jax.vmap(lambda key: jax.random.fold_in(key, level))(keys)
        shape = (count, logits.shape[2])
        noise = jax.vmap(lambda key: jax.random.gumbel(key, shape))(here)
        choice = jnp.argmax(logits + noise, axis=2)  # [B S]
        parent = jnp.broadcast_to(np.arange(count) % logits.shape[1], choice.shape)
        picked = parent * logits.shape[2] + choice
        flat = options.scores.reshape(logits.shape[0], -1)
        return jnp.take_along_axis(flat, picked, axis=1), picked

    decoder = _Decoder(params, tokens, index.tokens, settings)
    rows = _walk(decoder, index, settings, allowed, draw)
    if decoder.ends:
        rows = rows._replace(scores=decoder.finish(rows))
    return _beams(rows, index, allowed)


class _Options(NamedTuple):
    """Children of the rows of a level; scores are `INVALID` where not legal."""

    logits: Float[Array, "B W C"]
    scores: Float[Array, "B W C"]
    legal: Bool[Array, "B W C"]


_Choose = Callable[[int, _Options], tuple[Array, Array]]


def _walk(
    decoder: "_Decoder",
    index: constraint.Index,
    settings: Search,
    allowed: constraint.Filter | None,
    choose: _Choose,
) -> _Rows:
    """Descends the trie; `choose` returns scores and flat indices of children."""
    rows = decoder.root()
    for level, table in enumerate(index.tables):
        logits, total = decoder.step(rows, level)
        children, codes, legal = constraint.children_of(
            table, rows.nodes, settings.widths[level]
        )
        if allowed is not None:
            legal &= constraint.mask_children(
                allowed, level, table, rows.nodes, children
            )
        if table.child is None:
            logits = jnp.take_along_axis(logits, codes, axis=2)
        if settings.score == "level":
            total = jax.nn.logsumexp(jnp.where(legal, logits, INVALID), axis=2)
        legal &= (rows.scores > INVALID / 2)[..., None]
        scores = rows.scores[..., None] + logits - total[..., None]
        scores = jnp.where(legal, scores, INVALID)
        best, picked = choose(level, _Options(logits, scores, legal))
        rows = _descend(rows, best, picked, children, codes)
    return rows


def _descend(rows: _Rows, scores, picked, children, codes) -> _Rows:
    """Returns the rows of picked children, given by flat indices into [W C]."""
    batch, _, width = children.shape
    parent = picked // width
    code = jnp.take_along_axis(codes.reshape(batch, -1), picked, axis=1)
    node = jnp.take_along_axis(children.reshape(batch, -1), picked, axis=1)
    kept = _Rows(*(_take(a, parent) for a in rows))
    valid = scores > INVALID / 2
    return _Rows(
        nodes=jnp.where(valid, node, 0),
        scores=jnp.where(valid, scores, INVALID),
        codes=jnp.concatenate([kept.codes, code[..., None]], axis=2),
        ancestors=jnp.concatenate([kept.ancestors, parent[..., None]], axis=2),
    )


def _beams(
    rows: _Rows, index: constraint.Index, allowed: constraint.Filter | None
) -> Beams:
    valid = rows.scores > INVALID / 2
    items = jnp.where(valid[..., None], index.items[rows.nodes], -1)
    if allowed is not None:
        items = jnp.where(allowed.keep[items], items, -1)
        if allowed.seen is not None:
            seen = allowed.seen[:, None, None, :]
            items = jnp.where(jnp.any(items[..., None] == seen, axis=3), -1, items)
    return Beams(
        codes=jnp.where(valid[..., None], rows.codes, -1),
        scores=jnp.where(valid, rows.scores, INVALID),
        leaves=jnp.where(valid, rows.nodes, -1),
        items=items,
        valid=valid,
    )


def _nucleus(logits: Float[Array, "B W C"], top_p: float) -> Float[Array, "B W C"]:
    """Masks all but the most probable children whose sum reaches `top_p`."""
    if top_p >= 1.0:
        return logits
    ranked = -jnp.sort(-jax.nn.softmax(logits, axis=2), axis=2)
    before = jnp.cumsum(ranked, axis=2) - ranked
    count = jnp.sum(before < top_p, axis=2, keepdims=True)
    least = jnp.take_along_axis(ranked, count - 1, axis=2)
    return jnp.where(jax.nn.softmax(logits, axis=2) >= least, logits, INVALID)


class _Decoder:
    """The decoder, level by level, with the encoder output of each user."""

    def __init__(self, params, tokens, level_tokens, settings: Search):
        self._model = t5.T5(settings.arch)
        self._params = {"params": params}
        self._batch = tokens.shape[0]
        self._settings = settings
        self._level_tokens = level_tokens
        encoded = self._apply("encode", tokens)
        self._encoded = self._apply("remember", encoded)
        self._pad_bias = t5.padding_bias(tokens)
        self._past: tuple[PyTree, ...] = ()

    @property
    def ends(self) -> bool:
        """Whether the score includes the end token."""
        return self._settings.score == "full" and not self._settings.arch.level_heads

    def root(self) -> _Rows:
        """Returns the rows before the first level."""
        none = jnp.zeros((self._batch, 1, 0), jnp.int32)
        node = jnp.zeros((self._batch, 1), jnp.int32)
        return _Rows(node, jnp.zeros((self._batch, 1), jnp.float32), none, none)

    def _apply(self, method: str, *args, **kwargs) -> Any:
        return self._model.apply(self._params, *args, method=method, **kwargs)

    def _run(self, rows: _Rows, level: int) -> Float[Array, "B W D"]:
        """Runs the decoder on the rows of a level."""
        tokens = jnp.zeros(rows.nodes.shape, jnp.int32)
        if level > 0:
            tokens = self._level_tokens[level - 1][rows.codes[..., -1]]
        hidden, memory = self._apply(
            "grow", tokens, self._encoded, self._pad_bias, self._past, rows.ancestors
        )
        self._past = (*self._past, memory)
        return hidden

    def step(self, rows: _Rows, level: int):
        """Returns the logits of a level's codes [B W K] and a log-normaliser [B W].

        The score mode determines which tokens the normaliser covers.
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
        return self._apply("log_normaliser", hidden)

    def finish(self, rows: _Rows) -> Float[Array, "B W"]:
        """Returns scores that include the end token, as means over the tokens."""
        level = len(self._settings.nodes)
        hidden = self._run(rows, level)
        end = self._apply("logits", hidden, jnp.array([END]))[..., 0]
        scores = (rows.scores + end - self._normaliser(hidden)) / (level + 1)
        return jnp.where(rows.scores > INVALID / 2, scores, INVALID)


def _take(a: Array, index: Int[Array, "B W"]) -> Array:
    """Returns the rows of each user at some indices."""
    return jnp.take_along_axis(a, index.reshape(*index.shape, *(1,) * (a.ndim - 2)), 1)
