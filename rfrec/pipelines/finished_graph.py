# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Takes the best checkpoint of a finished run, to be ranked or drawn once more."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.data.pairs import GraphData
from rfrec.graph import gume, rf_gume, training
from rfrec.pipelines import graph
from rfrec.rf import settings as rf_settings
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.state import TrainState

# What training does not depend on: how the flow is straightened afterwards, how rows
# are generated and mixed when items are ranked, how lists are judged, where things lie.
FREE = frozenset(
    [
        *("data.path", "graph.cache"),
        *("eval.top_k", "eval.decimals", "eval.cold_share", "eval.cold_below"),
        "eval.resamples",
        *("rf.sampling_steps", "rf.solver", "rf.rtol", "rf.atol", "rf.noise"),
        *("rf.draws", "rf.guidance_weight", "rf.guidance_interval"),
        *("rf.guided_sampling", "rf.inference_mix_ratio", "rf.inference_choices"),
        *("rf.reflow", "rf.reflow_steps", "rf.teacher_steps"),
    ]
)


def check_same(config: ConfigDict, workdir: Path) -> None:
    """Checks that a config describes how a run was trained.

    Args:
      config: May differ in `FREE`.
      workdir: Of the run.

    Raises:
      UserError: There is no run, or it was trained otherwise; names the keys.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: name the folder of a finished run of"
            " rfrec.launch.gume, or of its seeds with --seeds"
        )
    stored = cfg.as_json(cfg.read_config(path))
    keys = set(cfg.differing_keys(stored, cfg.as_json(config))) - FREE
    if keys:
        raise UserError(
            f"{workdir} was trained with another config, which differs in"
            f" {', '.join(sorted(keys))}: use its values"
        )


def best(trainer: training.Trainer, seed: int, workdir: Path) -> tuple[TrainState, int]:
    """Returns the state that validation chose, on the host, and its step.

    Args:
      trainer: Of the run's config.
      seed: Of the run.
      workdir: Of the run, which is only read.

    Raises:
      UserError: Nothing is stored, it is damaged, or the data is another.
    """
    checkpoints = Checkpoints(workdir, highest=(training.CRITERION,), read_only=True)
    try:
        step = checkpoints.best(training.CRITERION)
        if step is None:
            raise UserError(f"{workdir} holds no checkpoint yet: let the run go on")
        restored = checkpoints.restore(step, trainer.init(seed))
    finally:
        checkpoints.close()
    if restored.notes.get("data") != trainer.fingerprint:
        raise UserError(
            f"the pairs or features are not those that {workdir} was trained on:"
            " restore them"
        )
    return restored.state, step


class HostSides(NamedTuple):
    """Embeddings of all users, and of all items, on the host."""

    users: Float[np.ndarray, "U D"]
    items: Float[np.ndarray, "I D"]


class Finished(NamedTuple):
    """A run that has ended, or that has at least stored something.

    Attributes:
      config: Of the run.
      data: That it was trained on.
      trainer: Of the config.
      state: Placed, at the step that validation chose, refined.
    """

    config: ConfigDict
    data: GraphData
    trainer: training.Trainer
    state: TrainState

    def generated_and_behaviour(self) -> tuple[HostSides, HostSides]:
        """Returns generated H, and H itself; of a run with the flow."""
        arch = graph.architecture(self.config, self.data)
        flow = rf_settings.from_section(self.config.rf)
        program = jax.jit(
            lambda state, constants: rf_gume.generated_and_target(
                arch, flow, state.params, state.model_state, constants
            )
        )
        made, known = jax.device_get(program(self.state, self.trainer.constants))
        return HostSides(*made), HostSides(*known)

    def behaviour(self) -> HostSides:
        """Returns H of users and of items; of any run of GUME."""
        arch = graph.architecture(self.config, self.data)
        program = jax.jit(
            lambda state, constants: gume.propagate(
                arch,
                state.params,
                constants.graphs,
                constants.features,
                interest=False,
            )
        )
        found = jax.device_get(program(self.state, self.trainer.constants))
        return HostSides(*(side.convolved[:, 0] for side in found))


def open_run(
    workdir: Path, change: Callable[[ConfigDict], None] = lambda config: None
) -> Finished:
    """Loads a run with its data.

    Args:
      workdir: Of the run, which is only read.
      change: Changes the run's config in `FREE` keys, before anything is built.

    Raises:
      UserError: There is no run, its data is not there, or a checkpoint is damaged.
    """
    config = copy.deepcopy(cfg.read_config(workdir / "config.json"))
    change(config)
    graph.check(config)
    data = graph.load(config)
    trainer = graph.make_trainer(config, data)
    state, _ = best(trainer, config.seed, workdir)
    placed = training.Run(trainer).refine(trainer.engine.replicate(state))
    return Finished(config, data, trainer, placed)
