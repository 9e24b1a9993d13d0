# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of a recorded T5 with its constrained beam search, and of an ensemble."""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from rfrec.codes import trie
from rfrec.evaluation import metrics, ranking
from rfrec.parity.arrays import (
    GRADIENT,
    Arrays,
    Check,
    Recorded,
    exact,
    near,
    part,
)
from rfrec.retrieval import beam, constraint, ensemble, hf, t5
from rfrec.typing import PyTree

_SEARCH = re.compile(r"beam(\d+)/sequences")
# Label of positions that the loss ignores.
_IGNORED = -100
# A search that finds fewer items than beams fills up with scores below this one.
_NO_BEAM = -1e8


def check_t5(arrays: Arrays) -> list[Check]:
    """Checks a pass with gradients, the score of every item, and the searches."""
    config = json.loads(str(arrays["config"]))
    record = Recorded(arrays, *hf.build(config, part(arrays, "hf")))
    return [*_gradients(record), *_all_items(record), *_searches(record)]


def _tokens(record: Recorded) -> Int[Array, "U L"]:
    """Returns the tokens of the histories; 0 is padding."""
    arrays = record.arrays
    return jnp.asarray(arrays["input_ids"] * arrays["attention_mask"], jnp.int32)


def _level_tokens(record: Recorded) -> tuple[Int[np.ndarray, "_"], ...]:
    """Returns the token of each code, level by level; 0 for codes that no item has."""
    columns = []
    tables = ("catalogue_codes", "catalogue_tokens")
    pairs = zip(*(record.arrays[name].T for name in tables), strict=True)
    for codes, tokens in pairs:
        column = np.zeros(codes.max() + 1, np.int32)
        column[codes] = tokens
        columns.append(column)
    return tuple(columns)


def _gradients(record: Recorded) -> list[Check]:
    """Checks a pass with the recorded labels, and the gradient of its loss."""
    arrays, arch, params = record
    labels, tokens = jnp.asarray(arrays["labels"], jnp.int32), _tokens(record)

    def objective(params: PyTree):
        counted = labels != _IGNORED
        answers = jnp.where(counted, labels, 0)
        logits = t5.T5(arch).apply({"params": params}, tokens, t5.shift_right(answers))
        losses = optax.softmax_cross_entropy_with_integer_labels(
            jnp.asarray(logits), answers
        )
        return jnp.sum(losses * counted) / jnp.sum(counted), logits

    run = jax.jit(jax.value_and_grad(objective, has_aux=True))
    (loss, logits), ours = run(params)
    return [
        near("logits", logits, arrays["logits"]),
        near("loss", loss, arrays["loss"]),
        *_compare_gradients(record, jax.device_get(ours)),
    ]


def _compare_gradients(record: Recorded, ours: PyTree) -> list[Check]:
    arrays, arch, _ = record
    if not arch.tied and "grad/lm_head.weight" not in arrays:
        ours = dict(ours)
        ours["embedding"] = ours["embedding"] + ours.pop("output")
        arch = dataclasses.replace(arch, tied=True)
    tensors = hf.to_tensors(hf.Weights(arch, ours))
    return [
        near(f"grad/{name}", array, arrays[f"grad/{name}"], GRADIENT)
        for name, array in tensors.items()
    ]


def _all_items(record: Recorded) -> list[Check]:
    """Checks the log-probability of every item for every user."""
    arrays, arch, params = record
    items = jnp.asarray(arrays["catalogue_tokens"], jnp.int32)
    answers = jnp.pad(items, ((0, 0), (0, 1)), constant_values=beam.END)

    def one_user(params: PyTree, tokens: Int[Array, "L"]) -> Float[Array, "N"]:
        rows = jnp.broadcast_to(tokens[None], (len(items), len(tokens)))
        decoder_tokens = t5.shift_right(answers)
        logits = t5.T5(arch).apply({"params": params}, rows, decoder_tokens)
        logs = jax.nn.log_softmax(jnp.asarray(logits), axis=-1)
        return jnp.sum(jnp.take_along_axis(logs, answers[..., None], 2)[..., 0], axis=1)

    @jax.jit
    def every_user(params: PyTree, rows: Int[Array, "U L"]) -> Float[Array, "U N"]:
        return lax.map(functools.partial(one_user, params), rows)

    ours = every_user(params, _tokens(record))
    return [near("exhaustive_logprob", ours, arrays["exhaustive_logprob"])]


