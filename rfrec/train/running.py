# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run from where it stands in its folder to its end."""

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
    """Trains, or goes on, to the end; returns where it ended.

    What was learned is in the checkpoints.

    Args:
      template: The state before the first step, on the host.
      program: What to run.
      schedule: When.
      engine: Of the program.
      checkpoints: In the run's folder; every process calls this.
      workdir: Folder of the run, for the metrics; None writes none.
      notes: JSON values stored beside every state, such as the fingerprint of the data;
        a run that was begun with others is refused.
      what: Names what the notes tell of.
      place: Puts a host state on the devices; None copies it to each.

    Raises:
      UserError: The run was begun with other notes, or the loss is not finite.
      loop.Preempted: SIGTERM came; the state is stored.
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
    """Returns the state and progress to start from: the latest stored, or the first.

    Arguments as for `train`.

    Raises:
      UserError: The run was begun with other notes.
    """
    step = checkpoints.latest()
    if step is None:
        return template, loop.Progress()
    restored = checkpoints.restore(step, template)
    stored = dict(restored.notes)
    if {name: stored.pop(name) for name in notes} != notes:
        raise UserError(
            f"the {what} are not those this run was trained on: restore them, or use"
            " another --workdir"
        )
    logging.info("resuming at step %d", step)
    return restored.state, loop.Progress(**stored)
