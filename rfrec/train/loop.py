# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loop: calls of many steps, evaluation, checkpoints, exact resume.

The loop knows no model: a `Program` provides the functions that it calls. The state
stays on the devices and is copied to the host only to be stored.
"""

import dataclasses
import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from jaxtyping import Float
from tqdm import tqdm

from rfrec.config import Preempted, UserError
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.partition import Engine
from rfrec.train.writer import Writer
from rfrec.typing import PyTree

# Target duration of a call on the devices: short enough to react to a signal and to
# move the progress bar, long enough to make dispatch negligible.
_SECONDS_PER_CALL = 1.0
# Interval of the log lines that report progress where there is no terminal.
_SECONDS_PER_LINE = 60.0


class Program(NamedTuple):
    """Functions of a system that the loop calls.

    Attributes:
      run: `(state, first_step, count) -> (state, metrics)`; metrics are arrays with one
        value for each step, `loss` among them.
      begin_epoch: `(state, epoch) -> state`, called before each epoch of
        `Schedule.events`. A resumed run repeats it, so it must depend on its arguments
        alone.
      evaluate: `state -> metrics`, JSON values.
    """

    run: Callable[[PyTree, int, int], tuple[PyTree, dict[str, Any]]]
    begin_epoch: Callable[[PyTree, int], PyTree]
    evaluate: Callable[[PyTree], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When the loop evaluates, stores and stops.

    Attributes:
      epochs: Maximum number of epochs.
      steps_per_epoch: Number of steps in one epoch.
      steps_per_call: Maximum number of steps in one call.
      eval_every: Epochs between evaluations, each followed by a checkpoint.
      events: Epochs before which `begin_epoch` is called.
      patience: Number of evaluations without a better value of `criterion` after which
        training stops; None never stops early.
      criterion: One of the checkpoints' criteria, for `patience`.
    """

    epochs: int
    steps_per_epoch: int
    steps_per_call: int
    eval_every: int
    events: tuple[int, ...] = ()
    patience: int | None = None
    criterion: str = "loss"

    @property
    def total_steps(self) -> int:
        """Number of steps in the whole run."""
        return self.epochs * self.steps_per_epoch

    def evaluates_after(self, epoch: int) -> bool:
        """Returns whether an evaluation follows after `epoch` epochs."""
        return epoch == self.epochs or epoch % self.eval_every == 0

    def next_stop(self, step: int) -> int:
        """Returns the next step at which an evaluation or event is due."""
        epoch = step // self.steps_per_epoch + 1
        while not (self.evaluates_after(epoch) or epoch in self.events):
            epoch += 1
        return epoch * self.steps_per_epoch


@dataclasses.dataclass
class Progress:
    """Position of a run, stored with every checkpoint.

    Attributes:
      step: Number of steps done.
      seconds: Time spent on training and evaluations, over all resumptions.
      sums: Sums of the metrics over the steps of the current epoch so far.
      best: Best value of the schedule's criterion; None before the first evaluation.
      stale: Number of evaluations since the best one.
    """

    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    best: float | None = None
    stale: int = 0

    def has_ended(self, schedule: Schedule) -> bool:
        """Returns whether all steps are done, or patience has run out."""
        impatient = schedule.patience is not None and self.stale >= schedule.patience
        return self.step >= schedule.total_steps or impatient

    def judge(self, value: float, is_better: Callable[[float, float], bool]) -> None:
        """Records the criterion's value at an evaluation."""
        if self.best is None or is_better(value, self.best):
            self.best, self.stale = value, 0
        else:
            self.stale += 1

    def add(self, metrics: dict[str, np.ndarray], schedule: Schedule) -> Iterator[dict]:
        """Adds steps one by one, yielding the mean row of each epoch that ends."""
        size = schedule.steps_per_epoch
        for values in zip(*(m.tolist() for m in metrics.values()), strict=True):
            for name, value in zip(metrics, values, strict=True):
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.step += 1
            if self.step % size == 0:
                means = {name: total / size for name, total in self.sums.items()}
                self.sums = {}
                epoch = self.step // size
                yield {"step": self.step, "epoch": epoch, "split": "train", **means}


