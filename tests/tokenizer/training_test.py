# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The RQ-VAE's training: same numbers on every engine, and as recorded from PyTorch.

Run as a script it trains every case on every engine of 8 devices and writes an .npz:
the tests of several devices need a process of their own.
"""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfrec.tokenizer import (
    codebooks,
    loss,
    mql4grec,
    quantizer,
    rqvae,
    training,
)
from rfrec.train import loop, optim, partition
from rfrec.train import state as train_state
from tests.support import commands

GOLDEN = Path(__file__).parents[2] / "third_party" / "golden"
STEPS = 10
BATCH = 32
WIDTH = 12

CASES = {
    # Sinkhorn on all levels, unequal sizes, noise, clipping, a multi-hot block.
    "gradient": {
        "quantization": {"sk_epsilons": (0.05, 0.01, 0.003)},
        "arch": {"dropout": 0.2},
        "codebooks": {"init_epoch": 0, "init_on": "all", "kmeans_restarts": 2},
        "optimizer": {"name": "adamw", "weight_decay": 0.01, "clip_norm": 0.5},
        "multi_hot": 4,
    },
    # Everything that couples rows of a batch; plain SGD shows the scale of gradients.
    "ema": {
        "quantization": {
            "sk_epsilons": (0.01, 0.01, 0.01),
            "estimator": "rotation",
            "learned_by": "ema",
        },
        "arch": {"batch_norm": True, "normalize_input": True},
        "codebooks": {
            "init_epoch": 1,
            "bypass": True,
            "init_on": "batch",
            "ema_decay": 0.8,
            "revive_below": 1.5,
        },
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.5},
    },
    "gumbel": {
        "quantization": {
            "estimator": "gumbel",
            "residual_grad": "flow",
            "projection": True,
            "l2_normalize": True,
        },
        "arch": {"dropout": 0.1},
        "codebooks": {
            "init_epoch": 0,
            "init_on": "batch",
            "temperature": (1.0, 0.3),
            "temperature_epochs": 2.0,
        },
        "optimizer": {"name": "adam"},
    },
}


def item_vectors(multi_hot=0, num_items=77, seed=0):
    """Clusters with noise; the last columns are 0 or 1."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(9, WIDTH))
    x = centers[rng.integers(9, size=num_items)] + 0.3 * rng.normal(
        size=(num_items, WIDTH)
    )
    if multi_hot:
        x[:, -multi_hot:] = x[:, -multi_hot:] > 0
    return x.astype(np.float32)


