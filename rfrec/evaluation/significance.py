# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Values by user or by seed in; means with their intervals out.

Users are drawn with replacement and the percentiles of the means taken (Efron 1979),
by scipy. What a system gains over another is judged on the differences by user, which
are far less scattered than the two systems' own values.
"""

from typing import NamedTuple

import numpy as np
import scipy  # Which loads scipy.stats, slow to load, where it is first used.
from jaxtyping import Float

from rfrec.config import UserError

# Values drawn at a time: bounds the memory.
_DRAWN = 2**21
# Decimals, of the largest difference, by which differences are ranked. Equal ones that
# were computed in other ways differ in their last bits (1 - 2/3 and 1/3): they would
# not be tied as they are, and all of one kind would stand before all of another.
_DECIMALS = 12


class Paired(NamedTuple):
    """How two systems differ over the same users.

    Attributes:
      mean: Of the differences; None without users.
      low: Lower end of their bootstrap interval; None with fewer than two users.
      high: Upper end.
      users: That have a value in both.
      p_t: Of the two-sided paired t-test; 1 where no user differs.
      p_wilcoxon: Of the two-sided Wilcoxon signed-rank test; 1 where no user differs.
    """

    mean: float | None
    low: float | None
    high: float | None
    users: int
    p_t: float | None
    p_wilcoxon: float | None


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
    found = scipy.stats.bootstrap(
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


def paired(
    ours: Float[np.ndarray, " U"],
    theirs: Float[np.ndarray, " V"],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Paired:
    """Returns `difference` with two paired tests.

    The t-test judges the mean (Student 1908); the signed-rank test does not mind how
    differences are distributed, and leaves out users without one (Wilcoxon 1945).

    Args:
      ours: As of `difference`.
      theirs: As of `difference`.
      level: As of `interval`.
      resamples: As of `interval`.
      seed: As of `interval`.

    Raises:
      UserError: The numbers of users differ.
    """
    found = difference(ours, theirs, level=level, resamples=resamples, seed=seed)
    if found.users < 2:
        return Paired(*found, None, None)
    gain = ours - theirs
    gain = gain[~np.isnan(gain)].astype(np.float64)
    largest = np.abs(gain).max()
    if not largest:
        return Paired(*found, 1.0, 1.0)
    gain = np.round(gain / largest, _DECIMALS)
    # Where all users gain the same, SciPy has no t.
    p_t = scipy.stats.ttest_1samp(gain, 0.0).pvalue if np.ptp(gain) else 0.0
    p_wilcoxon = scipy.stats.wilcoxon(gain[gain != 0]).pvalue
    return Paired(*found, float(p_t), float(p_wilcoxon))


def over_seeds(
    values: Float[np.ndarray, " S"], *, level: float = 0.95
) -> tuple[float, float | None]:
    """Returns the mean of few values and the half width of its t interval.

    Args:
      values: One for each seed.
      level: Of confidence, in (0, 1).

    Returns:
      The mean; the half width (Student 1908), None with one value.
    """
    if len(values) == 1:
        return float(values[0]), None
    quantile = float(scipy.stats.t.ppf((1 + level) / 2, len(values) - 1))
    return float(values.mean()), quantile * float(scipy.stats.sem(values))