def fit(
    state: PyTree,
    program: Program,
    schedule: Schedule,
    *,
    engine: Engine,
    checkpoints: Checkpoints,
    writer: Writer | None,
    progress: Progress,
    notes: dict[str, Any],
) -> PyTree:
    """Trains from `progress` to the end and returns the last state.

    Args:
      state: State on the devices, placed by `engine`.
      program: Functions that the loop calls.
      schedule: When to evaluate, store and stop.
      engine: Engine that copies the state to the host.
      checkpoints: Checkpoints of the run; all processes call them.
      writer: Writer of the metrics; None on all processes but the first.
      progress: Position to start from; it is updated in place.
      notes: JSON values stored with every state.

    Raises:
      UserError: The loss or a metric is not finite.
      Preempted: The process received SIGTERM; the state is stored.
    """
    with sigterm() as stop, _bar(schedule, progress) as bar:
        run = _Fit(
            state, program, schedule, engine, checkpoints, writer, progress, notes
        )
        while not progress.has_ended(schedule):
            epoch, within = divmod(progress.step, schedule.steps_per_epoch)
            if within == 0 and epoch in schedule.events:
                run.state = program.begin_epoch(run.state, epoch)
            end = schedule.next_stop(progress.step)
            while progress.step < end:
                run.advance(end, bar)
                if _agree_any(stop.is_set) and progress.step < end:
                    run.store(None)
                    run.preempt()
            epoch = progress.step // schedule.steps_per_epoch
            if not schedule.evaluates_after(epoch):
                continue
            run.evaluate(epoch, bar)
            if _agree_any(stop.is_set) and not progress.has_ended(schedule):
                run.preempt()
    checkpoints.wait()
    if progress.step < schedule.total_steps:
        logging.info(
            "ended at step %d: %d evaluations without a better %s than %.4g",
            *(progress.step, progress.stale, schedule.criterion, progress.best),
        )
    return run.state


@dataclasses.dataclass
class _Fit:
    """The parts of `fit`, with its arguments."""

    state: PyTree
    program: Program
    schedule: Schedule
    engine: Engine
    checkpoints: Checkpoints
    writer: Writer | None
    progress: Progress
    notes: dict[str, Any]

    def __post_init__(self):
        self.started = time.monotonic() - self.progress.seconds
        self.pace = _Pace(self.schedule.steps_per_call)

    def advance(self, end: int, bar: "_Bar") -> None:
        """Runs one call of steps, at most to step `end`, and writes its metrics."""
        progress, count = self.progress, self.pace.count(end - self.progress.step)
        self.state, metrics = self.program.run(self.state, progress.step, count)
        metrics = {k: np.asarray(v)[:count] for k, v in metrics.items()}
        self.pace.done(count)
        self._check_finite(metrics["loss"])
        for row in progress.add(metrics, self.schedule):
            self._write(row)
        bar.advance(count, float(metrics["loss"][-1]), progress.step)

    def evaluate(self, epoch: int, bar: "_Bar") -> None:
        """Evaluates and stores the state after an epoch."""
        progress, checkpoints = self.progress, self.checkpoints
        metrics = self.program.evaluate(self.state)
        for name, value in metrics.items():
            if isinstance(value, float) and not np.isfinite(value):
                self._refuse(name, progress.step)
        row = {"step": progress.step, "epoch": epoch, "split": "eval", **metrics}
        self._write(row)
        bar.report(row, checkpoints.criteria)
        if self.schedule.patience is not None:
            name = self.schedule.criterion
            is_better = functools.partial(checkpoints.is_better, name)
            progress.judge(metrics[name], is_better)
        self.store(metrics)

    def store(self, metrics: dict[str, Any] | None) -> None:
        """Stores the state; `metrics` is None if it was not evaluated."""
        self.progress.seconds = time.monotonic() - self.started
        self.checkpoints.save(
            self.progress.step,
            self.engine.fetch(self.state),
            notes=self.notes | dataclasses.asdict(self.progress),
            metrics=metrics,
        )

    def preempt(self) -> NoReturn:
        """Ends the run once everything is on disk."""
        self.checkpoints.wait()
        raise Preempted(f"stopped by SIGTERM at step {self.progress.step}")

    def _write(self, row: dict[str, Any]) -> None:
        if self.writer is not None:
            self.writer.write(row)

    def _check_finite(self, loss: Float[np.ndarray, " S"]) -> None:
        if not np.isfinite(loss).all():
            first = int(np.argmin(np.isfinite(loss)))
            self._refuse("loss", self.progress.step + first + 1)

    def _refuse(self, name: str, step: int) -> NoReturn:
        """Stops a run because of a value that is not finite."""
        self.checkpoints.wait()
        good = self.checkpoints.latest()
        kept = (
            f"the last good checkpoint is step {good}" if good else "no checkpoint yet"
        )
        epoch = math.ceil(step / self.schedule.steps_per_epoch)
        raise UserError(
            f"{name} is not finite at step {step} (epoch {epoch}); {kept}: lower"
            " optim.lr or set optim.clip_norm"
        )


