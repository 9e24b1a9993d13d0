# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run (orbax): the latest, and the best by each criterion."""

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

# Absolute value of the metrics of a checkpoint that was not evaluated.
_WORST = 1e30


class Restored(NamedTuple):
    """A checkpoint.

    Attributes:
      state: State, as host arrays.
      step: Step at which it was stored.
      notes: JSON values stored with it.
    """

    state: TrainState
    step: int
    notes: dict[str, Any]


class Checkpoints:
    """Stores states in `workdir/checkpoints` and keeps the latest and the best.

    A checkpoint is written atomically (orbax renames a finished folder): if the process
    is killed while writing, the previous one remains.
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
          workdir: Folder of the run.
          lowest: Metrics whose lowest value is best. `lowest` and `highest` together
            name at least one metric.
          highest: Metrics whose highest value is best.
          read_only: Whether nothing in the folder may change.

        Raises:
          UserError: A stored checkpoint is damaged.
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
                    # Orbax stores metrics only with a best_fn; the policy decides.
                    best_fn=lambda metrics: self._goodness(self.criteria[0], metrics),
                    enable_async_checkpointing=not read_only,
                    read_only=read_only,
                ),
            )
        except ValueError as error:
            raise UserError(
                f"the metrics of a checkpoint in {workdir / 'checkpoints'} are damaged"
                f" ({error}); remove the folder of its step"
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
          step: Number of steps done.
          state: State, as host arrays.
          notes: JSON values to store with it.
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
        """Returns the last stored step, None if there is none."""
        return self._manager.latest_step()

    def best(self, name: str) -> int | None:
        """Returns the stored step with the best value of a criterion.

        Among equal values it is the latest step; if none was evaluated, it is the
        latest of all.

        Raises:
          UserError: The metrics of a checkpoint are damaged.
        """
        values = {}
        for step in self._manager.all_steps():
            try:
                metrics = self._manager.metrics(step)
            except ValueError as error:
                raise UserError(
                    f"the metrics of checkpoint {self._manager.directory / str(step)}"
                    " are damaged; remove that folder"
                ) from error
            if metrics and abs(metrics[name]) < _WORST:
                values[step] = self._goodness(name, metrics)
        best = max(values, key=lambda step: (values[step], step), default=None)
        return self.latest() if best is None else best

    def restore(self, step: int, template: PyTree) -> Restored:
        """Reads a state.

        Args:
          step: Stored step.
          template: State with the same structure, shapes and types.

        Raises:
          UserError: The checkpoint contains other arrays, or cannot be read.
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
                    f"checkpoint {folder} belongs to another model: {len(other)}"
                    f" parameters exist in only one of the two, such as {other[0]}; use"
                    " that run's config and version, or another --workdir"
                ) from error
            reason = str(error).strip().splitlines()[0][:200]
            raise UserError(
                f"checkpoint {folder} cannot be read ({reason}); remove that folder, or"
                " use another --workdir"
            ) from error
        for name, (stored, wanted) in _differing_shapes(out["state"], template):
            raise UserError(
                f"checkpoint {self._manager.directory / str(step)}: {name} has shape"
                f" {stored}, but this config requires {wanted}; use that run's config"
            )
        return Restored(out["state"], step, out["notes"])

    def wait(self) -> None:
        """Blocks until everything is written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is written, and closes the folder."""
        self._manager.close()


class MemoryCheckpoints(Checkpoints):
    """Checkpoints in memory, for a run without a folder."""

    def __init__(self, *, lowest: tuple[str, ...] = (), highest: tuple[str, ...] = ()):
        """Sets the criteria, as in `Checkpoints`."""
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
        """Keeps a copy of a host state, and drops those that are not latest or best."""
        copied = jax.tree.map(np.array, state)
        self._stored[step] = (copied, copy.deepcopy(notes), metrics)
        kept = {step, *(self.best(name) for name in self.criteria)}
        self._stored = {k: v for k, v in self._stored.items() if k in kept}

    def latest(self) -> int | None:
        """Returns the last stored step, None if there is none."""
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
        """Returns at once: `save` is synchronous."""

    def close(self) -> None:
        """Does nothing."""


def _differing_names(folder: Path, template: PyTree) -> list[str]:
    """Returns the parameters that exist only in the stored state or the template.

    The list is empty if the stored names cannot be read.
    """
    try:
        stored = ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree["params"]
    except (ValueError, KeyError, TypeError, OSError):
        return []

    def names(tree: PyTree) -> set[str]:
        flat = jax.tree_util.tree_leaves_with_path(
            tree, is_leaf=lambda x: hasattr(x, "shape")
        )
        return {
            jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in flat
        }

    return sorted(names(stored) ^ names(template.params))


def _differing_shapes(stored: PyTree, wanted: PyTree):
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(stored),
        jax.tree.leaves(wanted),
        strict=True,
    )
    for (path, a), b in pairs:
        if np.shape(a) != np.shape(b):
            yield jax.tree_util.keystr(path), (np.shape(a), np.shape(b))
