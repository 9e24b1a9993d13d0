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

from rfrec.benchmarks import cases, gume, torch_graph, torch_gume
from rfrec.benchmarks import data as bench_data
from rfrec.benchmarks import graph as bench_graph
from rfrec.benchmarks.options import SMOKE, Gume, Options, check_sizes
from rfrec.config import UserError, override
from rfrec.data import pairs
from rfrec.evaluation import metrics, report
from rfrec.graph import losses

ROOT = pathlib.Path(__file__).parents[2]
GROUPS = ("gume", "spmm", "knn", "flow")


def _case(name, **changes):
    """Returns a case of the tiny sizes, with some sizes of its group replaced."""
    options = override(SMOKE, **{name.split("/")[0]: changes})
    return next(case for case in cases.build(options) if case.name == name)


@pytest.fixture(autouse=True)
def single_threaded(monkeypatch):
    # PyTorch's threads wait for each other where tests share the cores.
    def set_up(device):
        import torch

        torch.set_num_threads(1)

    monkeypatch.setattr(torch_gume, "set_up", set_up)
    monkeypatch.setattr(torch_graph, "set_up", set_up)


@pytest.fixture(scope="module")
def data():
    return bench_graph.draw(SMOKE.gume, 0)


# Names and sizes.


def test_the_rows_have_the_promised_names():
    names = [case.name for case in cases.build(Options())]
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
    file = runpy.run_path(str(ROOT / "configs" / "gume.py"))
    ours, trained = Options().gume, file["get_config"]("baby")
    for name in ("width", "ui_layers", "item_layers"):
        assert getattr(ours, name) == trained.model[name]
    assert ours.batch_size == trained.train.batch_size
    assert ours.neighbours == trained.graph.neighbours
    assert gume.OPTIMIZER.lr == trained.optim.lr
    assert losses.Weights() == losses.Weights(
        batch_size=ours.batch_size, **trained.loss
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gume": {"valid_pairs": 59}}, "config.gume.num_users=60: must be at most 59"),
        (
            {"gume": {"train_pairs": 601}},
            "config.gume.train_pairs=601: must be at most",
        ),
        ({"gume": {"neighbours": 41}}, "config.gume.neighbours=41: must be at most 40"),
        ({"knn": {"shapes": ((4, 12),)}}, "config.knn.neighbours=5: must be at most 4"),
    ],
)
def test_sizes_that_contradict_each_other_are_named(change, message):
    with pytest.raises(UserError, match=message):
        check_sizes(override(SMOKE, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gume": {"feature_widths": ()}}, "feature_widths"),
        ({"flow": {"rows": 0}}, "rows=0"),
    ],
)
def test_impossible_sizes_are_named(change, message):
    with pytest.raises(UserError, match=message):
        override(SMOKE, **change)


# The data.


def test_purchases_have_the_given_sizes():
    sizes = SMOKE.gume
    split = bench_data.purchases(sizes, 0)
    parts = [getattr(split, part) for part in pairs.PARTS]
    assert [len(p.items) for p in parts] == [300, 64, 66]
    assert all((p.counts > 0).all() for p in parts)
    keys = np.concatenate([p.users * split.num_items + p.items for p in parts])
    assert len(np.unique(keys)) == len(keys)
    second = bench_data.purchases(sizes, 0)
    assert second.fingerprint == split.fingerprint
    assert bench_data.purchases(sizes, 1).fingerprint != split.fingerprint


def test_popularity_and_activity_have_long_tails():
    sizes = Gume(
        num_users=2000,
        num_items=1000,
        train_pairs=12_000,
        valid_pairs=2000,
        test_pairs=2000,
    )
    split = bench_data.purchases(sizes, 0)
    for counts in (
        np.bincount(split.train.items, minlength=1000),
        split.train.counts,
    ):
        assert counts.max() > 4 * np.median(counts)


def test_vectors_in_a_file_are_as_asked(tmp_path):
    path = tmp_path / "x.npy"
    bench_data.write_vectors(path, (5000, 6), 0)
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


def test_metrics_equal_ours(data):
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


