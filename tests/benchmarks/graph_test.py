# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows of the graphs: PyTorch's side is GUME by definition, and both do the same."""

import dataclasses
import functools
import json
import pathlib
import runpy

import jax
import numpy as np
import pytest

from rfrec.benchmarks import cases, graph_data, gume, torch_graph, torch_gume
from rfrec.benchmarks import graph as bench_graph
from rfrec.config import UserError
from rfrec.data import pairs
from rfrec.evaluation import metrics, report
from rfrec.graph import losses
from rfrec.launch import bench

ROOT = pathlib.Path(__file__).parents[2]
GROUPS = ("gume", "spmm", "knn", "flow")


def _config(variant="smoke", name="bench"):
    file = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))
    return file["get_config"](variant)


def _case(name, **settings):
    case = next(c for c in cases.build(_config()) if c.name == name)
    return case._replace(settings=case.settings | settings)


@pytest.fixture(autouse=True)
def single_threaded(monkeypatch):
    # PyTorch's threads wait for each other where tests share the cores.
    def set_up(device):
        import torch

        torch.set_num_threads(1)

    monkeypatch.setattr(torch_gume, "set_up", set_up)
    monkeypatch.setattr(torch_graph, "set_up", set_up)


@pytest.fixture(scope="module")
def settings():
    return _case("gume/train_step_baby").settings


@pytest.fixture(scope="module")
def data(settings):
    return bench_graph.draw(settings, 0)


# Names and sizes.


def test_the_rows_have_the_promised_names():
    names = [case.name for case in cases.build(_config(""))]
    assert [n for n in names if n.split("/")[0] in GROUPS] == [
        "gume/train_step_baby",
        "gume/train_step_baby_frozen",
        "gume/train_step_baby_both_frozen",
        "gume/evaluate_baby",
        "gume/evaluate_baby_encode_once",
        "gume/epoch_baby",
        "gume/build_graphs_baby",
        "spmm/baby_64",
        "spmm/baby_128",
        "knn/63001x4096",
        "flow/one_step_overhead",
        "flow/diffrax_over_scan",
        "flow/diffrax_over_scan_gradient",
    ]


def test_the_model_is_the_one_that_is_trained():
    ours, trained = _config("").gume, _config("baby", "gume")
    for name in ("width", "ui_layers", "item_layers"):
        assert ours[name] == trained.model[name]
    assert ours.batch_size == trained.train.batch_size
    assert ours.neighbours == trained.graph.neighbours
    assert gume.OPTIMIZER.lr == trained.optim.lr
    assert losses.Weights() == losses.Weights(
        batch_size=ours.batch_size, **trained.loss
    )


def test_every_key_has_a_rule():
    for variant in ("", "smoke"):
        config = _config(variant)
        keys = {f"{section}.{key}" for section in GROUPS for key in config[section]}
        assert keys <= bench.rules(config).keys()
        bench.cfg.check(config, bench.rules(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gume.valid_pairs": 59}, "config.gume.valid_pairs=59: must be an integer, a"),
        ({"gume.train_pairs": 601}, "at most a quarter of what users and items allow"),
        ({"gume.neighbours": 41}, "no more than config.gume.num_items"),
        ({"gume.feature_widths": ()}, "config.gume.feature_widths"),
        ({"knn.shapes": ((4, 12),)}, "no fewer vectors than config.knn.neighbours"),
        ({"flow.rows": 0}, "config.flow.rows=0"),
    ],
)
def test_impossible_sizes_are_named(change, message):
    config = _config()
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        bench.cfg.check(config, bench.rules(config))


# The data.


def test_purchases_have_the_sizes_asked_for(settings):
    split = graph_data.purchases(settings, 0)
    parts = [getattr(split, part) for part in pairs.PARTS]
    assert [len(p.items) for p in parts] == [300, 64, 66]
    assert all((p.counts > 0).all() for p in parts)
    keys = np.concatenate([p.users * split.num_items + p.items for p in parts])
    assert len(np.unique(keys)) == len(keys)
    again = graph_data.purchases(settings, 0)
    assert again.fingerprint == split.fingerprint
    assert graph_data.purchases(settings, 1).fingerprint != split.fingerprint


