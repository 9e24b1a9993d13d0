# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Values by user in; means with bootstrap intervals out.

Users are drawn with replacement and the percentiles of the means taken (Efron 1979),
by scipy. What a system gains over another is judged on the differences by user, which
are far less scattered than the two systems' own values.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from rfrec.config import UserError

# Values drawn at a time: bounds the memory.
_DRAWN = 2**21


class Interval(NamedTuple):
    """A mean over users, and where it lies.

    Attributes:
      mean: None without users.
      low: Lower end of the interval; None with fewer than two users.
      high: Upper end.
      users: That have a value.
    """

    mean: float | None
    low: float | None
    high: float | None
    users: int


def interval(
    values: Float[np.ndarray, " U"],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Returns the mean of values and its bootstrap interval.

    Args:
      values: One for each user; NaN is left out.
      level: Of confidence, in (0, 1).
      resamples: Number of samples drawn, at least 1.
      seed: Equal seeds give equal intervals.
    """
    values = values[~np.isnan(values)].astype(np.float64)
    if len(values) < 2:
        mean = float(values[0]) if len(values) else None
        return Interval(mean, None, None, len(values))
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _DRAWN // len(values)),
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    mean = float(values.mean())
    return Interval(mean, float(found.low), float(found.high), len(values))


def difference(
    ours: Float[np.ndarray, " U"],
    theirs: Float[np.ndarray, " V"],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Returns the mean of `ours - theirs` over the same users, and its interval.

    An interval that does not hold 0 says that the systems differ.

    Args:
      ours: One value for each user.
      theirs: Values of the same users in the same order.
      level: As of `interval`.
      resamples: As of `interval`.
      seed: As of `interval`.

    Raises:
      UserError: The numbers of users differ.
    """
    if len(ours) != len(theirs):
        raise UserError(
            f"a paired comparison of {len(ours)} and {len(theirs)} users: both systems"
            " need the same users in the same order"
        )
    return interval(ours - theirs, level=level, resamples=resamples, seed=seed)
