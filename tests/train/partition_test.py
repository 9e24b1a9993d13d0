# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Placing and collecting arrays on one and on several devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.train import partition


@pytest.mark.parametrize("name", ["pmap", "jit"])
def test_what_is_replicated_comes_back(name):
    engine = partition.make_engine(name, devices=jax.devices()[:1])
    tree = {
        "a": np.arange(6, dtype="f4").reshape(2, 3),
        "b": np.int32(4),
        "c": np.uint32([1, 2]),
    }
    made = engine.fetch(engine.replicate(tree))
    for key, array in tree.items():
        assert made[key].dtype == array.dtype
        np.testing.assert_array_equal(made[key], array)


SCRIPT = """
import json
import jax, jax.numpy as jnp, numpy as np
from rfrec.config import UserError
from rfrec.train import partition

made = {}
values = np.arange(3 * 16 * 2.0).reshape(3, 16, 2)
for name in ("pmap", "jit"):
    engine = partition.make_engine(name)
    asked = []

    def read(rows):
        asked.append((rows.start, rows.stop))
        return values[:, rows]

    batch = engine.shard(read, values.shape)

    def step(state, constant, batch, count):
        total = jnp.sum(batch, axis=(0, 1))
        if engine.axis_name is not None:
            total = jax.lax.psum(total, engine.axis_name)
        keys = partition.row_keys(jax.random.key(0), batch.shape[1], engine.axis_name)
        noise = jax.vmap(jax.random.uniform)(keys)
        everything = partition.gather(batch, engine.axis_name, axis=1)
        noise = partition.gather(noise, engine.axis_name)
        rows = partition.mean(jnp.sum(batch), engine.axis_name)
        return state + total * count, (everything, noise, rows)

    run = engine.compile(step, donate=True)
    placed = engine.replicate(np.zeros(2))
    state, out = run(placed, engine.replicate(np.ones(1)), batch, np.int32(2))
    everything, noise, rows = engine.fetch(out)
    made[name] = {
        "asked": sorted(set(asked)),
        "state": engine.fetch(state).tolist(),
        "same": bool(np.array_equal(everything, values)),
        "noise": noise.tolist(),
        "mean": float(rows),
        "donated": placed.is_deleted(),
    }
    try:
        engine.check_batch(12, "config.train.batch_size")
    except UserError as error:
        made[name]["error"] = str(error)
print(json.dumps(made))
"""


@pytest.mark.multidevice
def test_eight_devices_hold_their_rows_and_agree(run_python):
    made = json.loads(run_python(SCRIPT, devices=8).stdout)
    values = np.arange(3 * 16 * 2.0)
    noise = jax.vmap(jax.random.uniform)(
        partition.row_keys(jax.random.key(0), 16, None)
    )
    for name, got in made.items():
        # Each device reads its rows of the global batch and no others.
        assert got["asked"] == [[2 * i, 2 * i + 2] for i in range(8)], name
        total = 2 * values.reshape(-1, 2).sum(axis=0)
        np.testing.assert_allclose(got["state"], total)
        assert got["same"], name
        np.testing.assert_allclose(got["noise"], noise)
        assert got["donated"], name
        assert got["error"].startswith("config.train.batch_size=12 is not a multiple")
        assert "8 devices" in got["error"]
    np.testing.assert_allclose(made["pmap"]["mean"], values.sum() / 8)


def test_noise_belongs_to_the_place_in_the_global_batch():
    key = jax.random.key(3)
    whole = jax.random.key_data(partition.row_keys(key, 12, None))
    assert len(np.unique(whole, axis=0)) == 12
    parts = jax.vmap(
        lambda _: jax.random.key_data(partition.row_keys(key, 3, "x")), axis_name="x"
    )(jnp.zeros(4))
    np.testing.assert_array_equal(np.reshape(parts, whole.shape), whole)


def test_without_an_axis_nothing_is_collected():
    x = jnp.arange(3.0)
    assert partition.gather(x, None) is x
    assert partition.mean(x, None) is x
