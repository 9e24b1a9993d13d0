# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of MMRec's metrics on recorded ranked lists."""

import numpy as np
from jaxtyping import Int

from rfrec.evaluation import metrics
from rfrec.parity.arrays import Arrays, Check, near

_METRICS = ("recall", "ndcg", "precision", "map")


def check_metrics(arrays: Arrays) -> list[Check]:
    """Checks each metric at all recorded cut-offs, from 1 to the length of a list."""
    top = arrays["top"]
    matches = metrics.match_rows(top, *_positives(arrays["pos"]))
    cutoffs = range(1, top.shape[1] + 1)
    checks = []
    for name in _METRICS:
        values = metrics.per_user(matches, [f"{name}@{k}" for k in cutoffs])
        ours = [np.mean(value) for value in values.values()]
        checks.append(near(f"{name}@1..{len(ours)}", ours, arrays[name]))
    return checks


def _positives(
    lines: np.ndarray,
) -> tuple[Int[np.ndarray, "U1"], Int[np.ndarray, "E"]]:
    """Parses the relevant items, one comma-separated line for each user, into CSR."""
    rows = [sorted({int(item) for item in str(line).split(",")}) for line in lines]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return indptr, np.concatenate(rows).astype(np.int64)
