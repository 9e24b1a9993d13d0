# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The loop on a program small enough to follow: order, stops, exact resume."""

import dataclasses
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.train import checkpoint, loop, partition, writer

LOWEST = ("loss",)
SCHEDULE = loop.Schedule(
    epochs=7, steps_per_epoch=5, steps_per_call=4, eval_every=2, events=(0, 3)
)


class Kill(BaseException):
    """Ends a run at once, as no handler of the loop could."""


@jax.jit
def advance(w, step):
    """Chaotic, so that a step left out, repeated or misplaced shows."""
    noise = jax.random.uniform(jax.random.fold_in(jax.random.key(0), step), w.shape)
    w = 3.9 * w * (1 - w) * 0.98 + 0.02 * noise
    return w, jnp.mean(w)


class Toy:
    """Counts what the loop asks for, and misbehaves at a step if told to."""

    def __init__(self, engine, *, at=None, act=None, bad_from=None):
        self.engine, self.at, self.act, self.bad_from = engine, at, act, bad_from
        self.calls = []

    def program(self):
        return loop.Program(self.run, self.begin_epoch, self.evaluate)

    def run(self, state, first, count):
        self.calls.append(("run", first, count))
        w, losses = state["w"], []
        for step in range(first, first + count):
            w, loss = advance(w, step)
            if self.bad_from is not None and step + 1 >= self.bad_from:
                loss, w = jnp.nan, w * jnp.nan
            losses.append(float(loss))
            if step + 1 == self.at:
                self.act()
        losses = np.array(losses + [0.0] * (SCHEDULE.steps_per_call - count))
        return {"w": w}, {"loss": losses, "half": losses / 2}

    def begin_epoch(self, state, epoch):
        self.calls.append(("event", epoch))
        w = np.sort(np.asarray(state["w"]))
        return {"w": jnp.asarray(w)}

    def evaluate(self, state):
        self.calls.append(("evaluate",))
        return {"loss": float(np.asarray(state["w"]).sum())}


def start():
    return {"w": np.linspace(0.1, 0.8, 6, dtype="f4")}


def fit(folder, schedule=SCHEDULE, **misbehaviour):
    """One process of a run: opens everything anew and goes on where it stands."""
    engine = partition.make_engine("jit", devices=jax.devices()[:1])
    toy = Toy(engine, **misbehaviour)
    store = checkpoint.Checkpoints(folder, lowest=LOWEST)
    state, progress = start(), loop.Progress()
    if store.latest() is not None:
        restored = store.restore(store.latest(), state)
        state, notes = restored.state, dict(restored.notes)
        assert notes.pop("items") == "abc"
        progress = loop.Progress(**notes)
    log = writer.Writer(folder, resume_step=progress.step)
    try:
        state = loop.fit(
            engine.replicate(state),
            toy.program(),
            schedule,
            engine=engine,
            checkpoints=store,
            writer=log,
            progress=progress,
            notes={"items": "abc"},
        )
    finally:
        log.close()
        store.close()
    return np.asarray(state["w"]), toy.calls