def _searches(record: Recorded) -> list[Check]:
    """Checks the search with each recorded number of beams."""
    arrays, checks = record.arrays, []
    tokens = _level_tokens(record)
    codes = arrays["catalogue_codes"].astype(np.int64)
    built = trie.build(codes, tuple(map(len, tokens)))
    index = constraint.make_index(built, tokens)
    counts = [int(match[1]) for match in map(_SEARCH.fullmatch, arrays) if match]
    for count in sorted(counts):
        settings = beam.settings(record.arch, built, num_beams=count)
        beams = _search(record, index, settings)
        wanted = arrays[f"beam{count}/sequences"]
        scores = arrays.get(f"beam{count}/scores", np.zeros(wanted.shape[:2]))
        valid = scores > _NO_BEAM
        checks.append(exact(f"beam{count}/valid", beams.valid, valid))
        if not checks[-1].ok:
            continue
        ours = _sequences(tokens, np.asarray(beams.codes))
        checks.append(exact(f"beam{count}/sequences", ours[valid], wanted[valid]))
        if f"beam{count}/scores" in arrays:
            ours = np.asarray(beams.scores)[valid]
            checks.append(near(f"beam{count}/scores", ours, scores[valid]))
    return checks


def _search(
    record: Recorded, index: constraint.Index, settings: beam.Search
) -> beam.Beams:
    """Returns as many beams as recorded; those beyond the catalogue are invalid."""
    search = jax.jit(beam.search, static_argnames="settings")
    index = jax.tree.map(jnp.asarray, index)
    beams = search(record.params, _tokens(record), index, settings)
    missing = ((0, 0), (0, settings.num_beams - beams.valid.shape[1]))
    return beams._replace(
        codes=jnp.pad(beams.codes, (*missing, (0, 0)), constant_values=-1),
        scores=jnp.pad(beams.scores, missing, constant_values=beam.INVALID),
        valid=jnp.pad(beams.valid, missing),
    )


def _sequences(level_tokens, codes) -> Int[np.ndarray, "U S T"]:
    """Returns decoder outputs: the start token, the tokens of the codes, the end."""
    columns = [
        tokens[np.maximum(codes[..., level], 0)]
        for level, tokens in enumerate(level_tokens)
    ]
    tokens = np.stack(columns, axis=-1)
    first, last = np.zeros_like(tokens[..., :1]), np.ones_like(tokens[..., :1])
    return np.concatenate([first, tokens, last * beam.END], axis=-1)


def check_ensemble(arrays: Arrays) -> list[Check]:
    """Checks the metrics of MQL4GRec's merged lists, and of the text lists alone."""
    names = [str(name).replace("hit@", "hr@") for name in arrays["metric_names"]]
    text, image = (
        ranking.Lists(arrays[f"{name}_items"], arrays[f"{name}_scores"])
        for name in ("text", "image")
    )
    merged = ensemble.mql4grec(text, image, keep=text.items.shape[1])
    checks = []
    for name, lists in (("metrics", merged), ("text_only_metrics", text)):
        matches = metrics.match(lists.items, arrays["target"])
        values = metrics.per_user(matches, names)
        for metric, recorded in zip(names, arrays[name], strict=True):
            ours = np.mean(values[metric])
            checks.append(near(f"{name} {metric}", ours, np.asarray(recorded)))
    return checks