class _Pace:
    """Chooses the number of steps of the next call by the duration of the last."""

    def __init__(self, most: int):
        self._most = most
        self._next = min(8, most)
        self._since = time.monotonic()
        self._first = True

    def count(self, left: int) -> int:
        self._since = time.monotonic()
        # All processes must use the same number, but their clocks differ.
        most = self._next if jax.process_count() == 1 else min(64, self._most)
        return min(most, left)

    def done(self, count: int) -> None:
        if self._first:  # The first call includes compilation.
            self._first = False
            return
        seconds = max(time.monotonic() - self._since, 1e-6)
        wanted = int(_SECONDS_PER_CALL * count / seconds)
        self._next = max(1, min(self._most, wanted))


class _Stop:
    is_set = False


@contextmanager
def sigterm() -> Iterator[_Stop]:
    """Yields a flag that SIGTERM sets, but never outside the main thread."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(signum, frame):
        del signum, frame
        stop.is_set = True

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _agree_any(flag: bool) -> bool:
    """Returns whether the flag is set on any process."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


class _Bar(tqdm):
    """A progress bar on a terminal, log lines elsewhere."""

    values: dict[str, str] = {}
    _reported: tuple[float, int] | None = None

    def advance(self, count: int, loss: float, step: int) -> None:
        """Moves on by `count` steps; without a terminal, logs once a minute."""
        if not self.disable:
            self.update(count)
            self.set_postfix(self.values | {"loss": f"{loss:.4f}"})
            return
        now = time.monotonic()
        since, before = self._reported or (now, step)
        if self._reported is None:
            self._reported = (now, step)
        elif now - since >= _SECONDS_PER_LINE and jax.process_index() == 0:
            pace = (step - before) / (now - since)
            left = (self.total - step) / pace / 60
            logging.info(
                "step %d of %d  loss %.4f  %.3g steps/s  %.0f min left",
                *(step, self.total, loss, pace, left),
            )
            self._reported = (now, step)

    def report(self, row: dict[str, Any], shown: tuple[str, ...]) -> None:
        """Logs the numbers of an evaluation, or shows some of them in the bar."""
        scalars = {
            name: f"{value:.4g}" if isinstance(value, float) else str(value)
            for name, value in row.items()
            if isinstance(value, (int, float)) and name != "step"
        }
        self.values = {k: v for k, v in scalars.items() if k in shown}
        if self.disable and jax.process_index() == 0:
            logging.info("%s", "  ".join(f"{k} {v}" for k, v in scalars.items()))


def _bar(schedule: Schedule, progress: Progress) -> _Bar:
    hidden = None if jax.process_index() == 0 else True
    return _Bar(
        total=schedule.total_steps, initial=progress.step, unit="step", disable=hidden
    )
