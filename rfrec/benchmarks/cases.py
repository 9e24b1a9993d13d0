# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the benchmark measures: settings in, a row of numbers out.

A case does blocks of work through the code that trains or serves. With PyTorch, blocks
of the two sides alternate, so that what else the machine does falls on both, and what
the first blocks computed is compared: sides that do different work are not timed.
"""

import os
import statistics
import time
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from rfrec.benchmarks import beam as bench_beam
from rfrec.benchmarks import flow, graph, gume, t5, tokenizer, trie
from rfrec.benchmarks import scale as bench_scale
from rfrec.benchmarks.timing import Bench, Block

_PER_SECOND = {"ms/step": 1e3, "ms": 1e3, "s": 1.0}
_MAKE = {
    "rqvae": tokenizer.steps,
    "sinkhorn": tokenizer.assign,
    "kmeans": tokenizer.cluster,
    "repair": tokenizer.repair,
    "scale": bench_scale.prepare,
    "beam": bench_beam.decode,
    "t5": t5.train,
    "trie": trie.prepare,
    "gume": gume.prepare,
    "spmm": graph.multiply,
    "knn": graph.search,
    "flow": flow.prepare,
}
_ON_HOST = ("repair/", "trie/build")


class Case(NamedTuple):
    """What to measure.

    Attributes:
      name: Of the row; the part before the slash is its group.
      settings: Sizes, plain values.
      seed: Of data and initialisation.
      repetitions: Blocks that are timed.
    """

    name: str
    settings: dict[str, Any]
    seed: int
    repetitions: int


class Row(NamedTuple):
    """What was measured; the keys of the JSON.

    Attributes:
      name: Of the case.
      unit: Of `ours` and `torch`: a time, a rate (`users/s`), or `fraction`.
      ours: Median.
      torch: Median, None if PyTorch was not timed.
      ratio: How many times faster ours is.
      peak_bytes: On an accelerator the most bytes in use; on a CPU arguments, outputs
        and temporaries of the compiled program; of what runs on the host the growth of
        the process.
      device: What it ran on.
    """

    name: str
    unit: str
    ours: float
    torch: float | None
    ratio: float | None
    peak_bytes: int
    device: str


def build(config: ConfigDict) -> list[Case]:
    """Returns all cases of a config."""
    settings = {
        **_tokenizer(config),
        **_retrieval(config),
        **_tries(config),
        **_graphs(config),
        **_flows(config),
    }
    return [
        Case(name, s, config.seed, s.get("repetitions", config.repetitions))
        for name, s in settings.items()
    ]


def _tokenizer(config: ConfigDict) -> dict[str, dict[str, Any]]:
    settings: dict[str, dict[str, Any]] = {}
    for shape, values in config.rqvae.items():
        plain = {"epsilon": 0.0, **values.to_dict()}
        balanced = plain | {"epsilon": config.sinkhorn.epsilon}
        settings |= {f"rqvae/{shape}": plain, f"rqvae/{shape}_sinkhorn": balanced}
    common = config.sinkhorn.to_dict()
    for shape in config.sinkhorn.shapes:
        settings[f"sinkhorn/{_times(shape)}"] = common | {"shape": shape}
    common = config.kmeans.to_dict()
    for shape in config.kmeans.shapes:
        settings[f"kmeans/{_times(shape)}"] = common | {"shape": shape}
    common = config.repair.to_dict()
    for items in config.repair.num_items:
        settings[f"repair/{_short(items)}"] = common | {"num_items": items}
    common = config.scale.to_dict()
    for what in ("epoch", "codes", "read_codes", "read_histories"):
        for items in config.scale.num_items:
            sized = common | {"what": what, "num_items": items}
            settings[f"scale/{what}_{_short(items)}"] = sized
    return settings


def _retrieval(config: ConfigDict) -> dict[str, dict[str, Any]]:
    """Names the vocabularies of both sides, ours first."""
    shared = {"data": config.histories.to_dict(), "model": config.model.to_dict()}
    beam, train = shared | config.beam.to_dict(), shared | config.t5.to_dict()
    compact = {"ours": "compact", "theirs": "compact"}
    pieces, shipped = {"ours": "t5", "theirs": "t5"}, compact | {"theirs": "t5"}
    return {
        "beam/t5_vocabulary": beam | pieces,
        "beam/compact": beam | compact,
        "beam/as_shipped": beam | shipped,
        "t5/train_step": train | compact,
        "t5/train_as_shipped": train | shipped,
    }


def _tries(config: ConfigDict) -> dict[str, dict[str, Any]]:
    common = config.trie.to_dict() | {"model": config.model.to_dict()}
    shapes = {
        _short(items) + (f"_{levels}" if number else ""): (items, levels)
        for number, levels in enumerate(config.trie.levels)
        for items in config.trie.num_items
    }
    return {
        f"trie/{what}_{name}": common
        | {"what": what, "num_items": items, "levels": levels}
        for what in ("build", "step_overhead", "search")
        for name, (items, levels) in shapes.items()
    }


def _graphs(config: ConfigDict) -> dict[str, dict[str, Any]]:
    """Names the cases at the size that is Amazon Baby's, and those of single parts."""
    common = config.gume.to_dict()
    train, evaluate = common | {"what": "train"}, common | {"what": "evaluate"}
    frozen = train | {"freeze_features": True}
    settings = {
        "gume/train_step_baby": train,
        # Of PyTorch as the public code trains: its features are not frozen.
        "gume/train_step_baby_frozen": frozen,
        "gume/train_step_baby_both_frozen": frozen | {"torch_freezes": True},
        # Of PyTorch as the public code evaluates: it encodes anew for every batch.
        "gume/evaluate_baby": evaluate,
        "gume/evaluate_baby_encode_once": evaluate | {"torch_encodes_once": True},
        "gume/epoch_baby": common | {"what": "epoch"},
        "gume/build_graphs_baby": common | {"what": "build"},
    }
    product = common | config.spmm.to_dict()
    for columns in config.spmm.widths:
        settings[f"spmm/baby_{columns}"] = product | {"columns": columns}
    for shape in config.knn.shapes:
        settings[f"knn/{_times(shape)}"] = config.knn.to_dict() | {"shape": shape}
    return settings


