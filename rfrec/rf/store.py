# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Saves a generator in a folder, by orbax: its state and its settings."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.rf.settings import Settings
from rfrec.typing import PyTree

# Settings that may differ at loading: they do not shape the network.
_FREE = cfg.keys_read(Settings, "training") | cfg.keys_read(Settings, "evaluation")


def _manager(path: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=1, enable_async_checkpointing=False
    )
    return ocp.CheckpointManager(path.expanduser().absolute(), options=options)


def save(path: Path, state: PyTree, notes: dict[str, Any]) -> None:
    """Stores a state; one stored before is removed afterwards.

    Args:
      path: Folder to store the state in.
      state: Arrays of the generator.
      notes: JSON values that are stored with the state.

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
    """Returns the notes of a stored state.

    Raises:
      UserError: There is no stored state, or it cannot be read.
    """
    wanted = ocp.args.Composite(notes=ocp.args.JsonRestore())
    return _restore(path, wanted)["notes"]


def restore(path: Path, template: PyTree) -> PyTree:
    """Returns a stored state with the structure of `template`.

    Raises:
      UserError: It cannot be read, or contains other arrays.
    """
    target = jax.tree.map(np.asarray, template)
    wanted = ocp.args.Composite(state=ocp.args.StandardRestore(target))
    return jax.tree.map(jax.numpy.asarray, _restore(path, wanted)["state"])


def _restore(path: Path, wanted: ocp.args.Composite):
    # Opening creates a missing folder.
    if not path.expanduser().is_dir():
        raise UserError(f"{path} does not exist: pass the folder of a saved generator")
    try:
        with _manager(path) as manager:
            last = manager.latest_step()
            if last is None:
                raise UserError(f"{path} contains no generator: pass a saved one")
            return manager.restore(last, args=wanted)
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"{path} cannot be read as a generator ({reason}): save it again"
        ) from error


def check_notes(
    path: Path, notes: dict[str, Any], embedding_dim: int, settings: Settings
) -> None:
    """Refuses a stored generator with another network.

    Raises:
      UserError: Names the first setting that differs.
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
                f"{path} contains a generator with {name}={there}, this one has"
                f" {name}={here}: construct it with {name}={there}"
            )
