# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains to the end, resuming from the latest checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import logging

from rfrec.config import UserError
from rfrec.train import loop
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.partition import Engine
from rfrec.train.writer import Writer
from rfrec.typing import PyTree


def train(
    template: PyTree,
    program: loop.Program,
    schedule: loop.Schedule,
    *,
    engine: Engine,
    checkpoints: Checkpoints,
    workdir: Path | None,
    notes: dict[str, Any],
    what: str,
    place: Callable[[PyTree], PyTree] | None = None,
) -> loop.Progress:
    """Trains to the end, from the latest checkpoint or the first step.

    The trained state is in the checkpoints.

    Args:
      template: State before the first step, on the host.
      program: Functions that the loop calls.
      schedule: When to evaluate, store and stop.
      engine: Engine of the program.
      checkpoints: Checkpoints of the run; all processes call this function.
      workdir: Folder of the run, for the metrics; None writes none.
      notes: JSON values stored with every state, such as the fingerprint of the data.
        Resuming requires the same values.
      what: Name of what the notes identify, for the error message.
      place: Function that places a host state on the devices; None copies it to each.

    Returns:
      The position at which training ended.

    Raises:
      UserError: The checkpoint has other notes, or a loss or metric is not finite.
      Preempted: The process received SIGTERM; the state is stored.
    """
    state, progress = _resume(template, checkpoints, notes, what=what)
    writer = None
    if workdir is not None and jax.process_index() == 0:
        writer = Writer(workdir, resume_step=progress.step)
    try:
        loop.fit(
            (place or engine.replicate)(state),
            program,
            schedule,
            engine=engine,
            checkpoints=checkpoints,
            writer=writer,
            progress=progress,
            notes=notes,
        )
    finally:
        if writer is not None:
            writer.close()
    return progress


def _resume(
    template: PyTree, checkpoints: Checkpoints, notes: dict[str, Any], *, what: str
) -> tuple[PyTree, loop.Progress]:
    """Returns the state and progress to start from; arguments as for `train`.

    Raises:
      UserError: The checkpoint has other notes.
    """
    step = checkpoints.latest()
    if step is None:
        return template, loop.Progress()
    restored = checkpoints.restore(step, template)
    stored = dict(restored.notes)
    if {name: stored.pop(name) for name in notes} != notes:
        raise UserError(
            f"the {what} are not those on which this run was trained; restore them, or"
            " use another --workdir"
        )
    logging.info("resuming at step %d", step)
    return restored.state, loop.Progress(**stored)
