# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of recorded MMRec metrics: lists and relevant items in, checks out.

The record's names are those of `third_party/golden/README.md`.
"""

import numpy as np
from jaxtyping import Int

from rfrec.config import UserError
from rfrec.evaluation import metrics
from rfrec.parity import arrays as golden
from rfrec.parity.arrays import Arrays, Check, near

# The name of each recorded metric in `metrics.per_user`: the same.
_METRICS = ("recall", "ndcg", "precision", "map")


def is_metrics(arrays: Arrays) -> bool:
    """Whether this is a record of metrics of ranked lists."""
    return "top" in arrays and "pos" in arrays


def check_metrics(arrays: Arrays) -> list[Check]:
    """Checks each metric at all cut-offs that are recorded, from 1 on."""
    arrays = dict(arrays)
    lines = arrays.pop("pos")
    golden.expect(arrays, ("top", *_METRICS))
    golden.expect_shape(arrays, "top", (None, None))
    top = arrays["top"]
    if top.dtype.kind not in "iu":
        raise UserError(f"array 'top' of type {top.dtype} holds no items")
    for name in _METRICS:
        golden.expect_shape(arrays, name, (top.shape[1],))
    indptr, items = _positives(lines, len(top))
    found = metrics.match_rows(top, indptr, items)
    cutoffs = range(1, top.shape[1] + 1)
    checks = []
    for name in _METRICS:
        values = metrics.per_user(found, [f"{name}@{k}" for k in cutoffs])
        ours = [np.mean(value) for value in values.values()]
        checks.append(near(f"{name}@1..{len(ours)}", ours, arrays[name]))
    return checks


def _positives(
    lines: np.ndarray, users: int
) -> tuple[Int[np.ndarray, "U1"], Int[np.ndarray, "E"]]:
    """Reads a line of comma-separated items for each user."""
    if lines.shape != (users,) or lines.dtype.kind != "U":
        raise UserError(f"array 'pos' holds no line of items for each of {users} users")
    try:
        rows = [sorted({int(item) for item in str(line).split(",")}) for line in lines]
    except ValueError as error:
        raise UserError(f"array 'pos' holds a line without items: {error}") from error
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return indptr, np.concatenate(rows).astype(np.int64)
