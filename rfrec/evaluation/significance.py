# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Means over users or seeds with their intervals, and paired tests.

Intervals are percentiles of means over users drawn with replacement (Efron 1979, by
SciPy). Two systems are compared by their differences for each user, which vary far less
than the values of either system.
"""

from typing import NamedTuple

import numpy as np
import scipy  # scipy.stats is slow to import and is loaded on first use.
from jaxtyping import Float

from rfrec.config import UserError

# Number of values drawn at a time, which limits the memory.
_DRAWN = 2**21
# Differences are rounded to this many decimals of the largest one before they are
# ranked: equal differences that were computed in two ways (1 - 2/3 and 1/3) differ in
# their last bits and would not be ties.
_DECIMALS = 12


class Paired(NamedTuple):
    """Difference of two systems on the same users.

    Attributes:
      mean: Mean of the differences; None without users.
      low: Lower end of its bootstrap interval; None with fewer than two users.
      high: Upper end of the interval.
      users: Number of users with a value in both systems.
      p_t: P value of the two-sided paired t-test; 1 if no user differs.
      p_wilcoxon: P value of the two-sided Wilcoxon signed-rank test; 1 if no user
        differs.
    """

    mean: float | None
    low: float | None
    high: float | None
    users: int
    p_t: float | None
    p_wilcoxon: float | None


class Interval(NamedTuple):
    """Mean over users, with its interval.

    Attributes:
      mean: Mean; None without users.
      low: Lower end of the interval; None with fewer than two users.
      high: Upper end of the interval.
      users: Number of users with a value.
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
      values: Value of each user; NaN is left out.
      level: Confidence level, in (0, 1).
      resamples: Number of resamples, at least 1.
      seed: Seed of the resampling.
    """
    values = values[~np.isnan(values)].astype(np.float64)
    if len(values) < 2:
        mean = float(values[0]) if len(values) else None
        return Interval(mean, None, None, len(values))
    bounds = scipy.stats.bootstrap(
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
    return Interval(mean, float(bounds.low), float(bounds.high), len(values))


def difference(
    ours: Float[np.ndarray, " U"],
    theirs: Float[np.ndarray, " V"],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Returns the mean of `ours - theirs` over the same users, and its interval.

    If the interval does not contain 0, the systems differ.

    Args:
      ours: Value of each user.
      theirs: Values of the same users in the same order.
      level: Confidence level, in (0, 1).
      resamples: Number of resamples, at least 1.
      seed: Seed of the resampling.

    Raises:
      UserError: The numbers of users differ.
    """
    if len(ours) != len(theirs):
        raise UserError(
            f"cannot compare {len(ours)} with {len(theirs)} users: both systems need"
            " the same users in the same order"
        )
    return interval(ours - theirs, level=level, resamples=resamples, seed=seed)


def paired(
    ours: Float[np.ndarray, " U"],
    theirs: Float[np.ndarray, " V"],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Paired:
    """Returns `difference` with two paired tests.

    The t-test is on the mean (Student 1908). The signed-rank test does not depend on
    the distribution of the differences and leaves out users without one (Wilcoxon
    1945).

    Args:
      ours: Value of each user.
      theirs: Values of the same users in the same order.
      level: Confidence level, in (0, 1).
      resamples: Number of resamples, at least 1.
      seed: Seed of the resampling.

    Raises:
      UserError: The numbers of users differ.
    """
    mean = difference(ours, theirs, level=level, resamples=resamples, seed=seed)
    if mean.users < 2:
        return Paired(*mean, None, None)
    gain = ours - theirs
    gain = gain[~np.isnan(gain)].astype(np.float64)
    largest = np.abs(gain).max()
    if not largest:
        return Paired(*mean, 1.0, 1.0)
    gain = np.round(gain / largest, _DECIMALS)
    # If all differences are equal, SciPy returns no t statistic.
    p_t = scipy.stats.ttest_1samp(gain, 0.0).pvalue if np.ptp(gain) else 0.0
    p_wilcoxon = scipy.stats.wilcoxon(gain[gain != 0]).pvalue
    return Paired(*mean, float(p_t), float(p_wilcoxon))


def over_seeds(
    values: Float[np.ndarray, " S"], *, level: float = 0.95
) -> tuple[float, float | None]:
    """Returns the mean of a few values and the half width of its t interval.

    Args:
      values: Value of each seed.
      level: Confidence level, in (0, 1).

    Returns:
      The mean, and the half width (Student 1908), None with one value.
    """
    if len(values) == 1:
        return float(values[0]), None
    quantile = float(scipy.stats.t.ppf((1 + level) / 2, len(values) - 1))
    return float(values.mean()), quantile * float(scipy.stats.sem(values))
