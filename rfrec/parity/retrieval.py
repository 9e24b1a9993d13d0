# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of a recorded T5 with its constrained beam search, and of an ensemble.

The records' names are those of `third_party/golden/README.md`. Sizes come from the
arrays: any number of layers, levels, items, users and beams.
"""

import dataclasses
import functools
import json
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from rfrec.codes import trie
from rfrec.config import UserError
from rfrec.evaluation import metrics, ranking
from rfrec.parity import arrays as golden
from rfrec.parity.arrays import Arrays, Check, exact, near
from rfrec.retrieval import beam, constraint, ensemble, hf, t5
from rfrec.typing import PyTree

_FIXED = (
    *("input_ids", "attention_mask", "labels", "logits", "loss"),
    *("catalogue_codes", "catalogue_tokens", "exhaustive_logprob"),
)
_BEAMS = re.compile(r"beam([1-9]\d*)/(sequences|scores)")
# The label that counts for nothing.
_IGNORED = -100
# Where a search has found less than it was asked for, its scores are below.
_NO_BEAM = -1e8


class _Recorded(NamedTuple):
    """A record, its model in our layout, and its catalogue.

    Attributes:
      arrays: As recorded.
      weights: Of the model.
      tokens: Of the histories; 0 where they were masked.
      sizes: Codes of each level.
      level_tokens: Token of each code, one array a level.
    """

    arrays: Arrays
    weights: hf.Weights
    tokens: Int[Array, "U L"]
    sizes: tuple[int, ...]
    level_tokens: tuple[Int[np.ndarray, "_"], ...]


def is_t5(arrays: Arrays) -> bool:
    """Whether this is a record of a T5."""
    return "config" in arrays and any(name.startswith("hf/") for name in arrays)


def check_t5(arrays: Arrays) -> list[Check]:
    """Runs all checks of a record."""
    record = _understand(arrays)
    return [*_gradients(record), *_all_items(record), *_searches(record)]


def _understand(arrays: Arrays) -> _Recorded:
    """Refuses what does not fit together."""
    arrays = dict(arrays)
    config = _config(arrays.pop("config"))
    tensors = {n[3:]: a for n, a in arrays.items() if n.startswith("hf/")}
    searches = {n for n in arrays if _BEAMS.fullmatch(n)}
    gradients = {n for n in arrays if n.startswith("grad/")}
    golden.expect(
        arrays,
        {f"hf/{name}" for name in tensors}.union(_FIXED),
        allowed=searches | gradients,
    )
    weights = hf.build(config, tensors)
    wanted = {f"grad/{name}" for name in hf.names(weights.arch)}
    # The output of a model that is tied, but not scaled, has no gradient of its own.
    for name in sorted(wanted - gradients - {"grad/lm_head.weight"}):
        raise UserError(f"array {name!r} is missing")
    for name in sorted(gradients - wanted):
        raise UserError(f"array {name!r} is not understood")
    for name in wanted & gradients:
        golden.expect_shape(arrays, name, tensors[name[5:]].shape)
    tokens = _check_shapes(arrays, weights.arch, searches)
    sizes = tuple(int(n) + 1 for n in arrays["catalogue_codes"].max(axis=0))
    return _Recorded(arrays, weights, tokens, sizes, _level_tokens(arrays, sizes))


def _config(array: np.ndarray) -> dict:
    try:
        content = json.loads(str(array))
    except (ValueError, RecursionError) as error:
        raise UserError(f"array 'config' is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError("array 'config' is no JSON object")
    return content


def _check_shapes(
    arrays: Arrays, arch: t5.Architecture, searches: set[str]
) -> Int[Array, "U L"]:
    """Checks sizes and token numbers; returns the histories."""
    golden.expect_shape(arrays, "input_ids", (None, None))
    golden.expect_shape(arrays, "attention_mask", arrays["input_ids"].shape)
    golden.expect_shape(arrays, "catalogue_codes", (None, None))
    users, (items, levels) = len(arrays["input_ids"]), arrays["catalogue_codes"].shape
    golden.expect_shape(arrays, "catalogue_tokens", (items, levels))
    golden.expect_shape(arrays, "labels", (users, None))
    shape = (*arrays["labels"].shape, arch.vocab_size)
    golden.expect_shape(arrays, "logits", shape)
    golden.expect_shape(arrays, "loss", ())
    golden.expect_shape(arrays, "exhaustive_logprob", (users, items))
    golden.expect_codes(arrays, "catalogue_codes", (2**31 - 1,) * levels)
    for name in ("input_ids", "labels", "catalogue_tokens", *sorted(searches)):
        if not name.endswith("/scores"):
            _expect_tokens(arrays, name, arch.vocab_size)
    for name in searches:
        count, kind = _BEAMS.fullmatch(name).groups()  # type: ignore[union-attr]
        more = (levels + 2,) if kind == "sequences" else ()
        golden.expect_shape(arrays, name, (users, int(count), *more))
        if f"beam{count}/sequences" not in arrays:
            raise UserError(f"array 'beam{count}/sequences' is missing")
    seen = arrays["attention_mask"] > 0
    if (seen & (arrays["input_ids"] == 0)).any() or not seen.any(axis=1).all():
        raise UserError("array 'attention_mask': a history is empty, or shows padding")
    return jnp.asarray(arrays["input_ids"] * seen, jnp.int32)


def _expect_tokens(arrays: Arrays, name: str, vocab_size: int) -> None:
    array = arrays[name]
    if array.dtype.kind not in "iu":
        raise UserError(f"array {name!r} of type {array.dtype} holds no tokens")
    inside = (array >= 0) & (array < vocab_size)
    if name == "labels":
        inside |= array == _IGNORED
    if not inside.all():
        raise UserError(f"array {name!r} has tokens outside 0..{vocab_size - 1}")


def _level_tokens(
    arrays: Arrays, sizes: tuple[int, ...]
) -> tuple[Int[np.ndarray, "_"], ...]:
    """Returns the token of each code; 0 for codes that no item has."""
    columns = []
    pairs = zip(arrays["catalogue_codes"].T, arrays["catalogue_tokens"].T, strict=True)
    for level, (codes, tokens) in enumerate(pairs):
        column = np.zeros(sizes[level], np.int32)
        column[codes] = tokens
        if (column[codes] != tokens).any():
            raise UserError(
                f"array 'catalogue_tokens': a code of level {level} has two tokens"
            )
        columns.append(column)
    return tuple(columns)


def _gradients(record: _Recorded) -> list[Check]:
    """Checks a pass with the recorded labels, and the gradient of its loss."""
    arrays, (arch, params) = record.arrays, record.weights
    labels = jnp.asarray(arrays["labels"], jnp.int32)

    def objective(params: PyTree):
        counted = labels != _IGNORED
        answers = jnp.where(counted, labels, 0)
        logits = t5.T5(arch).apply(
            {"params": params}, record.tokens, t5.shift_right(answers)
        )
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


def _compare_gradients(record: _Recorded, ours: PyTree) -> list[Check]:
    arrays, arch = record.arrays, record.weights.arch
    if not arch.tied and "grad/lm_head.weight" not in arrays:
        ours = dict(ours)
        ours["embedding"] = ours["embedding"] + ours.pop("output")
        arch = dataclasses.replace(arch, tied=True)
    tensors = hf.to_tensors(hf.Weights(arch, ours))
    return [
        near(f"grad/{name}", array, arrays[f"grad/{name}"], golden.GRADIENT)
        for name, array in tensors.items()
    ]


def _all_items(record: _Recorded) -> list[Check]:
    """Checks the log-probability of every item for every user."""
    arrays, (arch, params) = record.arrays, record.weights
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

    ours = every_user(params, record.tokens)
    return [near("exhaustive_logprob", ours, arrays["exhaustive_logprob"])]


def _searches(record: _Recorded) -> list[Check]:
    """Checks the search with each recorded number of beams."""
    arrays, checks = record.arrays, []
    built = trie.build(arrays["catalogue_codes"].astype(np.int64), record.sizes)
    index = constraint.make_index(built, record.level_tokens)
    counts = [m[1] for m in map(_BEAMS.fullmatch, arrays) if m and m[2] == "sequences"]
    for count in sorted(counts, key=int):
        settings = beam.settings(record.weights.arch, built, num_beams=int(count))
        found = _search(record, index, settings)
        wanted = arrays[f"beam{count}/sequences"]
        scores = arrays.get(f"beam{count}/scores", np.zeros(wanted.shape[:2]))
        valid = scores > _NO_BEAM
        checks.append(exact(f"beam{count}/valid", found.valid, valid))
        if not checks[-1].ok:
            continue
        ours = _sequences(record, np.asarray(found.codes))
        checks.append(exact(f"beam{count}/sequences", ours[valid], wanted[valid]))
        if f"beam{count}/scores" in arrays:
            ours = np.asarray(found.scores)[valid]
            checks.append(near(f"beam{count}/scores", ours, scores[valid]))
    return checks


def _search(
    record: _Recorded, index: constraint.Index, settings: beam.Search
) -> beam.Beams:
    """Returns as many beams as were recorded, those beyond the catalogue invalid."""
    search = jax.jit(beam.search, static_argnames="settings")
    index = jax.tree.map(jnp.asarray, index)
    found = search(record.weights.params, record.tokens, index, settings)
    missing = ((0, 0), (0, settings.num_beams - found.valid.shape[1]))
    return found._replace(
        codes=jnp.pad(found.codes, (*missing, (0, 0)), constant_values=-1),
        scores=jnp.pad(found.scores, missing, constant_values=beam.INVALID),
        valid=jnp.pad(found.valid, missing),
    )


def _sequences(record: _Recorded, codes) -> Int[np.ndarray, "U S T"]:
    """Returns what a decoder writes: the start, the tokens of the codes, the end."""
    columns = [
        tokens[np.maximum(codes[..., level], 0)]
        for level, tokens in enumerate(record.level_tokens)
    ]
    tokens = np.stack(columns, axis=-1)
    first, last = np.zeros_like(tokens[..., :1]), np.ones_like(tokens[..., :1])
    return np.concatenate([first, tokens, last * beam.END], axis=-1)


_LISTS = ("text_items", "text_scores", "image_items", "image_scores")


def is_ensemble(arrays: Arrays) -> bool:
    """Whether this is a record of MQL4GRec's ensemble."""
    return "text_items" in arrays and "image_items" in arrays


