# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME with a flow: what the host hears of it, rows, sides, reflow, quality.

Run as a script it trains on all devices and writes an .npz.
"""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfrec.data import triplets
from rfrec.graph import (
    adjacency,
    gume,
    losses,
    rf_flow,
    rf_gume,
    rf_quality,
    rf_reflow,
)
from rfrec.graph.model import GUME, HOST, RF, make_constants
from rfrec.graph.rf_gume import RFGume
from rfrec.rf import settings as switches
from rfrec.train import partition

USERS, ITEMS, ROWS, WIDTH = 24, 18, 16, 8
WIDTHS = {"text": 6, "image": 5}
TINY = {"hidden_dim": 16, "n_layers": 1, "sampling_steps": 2}


def make_settings(preset, **overrides):
    """A preset whose loss solves no ODE: that takes ten seconds to compile."""
    small: dict[str, dict] = {
        "joint": {"contrast": "none"},
        "plugin": {"contrast": "infonce_endpoint"},
    }
    small["improved"] = {"rows": 32, "negatives": 8, "heldout_share": 0.3}
    return switches.resolve(preset, TINY | small[preset] | overrides)


@functools.cache
def parts():
    rng = np.random.default_rng(0)
    features = {m: rng.normal(size=(ITEMS, w)).astype("f4") for m, w in WIDTHS.items()}
    rows = [np.sort(rng.choice(ITEMS, 4, replace=False)) for _ in range(USERS)]
    indptr, items = np.arange(USERS + 1) * 4, np.concatenate(rows)
    arch = gume.Architecture(USERS, ITEMS, tuple(WIDTHS), tuple(WIDTHS.values()), WIDTH)
    matrices = adjacency.build(indptr, items, features, adjacency.Options(4))
    given = tuple(features.values())
    weights = losses.Weights(batch_size=ROWS)
    constants = make_constants(arch, adjacency.place(matrices), given)
    return arch, weights, given, constants


def make_model(settings=None):
    arch, weights, given, _ = parts()
    if settings is None:
        return GUME(arch, weights, given)
    return RFGume(arch, weights, given, settings)


def make_flow(settings):
    return make_model(settings).flow


def make_batch(key, filled=0):
    users, positives, negatives = (
        jax.random.randint(k, (ROWS,), 0, n)
        for k, n in zip(jax.random.split(key, 3), (USERS, ITEMS, ITEMS), strict=True)
    )
    weights = (jnp.arange(ROWS) < ROWS - filled).astype(jnp.float32)
    return triplets.Triplets(users, positives, negatives, weights)


@functools.cache
def train(settings=None):
    """Does 8 steps, 2 an epoch, in one compiled call.

    Returns:
      Parameters and state in the end; the terms of all steps, with the users' table,
      and what stands of the flow's state after each.
    """
    model, constants = make_model(settings), parts()[3]
    params, state = model.init(jax.random.key(0))
    # Whose norm must not know of a flow that the host does not hear.
    rule = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.05))
    if settings is not None:
        rule = rf_gume.optimizer(settings, rule, model)

    def one(carry, step):
        params, state, opt_state = carry
        key = jax.random.fold_in(jax.random.key(1), step)
        batch = make_batch(jax.random.fold_in(jax.random.key(2), step))
        grads, (terms, state) = jax.grad(model.loss, has_aux=True)(
            params, state, constants, batch, key, step // 2
        )
        updates, opt_state = rule.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        state = model.after_update(params, state)
        terms = {**terms, "table": params["users"], "state": state}
        return (params, state, opt_state), terms

    start = (params, state, rule.init(params))
    (params, state, _), terms = jax.jit(
        lambda start: jax.lax.scan(one, start, jnp.arange(8))
    )(start)
    return params, state, terms


def encode(settings, params, state, epoch=9, **choice):
    model, constants = make_model(settings), parts()[3]
    when = jnp.int32(epoch)
    return jax.jit(lambda: model.encode(params, state, constants, when, **choice))()


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("preset", switches.PRESETS)
def test_a_ratio_of_zero_is_gume_bit_for_bit(preset):
    wanted = train()[0]
    settings = make_settings(preset)
    if settings.mix_ratio:
        settings = make_settings(preset, mix_ratio=0.0, inference_mix_ratio=0.0)
    params, state, terms = train(settings)
    host = {k: v for k, v in params.items() if k != rf_gume.FLOW}
    assert_equal(host, wanted)
    assert np.all(terms["rf_loss"] > 0)
    plain, mixed = encode(None, wanted, {}), encode(settings, params, state)
    assert_equal((mixed.users, mixed.items), (plain.users, plain.items))


def test_improved_ranks_as_gume_until_a_ratio_is_chosen():
    settings = make_settings("improved")
    model = make_model(settings)
    assert model.choices[0] == {"ratio": 0.0}
    assert len(model.choices) == len(settings.inference_choices) > 3
    params, state, _ = train(settings)
    plain = encode(settings, params, state)
    none, some = (
        encode(settings, params, state, ratio=jnp.float32(r)) for r in (0, 0.5)
    )
    np.testing.assert_allclose(none.items, plain.items, rtol=1e-6)
    assert np.abs(some.items - plain.items).max() > 1e-4


def test_warmup_epochs_are_those_of_gume():
    settings = make_settings("plugin", warmup_epochs=3)
    params, state, terms = train(settings)
    apart = np.abs(terms["table"] - train()[2]["table"]).max(axis=(1, 2))
    # Compiled with the mixing in it, the host rounds differently.
    assert apart[:6].max() < 1e-3 < apart[6:].min()
    early, late = (
        encode(settings, params, state, epoch=jnp.int32(e)).users for e in (2, 3)
    )
    assert np.any(early != late)


def gradients(settings):
    model = make_model(settings)
    params, state = model.init(jax.random.key(0))
    args = (state, parts()[3], make_batch(jax.random.key(4)), jax.random.key(5))
    return jax.jit(jax.grad(lambda p: model.loss(p, *args, jnp.int32(0))[0]))(params)


def largest(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


# One generator in place of two, each of which is a solve to differentiate and compile.
ONE = {"generators": "shared"}


def test_the_hosts_loss_reaches_the_generator_in_the_joint_preset_alone():
    settings = make_settings("joint", loss_weight=0.0, **ONE)
    assert largest(gradients(settings)["rf"]) > 0
    silent = {"loss_weight": 0.0, "contrast": "none"}
    assert largest(gradients(make_settings("plugin", **silent))["rf"]) == 0


def test_an_embedding_that_is_replaced_moves_by_the_flows_target_alone():
    # Users enter through H alone, which the generated rows have replaced.
    detached = gradients(make_settings("joint", **ONE))
    assert largest(detached["users"]) == 0
    assert largest(detached["items"]) > 0
    attached = make_settings("joint", attach_target=True, **ONE)
    assert largest(gradients(attached)["users"]) > 0


def test_each_side_has_its_own_network_where_they_are_split():
    flow = make_flow(make_settings("joint"))
    params, state = flow.init(jax.random.key(0))
    assert set(params) == {"users", "items"}
    host = make_host()
    nodes = jnp.asarray([0, 3, 5, USERS, USERS + 4], jnp.int32)
    weights = jnp.asarray([1, 1, 1, 0, 0], jnp.float32)
    args = (flow.split(nodes, 3), weights, None, jax.random.key(0))
    grads = jax.grad(lambda p: flow.loss(p, state, host, *args)[0])(params)
    assert largest(grads["users"]) > 0
    assert largest(grads["items"]) == 0


@functools.cache
def make_host(seed=3):
    rng = np.random.default_rng(seed)

    def draw(width):
        return rf_flow.Sides(
            *(jnp.asarray(rng.normal(size=(n, width)), "f4") for n in (USERS, ITEMS))
        )

    return rf_flow.Host(draw(WIDTH), draw(2 * WIDTH), draw(WIDTH))


def test_rows_that_are_held_out_never_train_the_flow():
    settings = make_settings(
        "improved", heldout_share=0.4, rows=0, neighbour_condition=False
    )
    flow = make_flow(settings)
    params, state = flow.init(jax.random.key(0))
    host, out = make_host(), flow.heldout()
    assert 0.2 < out.mean() < 0.6
    assert_equal(out, flow.heldout())
    sides = out[:USERS], out[USERS:]
    strange = rf_flow.Sides(
        *(
            jnp.where(jnp.asarray(rows)[:, None], 7.0, x)
            for rows, x in zip(sides, host.behaviour, strict=True)
        )
    )
    everybody = jnp.arange(USERS + ITEMS)

    def run(host):
        pieces = flow.split(everybody, USERS)
        weights = jnp.ones(len(everybody))
        return flow.loss(params, state, host, pieces, weights, None, jax.random.key(0))

    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        run(host),
        run(host._replace(behaviour=strange)),
    )


@pytest.mark.parametrize("generators", ["shared", "split"])
def test_the_contrast_compares_the_rows_that_the_host_was_given(generators):
    settings = make_settings("joint", generators=generators, contrast="mse")
    flow = make_flow(settings)
    params, state = flow.init(jax.random.key(0))
    host, users = make_host(), 3
    nodes = np.asarray([0, 3, 5, USERS, USERS + 4], np.int32)
    weights = np.asarray([1, 1, 0, 1, 1])
    generated = np.random.default_rng(7).normal(size=(5, WIDTH)).astype("f4")
    _, told, _ = flow.loss(
        params,
        state,
        host,
        flow.split(jnp.asarray(nodes), users),
        jnp.asarray(weights, jnp.float32),
        jnp.asarray(generated),
        jax.random.key(0),
    )
    square = (generated - np.concatenate(host.behaviour)[nodes]) ** 2
    square = square.mean(axis=1)
    groups = (
        [slice(None)] if generators == "shared" else [slice(users), slice(users, 5)]
    )
    wanted = np.mean([np.average(square[g], weights=weights[g]) for g in groups])
    np.testing.assert_allclose(told["cl_loss"], wanted, rtol=1e-5)


def test_the_prior_of_users_is_their_distance_from_the_mean():
    flow = make_flow(make_settings("plugin"))
    host = make_host()
    (part,) = flow.split(jnp.asarray([2, 9, USERS + 1], jnp.int32), 2)
    assert host.prior is not None
    users = np.asarray(host.prior.users)
    wanted = np.zeros((3, WIDTH))
    wanted[:2] = users[[2, 9]] - users.mean(axis=0)
    found = flow.prior(host, part)
    np.testing.assert_allclose(jnp.asarray(found), wanted, atol=1e-5)
    unguided = make_flow(make_settings("joint"))
    assert unguided.prior(host, part) is None


@pytest.mark.parametrize("preset", ["plugin", "improved"])
def test_a_host_is_read_as_the_equations_say(preset):
    arch, _, given, constants = parts()
    params = gume.init(arch, jax.random.key(0), given)
    found = gume.propagate(arch, params, constants.graphs, constants.features)
    host = rf_gume.read_host(make_settings(preset), constants.graphs, found)
    wanted = [np.concatenate(found.explicit, axis=1)]
    if preset == "improved":
        rows = np.asarray(constants.graphs.user_item.forward.todense())
        joined = np.asarray(constants.graphs.joined.forward.todense())
        whole = np.block([[np.zeros((USERS, USERS)), rows], [rows.T, joined]])
        wanted.append(whole @ np.asarray(found.behaviour))
        assert host.prior is None
    else:
        assert host.prior is not None
        total = np.sum(found.explicit, axis=0)
        np.testing.assert_allclose(np.concatenate(host.prior), total, atol=1e-6)
    np.testing.assert_allclose(
        np.concatenate(host.condition), np.concatenate(wanted, axis=1), atol=1e-6
    )
    np.testing.assert_array_equal(np.concatenate(host.behaviour), found.behaviour)


@pytest.mark.parametrize("generators", ["shared", "split"])
def test_all_rows_in_blocks_are_those_generated_at_once(generators, monkeypatch):
    overrides = {"generators": generators, "neighbour_condition": False}
    settings = make_settings("improved", **overrides)
    flow = make_flow(settings)
    params, state = flow.init(jax.random.key(0))
    host, key = make_host(), jax.random.key(1)
    everybody = flow.split(jnp.arange(USERS + ITEMS), USERS)
    wanted = flow.generate_rows(state["ema"], state, host, everybody, key)
    for size in (5, 100):
        monkeypatch.setattr(rf_flow, "_BLOCK", size)
        made, asked = flow.generate_all(params, state, host, key)
        np.testing.assert_allclose(np.concatenate(made), wanted, rtol=1e-5, atol=1e-6)
        assert asked == settings.sampling_steps


@pytest.mark.parametrize("generators", ["shared", "split"])
def test_no_node_is_generated_twice_where_rows_outnumber_nodes(generators, monkeypatch):
    overrides = {"generators": generators, "neighbour_condition": False}
    flow = make_flow(make_settings("improved", **overrides))
    params, state = flow.init(jax.random.key(0))
    host, key, count = make_host(), jax.random.key(1), USERS + ITEMS
    everybody = flow.split(jnp.arange(count), USERS)
    wanted = np.asarray(flow.generate_rows(params, state, host, everybody, key))
    asked, generate = [], rf_flow.generator.generate

    def counted(settings, params, moments, condition, *args, **named):
        asked.append(len(condition))
        return generate(settings, params, moments, condition, *args, **named)

    monkeypatch.setattr(rf_flow.generator, "generate", counted)
    draws = np.random.default_rng(0)
    nodes = np.r_[draws.integers(0, USERS, 30), draws.integers(USERS, count, 30)]
    asked_for = flow.split(jnp.asarray(nodes), 30)
    made = flow.generate_rows(params, state, host, asked_for, key)
    np.testing.assert_array_equal(made, wanted[nodes])
    assert sum(asked) == count


def test_a_step_of_the_flow_draws_nodes_of_both_sides_evenly():
    flow = make_flow(make_settings("improved", rows=4200))
    nodes, users = flow.draw_nodes(jax.random.key(0))
    assert users == round(4200 * USERS / (USERS + ITEMS))
    assert nodes[:users].max() < USERS <= nodes[users:].min()
    counts = np.bincount(nodes, minlength=USERS + ITEMS)
    assert counts.min() > 60
    assert counts.max() < 140


@pytest.mark.parametrize("kind", ["reflow", "distil"])
@pytest.mark.parametrize("generators", ["shared", "split"])
def test_a_student_of_the_chosen_flow_does_in_one_step_what_took_ten(kind, generators):
    overrides = {"generators": generators, "neighbour_condition": False, "lr": 3e-3}
    more = {"reflow": kind, "reflow_steps": 300, "ema_decay": 0.9, "noise": "fresh"}
    flow = make_flow(make_settings("improved", sampling_steps=1, **overrides, **more))
    params, state = flow.init(jax.random.key(0))
    # A teacher whose paths are not straight.
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    state = {**state, "ema": params}
    host = make_host()
    learned, after = jax.jit(rf_reflow.straighten, static_argnums=0)(
        flow, params, state, host, jax.random.key(1)
    )
    assert set(learned) == set(flow.names)
    assert_equal(after["moments"], state["moments"])
    key, out = jax.random.key(2), flow.heldout()
    ten = dataclasses.replace(
        flow,
        settings=dataclasses.replace(flow.settings, sampling_steps=10, reflow="none"),
    )
    wanted = np.concatenate(ten.generate_all(params, state, host, key)[0])[~out]
    errors = [
        np.sqrt(
            np.mean(
                (np.concatenate(flow.generate_all(*pair, host, key)[0])[~out] - wanted)
                ** 2
            )
        )
        for pair in ((params, state), (learned, after))
    ]
    assert errors[1] < 0.5 * errors[0]


def test_quality_is_told_with_every_evaluation():
    settings = make_settings("improved")
    params, state, _ = train(settings)
    numbers = encode(settings, params, state).numbers
    made, target = (
        np.concatenate(a).astype("f8")
        for a in make_model(settings).generated_and_target(params, state, parts()[3])
    )
    out = make_flow(settings).heldout()
    for name, rows in {
        "rf_error": slice(None),
        "rf_error_users": slice(USERS),
        "rf_error_items": slice(USERS, None),
        "rf_error_heldout": out,
    }.items():
        x, y = made[rows], target[rows]
        wanted = np.sqrt(((x - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())
        np.testing.assert_allclose(numbers[name], wanted, rtol=1e-4)
    for kind, x in (("generated", made), ("target", target)):
        for side, rows in (("users", x[:USERS]), ("items", x[USERS:])):
            mean, std = (numbers[f"rf_{kind}_{m}_{side}"] for m in ("mean", "std"))
            np.testing.assert_allclose(mean, rows.mean(), atol=1e-6)
            np.testing.assert_allclose(std, rows.std(), rtol=1e-4)
    assert numbers["rf_evaluations"] == settings.sampling_steps
    everybody = np.zeros(USERS + ITEMS, bool)
    sides = rf_flow.Sides(jnp.float32(made[:USERS]), jnp.float32(made[USERS:]))
    same = rf_flow.Host(sides, sides, None)
    told = rf_quality.compare(sides, same, everybody)
    assert "rf_error_heldout" not in told
    assert told["rf_error"] == 0


def test_a_linear_map_of_the_conditions_is_told_beside_the_held_out_error():
    rng = np.random.default_rng(1)
    out = np.arange(USERS + ITEMS) % 4 == 0
    x = rng.normal(size=(len(out), 5)) * [1, 1e-3, 10, 1, 1] + 2
    # A condition that says what another does, and one that says nothing.
    x = np.c_[x, x[:, 0], np.ones(len(x))]
    y = x[:, :5] @ rng.normal(size=(5, WIDTH)) + rng.normal(size=(len(x), WIDTH))
    design, users = np.c_[x, np.ones(len(x))], np.arange(len(x)) < USERS
    fitted = np.zeros_like(y)
    for side in (users, ~users):
        rows = side & ~out
        best = np.linalg.lstsq(design[rows], y[rows], rcond=None)[0]
        fitted[side] = design[side] @ best
    y_out = y[out]
    wanted = np.sqrt(
        ((fitted[out] - y_out) ** 2).sum() / ((y_out - y_out.mean(0)) ** 2).sum()
    )
    sides = (
        rf_flow.Sides(jnp.float32(a[:USERS]), jnp.float32(a[USERS:])) for a in (y, x)
    )
    host = rf_flow.Host(*sides, None)
    told = rf_quality.compare(host.behaviour, host, out)
    np.testing.assert_allclose(told["rf_error_heldout_linear"], wanted, rtol=1e-3)
    assert told["rf_error_heldout"] == 0


def test_who_trains_what():
    for preset, own in (("joint", HOST), ("plugin", RF), ("improved", RF)):
        model = make_model(make_settings(preset))
        params, _ = model.init(jax.random.key(0))
        labels = model.labels(params)
        alone = make_model(make_settings(preset, mix_ratio=0.0)).labels(params)
        assert set(jax.tree.leaves(alone["rf"])) == {RF}
        assert set(jax.tree.leaves(labels.pop("rf"))) == {own}
        assert set(jax.tree.leaves(labels)) == {HOST}
        assert_equal(
            {k: v for k, v in params.items() if k != "rf"},
            make_model().init(jax.random.key(0))[0],
        )


def test_what_fills_a_batch_up_does_not_train_the_flow():
    settings = make_settings("plugin", mix_ratio=0.0)
    model, constants = make_model(settings), parts()[3]
    params, state = model.init(jax.random.key(0))
    one = make_batch(jax.random.key(4), filled=4)
    names = ("users", "positives", "negatives")
    other = one._replace(**{n: getattr(one, n).at[-4:].set(0) for n in names})
    run = jax.jit(
        lambda batch: model.loss(
            params, state, constants, batch, jax.random.key(5), jnp.int32(0)
        )
    )
    told = [run(batch)[1][0] for batch in (one, other)]
    for name in ("rf_loss", "cl_loss"):
        np.testing.assert_allclose(told[0][name], told[1][name], rtol=1e-5)


def sharded(preset):
    """Does a step on all devices."""
    engine = partition.make_engine("jit")
    settings = make_settings(preset, dropout=0.1, noise="fresh", **ONE)
    model = make_model(settings)
    params, state = model.init(jax.random.key(0))
    key = jax.random.key(1)

    def step(placed, constants, batch, count):
        del batch, count
        params, state = placed
        spread = engine.spread(make_batch(key))
        grads, (terms, state) = jax.grad(model.loss, has_aux=True)(
            params, state, constants, spread, key, jnp.int32(0)
        )
        return (params, state), {"grads": grads["rf"], "terms": terms}

    placed, constants = (engine.replicate(x) for x in ((params, state), parts()[3]))
    made = engine.fetch(engine.compile(step)(placed, constants, (), np.int32(0))[1])
    leaves = jax.tree_util.tree_leaves_with_path(made)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


@pytest.mark.slow
@pytest.mark.multidevice
@pytest.mark.parametrize("preset", ["joint", "improved"])
def test_eight_devices_draw_and_learn_the_same(preset, run_python, tmp_path):
    # Most of the time goes to compiling; what is compared does not depend on it.
    fast = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    run_python([__file__, preset, str(tmp_path / "all.npz")], env=fast)
    wanted = sharded(preset)
    with np.load(tmp_path / "all.npz", allow_pickle=False) as found:
        assert set(found.files) == set(wanted)
        for name in found.files:
            np.testing.assert_allclose(
                found[name], wanted[name], rtol=1e-3, atol=1e-5, err_msg=name
            )


if __name__ == "__main__":
    np.savez(sys.argv[2], **sharded(sys.argv[1]))
