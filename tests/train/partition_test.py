# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Placing and collecting arrays on one and on several devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.config import UserError
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


@pytest.mark.parametrize("name", ["pmap", "jit"])
def test_a_program_is_compiled_once(name, caplog):
    engine = partition.make_engine(name, devices=jax.devices()[:1])

    def step(state, constants, batch, count):
        return state + constants.sum() * count, batch.sum()

    run = engine.compile(step, donate=True)
    batch = engine.shard(lambda rows: np.ones((2, 4))[:, rows], (2, 4))
    state, constants = engine.replicate(np.zeros(3)), engine.replicate(np.ones(2))
    with jax.log_compiles():
        for _ in range(3):
            state, _ = run(state, constants, batch, np.int32(1))
    np.testing.assert_array_equal(engine.fetch(state), np.full(3, 6.0))
    # What a step returns has to be placed as what the first step was given.
    told = [record.getMessage() for record in caplog.records]
    assert sum(line.startswith("Finished XLA compilation") for line in told) == 1


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


TENSOR = """
import json
import jax, jax.numpy as jnp, numpy as np, optax
from rfrec.config import UserError
from rfrec.train import optim, partition, state as train_state

axes = {
    "table": ("vocab", "embed"),
    "layer": {"in": ("embed", "mlp"), "out": ("mlp", "embed"), "gain": ("embed",)},
    "odd": ("vocab", "embed"),
    "bias": None,
}
rng = np.random.default_rng(0)
shapes = {"table": (8, 4), "layer": {"in": (4, 6), "out": (6, 4), "gain": (4,)},
          "odd": (7, 4), "bias": (3,)}
params = jax.tree.map(lambda s: rng.normal(size=s).astype("f4"), shapes,
                      is_leaf=lambda s: isinstance(s, tuple))
tokens = rng.integers(8, size=(2, 8)).astype(np.int32)
optimizer = optim.build(optim.Optimizer(lr=0.1, weight_decay=0.1, accumulate=2), 4)
host = train_state.create(params=params, model_state={}, optimizer=optimizer, seed=0)
host = jax.tree.map(np.asarray, host)

def loss(p, tokens):
    x = p["table"][tokens] * p["layer"]["gain"][None]
    y = jax.nn.relu(x @ p["layer"]["in"]) @ p["layer"]["out"]
    return jnp.mean((y @ p["odd"].T)[:, :3] * p["bias"][None])

def step(state, constants, batch, count):
    def one(i, state):
        grads = jax.grad(loss)(state.params, batch[i])
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return state.replace(params=optax.apply_updates(state.params, updates),
                             opt_state=opt_state, step=state.step + 1)
    state = jax.lax.fori_loop(0, count, one, state)
    return state, loss(state.params, batch[0])

made = {}
for name, tensor, devices in (("one", 1, jax.devices()[:1]), ("4x2", 2, jax.devices())):
    engine = partition.make_engine("jit", devices=devices, tensor=tensor)
    places = engine.shardings(host, axes)
    state = engine.place(host, places)
    back = engine.fetch(state)
    same = all(np.array_equal(a, b) for a, b in
               zip(jax.tree.leaves(back), jax.tree.leaves(host), strict=True))
    batch = engine.shard(lambda rows: tokens[:, rows], tokens.shape)
    run = engine.compile(step, donate=True, shardings=places)
    after, value = run(state, engine.replicate(np.zeros(1)), batch, np.int32(2))
    again, _ = run(after, engine.replicate(np.zeros(1)), batch, np.int32(2))
    local = lambda a: list(a.addressable_shards[0].data.shape)
    mu = again.opt_state.inner_opt_state[0][0].mu
    made[name] = {
        "same": same, "donated": after.is_deleted() if hasattr(after, "is_deleted")
        else after.params["table"].is_deleted(),
        "value": float(engine.fetch(value)),
        "params": jax.tree.map(lambda a: np.asarray(a).tolist(),
                               engine.fetch(again.params)),
        "parts": engine.num_parts,
        "local": [local(again.params["table"]), local(again.params["layer"]["in"]),
                  local(again.params["layer"]["out"]), local(again.params["odd"]),
                  local(mu["table"]), local(again.opt_state.acc_grads["table"])],
        "compiled": run._cache_size(),
    }
    try:
        engine.check_batch(6, "config.train.batch_size")
    except UserError as error:
        made[name]["error"] = str(error)
print(json.dumps(made))
"""


@pytest.mark.multidevice
def test_parameters_split_over_devices_train_as_whole_ones(run_python):
    made = json.loads(run_python(TENSOR, devices=8).stdout)
    one, split = made["one"], made["4x2"]
    assert one["same"]
    assert split["same"]
    assert split["donated"]
    assert (one["parts"], split["parts"]) == (1, 4)
    np.testing.assert_allclose(split["value"], one["value"], rtol=1e-5)
    pairs = zip(*(jax.tree.leaves(m["params"]) for m in (split, one)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    # Half a table on each device, moments and sums likewise; 7 rows stay together.
    assert split["local"] == [[4, 4], [4, 3], [3, 4], [7, 4], [4, 4], [4, 4]]
    assert one["local"][0] == [8, 4]
    assert split["compiled"] == one["compiled"] == 1
    assert "4 devices along the batch" in split["error"]
    assert "error" not in one


def test_tensor_parallelism_is_refused_where_it_cannot_be():
    with pytest.raises(UserError, match=r"train\.tensor=2: pmap.*engine=jit"):
        partition.make_engine("pmap", devices=jax.devices()[:1], tensor=2)
    with pytest.raises(UserError, match=r"train\.tensor=2 does not divide the 1 "):
        partition.make_engine("jit", devices=jax.devices()[:1], tensor=2)