def _after(data, frozen, steps):
    """Embeddings of both sides after some steps, and their losses."""
    sizes = SMOKE.gume
    trainer = gume.build_trainer(sizes, data, frozen)
    running = gume.Running(trainer, 0)
    model = gume.plain_model(sizes, data, trainer.init(0).params, frozen)
    drawn = gume.batches(trainer, 0, steps)
    theirs = torch_gume.train(model, drawn, steps)()
    ours = running.advance(steps)
    z = running.run.encode(running.state, {})
    return (ours, (z.users, z.items)), (theirs, model.embeddings())


@pytest.mark.parametrize("frozen", [False, True])
def test_both_sides_take_the_same_steps(data, monkeypatch, frozen):
    pytest.importorskip("torch", reason="times or compares torch")
    # Each side draws its perturbations for itself: without the part that has them.
    plain = losses.Weights(user=0.0)
    monkeypatch.setattr(
        gume.losses, "Weights", functools.partial(dataclasses.replace, plain)
    )
    # Six steps: the fifth is the shorter last one of an epoch.
    (ours, z), (theirs, other) = _after(data, frozen, 6)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for a, b in zip(z, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_with_perturbations_both_sides_have_nearly_the_same_loss():
    pytest.importorskip("torch", reason="times or compares torch")
    made = _case("gume/train_step_baby").prepare(True)
    assert made.torch is not None
    ours, theirs = made.ours(), made.torch()
    assert (len(ours), len(theirs)) == (3, 2)
    assert 0 < made.disagreement(ours, theirs) < made.tolerance


@pytest.mark.parametrize("once", ["", "_encode_once"])
def test_both_sides_rank_alike(once):
    pytest.importorskip("torch", reason="times or compares torch")
    made = _case(f"gume/evaluate_baby{once}").prepare(True)
    assert made.torch is not None
    ours, theirs = made.ours(), made.torch()
    assert ours.shape == (2, 16)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert made.disagreement(ours, theirs) < made.tolerance
    assert made.peak_bytes() > 0


def test_both_sides_list_the_same_items(data):
    torch = pytest.importorskip("torch", reason="times or compares torch")
    trainer = gume.build_trainer(SMOKE.gume, data)
    run = gume.training.Run(trainer)
    state = trainer.engine.replicate(trainer.init(0))
    lists = run.rank(run.encode(state, {})).items
    model = gume.plain_model(SMOKE.gume, data, trainer.init(0).params)
    seen = torch.tensor(gume.padded(data.split).train.astype(np.int64))
    other = torch_gume.rank(model.embeddings(), torch.arange(60), seen)
    listed = lists >= 0
    np.testing.assert_array_equal(
        lists[listed], other.numpy()[:, : lists.shape[1]][listed[:, : other.shape[1]]]
    )


@pytest.mark.parametrize("name", ["gume/build_graphs_baby", "spmm/baby_8"])
def test_both_sides_of_the_graphs_agree(name):
    pytest.importorskip("torch", reason="times or compares torch")
    made = _case(name).prepare(True)
    assert made.torch is not None
    np.testing.assert_allclose(made.ours(), made.torch(), rtol=1e-4, atol=1e-5)


def test_a_node_without_edges_stays_finite():
    torch = pytest.importorskip("torch", reason="times or compares torch")
    rows, columns = torch.tensor([0, 1]), torch.tensor([1, 0])
    graph = torch_graph.normalised(rows, columns, torch.ones(2), 3).to_dense()
    np.testing.assert_array_equal(graph, [[0, 1, 0], [1, 0, 0], [0, 0, 0]])


def test_neighbours_in_a_file_are_the_nearest():
    case = _case("knn/50x12")
    made = case.prepare(False)
    items = made.ours()
    assert items.shape == (50, 5) and made.torch is None
    np.testing.assert_array_equal(items[:, 0], np.arange(50))
    assert made.peak_bytes() >= 0


# The flow.


@pytest.mark.parametrize("gradient", ["", "_gradient"])
def test_diffrax_and_the_scan_generate_the_same(gradient):
    made = _case(f"flow/diffrax_over_scan{gradient}").prepare(False)
    assert made.against is not None
    np.testing.assert_allclose(made.ours(), made.against(), rtol=1e-3, atol=1e-4)


def test_an_epoch_with_the_flow_leaves_the_host_alone():
    made = _case("flow/one_step_overhead").prepare(False)
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
