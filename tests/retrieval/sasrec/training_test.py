# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""SASRec's training: packed as if alone, the same on every engine, learns an order.

Run as a script it trains on every engine of 8 devices and writes an .npz.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.data import interactions, synthetic
from rfrec.evaluation import metrics
from rfrec.retrieval.sasrec import model as sasrec
from rfrec.retrieval.sasrec import training as sasrec_training
from rfrec.train import loop, optim, partition

STEPS = 6


def ring(num_users=70, num_items=40, seed=0):
    """Users who walk around a ring of items: the next item is certain."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 14, num_users)
    starts = rng.integers(num_items, size=num_users)
    rows = [
        (s + np.arange(n)) % num_items for s, n in zip(starts, lengths, strict=True)
    ]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    items = np.concatenate(rows).astype(np.int32)
    return interactions.Interactions(
        indptr, items, num_items, tuple(map(str, range(num_users)))
    )


def make_trainer(engine, inter=None, *, lr=1e-2, dropout=0.2, name="adamw", **settings):
    inter = ring() if inter is None else inter
    arch = sasrec.Architecture(
        inter.num_items, history=12, width=16, hidden=16, heads=2, dropout=dropout
    )
    data = sasrec_training.prepare(inter, arch.history, seed=0)
    steps = -(-len(data.rows.items) // 8)
    schedule = loop.Schedule(
        epochs=10, steps_per_epoch=steps, steps_per_call=STEPS, eval_every=1
    )
    return sasrec_training.Trainer(
        arch=arch,
        optimizer=optim.build(optim.Optimizer(name=name, lr=lr), 100),
        schedule=schedule,
        batch_size=8,
        seed=0,
        engine=engine,
        data=data,
        top_k=10,
        **settings,
    )


def trained(engine, calls=(STEPS,)):
    trainer = make_trainer(engine, lr=0.5, name="sgd")
    run = sasrec_training.Run(trainer)
    state, losses, done = engine.replicate(trainer.init()), [], 0
    for count in calls:
        state, found = run.program().run(state, done, count)
        losses.append(np.asarray(found["loss"])[:count])
        done += count
    lists = run.rank(state, "valid")
    leaves = jax.tree_util.tree_leaves_with_path(engine.fetch(state).params)
    named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    return {"losses": np.concatenate(losses), "scores": lists.scores, **named}


@pytest.fixture(scope="module")
def reference():
    return trained(partition.make_engine("jit"))


def test_calls_of_any_length_do_the_same_steps(reference):
    split = trained(partition.make_engine("jit"), calls=(1, 3, 2))
    for name, value in reference.items():
        np.testing.assert_array_equal(split[name], value, err_msg=name)


def test_pmap_gives_the_same_numbers(reference):
    other = trained(partition.make_engine("pmap"))
    for name, value in reference.items():
        np.testing.assert_allclose(
            other[name], value, rtol=1e-4, atol=1e-5, err_msg=name
        )


@pytest.mark.multidevice
def test_eight_devices_give_the_same_numbers(reference, run_python, tmp_path):
    run_python([__file__, str(tmp_path / "all.npz")])
    with np.load(tmp_path / "all.npz", allow_pickle=False) as file:
        for key in file.files:
            engine, name = key.split("/", 1)
            np.testing.assert_allclose(
                file[key], reference[name], rtol=1e-3, atol=1e-4, err_msg=engine + name
            )


def alone(trainer, params, histories):
    """Vectors of histories, one a row, padded behind; and the item embeddings."""
    width = trainer.arch.history
    items, positions = np.zeros((2, len(histories), width), np.int32)
    for row, history in enumerate(histories):
        items[row, : len(history)] = history
        positions[row, : len(history)] = np.arange(len(history))[::-1]
    lengths = np.array([len(history) for history in histories])
    there = (np.arange(width)[None] < lengths[:, None]).astype(np.int32)
    model = sasrec.SASRec(trainer.arch)
    vectors = jax.jit(model.apply)({"params": params}, items, positions, there)
    return np.asarray(vectors, np.float64), np.asarray(params["items"], np.float64)


def test_the_loss_is_the_mean_over_the_targets_of_all_histories():
    trainer = make_trainer(partition.make_engine("jit"), dropout=0.0)
    rows, state = trainer.data.rows, trainer.init()
    batch = sasrec_training.Batch(*(jnp.asarray(a[:8]) for a in rows))
    ours = float(jax.jit(trainer.step)(state, batch)[1])
    histories, targets = [], []
    for row in range(8):
        for number in range(1, rows.histories[row].max() + 1):
            mine = rows.histories[row] == number
            histories.append(rows.items[row][mine])
            targets.append(rows.targets[row][mine])
    vectors, table = alone(trainer, state.params, histories)
    losses = []
    for vector, wanted in zip(vectors, targets, strict=True):
        scores = vector[: len(wanted)] @ table.T
        found = np.log(np.exp(scores).sum(-1)) - scores[np.arange(len(wanted)), wanted]
        losses += found.tolist()
    np.testing.assert_allclose(ours, np.mean(losses), rtol=1e-4)


def test_it_learns_what_is_certain_and_never_sees_held_out_items():
    trainer = make_trainer(partition.make_engine("jit"), dropout=0.1)
    run = sasrec_training.Run(trainer)
    state, program = trainer.engine.replicate(trainer.init()), run.program()
    for call in range(20):
        state, found = program.run(state, call * STEPS, STEPS)
    assert float(found["loss"][-1]) < 1.0
    told = program.evaluate(state)
    assert told["hr@1"] > 0.8
    test = metrics.match(run.rank(state, "test").items, run.targets("test"))
    assert metrics.hit_rate(test, 1).mean() > 0.8
    train = trainer.data.split.train
    per_user = np.split(train.items, train.indptr[1:-1])
    pairs = {pair for h in per_user for pair in zip(h[:-1], h[1:], strict=True)}
    rows = trainer.data.rows
    there = rows.histories > 0
    assert set(zip(rows.items[there], rows.targets[there], strict=True)) == pairs


@pytest.mark.parametrize("which", ["valid", "test"])
def test_lists_are_those_of_each_history_alone(which):
    inter = synthetic.histories(60, num_items=50, mean_length=9.0, seed=3)
    plain, filtered = (
        make_trainer(partition.make_engine("jit"), inter, filter_seen=seen)
        for seen in (False, True)
    )
    state = plain.init()
    lists = [
        sasrec_training.Run(t).rank(t.engine.replicate(state), which)
        for t in (plain, filtered)
    ]
    held = 2 if which == "valid" else 1
    histories = [inter.history(user)[:-held] for user in range(60)]
    latest = [history[-12:] for history in histories]
    vectors, table = alone(plain, state.params, latest)
    for user, history in enumerate(histories):
        scores = table @ vectors[user, len(latest[user]) - 1]
        order = np.argsort(-scores)
        for found, wanted in zip(
            lists, (order, order[~np.isin(order, history)]), strict=True
        ):
            np.testing.assert_allclose(
                found.scores[user], scores[wanted[:10]], rtol=1e-3, atol=1e-4
            )
            assert found.items[user, 0] == wanted[0]
        assert not np.isin(lists[1].items[user], history).any()


if __name__ == "__main__":
    results = {}
    for engine_name in ("pmap", "jit"):
        found = trained(partition.make_engine(engine_name))
        results |= {f"{engine_name}/{name}": value for name, value in found.items()}
    np.savez(Path(sys.argv[1]), **results)