def metrics(folder):
    return (folder / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    state, calls = fit(folder)
    return state, calls, folder


def test_an_uninterrupted_run(whole):
    state, calls, folder = whole
    w, losses = start()["w"], []
    for step in range(35):
        if step in (0, 15):
            w = np.sort(w)
        w, loss = advance(w, step)
        losses.append(float(loss))
    np.testing.assert_array_equal(state, w)
    done = sum(call[2] for call in calls if call[0] == "run")
    assert done == 35
    assert max(call[2] for call in calls if call[0] == "run") <= 4
    first = [call[1] for call in calls if call[0] == "event"]
    assert first == [0, 3]
    rows = writer.read_metrics(folder / "metrics.jsonl")
    train = [row for row in rows if row["split"] == "train"]
    assert [row["epoch"] for row in train] == [1, 2, 3, 4, 5, 6, 7]
    for row in train:
        wanted = np.mean(losses[row["step"] - 5 : row["step"]])
        np.testing.assert_allclose([row["loss"], 2 * row["half"]], wanted, rtol=1e-12)
    evaluated = [row["epoch"] for row in rows if row["split"] == "eval"]
    assert evaluated == [2, 4, 6, 7]


@pytest.mark.parametrize("step", [1, 3, 5, 7, 10, 12, 15, 16, 20, 34])
def test_sigterm_stores_the_state_and_resume_is_exact(whole, tmp_path, step):
    def act():
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(loop.Preempted, match="SIGTERM at step"):
        fit(tmp_path, at=step, act=act)
    assert signal.getsignal(signal.SIGTERM) is before
    stored = checkpoint.Checkpoints(tmp_path, lowest=LOWEST)
    # It stops after the call that the signal fell into.
    assert step <= stored.latest() <= step + 8
    stored.close()
    state, calls = fit(tmp_path)
    np.testing.assert_array_equal(state, whole[0])
    assert metrics(tmp_path) == metrics(whole[2])
    assert calls[0] != ("event", 0)


def test_sigterm_during_an_evaluation(whole, tmp_path, monkeypatch):
    evaluate = Toy.evaluate

    def interrupted(self, state):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(self, state)

    monkeypatch.setattr(Toy, "evaluate", interrupted)
    with pytest.raises(loop.Preempted, match="step 10"):
        fit(tmp_path)
    monkeypatch.undo()
    state, _ = fit(tmp_path)
    np.testing.assert_array_equal(state, whole[0])
    assert metrics(tmp_path) == metrics(whole[2])


def test_sigterm_in_the_last_call_lets_the_run_finish(whole, tmp_path):
    state, _ = fit(tmp_path, at=35, act=lambda: os.kill(os.getpid(), signal.SIGTERM))
    np.testing.assert_array_equal(state, whole[0])


@pytest.mark.parametrize("step", [1, 9, 11, 16, 24, 31, 35])
def test_a_kill_loses_no_more_than_the_last_interval(whole, tmp_path, step):
    def act():
        raise Kill

    with pytest.raises(Kill):
        fit(tmp_path, at=step, act=act)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9')  # and in the middle of a line
    state, calls = fit(tmp_path)
    np.testing.assert_array_equal(state, whole[0])
    assert metrics(tmp_path) == metrics(whole[2])
    first = next(call[1] for call in calls if call[0] == "run")
    assert first == (step - 1) // 10 * 10


def test_many_kills_in_one_run(whole, tmp_path):
    def act():
        raise Kill

    for step in (3, 14, 12, 29, 22, 33):
        with pytest.raises(Kill):
            fit(tmp_path, at=step, act=act)
    state, _ = fit(tmp_path)
    np.testing.assert_array_equal(state, whole[0])
    assert metrics(tmp_path) == metrics(whole[2])


def test_a_finished_run_does_nothing_more(tmp_path):
    schedule = dataclasses.replace(SCHEDULE, epochs=2)
    first, _ = fit(tmp_path, schedule)
    text = metrics(tmp_path)
    again, calls = fit(tmp_path, schedule)
    np.testing.assert_array_equal(again, first)
    assert (calls, metrics(tmp_path)) == ([], text)


@pytest.mark.parametrize("step", [1, 7, 13])
def test_a_loss_that_is_not_finite_names_step_and_last_good_checkpoint(tmp_path, step):
    with pytest.raises(UserError) as error:
        fit(tmp_path, bad_from=step)
    text = str(error.value)
    assert f"not finite at step {step} (epoch {-(-step // 5)})" in text
    good = "no checkpoint yet" if step < 10 else "last good checkpoint is step 10"
    assert good in text
    assert "\n" not in text


def test_a_state_whose_evaluation_is_not_finite_is_no_good_checkpoint(
    tmp_path, monkeypatch
):
    # The last update before an evaluation broke the state; its loss was finite.
    monkeypatch.setattr(Toy, "evaluate", lambda self, state: {"loss": float("nan")})
    with pytest.raises(UserError, match="not finite.*step 10.*no checkpoint yet"):
        fit(tmp_path)


def test_stops_of_a_schedule():
    made = [SCHEDULE.next_stop(step) for step in (0, 4, 9, 10, 14, 15, 30, 34)]
    assert made == [10, 10, 10, 15, 15, 20, 35, 35]
    assert SCHEDULE.total_steps == 35


# Every second epoch; the best is the second evaluation, 0.2 does not beat it.
VALUES = [0.5, 0.2, 0.3, 0.2, 0.4, 0.1, 0.0]
PATIENT = dataclasses.replace(
    SCHEDULE, epochs=14, patience=3, criterion="loss", events=()
)


def fit_values(folder, monkeypatch, schedule=PATIENT, **misbehaviour):
    """A run whose evaluations are VALUES, whatever its state is."""

    def evaluate(self, state):
        return {"loss": VALUES[self.step // 10 - 1]}

    run = Toy.run

    def counting(self, state, first, count):
        self.step = first + count
        return run(self, state, first, count)

    monkeypatch.setattr(Toy, "evaluate", evaluate)
    monkeypatch.setattr(Toy, "run", counting)
    try:
        return fit(folder, schedule, **misbehaviour)
    finally:
        monkeypatch.undo()


def test_patience_ends_the_run_and_the_best_stays_stored(tmp_path, monkeypatch):
    _, calls = fit_values(tmp_path, monkeypatch)
    assert sum(call[2] for call in calls if call[0] == "run") == 50
    text = metrics(tmp_path)
    store = checkpoint.Checkpoints(tmp_path, lowest=LOWEST)
    assert store.latest() == 50
    assert VALUES[store.best("loss") // 10 - 1] == 0.2
    notes = store.restore(50, start()).notes
    store.close()
    assert (notes["best"], notes["stale"]) == (0.2, 3)
    _, calls = fit_values(tmp_path, monkeypatch)
    assert (calls, metrics(tmp_path)) == ([], text)


def test_without_patience_the_run_goes_to_its_end(tmp_path, monkeypatch):
    schedule = dataclasses.replace(PATIENT, patience=None)
    _, calls = fit_values(tmp_path, monkeypatch, schedule)
    assert sum(call[2] for call in calls if call[0] == "run") == 70


@pytest.mark.parametrize("step", [12, 20, 33, 41, 50])
def test_patience_survives_kills(tmp_path, monkeypatch, step):
    def act():
        raise Kill

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    state, _ = fit_values(whole, monkeypatch)
    with pytest.raises(Kill):
        fit_values(broken, monkeypatch, at=step, act=act)
    again, _ = fit_values(broken, monkeypatch)
    np.testing.assert_array_equal(again, state)
    assert metrics(broken) == metrics(whole)


def test_sigterm_keeps_what_patience_knows(tmp_path, monkeypatch):
    def act():
        os.kill(os.getpid(), signal.SIGTERM)

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    state, _ = fit_values(whole, monkeypatch)
    with pytest.raises(loop.Preempted):
        fit_values(broken, monkeypatch, at=33, act=act)
    again, _ = fit_values(broken, monkeypatch)
    np.testing.assert_array_equal(again, state)
    assert metrics(broken) == metrics(whole)


def test_of_a_highest_criterion_more_is_better(tmp_path):
    store = checkpoint.Checkpoints(tmp_path, highest=("ndcg",), lowest=("loss",))
    progress = loop.Progress()
    for value in (0.1, 0.3, 0.3, 0.2):
        progress.judge(value, lambda a, b: store.is_better("ndcg", a, b))
    store.close()
    assert (progress.best, progress.stale) == (0.3, 2)
    assert progress.has_ended(dataclasses.replace(SCHEDULE, patience=2))
    assert not progress.has_ended(SCHEDULE)


def test_without_a_terminal_progress_is_told_once_a_minute(monkeypatch, caplog):
    now = iter([0.0, 30.0, 61.0, 62.0])
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(now))
    bar = loop._Bar(total=100, disable=True)
    with caplog.at_level("INFO"):
        for step in (10, 20, 30, 40):
            bar.advance(10, 0.5, step)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["step 30 of 100  loss 0.5000  0.328 steps/s  4 min left"]


def test_signals_are_left_alone_outside_the_main_thread():
    handler = signal.getsignal(signal.SIGTERM)

    def work():
        with loop.sigterm() as stop:
            return stop.is_set, signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == (False, handler)
