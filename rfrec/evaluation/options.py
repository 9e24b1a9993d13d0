# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Options of the evaluation that several commands share."""

import dataclasses

from rfrec import config as cfg


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a report states about ranked lists, see `rfrec.evaluation.report.evaluate`.

    Attributes:
      cold_share: Share of the catalogue whose least popular items are cold targets, and
        whose most popular items are popular targets.
      cold_below: Items with fewer occurrences in training are cold; None uses
        `cold_share`.
      resamples: Number of resamples of the bootstrap intervals.
    """

    cold_share: float = cfg.option(
        0.2, cfg.Rule(lambda v: 0 < v <= 0.5, "above 0 and at most 0.5")
    )
    cold_below: int | None = cfg.option(None, cfg.whole(1))
    resamples: int = cfg.option(1000, cfg.whole(1))
