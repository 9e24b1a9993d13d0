# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The benchmark measures what it says, on both sides, and writes it down."""

import dataclasses
import json
import pathlib
import runpy
import types
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from rfrec.benchmarks import cases, data, scale, timing, tokenizer
from rfrec.benchmarks.options import SMOKE, Options, Repair, check_sizes
from rfrec.codes import table
from rfrec.config import UserError, override
from rfrec.launch import bench

ROOT = pathlib.Path(__file__).parents[2]


def _config(name="bench", variant="smoke"):
    module = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))
    return module["get_config"](variant)


def _case(name, **changes):
    """Returns a case of the tiny sizes, with some sizes of its group replaced."""
    options = override(SMOKE, **{name.split("/")[0]: changes})
    return next(case for case in cases.build(options) if case.name == name)


def test_the_rows_have_the_promised_names():
    bench.options.check(_config(variant=""), Options)
    check_sizes(Options())
    names = [case.name for case in cases.build(Options())]
    assert {name.split("/")[0] for name in names} == set(cases.GROUPS)
    assert names[: names.index("beam/t5_vocabulary")] == [
        "rqvae/ml1m",
        "rqvae/ml1m_sinkhorn",
        "rqvae/mql4grec",
        "rqvae/mql4grec_sinkhorn",
        "sinkhorn/512x64",
        "sinkhorn/2048x256",
        "kmeans/20000x32x256",
        *(f"repair/{size}" for size in ("1e4", "1e5", "1e6")),
        *(f"scale/epoch_{size}" for size in ("1e4", "1e5", "1e6")),
        *(f"scale/codes_{size}" for size in ("1e4", "1e5", "1e6")),
        *(f"scale/read_codes_{size}" for size in ("1e4", "1e5", "1e6")),
        *(f"scale/read_histories_{size}" for size in ("1e4", "1e5", "1e6")),
    ]


@pytest.mark.parametrize(
    ("name", "variant"), [("ml1m", "ml1m_plain"), ("mql4grec", "mql4grec")]
)
def test_shapes_are_those_of_the_tokenizer(name, variant):
    shape, config = _config(variant="").rqvae[name], _config("rqvae", variant)
    assert shape.hidden == config.model.hidden
    assert shape.latent_width == config.model.latent_width
    assert shape.sizes == config.codebook.sizes
    assert shape.batch_size == config.train.batch_size


def test_sinkhorn_is_on_the_last_level_only():
    plain, balanced = (
        tokenizer.build_trainer(SMOKE.rqvae.ml1m, epsilon, 0).arch.quantization
        for epsilon in (0.0, 0.003)
    )
    assert plain.sk_epsilons == (0.0, 0.0)
    assert balanced.sk_epsilons == (0.0, 0.003)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("rqvae/ml1m_sinkhorn", "ms/step"),
        ("sinkhorn/16x8", "ms"),
        ("kmeans/60x3x4", "s"),
        ("repair/2000", "s"),
        ("scale/epoch_300", "s"),
        ("scale/codes_300", "s"),
        ("scale/read_codes_300", "s"),
        ("scale/read_histories_300", "s"),
    ],
)
def test_a_row_holds_what_was_measured(name, unit):
    row = cases.measure(_case(name), torch=False)
    assert row.name == name and row.unit == unit and row.device
    assert 0 < row.ours < 1e4 and row.torch is None and row.ratio is None
    assert isinstance(row.peak_bytes, int) and row.peak_bytes >= 0
    assert json.loads(json.dumps(row._asdict())) == row._asdict()


def test_memory_of_a_step_covers_items_and_parameters():
    case = _case("rqvae/ml1m", ml1m={"num_items": 50_000, "width": 24})
    assert cases.measure(case, torch=False).peak_bytes > 50_000 * 24 * 4


