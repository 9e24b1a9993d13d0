# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Options of the section `train`; each command combines what it offers.

class Train(options.Train, options.DataParallel, options.EarlyStopping): ...
"""

import dataclasses
from typing import Any, Literal

from rfrec import config as cfg
from rfrec.train import loop


@dataclasses.dataclass(frozen=True)
class Train:
    """Training options of every command that trains.

    Attributes:
      epochs: Maximum number of epochs.
      batch_size: Number of rows in a batch, over all devices.
      eval_every: Epochs between evaluations.
      steps_per_call: Maximum number of steps in one call on the devices.
    """

    epochs: int = cfg.option(100, cfg.whole(1))
    batch_size: int = cfg.option(256, cfg.whole(1))
    eval_every: int = cfg.option(1, cfg.whole(1))
    steps_per_call: int = cfg.option(256, cfg.whole(1))

    def schedule(self, steps_per_epoch: int, **more: Any) -> loop.Schedule:
        """Returns the schedule of a training loop.

        Args:
          steps_per_epoch: Number of steps of one epoch.
          **more: Further fields of `loop.Schedule`: `events`, `criterion`, `patience`.
        """
        return loop.Schedule(
            epochs=self.epochs,
            steps_per_epoch=steps_per_epoch,
            steps_per_call=self.steps_per_call,
            eval_every=self.eval_every,
            **more,
        )


@dataclasses.dataclass(frozen=True)
class DataParallel:
    """Data parallelism.

    Attributes:
      engine: How devices share a batch: `pmap`, or `jit` with sharded arrays.
    """

    engine: Literal["pmap", "jit"] = "jit"


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """When training stops before the last epoch.

    Attributes:
      patience: Number of evaluations without a better value of the criterion after
        which training stops; None never stops early.
    """

    patience: int | None = cfg.option(None, cfg.whole(1))