def make_trainer(case, engine, *, values=None, resident=True, seed=3, **objective):
    multi_hot = case.get("multi_hot", 0)
    values = item_vectors(multi_hot) if values is None else values
    train, validation = training.split_items(len(values), 0.1, seed)
    steps = -(-len(train) // BATCH)
    settings = codebooks.Codebooks(
        **{"sizes": (8, 8, 6)}
        | codebooks.ONE_PHASE
        | {"temperature": (1.0, 1.0), "temperature_epochs": 1.0}
        | case.get("quantization", {})
        | case.get("codebooks", {})
    )
    arch = {"hidden": (16,), "latent_width": 6} | case.get("arch", {})
    return training.Trainer(
        arch=rqvae.Architecture(
            input_width=values.shape[1], quantization=settings, **arch
        ),
        objective=loss.Objective(**{"beta_warmup_epochs": 2.0} | objective),
        codebooks=settings,
        optimizer=optim.build(
            optim.Optimizer(**{"lr": 3e-3} | case.get("optimizer", {})), 40
        ),
        schedule=loop.Schedule(
            epochs=5,
            steps_per_epoch=steps,
            steps_per_call=4,
            eval_every=1,
            events=(settings.init_epoch,) if settings.init == "kmeans" else (),
        ),
        batch_size=BATCH,
        seed=seed,
        engine=engine,
        items=training.Items(
            values=values,
            train=train,
            validation=validation,
            multi_hot=np.arange(values.shape[1]) >= values.shape[1] - multi_hot
            if multi_hot
            else None,
            resident=resident,
        ),
    )


def train_steps(trainer, start, *, steps=STEPS):
    """Runs the production program; returns everything it made as flat arrays."""
    run = training.Run(trainer)
    program, schedule = run.program(), trainer.schedule
    state, step, logs, first = trainer.engine.replicate(start), 0, [], None
    while step < steps:
        epoch, within = divmod(step, schedule.steps_per_epoch)
        if within == 0 and epoch in schedule.events:
            state = program.begin_epoch(state, epoch)
        count = 1 if step == 0 else min(4, steps - step)
        count = min(count, schedule.steps_per_epoch - within)
        state, metrics = program.run(state, step, count)
        logs.append(np.stack([np.asarray(m)[:count] for m in metrics.values()]))
        step += count
        first = first or trainer.engine.fetch(state)
    result = run.evaluate(state, np.arange(len(trainer.items.values)))
    scalars = training.metrics(result, trainer.items, trainer.arch.quantization.sizes)
    arrays = {"losses": np.concatenate(logs, axis=1), "codes": result.codes}
    arrays["metrics"] = np.array(
        [scalars[k] for k in ("loss", "train_loss", "energy_left", "conflict_items")]
    )
    for part, tree in (("first", first), ("state", trainer.engine.fetch(state))):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            arrays[f"{part}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    return arrays


def write_engines(path):
    """Trains each case on 1 and on 8 devices with both engines."""
    engines = {
        "one": partition.make_engine("jit", devices=jax.devices()[:1]),
        "pmap": partition.make_engine("pmap"),
        "jit": partition.make_engine("jit"),
    }
    assert engines["pmap"].num_devices == 8
    arrays = {}
    for name, case in CASES.items():
        start = make_trainer(case, engines["one"]).init()
        trainers = {e: make_trainer(case, engine) for e, engine in engines.items()}
        if name == "gradient":
            trainers["streamed"] = make_trainer(case, engines["pmap"], resident=False)
        for engine, trainer in trainers.items():
            made = train_steps(trainer, start)
            arrays |= {f"{name}|{engine}|{k}": v for k, v in made.items()}
    np.savez(path, **arrays)


@pytest.fixture
def engines(tmp_path, run_python):
    """What the script wrote, {(case, engine): {name: array}}; made once."""
    return commands.split_by_engine(__file__, tmp_path, run_python)


@pytest.mark.multidevice
@pytest.mark.parametrize("engine", ["pmap", "jit"])
@pytest.mark.parametrize("case", CASES)
def test_eight_devices_train_as_one(engines, case, engine):
    one, eight = engines[case, "one"], engines[case, engine]
    assert one.keys() == eight.keys()
    np.testing.assert_array_equal(eight["codes"], one["codes"])
    for name in one:
        if name != "codes":
            np.testing.assert_allclose(
                eight[name], one[name], rtol=1e-5, atol=1e-5, err_msg=name
            )


@pytest.mark.multidevice
def test_the_cases_do_train(engines):
    for case in CASES:
        made = engines[case, "one"]
        assert made["state.step"] == STEPS
        moved = [
            np.abs(made[name] - made[name.replace("state", "first", 1)]).max()
            for name in made
            if name.startswith("state.params") and "bias" not in name
        ]
        assert min(moved) > 1e-5, case
        assert len(np.unique(made["codes"], axis=0)) > 20


@pytest.mark.multidevice
def test_streaming_on_eight_devices_equals_resident(engines):
    resident, streamed = engines["gradient", "pmap"], engines["gradient", "streamed"]
    for name, array in resident.items():
        np.testing.assert_allclose(
            streamed[name], array, rtol=1e-6, atol=1e-6, err_msg=name
        )
    np.testing.assert_array_equal(streamed["codes"], resident["codes"])


@pytest.mark.multidevice
def test_a_frozen_codebook_stays_while_its_projection_moves(engines):
    for engine in ("one", "pmap", "jit"):
        made = engines["gumbel", engine]
        name = "state.model_state['codebook']['vectors']"
        np.testing.assert_array_equal(
            made[name], made[name.replace("state", "first", 1)]
        )
        moved = made["state.params['projection']"] - np.eye(6)
        assert np.abs(moved).max() > 1e-3


RECORDED = ("mql4grec_rqvae_equal", "mql4grec_rqvae_sinkhorn_all_levels")
RECORDER = optax.GradientTransformation(
    init=lambda params: jax.tree.map(jnp.zeros_like, params),
    update=lambda grads, state, params: (jax.tree.map(jnp.zeros_like, grads), grads),
)


def recorded_trainer(golden, optimizer):
    """The reference's settings, and its weights."""
    arrays = {k[5:]: v for k, v in golden.items() if k.startswith("init/")}
    weights = mql4grec.read_state_dict(arrays)
    epsilons = tuple(golden["sk_epsilons"].tolist())
    x = golden["x"]
    trainer = training.Trainer(
        arch=rqvae.Architecture(
            input_width=weights.input_width,
            hidden=weights.hidden,
            latent_width=weights.latent_width,
            quantization=quantizer.Quantization(weights.sizes, sk_epsilons=epsilons),
        ),
        objective=loss.Objective(),
        codebooks=codebooks.Codebooks(init="uniform", bypass=False, freeze=False),
        optimizer=optimizer,
        schedule=loop.Schedule(1, 20, 20, 1),
        batch_size=len(x),
        seed=0,
        engine=partition.make_engine("jit", devices=jax.devices()[:1]),
        items=training.Items(x, np.arange(len(x)), np.arange(0)),
    )
    start = train_state.create(
        params=jax.tree.map(jnp.asarray, weights.params),
        model_state={},
        optimizer=optimizer,
        seed=0,
    )
    return trainer, start


def read_golden(file):
    with np.load(GOLDEN / f"{file}.npz", allow_pickle=False) as data:
        return dict(data)


@pytest.mark.parametrize("file", RECORDED)
def test_recorded_losses_and_gradients(file):
    golden = read_golden(file)
    trainer, state = recorded_trainer(golden, RECORDER)
    state, losses = jax.jit(trainer.step)(state, jnp.asarray(golden["x"]))
    for name, made in zip(("loss", "recon_loss", "rq_loss"), losses, strict=True):
        np.testing.assert_allclose(made, golden[f"train/{name}"], rtol=1e-5)
    wanted = mql4grec.read_state_dict(
        {k[5:]: v for k, v in golden.items() if k.startswith("grad/")}
    ).params
    made = dict(jax.tree_util.tree_leaves_with_path(state.opt_state))
    assert len(made) == len(jax.tree.leaves(wanted))
    for path, grad in jax.tree_util.tree_leaves_with_path(wanted):
        error = np.abs(made[path] - grad).max() / np.abs(grad).max()
        assert error < 1e-4, path


@pytest.mark.parametrize("file", RECORDED)
def test_recorded_run_of_twenty_steps(file):
    golden = read_golden(file)
    adamw = optim.build(optim.Optimizer("adamw", lr=1e-3, weight_decay=1e-4), 20)
    trainer, state = recorded_trainer(golden, adamw)
    step, made = jax.jit(trainer.step), []
    for x in golden["steps/x"]:
        state, losses = step(state, jnp.asarray(x))
        made.append([float(value) for value in losses])
    np.testing.assert_allclose(made, golden["steps/loss"], rtol=1e-3)
    wanted = mql4grec.read_state_dict(
        {k[6:]: v for k, v in golden.items() if k.startswith("final/")}
    ).params
    final = dict(jax.tree_util.tree_leaves_with_path(state.params))
    for path, weights in jax.tree_util.tree_leaves_with_path(wanted):
        # A weight without a gradient to speak of moves by the sign of its rounding.
        far = np.abs(final[path] - weights) > 1e-3 * np.abs(weights).max()
        assert far.mean() < 0.02, path


@pytest.fixture(scope="module")
def one_device():
    return partition.make_engine("jit", devices=jax.devices()[:1])


@pytest.mark.parametrize("projection", [False, True])
def test_codes_in_use_after_k_means_are_its_centres(one_device, projection):
    # A projection that has been trained may not move them.
    case = {
        "arch": {"hidden": ()},
        "codebooks": {"init_epoch": 1, "init_on": "all"},
        "optimizer": {"name": "sgd", "lr": 0.5},
        "quantization": {"sizes": (8, 8), "projection": projection},
    }
    trainer = make_trainer(case, one_device, beta_warmup_epochs=0.0)
    run = training.Run(trainer)
    program = run.program()
    state = trainer.engine.replicate(trainer.init())
    state, _ = program.run(state, 0, trainer.schedule.steps_per_epoch)
    latents = run.evaluate(state, trainer.items.train).latents
    placed = program.begin_epoch(state, 1)
    host = trainer.engine.fetch(placed)
    variables = {"params": host.params, **host.model_state}
    vectors = rqvae.RQVAE(trainer.arch).apply(
        jax.tree.map(jnp.asarray, variables), method="code_vectors"
    )
    residual = np.asarray(latents, np.float64)
    for book in np.asarray(vectors, np.float64):
        codes = ((residual[:, None] - book[None]) ** 2).sum(axis=2).argmin(axis=1)
        for k in np.unique(codes):  # a centre is the mean of its cluster
            mean = residual[codes == k].mean(axis=0)
            np.testing.assert_allclose(book[k], mean, atol=1e-3)
        residual = residual - book[codes]


@pytest.mark.parametrize("most", [None, 20, 77])
def test_k_means_of_many_items_takes_a_sample(one_device, monkeypatch, most):
    seen = []

    def fit(key, latents, sizes, settings):
        seen.append(np.asarray(latents))
        return np.zeros((len(sizes), max(sizes), latents.shape[1]), np.float32)

    monkeypatch.setattr(training.codebooks_lib, "fit", fit)
    case = {"codebooks": {"init_epoch": 0, "init_on": "all", "kmeans_rows": most}}
    trainer = make_trainer(case, one_device)
    run = training.Run(trainer)
    state = trainer.engine.replicate(trainer.init())
    latents = run.evaluate(state, trainer.items.train).latents
    for _ in range(2):
        run.program().begin_epoch(state, 0)
    np.testing.assert_array_equal(*seen)
    places = [np.flatnonzero((latents == row).all(axis=1)) for row in seen[0]]
    assert all(len(found) == 1 for found in places)
    assert len(np.unique(places)) == len(seen[0]) == min(most or 77, len(latents))


def test_freezing_leaves_only_the_decoder_to_learn(one_device):
    case = {
        "codebooks": {"init_epoch": 1, "freeze": True},
        "optimizer": {"name": "adamw", "lr": 0.1, "weight_decay": 0.1},
    }
    trainer = make_trainer(case, one_device)
    program, size = training.Run(trainer).program(), trainer.schedule.steps_per_epoch
    placed, hosts = trainer.engine.replicate(trainer.init()), []
    for epoch in range(3):
        if epoch == 1:
            placed = program.begin_epoch(placed, epoch)
        hosts.append(trainer.engine.fetch(placed).params)
        placed, _ = program.run(placed, epoch * size, size)
    hosts.append(trainer.engine.fetch(placed).params)

    def moved(before, after, part):
        pairs = zip(*map(jax.tree.leaves, (before[part], after[part])), strict=True)
        return [not np.array_equal(a, b) for a, b in pairs]

    for part in ("encoder", "decoder", "codebook"):
        first, *frozen = (moved(hosts[i], hosts[i + 1], part) for i in range(3))
        assert all(first), part
        for each in frozen:
            assert all(each) if part == "decoder" else not any(each), part


def test_metrics_by_definition(one_device):
    items = training.Items(np.zeros((4, 2), "f4"), np.array([0, 1, 3]), np.array([2]))
    result = training.Evaluation(
        codes=np.array([[0, 1], [0, 1], [2, 0], [2, 1]]),
        latents=np.zeros((4, 3), "f4"),
        loss=np.array([1.0, 2, 3, 6], "f4"),
        reconstruction=np.array([0.0, 1, 2, 3], "f4"),
        error=np.array([1.0, 1, 1, 1], "f4"),
        square=np.array([2.0, 2, 2, 4], "f4"),
    )
    made = training.metrics(result, items, (3, 2))
    assert made["loss"] == 3  # of the held-out item
    assert made["train_loss"] == 3
    assert made["reconstruction"] == 1.5
    assert made["energy_left"] == 0.4
    assert (made["distinct"], made["conflict_items"]) == (3, 1)
    assert [level["used"] for level in made["levels"]] == [2, 2]
    no_validation = dataclasses.replace(items, validation=np.arange(0))
    assert training.metrics(result, no_validation, (3, 2))["loss"] == 3


@pytest.mark.parametrize("ratio, held", [(0.0, 0), (0.1, 10), (0.333, 33), (0.99, 99)])
def test_split_holds_out_a_share_once(ratio, held):
    train, validation = training.split_items(100, ratio, seed=4)
    assert len(validation) == held
    np.testing.assert_array_equal(
        np.sort(np.concatenate([train, validation])), np.arange(100)
    )


def test_split_depends_on_the_seed_alone():
    first, again, other = (training.split_items(50, 0.2, seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_column_statistics_keep_the_scale_of_constant_columns():
    x = np.random.default_rng(0).normal(size=(50, 3)).astype("f4") * 7 + 100
    x[:, 1] = 3.5
    made = training.column_statistics(x)
    np.testing.assert_allclose(made["mean"], x.mean(axis=0, dtype="f8"), rtol=1e-6)
    deviation = x.std(axis=0, dtype="f8")
    deviation[1] = 1
    np.testing.assert_allclose(made["deviation"], deviation, rtol=1e-6)
    standard = (x - made["mean"]) / made["deviation"]
    np.testing.assert_allclose(standard[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(standard[:, [0, 2]].std(axis=0), 1, rtol=1e-4)


def test_rows_of_a_memory_map_come_in_the_order_asked_for(tmp_path):
    values = np.random.default_rng(0).normal(size=(30, 4)).astype("f2")
    np.save(tmp_path / "x.npy", values)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows = np.array([[3, 3, 29], [0, 17, 3]])
    made = training.read_rows(mapped, rows)
    assert not isinstance(made, np.memmap)
    np.testing.assert_array_equal(made, values[rows])


if __name__ == "__main__":
    write_engines(sys.argv[1])
