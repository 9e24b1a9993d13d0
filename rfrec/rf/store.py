# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A generator in a folder, by orbax: its state, and what it is the state of."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rfrec.config import UserError
from rfrec.rf.settings import Settings
from rfrec.typing import PyTree

# What may be another at loading: it changes how a generator goes on, not what it is.
_FREE = {
    *("loss", "loss_weight", "dropout", "time_law", "lr", "weight_decay"),
    *("contrast", "contrast_weight", "contrast_temp", "negatives"),
    *("user_guidance_scale", "guidance_decay_power", "guided_sampling"),
    *("cosine_guidance_scale", "cosine_decay_power", "guidance_weight"),
    *("guidance_interval", "sampling_steps", "solver", "rtol", "atol", "noise"),
    *("draws", "mixing", "mix_ratio", "inference_mix_ratio", "inference_choices"),
    *("warmup_epochs", "rows", "heldout_share", "reflow", "reflow_steps"),
    *("teacher_steps", "attach_target", "attach_conditions", "attach_generated"),
    *("optimizer", "generators"),
}


def _manager(path: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=1, enable_async_checkpointing=False
    )
    return ocp.CheckpointManager(path.expanduser().absolute(), options=options)


def save(path: Path, state: PyTree, notes: dict[str, Any]) -> None:
    """Stores a state whole or not at all; what stood there is removed afterwards.

    Args:
      path: Folder.
      state: Arrays.
      notes: JSON values beside it.

    Raises:
      UserError: The folder cannot be written.
    """
    try:
        with _manager(path) as manager:
            last = manager.latest_step()
            manager.save(
                0 if last is None else last + 1,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(jax.tree.map(np.asarray, state)),
                    notes=ocp.args.JsonSave(notes),
                ),
            )
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def read_notes(path: Path) -> dict[str, Any]:
    """Returns what was noted beside a stored state.

    Raises:
      UserError: There is none, or it cannot be read.
    """
    wanted = ocp.args.Composite(notes=ocp.args.JsonRestore())
    return _restore(path, wanted)["notes"]


def restore(path: Path, template: PyTree) -> PyTree:
    """Returns a stored state with the structure of `template`.

    Raises:
      UserError: It cannot be read, or holds other arrays.
    """
    target = jax.tree.map(np.asarray, template)
    wanted = ocp.args.Composite(state=ocp.args.StandardRestore(target))
    return jax.tree.map(jax.numpy.asarray, _restore(path, wanted)["state"])


def _restore(path: Path, wanted: ocp.args.Composite):
    # Opening would make a folder that is not there.
    if not path.expanduser().is_dir():
        raise UserError(f"{path} does not exist: give the folder of a saved generator")
    try:
        with _manager(path) as manager:
            last = manager.latest_step()
            if last is None:
                raise UserError(f"{path} holds no generator: give the folder of one")
            return manager.restore(last, args=wanted)
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"{path} cannot be read as a generator ({reason}): save it again"
        ) from error


def check_notes(
    path: Path, notes: dict[str, Any], embedding_dim: int, settings: Settings
) -> None:
    """Refuses a stored generator that is another.

    Raises:
      UserError: Names the first switch that differs.
    """
    own = {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if name not in _FREE
    }
    pairs = [("embedding_dim", embedding_dim, notes["embedding_dim"])]
    pairs += [(name, own[name], notes["settings"].get(name)) for name in own]
    for name, here, there in pairs:
        if here != there:
            raise UserError(
                f"{path} holds a generator with {name}={there}, this one has"
                f" {name}={here}: make it with {name}={there}"
            )