def _flows(config: ConfigDict) -> dict[str, dict[str, Any]]:
    common = config.gume.to_dict() | config.flow.to_dict()
    solve = common | {"what": "solver"}
    return {
        "flow/one_step_overhead": common | {"what": "epoch"},
        "flow/diffrax_over_scan": solve,
        "flow/diffrax_over_scan_gradient": solve | {"gradient": True},
    }


def _short(count: int) -> str:
    power = len(str(count)) - 1
    if power >= 4 and count == 10**power:
        return f"1e{power}"
    return f"{count:g}".replace("e+0", "e")


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def measure(case: Case, torch: bool) -> Row:
    """Measures one case.

    Raises:
      UserError: PyTorch does not see the accelerator that JAX runs on.
    """
    bench = prepare(case, torch)
    if bench.warm:
        _warm_up(case.name, bench)
    blocks = (bench.ours, bench.torch, bench.against)
    turns = [[_seconds(block) for block in blocks] for _ in range(case.repetitions)]
    ours, theirs, others = zip(*turns, strict=True)
    us = statistics.median(ours) / bench.per_block
    them = ratio = None
    if bench.torch is not None:
        work = bench.torch_per_block or bench.per_block
        them = statistics.median(theirs) / work
        ratio = them / us
        them = _told(them, bench.unit)
    if bench.against is None:
        us = _told(us, bench.unit)
    else:
        # Within a turn, where the machine is the same.
        us = statistics.median(a / b for a, b in zip(ours, others, strict=True)) - 1
    device = _host() if case.name.startswith(_ON_HOST) else _device()
    return Row(case.name, bench.unit, us, them, ratio, bench.peak_bytes(), device)


def _told(seconds: float, unit: str) -> float:
    """Turns the seconds of one unit of work into the unit of the row."""
    scale = _PER_SECOND.get(unit)
    return 1 / seconds if scale is None else seconds * scale


def prepare(case: Case, torch: bool) -> Bench:
    """Returns both sides of a case; their first blocks compile."""
    return _MAKE[case.name.split("/")[0]](case.settings, case.seed, torch)


def _warm_up(name: str, bench: Bench) -> None:
    """Does a first block of each side, which have to agree."""
    first = bench.ours()
    if bench.against is not None:
        bench.against()
    if bench.torch is None:
        return
    error = bench.disagreement(first, bench.torch())
    if not error <= bench.tolerance:
        raise RuntimeError(
            f"{name}: the two sides differ by {error:.2g}, more than"
            f" {bench.tolerance:g}: they do different work, a defect of rfrec"
        )


def _seconds(block: Block | None) -> float:
    if block is None:
        return 0.0
    started = time.perf_counter()
    block()
    return time.perf_counter() - started


def _host() -> str:
    return f"cpu, {os.cpu_count()} cores"


def _device() -> str:
    device = jax.devices()[0]
    return _host() if device.platform == "cpu" else device.device_kind
