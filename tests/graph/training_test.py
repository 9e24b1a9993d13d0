# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Training of graph recommenders: calls of any length, devices, ranking, choices.

Run as a script it trains on all devices and writes an .npz.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.data import pairs, synthetic, triplets
from rfrec.evaluation import ranking
from rfrec.graph import adjacency, gume, losses, training
from rfrec.graph.model import GUME, Encoded, Model, make_constants
from rfrec.train import loop, optim, partition

STEPS, BATCH = 7, 96
WIDTHS = {"text": 12, "image": 9}


def make_split():
    inter = synthetic.histories(
        70, num_items=45, mean_length=9.0, max_length=20, seed=1
    )
    return pairs.from_interactions(inter, how="leave_one_out")


def make_features(split):
    made = synthetic.catalogue(split.num_items, widths=WIDTHS, seed=1).values
    return dict(zip(WIDTHS, np.split(made, [WIDTHS["text"]], axis=1), strict=True))


def make_gume(split, **shape):
    features = make_features(split)
    arch = gume.Architecture(
        *(split.num_users, split.num_items, tuple(WIDTHS), tuple(WIDTHS.values())),
        width=8,
        **shape,
    )
    matrices = adjacency.build(*split.train, features, adjacency.Options(5))
    given = tuple(features.values())
    constants = make_constants(arch, adjacency.place(matrices), given)
    weights = losses.Weights(batch_size=BATCH)
    return GUME(arch, weights, given), constants


def make_trainer(engine, model, constants, *, lr=0.02, name="adam", **settings):
    split = make_split()
    table = triplets.build(split.train)
    schedule = loop.Schedule(
        epochs=10,
        steps_per_epoch=triplets.num_batches(table, BATCH),
        steps_per_call=STEPS,
        eval_every=1,
    )
    return training.Trainer(
        model=model,
        constants=constants,
        optimizer=optim.build(optim.Optimizer(name=name, lr=lr), 100),
        schedule=schedule,
        batch_size=BATCH,
        engine=engine,
        split=split,
        table=table,
        top_k=20,
        **settings,
    )


def trained(calls=(STEPS,)):
    """The steps cross the end of an epoch, whose last batch is filled up."""
    engine = partition.make_engine("jit")
    trainer = make_trainer(engine, *make_gume(make_split()), lr=0.5, name="sgd")
    assert trainer.schedule.steps_per_epoch < STEPS
    run = training.Run(trainer)
    state, told, done = engine.replicate(trainer.init(0)), [], 0
    for count in calls:
        state, values = run.program().run(state, done, count)
        told.append({name: value[:count] for name, value in values.items()})
        done += count
    leaves = jax.tree_util.tree_leaves_with_path(engine.fetch(state).params)
    found = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    for name in told[0]:
        found[name] = np.concatenate([values[name] for values in told])
    return found | {"scores": run.rank(run.encode(state, {})).scores}


@pytest.fixture(scope="module")
def reference():
    return trained()


def test_calls_of_any_length_do_the_same_steps(reference):
    split = trained(calls=(1, 4, 2))
    for name, value in reference.items():
        np.testing.assert_array_equal(split[name], value, err_msg=name)


@pytest.mark.multidevice
def test_eight_devices_give_the_same_numbers(reference, run_python, tmp_path):
    run_python([__file__, str(tmp_path / "all.npz")])
    with np.load(tmp_path / "all.npz", allow_pickle=False) as found:
        assert set(found.files) == set(reference)
        for name in found.files:
            np.testing.assert_allclose(
                found[name], reference[name], rtol=1e-3, atol=1e-5, err_msg=name
            )


def test_the_losses_told_are_those_of_the_model_on_the_same_batches(reference):
    engine = partition.make_engine("jit")
    model, constants = make_gume(make_split())
    trainer = make_trainer(engine, model, constants, lr=0.5, name="sgd")
    state, losses = trainer.init(0), []
    params, root = state.params, jax.random.wrap_key_data(state.key)
    _, order, noise = jax.random.split(root, 3)

    @jax.jit
    def objective(params, batch, key):
        return jax.value_and_grad(
            lambda p: model.loss(p, {}, constants, batch, key, jnp.int32(0))[0]
        )(params)

    for step in range(STEPS):
        epoch, index = divmod(step, trainer.schedule.steps_per_epoch)
        batch = triplets.batch(trainer.table, order, epoch, index, BATCH)
        value, grads = objective(params, batch, jax.random.fold_in(noise, step))
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, grads)
        losses.append(value)
    np.testing.assert_allclose(reference["loss"], losses, rtol=1e-4)


