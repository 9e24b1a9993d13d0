# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loop: calls of many steps, evaluation, checkpoints, exact resume.

The loop knows no model. A `Program` brings what to run; state goes round on the
devices, and comes to the host only to be stored.
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
from tqdm import tqdm

from rfrec.config import Preempted, UserError
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.partition import Engine
from rfrec.train.writer import Writer
from rfrec.typing import PyTree

# A call on the devices lasts about this long: short enough to react to a signal and
# to move the progress bar, long enough to make dispatch negligible.
_SECONDS_PER_CALL = 1.0
# Between the lines that tell of progress where there is no terminal.
_SECONDS_PER_LINE = 60.0


class Program(NamedTuple):
    """What a system gives to the loop.

    Attributes:
      run: `(state, first_step, count) -> (state, metrics)`; metrics are arrays
        with one value a step, `loss` among them.
      begin_epoch: `(state, epoch) -> state`, called before each epoch of
        `Schedule.events`; a resumed run repeats it, so it depends on nothing else.
      evaluate: `state -> metrics`, JSON values.
    """

    run: Callable[[PyTree, int, int], tuple[PyTree, dict[str, Any]]]
    begin_epoch: Callable[[PyTree, int], PyTree]
    evaluate: Callable[[PyTree], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When what happens.

    Attributes:
      epochs: To train.
      steps_per_epoch: Steps of one epoch.
      steps_per_call: Most steps of one call.
      eval_every: Epochs between evaluations, each followed by a checkpoint.
      events: Epochs before which `begin_epoch` is called.
      patience: Evaluations without a better value of `criterion` after which the run
        ends; None never ends it early.
      criterion: One of the checkpoints' criteria, whose best so far stays stored.
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
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def evaluates_after(self, epoch: int) -> bool:
        """Whether an evaluation follows once `epoch` epochs are done."""
        return epoch == self.epochs or epoch % self.eval_every == 0

    def next_stop(self, step: int) -> int:
        """Returns the next step at which the loop has something to do."""
        epoch = step // self.steps_per_epoch + 1
        while not (self.evaluates_after(epoch) or epoch in self.events):
            epoch += 1
        return epoch * self.steps_per_epoch


@dataclasses.dataclass
class Progress:
    """Where a run stands; stored with every checkpoint.

    Attributes:
      step: Steps done.
      seconds: Spent training, evaluations included, over all resumptions.
      sums: Sums of the metrics over the steps of the current epoch so far.
      best: Best value of the schedule's criterion; None before the first evaluation.
      stale: Evaluations since then.
    """

    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    best: float | None = None
    stale: int = 0

    def has_ended(self, schedule: Schedule) -> bool:
        """Whether all steps are done, or patience has run out."""
        impatient = schedule.patience is not None and self.stale >= schedule.patience
        return self.step >= schedule.total_steps or impatient

    def judge(self, value: float, is_better: Callable[[float, float], bool]) -> None:
        """Notes the criterion's value at an evaluation."""
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
      state: Placed by `engine`.
      program: What to run.
      schedule: When.
      engine: Places the state; gives the host copy that is stored.
      checkpoints: Where states are stored; every process calls it.
      writer: Of the metrics; None on all processes but the first.
      progress: Where to start; moved along.
      notes: JSON values stored beside every state.

    Raises:
      UserError: The loss is not finite.
      Preempted: SIGTERM came; the state is stored.
    """
    started = time.monotonic() - progress.seconds

    def store(metrics: dict[str, Any] | None) -> None:
        progress.seconds = time.monotonic() - started
        checkpoints.save(
            progress.step,
            engine.fetch(state),
            notes=notes | dataclasses.asdict(progress),
            metrics=metrics,
        )

    with sigterm() as stop, _bar(schedule, progress) as bar:
        pace = _Pace(schedule.steps_per_call)
        while not progress.has_ended(schedule):
            epoch, within = divmod(progress.step, schedule.steps_per_epoch)
            if within == 0 and epoch in schedule.events:
                state = program.begin_epoch(state, epoch)
            end = schedule.next_stop(progress.step)
            while progress.step < end:
                count = pace.count(end - progress.step)
                state, metrics = program.run(state, progress.step, count)
                metrics = {k: np.asarray(v)[:count] for k, v in metrics.items()}
                pace.done(count)
                _check_finite(metrics["loss"], progress, schedule, checkpoints)
                for row in progress.add(metrics, schedule):
                    if writer is not None:
                        writer.write(row)
                bar.advance(count, float(metrics["loss"][-1]), progress.step)
                if _agree_any(stop.is_set) and progress.step < end:
                    store(None)
                    checkpoints.wait()
                    raise Preempted(f"stopped by SIGTERM at step {progress.step}")
            epoch = progress.step // schedule.steps_per_epoch
            if not schedule.evaluates_after(epoch):
                continue
            evaluated = program.evaluate(state)
            for name, value in evaluated.items():
                if isinstance(value, float) and not np.isfinite(value):
                    _refuse(name, progress.step, schedule, checkpoints)
            row = {"step": progress.step, "epoch": epoch, "split": "eval", **evaluated}
            if writer is not None:
                writer.write(row)
            bar.report(row, checkpoints.criteria)
            if schedule.patience is not None:
                name = schedule.criterion
                progress.judge(
                    evaluated[name], functools.partial(checkpoints.is_better, name)
                )
            store(evaluated)
            if _agree_any(stop.is_set) and not progress.has_ended(schedule):
                checkpoints.wait()
                raise Preempted(f"stopped by SIGTERM at step {progress.step}")
    checkpoints.wait()
    if progress.step < schedule.total_steps:
        logging.info(
            "ended at step %d: %d evaluations without a better %s than %.4g",
            *(progress.step, progress.stale, schedule.criterion, progress.best),
        )
    return state


def _check_finite(loss, progress, schedule, checkpoints) -> None:
    if np.isfinite(loss).all():
        return
    first = int(np.argmin(np.isfinite(loss)))
    _refuse("loss", progress.step + first + 1, schedule, checkpoints)


def _refuse(
    name: str, step: int, schedule: Schedule, checkpoints: Checkpoints
) -> NoReturn:
    """Stops a run whose numbers are not finite, naming what is still good."""
    checkpoints.wait()
    good = checkpoints.latest()
    kept = f"the last good checkpoint is step {good}" if good else "no checkpoint yet"
    epoch = math.ceil(step / schedule.steps_per_epoch)
    raise UserError(
        f"{name} is not finite at step {step} (epoch {epoch}); {kept}: lower"
        " optim.lr or set optim.clip_norm"
    )


class _Pace:
    """Chooses how many steps to put into the next call."""

    def __init__(self, most: int):
        self._most = most
        self._next = min(8, most)
        self._since = time.monotonic()
        self._first = True

    def count(self, left: int) -> int:
        self._since = time.monotonic()
        # Processes must agree, and their clocks do not.
        most = self._next if jax.process_count() == 1 else min(64, self._most)
        return min(most, left)

    def done(self, count: int) -> None:
        if self._first:  # it was compiled
            self._first = False
            return
        seconds = max(time.monotonic() - self._since, 1e-6)
        wanted = int(_SECONDS_PER_CALL * count / seconds)
        self._next = max(1, min(self._most, wanted))


class _Stop:
    is_set = False


@contextmanager
def sigterm() -> Iterator[_Stop]:
    """Turns SIGTERM into a flag meanwhile; only the main thread can do so."""
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
    _told: tuple[float, int] | None = None

    def advance(self, count: int, loss: float, step: int) -> None:
        """Moves on by `count` steps; without a terminal, tells so once a minute."""
        if not self.disable:
            self.update(count)
            self.set_postfix(self.values | {"loss": f"{loss:.4f}"})
            return
        now = time.monotonic()
        since, before = self._told or (now, step)
        if self._told is None:
            self._told = (now, step)
        elif now - since >= _SECONDS_PER_LINE and jax.process_index() == 0:
            pace = (step - before) / (now - since)
            left = (self.total - step) / pace / 60
            logging.info(
                "step %d of %d  loss %.4f  %.3g steps/s  %.0f min left",
                *(step, self.total, loss, pace, left),
            )
            self._told = (now, step)

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
