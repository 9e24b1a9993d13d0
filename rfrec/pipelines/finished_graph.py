# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads the best checkpoint of a finished run of a graph recommender."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.data.pairs import GraphData
from rfrec.graph import training
from rfrec.graph.model import GUME
from rfrec.graph.rf_gume import RFGume
from rfrec.pipelines import graph
from rfrec.train.state import TrainState


class HostSides(NamedTuple):
    """Embeddings of all users and of all items, on the host."""

    users: Float[np.ndarray, "U D"]
    items: Float[np.ndarray, "I D"]


class Finished(NamedTuple):
    """A run that has stored at least one checkpoint.

    Attributes:
      setup: Config of the run, parsed.
      data: Data that it was trained on.
      trainer: Trainer of the config.
      state: Best state by validation, refined, on the devices.
    """

    setup: graph.Setup
    data: GraphData
    trainer: training.Trainer
    state: TrainState

    @property
    def config(self) -> ConfigDict:
        """Config of the run."""
        return self.setup.config

    def generated_and_behaviour(self) -> tuple[HostSides, HostSides]:
        """Returns generated H and H itself, of a run with the flow."""
        model = self.trainer.model
        assert isinstance(model, RFGume)
        program = jax.jit(
            lambda state, constants: model.generated_and_target(
                state.params, state.model_state, constants
            )
        )
        both = jax.device_get(program(self.state, self.trainer.constants))
        generated, target = both
        return HostSides(*generated), HostSides(*target)

    def behaviour(self) -> HostSides:
        """Returns H of users and of items, of a run of GUME."""
        model = self.trainer.model
        gume = model.base if isinstance(model, RFGume) else model
        assert isinstance(gume, GUME)
        program = jax.jit(
            lambda state, constants: gume.propagate(
                state.params, constants, interest=False
            )
        )
        propagated = jax.device_get(program(self.state, self.trainer.constants))
        return HostSides(*(side.convolved[:, 0] for side in propagated))


def open_run(
    workdir: Path, change: Callable[[ConfigDict], None] = lambda config: None
) -> Finished:
    """Loads a run with its data.

    Args:
      workdir: Folder of the run, which is only read.
      change: Changes keys of the run's config that are in `graph.EVALUATION_KEYS`.

    Raises:
      UserError: There is no run, its data are missing, or a checkpoint is damaged.
    """
    config = copy.deepcopy(cfg.read_config(workdir / "config.json"))
    change(config)
    setup = graph.check(config)
    data = graph.load(setup.options)
    trainer = graph.build_trainer(setup, data)
    state, _ = graph.restore_best(trainer, config.seed, workdir)
    placed = training.Run(trainer).refine(trainer.engine.replicate(state))
    return Finished(setup, data, trainer, placed)