def test_popularity_and_activity_have_long_tails():
    sizes = {
        "num_users": 2000,
        "num_items": 1000,
        "train_pairs": 12_000,
        "valid_pairs": 2000,
        "test_pairs": 2000,
    }
    split = graph_data.purchases(sizes, 0)
    for counts in (
        np.bincount(split.train.items, minlength=1000),
        split.train.counts,
    ):
        assert counts.max() > 4 * np.median(counts)


def test_vectors_in_a_file_are_as_asked(tmp_path):
    path = tmp_path / "x.npy"
    graph_data.write_vectors(path, (5000, 6), 0)
    x = np.load(path, mmap_mode="r")
    assert x.shape == (5000, 6) and x.dtype == np.float32
    assert np.isfinite(x).all() and len(np.unique(x[:, 0])) > 4900


def test_modalities_agree_on_who_is_alike(data):
    assert data.matrices.adjacency[60:, 60:].nnz > 0


# PyTorch's side, by definition, and ours.


def test_parts_of_the_loss_equal_loops():
    torch = pytest.importorskip("torch", reason="times or compares torch")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5, 3)).astype(np.float32)
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y)]
    logits = np.exp(unit[0] @ unit[1].T / 0.3)
    wanted = -np.mean(np.log(np.diag(logits) / logits.sum(axis=1)))
    x, y = torch.tensor(x), torch.tensor(y)
    assert torch_gume.info_nce(x, y, 0.3).item() == pytest.approx(wanted, 1e-5)
    moved = torch_gume.perturb(x) - x
    np.testing.assert_allclose(moved.norm(dim=1), 0.1, rtol=1e-5)
    assert (moved * x >= 0).all()
    gap = abs(x.numpy().var(ddof=1) - y.numpy().var(ddof=1))
    gap += abs(x.numpy().mean() - y.numpy().mean())
    assert torch_gume.align([x, y]).item() == pytest.approx(gap, rel=1e-5)


def test_metrics_equal_ours(settings, data):
    torch = pytest.importorskip("torch", reason="times or compares torch")
    split = data.split
    rng = np.random.default_rng(0)
    lists = np.stack([rng.permutation(split.num_items) for _ in range(60)])
    wanted = torch.tensor(gume.padded(split).heldout[0].astype(np.int64))
    found = torch_gume.metrics(torch.tensor(lists), wanted, split.num_items)
    matches = metrics.match_rows(lists, *split.valid)
    for column, values in zip(
        found.T, metrics.per_user(matches, report.PAIR_NAMES).values(), strict=True
    ):
        np.testing.assert_allclose(column, values, rtol=1e-5)


def _after(settings, data, steps):
    """Embeddings of both sides after some steps, and their losses."""
    trainer = gume.make_trainer(settings, data)
    running = gume.Running(trainer, 0)
    model = gume.plain_model(settings, data, trainer.init(0).params)
    drawn = gume.batches(trainer, 0, steps)
    theirs = torch_gume.train(model, drawn, steps)()
    ours = running.advance(steps)
    z = running.run.encode(running.state, {})
    return (ours, (z.users, z.items)), (theirs, model.embeddings())


