# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Takes the best checkpoint of a finished run, to be ranked or drawn once more."""

from pathlib import Path

from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.graph import training
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.state import TrainState

# What the parameters do not depend on: how rows are generated and mixed when items are
# ranked, how lists are judged, and where things lie.
FREE = frozenset(
    [
        *("data.path", "graph.cache"),
        *("eval.top_k", "eval.decimals", "eval.cold_share", "eval.resamples"),
        *("rf.sampling_steps", "rf.solver", "rf.rtol", "rf.atol", "rf.noise"),
        *("rf.draws", "rf.guidance_weight", "rf.guidance_interval"),
        *("rf.guided_sampling", "rf.inference_mix_ratio", "rf.inference_choices"),
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
    if restored.notes.get("data") != trainer.split.fingerprint:
        raise UserError(
            f"the pairs are not those that {workdir} was trained on: restore them"
        )
    return restored.state, step