def test_features_are_trained_unless_they_are_frozen(reference):
    split = make_split()
    for name, start in make_features(split).items():
        trained_table = reference[f"['features']['{name}']"]
        assert np.abs(trained_table - start).max() > 1e-4
    frozen = make_gume(split, freeze_features=True)
    state = make_trainer(partition.make_engine("jit"), *frozen).init(0)
    assert "features" not in state.params


def test_it_learns_and_ranks_no_item_of_training():
    engine = partition.make_engine("jit")
    trainer = make_trainer(engine, *make_gume(make_split()))
    run = training.Run(trainer)
    state, program = engine.replicate(trainer.init(0)), run.program()
    before = program.evaluate(state)
    for call in range(20):
        state, told = program.run(state, call * STEPS, STEPS)
    after = program.evaluate(state)
    assert told["bpr"][-1] < 0.3
    assert after["recall@10"] > max(0.3, before["recall@10"] + 0.05)
    lists = run.rank(run.encode(state, {}))
    for user, listed in enumerate(lists.items):
        start, end = trainer.split.train.indptr[user : user + 2]
        assert not np.isin(listed, trainer.split.train.items[start:end]).any()


class TableModel(Model):
    """Embeddings that are parameters; a choice changes their sign."""

    def __init__(self, split, choices=()):
        self.split, self.choices = split, choices

    def init(self, key):
        keys = jax.random.split(key)
        shapes = ((self.split.num_users, 4), (self.split.num_items, 4))
        return [jax.random.normal(*pair) for pair in zip(keys, shapes, strict=True)], {}

    def encode(self, params, model_state, constants, epoch, sign=1.0):
        return Encoded(sign * params[0], params[1], {"epoch": epoch, "sign": sign})

    def loss(self, params, model_state, *rest):
        return sum(jnp.sum(leaf) for leaf in params), ({}, model_state + 1)


class CountingModel(TableModel):
    """Its state depends on the updated parameters."""

    def init(self, key):
        return super().init(key)[0], 0.0

    def after_update(self, params, model_state):
        return 10 * model_state + jnp.float32(params[0][0, 0] < 0)


def test_metrics_are_those_of_lists_made_by_hand():
    split = make_split()
    trainer = make_trainer(partition.make_engine("jit"), TableModel(split), ())
    run, state = training.Run(trainer), trainer.init(3)
    told = run.program().evaluate(trainer.engine.replicate(state))
    recall = []
    for user in range(split.num_users):
        scores = state.params[1] @ state.params[0][user]
        start, end = split.train.indptr[user : user + 2]
        scores[split.train.items[start:end]] = -np.inf
        best = np.argsort(-scores)[:20]
        recall.append(np.isin(split.valid.items[user], best))
    np.testing.assert_allclose(told["recall@20"], np.mean(recall), rtol=1e-6)
    assert told["epoch"] == 0


def test_validation_chooses_how_to_encode():
    split = make_split()
    signs = ({"sign": -1.0}, {"sign": 1.0})
    trainer = make_trainer(
        partition.make_engine("jit"), TableModel(split, choices=signs), ()
    )
    run, state = training.Run(trainer), trainer.init(3)
    placed = trainer.engine.replicate(state)
    choice = run.choose(placed)
    values = [
        run.validate(run.rank(run.encode(placed, sign)))["recall@20"] for sign in signs
    ]
    assert choice.tried == tuple(values)
    assert choice.arguments == signs[int(np.argmax(values))]
    assert min(values) < max(values)
    assert run.choose(placed) == choice


def test_a_model_without_choices_has_nothing_tried():
    trainer = make_trainer(partition.make_engine("jit"), TableModel(make_split()), ())
    state = trainer.engine.replicate(trainer.init(0))
    assert training.Run(trainer).choose(state) == training.Choice({}, ())


def test_metrics_are_rounded_where_asked_for():
    split = make_split()
    found = []
    for decimals in (None, 2):
        trainer = make_trainer(
            partition.make_engine("jit"), TableModel(split), (), decimals=decimals
        )
        lists = ranking.Lists(
            np.tile(np.arange(20, dtype=np.int32), (split.num_users, 1)),
            np.zeros((split.num_users, 20), np.float32),
        )
        found.append(training.Run(trainer).validate(lists))
    for name, value in found[0].items():
        assert found[1][name] == round(value, 2)


def test_the_state_of_the_model_moves_after_the_parameters():
    split = make_split()
    model = CountingModel(split)
    trainer = make_trainer(
        partition.make_engine("jit"), model, (), lr=100.0, name="sgd"
    )
    state = trainer.engine.replicate(trainer.init(0))
    state, _ = training.Run(trainer).program().run(state, 0, 2)
    # From 0: one added by the loss, ten times and one more for the sign; twice.
    assert float(state.model_state) == 121.0


if __name__ == "__main__":
    np.savez(Path(sys.argv[1]), **trained())
