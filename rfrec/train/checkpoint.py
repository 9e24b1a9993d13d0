# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run, by orbax: the latest, and the best by each criterion."""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from rfrec.config import UserError
from rfrec.train.state import TrainState
from rfrec.typing import PyTree

# Size of the metrics of a checkpoint that was not evaluated: never the best.
_WORST = 1e30


class Restored(NamedTuple):
    """A state read back, the step it was stored at, and what was noted with it."""

    state: TrainState
    step: int
    notes: dict[str, Any]


class Checkpoints:
    """Stores states in `workdir/checkpoints`, keeping the latest and the best.

    A step appears whole or not at all (orbax renames a finished folder), so a kill
    while writing leaves the one before.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        lowest: tuple[str, ...] = (),
        highest: tuple[str, ...] = (),
        read_only: bool = False,
    ):
        """Opens the folder.

        Args:
          workdir: Of the run.
          lowest: Metrics; for each, the checkpoint with the lowest value is kept.
          highest: Metrics of which the highest value is kept. One of the two names at
            least one metric.
          read_only: Whether the run is another's: nothing in its folder changes.
        """
        self._signs = dict.fromkeys(lowest, -1.0) | dict.fromkeys(highest, 1.0)
        best = [
            checkpoint_managers.BestN(
                get_metric_fn=lambda metrics, name=name: self._goodness(name, metrics),
                reverse=False,
                n=1,
            )
            for name in self.criteria
        ]
        policy = checkpoint_managers.AnyPreservationPolicy(
            [checkpoint_managers.LatestN(1), *best]
        )
        try:
            self._manager = ocp.CheckpointManager(
                (workdir / "checkpoints").absolute(),
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=policy,
                    # Only with a best_fn does orbax store metrics; the policy decides.
                    best_fn=lambda metrics: self._goodness(self.criteria[0], metrics),
                    enable_async_checkpointing=not read_only,
                    read_only=read_only,
                ),
            )
        except ValueError as error:
            raise UserError(
                f"the metrics of a checkpoint in {workdir / 'checkpoints'} are damaged"
                f" ({error}): remove the folder of its step"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def criteria(self) -> tuple[str, ...]:
        """Metrics by which a best checkpoint is kept."""
        return tuple(self._signs)

    def _goodness(self, name: str, metrics: dict[str, float]) -> float:
        return self._signs[name] * metrics[name]

    def is_better(self, name: str, value: float, than: float) -> bool:
        """Returns whether a value of a criterion beats another; equal ones do not."""
        return self._signs[name] * value > self._signs[name] * than

    def save(
        self,
        step: int,
        state: PyTree,
        *,
        notes: dict[str, Any],
        metrics: dict[str, float] | None,
    ) -> None:
        """Stores a host state; all processes call it.

        Args:
          step: Steps done.
          state: Arrays on the host.
          notes: JSON values beside it.
          metrics: Values of the criteria; None if the state was not evaluated.
        """
        if step in self._manager.all_steps():
            return
        values = {
            name: float(metrics[name]) if metrics else -sign * _WORST
            for name, sign in self._signs.items()
        }
        self._manager.save(
            step,
            metrics=values,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(notes)
            ),
        )

    def latest(self) -> int | None:
        """Returns the last step stored, None before the first."""
        return self._manager.latest_step()

    def best(self, name: str) -> int | None:
        """Returns the stored step with the best value of a criterion.

        Of equal ones the latest, which has trained longest; the latest of all if none
        was evaluated.
        """
        values = {}
        for step in self._manager.all_steps():
            try:
                metrics = self._manager.metrics(step)
            except ValueError as error:
                raise UserError(
                    f"the metrics of checkpoint {self._manager.directory / str(step)}"
                    " are damaged: remove that folder"
                ) from error
            if metrics and abs(metrics[name]) < _WORST:
                values[step] = self._goodness(name, metrics)
        best = max(values, key=lambda step: (values[step], step), default=None)
        return self.latest() if best is None else best

    def restore(self, step: int, template: PyTree) -> Restored:
        """Reads a state with the structure of `template` (host arrays).

        Raises:
          UserError: The checkpoint holds other arrays, or cannot be read.
        """
        target = jax.tree.map(
            lambda a: np.empty(np.shape(a), np.asarray(a).dtype), template
        )
        try:
            out = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(target),
                    notes=ocp.args.JsonRestore(),
                ),
            )
        except (ValueError, KeyError, TypeError, OSError) as error:
            folder = Path(self._manager.directory) / str(step)
            other = _differing_names(folder, template)
            if other:
                raise UserError(
                    f"checkpoint {folder} is of another model: {other[0]} is in one of"
                    f" the two alone ({len(other)} of such): use that run's config and"
                    " version, or another --workdir"
                ) from error
            reason = str(error).strip().splitlines()[0][:200]
            raise UserError(
                f"checkpoint {folder} cannot be read as this run's ({reason}): remove"
                " that folder, or use another --workdir"
            ) from error
        for name, (stored, wanted) in _differing_shapes(out["state"], template):
            raise UserError(
                f"checkpoint {self._manager.directory / str(step)}: {name} has shape"
                f" {stored}, this config needs {wanted}: use that run's config"
            )
        return Restored(out["state"], step, out["notes"])

    def wait(self) -> None:
        """Blocks until everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and closes the manager."""
        self._manager.close()


class MemoryCheckpoints(Checkpoints):
    """The same in memory, for a run without a folder: nothing survives the process."""

    def __init__(self, *, lowest: tuple[str, ...] = (), highest: tuple[str, ...] = ()):
        """Takes criteria as `Checkpoints` does."""
        self._signs = dict.fromkeys(lowest, -1.0) | dict.fromkeys(highest, 1.0)
        self._stored: dict[int, tuple[PyTree, dict[str, Any], dict | None]] = {}

    def save(
        self,
        step: int,
        state: PyTree,
        *,
        notes: dict[str, Any],
        metrics: dict[str, float] | None,
    ) -> None:
        """Keeps a copy of a host state, and drops what is neither latest nor best."""
        copied = jax.tree.map(np.array, state)
        self._stored[step] = (copied, copy.deepcopy(notes), metrics)
        kept = {step, *(self.best(name) for name in self.criteria)}
        self._stored = {k: v for k, v in self._stored.items() if k in kept}

    def latest(self) -> int | None:
        """Returns the last step stored, None before the first."""
        return max(self._stored, default=None)

    def best(self, name: str) -> int | None:
        """Returns the stored step with the best value of a criterion."""
        values = {
            step: self._goodness(name, metrics)
            for step, (_, _, metrics) in self._stored.items()
            if metrics
        }
        best = max(values, key=lambda step: (values[step], step), default=None)
        return self.latest() if best is None else best

    def restore(self, step: int, template: PyTree) -> Restored:
        """Returns a stored state; the template is not needed."""
        state, notes, _ = self._stored[step]
        return Restored(state, step, notes)

    def wait(self) -> None:
        """Does nothing: everything is stored at once."""

    def close(self) -> None:
        """Does nothing."""


def _differing_names(folder: Path, template: PyTree) -> list[str]:
    """Returns parameters that only a stored state or only the template has.

    Empty where the stored names cannot be read.
    """
    try:
        found = ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree["params"]
    except (ValueError, KeyError, TypeError, OSError):
        return []

    def names(tree: PyTree) -> set[str]:
        flat = jax.tree_util.tree_leaves_with_path(
            tree, is_leaf=lambda x: hasattr(x, "shape")
        )
        return {
            jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in flat
        }

    return sorted(names(found) ^ names(template.params))


def _differing_shapes(stored: PyTree, wanted: PyTree):
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(stored),
        jax.tree.leaves(wanted),
        strict=True,
    )
    for (path, a), b in pairs:
        if np.shape(a) != np.shape(b):
            yield jax.tree_util.keystr(path), (np.shape(a), np.shape(b))
