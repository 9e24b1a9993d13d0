# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Steps by epoch, and checkpoints in memory."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfrec.train import epochs
from rfrec.train.checkpoint import MemoryCheckpoints
from rfrec.train.state import create

ROWS = np.array([3, 5, 7, 11, 13])


@pytest.mark.parametrize("first,count", [(0, 3), (2, 4), (5, 1), (3, 7)])
def test_steps_are_the_epochs_one_after_another(first, count):
    steps = epochs.EpochSteps(ROWS, 2, seed=4)
    every = np.concatenate(
        [epochs.epoch_rows(ROWS, 2, seed=4, epoch=e) for e in range(4)]
    )
    taken = steps.take(first, count, 8)
    np.testing.assert_array_equal(taken[:count], every[first : first + count])
    np.testing.assert_array_equal(taken[count:], 0)


def test_an_epoch_holds_every_row_and_full_batches():
    rows = epochs.epoch_rows(ROWS, 2, seed=0, epoch=1)
    assert rows.shape == (3, 2)
    np.testing.assert_array_equal(np.sort(rows.reshape(-1)[:5]), ROWS)
    assert rows[2, 1] == rows[0, 0]


def test_steps_in_one_call_equal_single_steps():
    optimizer = optax.sgd(0.1)
    state = create(
        params={"w": jnp.float32(2.0)}, model_state={}, optimizer=optimizer, seed=0
    )

    def step(state, i):
        grads = {"w": state.params["w"] * (i + 1)}
        return epochs.apply_gradients(state, grads, optimizer), {"i": i}

    after, logs = epochs.run_steps(step, state, jnp.int32(3), 5)
    expected = 2.0 * 0.9 * 0.8 * 0.7
    np.testing.assert_allclose(after.params["w"], expected, rtol=1e-6)
    assert after.step == 3
    np.testing.assert_array_equal(logs["i"], [0, 1, 2, 0, 0])


def test_memory_keeps_the_latest_and_the_best():
    kept = MemoryCheckpoints(lowest=("loss",), highest=("hr",))
    assert kept.latest() is None
    rows = [(1, 3.0, 0.1), (2, 1.0, 0.4), (3, 2.0, 0.9), (4, 4.0, 0.2)]
    for step, loss, hr in rows:
        state = {"a": np.full(2, step)}
        kept.save(step, state, notes={"n": step}, metrics={"loss": loss, "hr": hr})
        state["a"][:] = -1
    assert (kept.latest(), kept.best("loss"), kept.best("hr")) == (4, 2, 3)
    restored = kept.restore(2, None)
    np.testing.assert_array_equal(restored.state["a"], [2, 2])
    assert restored.notes == {"n": 2}
    assert sorted(kept._stored) == [2, 3, 4]


def test_epochs_and_seeds_shuffle_differently():
    rows = np.arange(100)
    orders = [
        epochs.epoch_rows(rows, 100, seed=seed, epoch=epoch)[0]
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    for i in range(3):
        assert (orders[i] != orders[i - 1]).sum() > 80
    again = epochs.epoch_rows(rows, 100, seed=0, epoch=1)[0]
    np.testing.assert_array_equal(orders[1], again)