@pytest.mark.parametrize("frozen", [False, True])
def test_both_sides_take_the_same_steps(settings, data, monkeypatch, frozen):
    pytest.importorskip("torch", reason="times or compares torch")
    # Each side draws its perturbations for itself: without the part that has them.
    plain = losses.Weights(user=0.0)
    monkeypatch.setattr(
        gume.losses, "Weights", functools.partial(dataclasses.replace, plain)
    )
    both = settings | {"freeze_features": frozen, "torch_freezes": frozen}
    # Six steps: the fifth is the shorter last one of an epoch.
    (ours, z), (theirs, other) = _after(both, data, 6)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for a, b in zip(z, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_with_perturbations_both_sides_have_nearly_the_same_loss():
    pytest.importorskip("torch", reason="times or compares torch")
    made = cases.prepare(_case("gume/train_step_baby"), True)
    assert made.torch is not None
    ours, theirs = made.ours(), made.torch()
    assert (len(ours), len(theirs)) == (3, 2)
    assert 0 < made.disagreement(ours, theirs) < made.tolerance


@pytest.mark.parametrize("once", [False, True])
def test_both_sides_rank_alike(once):
    pytest.importorskip("torch", reason="times or compares torch")
    made = cases.prepare(_case("gume/evaluate_baby", torch_encodes_once=once), True)
    assert made.torch is not None
    ours, theirs = made.ours(), made.torch()
    assert ours.shape == (2, 16)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert made.disagreement(ours, theirs) < made.tolerance
    assert made.peak_bytes() > 0


def test_both_sides_list_the_same_items(settings, data):
    torch = pytest.importorskip("torch", reason="times or compares torch")
    trainer = gume.make_trainer(settings, data)
    run = gume.training.Run(trainer)
    state = trainer.engine.replicate(trainer.init(0))
    lists = run.rank(run.encode(state, {})).items
    model = gume.plain_model(settings, data, trainer.init(0).params)
    seen = torch.tensor(gume.padded(data.split).train.astype(np.int64))
    other = torch_gume.rank(model.embeddings(), torch.arange(60), seen)
    listed = lists >= 0
    np.testing.assert_array_equal(
        lists[listed], other.numpy()[:, : lists.shape[1]][listed[:, : other.shape[1]]]
    )


@pytest.mark.parametrize("name", ["gume/build_graphs_baby", "spmm/baby_8"])
def test_both_sides_of_the_graphs_agree(name):
    pytest.importorskip("torch", reason="times or compares torch")
    made = cases.prepare(_case(name), True)
    assert made.torch is not None
    np.testing.assert_allclose(made.ours(), made.torch(), rtol=1e-4, atol=1e-5)


def test_a_node_without_edges_stays_finite():
    torch = pytest.importorskip("torch", reason="times or compares torch")
    rows, columns = torch.tensor([0, 1]), torch.tensor([1, 0])
    graph = torch_graph.normalised(rows, columns, torch.ones(2), 3).to_dense()
    np.testing.assert_array_equal(graph, [[0, 1, 0], [1, 0, 0], [0, 0, 0]])


def test_neighbours_in_a_file_are_the_nearest():
    case = _case("knn/50x12")
    made = cases.prepare(case, False)
    items = made.ours()
    assert items.shape == (50, 5) and made.torch is None
    np.testing.assert_array_equal(items[:, 0], np.arange(50))
    assert made.peak_bytes() >= 0


# The flow.


@pytest.mark.parametrize("gradient", [False, True])
def test_diffrax_and_the_scan_generate_the_same(gradient):
    made = cases.prepare(_case("flow/diffrax_over_scan", gradient=gradient), False)
    assert made.against is not None
    np.testing.assert_allclose(made.ours(), made.against(), rtol=1e-3, atol=1e-4)


def test_an_epoch_with_the_flow_leaves_the_host_alone():
    made = cases.prepare(_case("flow/one_step_overhead"), False)
    assert made.against is not None and made.unit == "fraction"
    # Blocks are methods of the two runs.
    blocks = (made.ours, made.against)
    assert all(np.isfinite(block()).all() for block in blocks)
    runs = [block.__self__ for block in blocks]
    ours, plain = (run.trainer.engine.fetch(run.state).params for run in runs)
    assert "rf" in ours and "rf" not in plain
    host = {name: ours[name] for name in plain}
    jax.tree.map(np.testing.assert_array_equal, host, plain)
    assert made.peak_bytes() > 0


# The numbers.


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("gume/build_graphs_baby", "s"),
        ("spmm/baby_8", "ms"),
        ("knn/50x12", "s"),
        ("flow/diffrax_over_scan", "fraction"),
    ],
)
def test_a_row_holds_what_was_measured(name, unit):
    row = cases.measure(_case(name), torch=False)
    assert row.name == name and row.unit == unit and row.device
    assert row.torch is None and row.ratio is None and row.peak_bytes >= 0
    assert -1 < row.ours < 1e5 and (unit == "fraction" or row.ours > 0)
    assert json.loads(json.dumps(row._asdict())) == row._asdict()


def test_memory_of_a_step_covers_features_and_what_adam_keeps_of_them():
    case = _case("gume/train_step_baby", feature_widths=(2000, 12))
    assert cases.measure(case, torch=False).peak_bytes > 3 * 40 * 2000 * 4