def test_a_streamed_epoch_equals_a_resident_one(tmp_path):
    sizes = SMOKE.scale
    vectors = data.clusters(np.random.default_rng(0), 300, sizes.width)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    streamed = scale.build_trainer(sizes, 0, mapped)
    assert not streamed.items.resident
    items = dataclasses.replace(streamed.items, values=vectors, resident=True)
    resident = dataclasses.replace(streamed, items=items)
    losses = [scale.epoch(trainer)() for trainer in (streamed, resident)]
    assert len(losses[0]) == -(-300 // sizes.batch_size)
    np.testing.assert_allclose(*losses, rtol=1e-6)


class Sides(NamedTuple):
    ours: Callable[[], np.ndarray]
    torch: Callable[[], np.ndarray]


def _both_sides(case):
    pytest.importorskip("torch", reason="times or compares torch")
    made = case.prepare(torch=True)
    assert made.torch is not None
    return Sides(made.ours, made.torch)


def test_both_sides_train_alike():
    for name in ("rqvae/ml1m", "rqvae/ml1m_sinkhorn"):
        case = _case(name, ml1m={"steps": 9})
        made = _both_sides(case)
        for _ in range(2):
            np.testing.assert_allclose(made.ours(), made.torch(), rtol=1e-3)


def test_both_sides_assign_alike():
    made = _both_sides(_case("sinkhorn/64x16", shapes=((64, 16),)))
    np.testing.assert_array_equal(made.ours(), made.torch())


def test_both_sides_cluster_as_well_as_each_other():
    case = _case("kmeans/500x4x9", shapes=((500, 4, 9),), iterations=20)
    made = _both_sides(case)
    assert made.torch() == pytest.approx(made.ours(), rel=0.1)


def test_the_ratio_tells_how_many_times_faster_we_are():
    pytest.importorskip("torch", reason="times or compares torch")
    row = cases.measure(_case("kmeans/60x3x4"), torch=True)
    assert row.torch is not None
    assert row.ratio == pytest.approx(row.torch / row.ours)


def _sides(ours, theirs):
    return timing.Bench(
        ours=lambda: np.array(ours),
        torch=lambda: np.array(theirs),
        unit="s",
        per_block=1,
        disagreement=lambda a, b: float(abs(a - b)),
        tolerance=0.1,
        peak_bytes=lambda: 0,
    )


@pytest.mark.parametrize("theirs", [1.2, np.nan])
def test_sides_that_do_different_work_are_not_timed(monkeypatch, theirs):
    monkeypatch.setattr(cases.Case, "prepare", lambda case, torch: _sides(1, theirs))
    with pytest.raises(
        RuntimeError, match="rqvae/ml1m: the results of both sides differ"
    ):
        cases.measure(_case("rqvae/ml1m"), torch=True)


def test_blocks_alternate_and_the_median_counts(monkeypatch):
    order, now, costs = [], [0.0], iter([9, 9, 1, 6, 5, 2, 2, 8])

    def block(side):
        order.append(side)
        now[0] += next(costs)
        return np.array(0)

    made = _sides(0, 0)._replace(
        ours=lambda: block("ours"), torch=lambda: block("torch"), per_block=2
    )
    monkeypatch.setattr(cases.Case, "prepare", lambda case, torch: made)
    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(cases, "time", clock)
    monkeypatch.setattr(cases.Case, "repetitions", 3)
    row = cases.measure(_case("rqvae/ml1m"), torch=True)
    assert order == ["ours", "torch"] * 4
    assert (row.ours, row.torch, row.ratio) == (1.0, 3.0, 3.0)


def test_the_share_of_conflicts_is_as_asked():
    repair = Repair(width=3, sizes=(64,) * 4, conflicts=0.03)
    codes = data.conflicting_codes(repair, 60_000, 0).codes
    assert 0.02 < table.statistics(codes, repair.sizes).collision_rate < 0.04


def test_clusters_have_mean_square_one():
    x = data.clusters(np.random.default_rng(0), 400, 5)
    assert np.mean(x**2) == pytest.approx(1, abs=1e-3)
    assert x.dtype == np.float32


def test_a_word_is_a_name_or_its_beginning():
    names = ["trie/build_1e4", "trie/build_1e5", "trie/builder", "trie/search_1e4"]
    all_names = ["gume/step", "gume/step_2", *names]
    all_cases = [cases.Case(name, print, {}, SMOKE) for name in all_names]

    def chosen(*only):
        return [case.name for case in cases.select(all_cases, only)]

    assert chosen("trie/build") == names[:2]
    assert chosen("trie") == names
    assert chosen("gume/step", "trie/search") == ["gume/step", "trie/search_1e4"]
    with pytest.raises(UserError, match="--only=trie/b is unknown"):
        chosen("trie/b")


def test_a_name_or_a_group_chooses():
    all_cases = cases.build(SMOKE)
    chosen = cases.select(all_cases, ["repair", "rqvae/ml1m"])
    assert [case.name for case in chosen] == ["rqvae/ml1m", "repair/2000"]
    with pytest.raises(UserError, match="--only=graph is unknown: use some of rqvae, "):
        cases.select(all_cases, ["kmeans", "graph"])
    with pytest.raises(UserError, match="--only is empty"):
        cases.select(all_cases, [])


def _flags(monkeypatch, **values):
    given = {"only": ["repair"], "out": None, "torch": False} | values
    monkeypatch.setattr(bench.flags, "FLAGS", types.SimpleNamespace(**given))


def test_without_pytorch_the_extra_is_named(monkeypatch):
    _flags(monkeypatch, torch=True)
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'rfrec\[torch\]'"):
        bench.main(_config(), None)


def test_a_missing_folder_is_told_before_measuring(monkeypatch, tmp_path):
    _flags(monkeypatch, out=str(tmp_path / "none" / "a.json"))
    with pytest.raises(UserError, match=r"--out=.*does not exist"):
        bench.main(_config(), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sinkhorn.shapes": ((16,),)}, "config.sinkhorn.shapes"),
        ({"kmeans.shapes": ((16, 8, 0),)}, "config.kmeans.shapes"),
        (
            {"kmeans.shapes": ((4, 3, 8),)},
            "kmeans.shapes: clusters=8: must be at most 4",
        ),
        ({"rqvae.ml1m.steps": 0}, "config.rqvae.ml1m.steps=0: must be an integer"),
    ],
)
def test_impossible_sizes_are_named(monkeypatch, change, message):
    _flags(monkeypatch)
    config = _config()
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        bench.main(config, None)


def test_a_process_that_dies_is_told(monkeypatch):
    class Pool:
        def __init__(self, *args, **kwargs):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *args):
            return None

        def submit(self, *args):
            raise cases.BrokenProcessPool("gone")

    monkeypatch.setattr(cases, "ProcessPoolExecutor", Pool)
    with pytest.raises(UserError, match="repair/2000: the process was killed"):
        cases.measure_apart(_case("repair/2000"), torch=False)


def test_the_command_writes_and_prints_the_rows(tmp_path, run_python):
    out = tmp_path / "bench.json"
    done = run_python(
        [
            *("-m", "rfrec.launch.bench", "--config=configs/bench.py:smoke"),
            *("--only=repair", f"--out={out}", "--config.rf.sampling_steps=1"),
        ],
        devices=1,
    )
    (row,) = json.loads(out.read_text())
    keys = ["name", "unit", "ours", "torch", "ratio", "peak_bytes", "device"]
    assert list(row) == keys
    assert row["name"] == "repair/2000" and row["torch"] is None
    assert done.stdout.splitlines()[-1].startswith("repair/2000 ")