def check_ensemble(arrays: Arrays) -> list[Check]:
    """Checks the metrics of the merged lists, and of the text lists alone."""
    arrays = dict(arrays)
    names = arrays.pop("metric_names", None)
    if names is None:
        raise UserError("array 'metric_names' is missing")
    names = [str(name).replace("hit@", "hr@") for name in names.ravel()]
    golden.expect(arrays, (*_LISTS, "target", "metrics", "text_only_metrics"))
    golden.expect_shape(arrays, "text_items", (None, None))
    golden.expect_shape(arrays, "text_scores", arrays["text_items"].shape)
    users, length = arrays["text_items"].shape
    golden.expect_shape(arrays, "image_items", (users, None))
    golden.expect_shape(arrays, "image_scores", arrays["image_items"].shape)
    golden.expect_shape(arrays, "target", (users,))
    for name in ("metrics", "text_only_metrics"):
        golden.expect_shape(arrays, name, (len(names),))
    for name in ("text_items", "image_items", "target"):
        if arrays[name].dtype.kind not in "iu":
            raise UserError(f"array {name!r} of type {arrays[name].dtype}: no items")
    text, image = (
        ranking.Lists(arrays[f"{name}_items"], arrays[f"{name}_scores"])
        for name in ("text", "image")
    )
    merged = ensemble.mql4grec(text, image, keep=length)
    checks = []
    for part, lists in (("metrics", merged), ("text_only_metrics", text)):
        found = metrics.match(lists.items, arrays["target"])
        values = metrics.per_user(found, names)
        for name, recorded in zip(names, arrays[part], strict=True):
            ours = np.mean(values[name])
            checks.append(near(f"{part} {name}", ours, np.asarray(recorded)))
    return checks
