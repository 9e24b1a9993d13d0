# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The cases of the benchmark, how they are selected, and how they are measured.

A case runs blocks of work through the code that trains or serves. With PyTorch, blocks
of both sides alternate, so that other load on the machine affects both. The results of
the first blocks are compared: sides that do different work are not timed.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import jax

from rfrec import tables
from rfrec.benchmarks import flow, graph, gume, retrieval, scale, tokenizer, trie
from rfrec.benchmarks.options import Options
from rfrec.benchmarks.timing import Bench, Block
from rfrec.config import UserError

_PER_SECOND = {"ms/step": 1e3, "ms": 1e3, "s": 1.0}
_ON_HOST = ("repair/", "trie/build")
GROUPS = (
    *("rqvae", "sinkhorn", "kmeans", "repair", "scale", "beam", "t5", "trie"),
    *("gume", "spmm", "knn", "flow"),
)


class Case(NamedTuple):
    """Case of the benchmark.

    Attributes:
      name: Name of the row; the part before the slash is its group.
      function: Function of options, whether PyTorch is timed, and keywords.
      keywords: Keywords that distinguish the case from others of its function.
      options: Sizes of all cases.
    """

    name: str
    function: Callable[..., Bench]
    keywords: Mapping[str, Any]
    options: Options

    @property
    def repetitions(self) -> int:
        """Number of timed blocks: that of the group, if it has one."""
        group = getattr(self.options, self.name.split("/")[0])
        return getattr(group, "repetitions", self.options.repetitions)

    def prepare(self, torch: bool) -> Bench:
        """Returns both sides, ready to run; their first blocks compile."""
        return self.function(self.options, torch, **self.keywords)


class Row(NamedTuple):
    """Result of a case; the keys of the JSON file.

    Attributes:
      name: Name of the case.
      unit: Unit of `ours` and `torch`: a time, a rate (`users/s`), or `fraction`.
      ours: Median of ours.
      torch: Median of PyTorch, None if it was not timed.
      ratio: How many times faster ours is.
      peak_bytes: On an accelerator, the peak of its memory; on a CPU, arguments,
        outputs and temporaries of the compiled program; for work on the host, the
        growth of the process.
      device: Device.
    """

    name: str
    unit: str
    ours: float
    torch: float | None
    ratio: float | None
    peak_bytes: int
    device: str


def build(options: Options) -> list[Case]:
    """Returns all cases."""
    return [
        Case(name, function, keywords, options)
        for part in (_tokenizer, _retrieval, _graphs)
        for name, function, keywords in part(options)
    ]


def _tokenizer(options: Options):
    for shape in ("ml1m", "mql4grec"):
        for sinkhorn in (False, True):
            name = f"rqvae/{shape}" + ("_sinkhorn" if sinkhorn else "")
            yield name, tokenizer.steps, {"shape": shape, "sinkhorn": sinkhorn}
    for shape in options.sinkhorn.shapes:
        yield f"sinkhorn/{_times(shape)}", tokenizer.assign, {"shape": shape}
    for shape in options.kmeans.shapes:
        yield f"kmeans/{_times(shape)}", tokenizer.cluster, {"shape": shape}
    for items in options.repair.num_items:
        yield f"repair/{_short(items)}", tokenizer.repair, {"num_items": items}
    for what in ("epoch", "codes", "read_codes", "read_histories"):
        for items in options.scale.num_items:
            keywords = {"what": what, "num_items": items}
            yield f"scale/{what}_{_short(items)}", scale.prepare, keywords


def _retrieval(options: Options):
    compact = {"ours": "compact", "theirs": "compact"}
    shipped = {"ours": "compact", "theirs": "t5"}
    yield "beam/t5_vocabulary", retrieval.decode, {"ours": "t5", "theirs": "t5"}
    yield "beam/compact", retrieval.decode, compact
    yield "beam/as_shipped", retrieval.decode, shipped
    yield "t5/train_step", retrieval.train, compact
    yield "t5/train_as_shipped", retrieval.train, shipped
    for function in (trie.build, trie.step_overhead, trie.search):
        for number, levels in enumerate(options.trie.levels):
            for items in options.trie.num_items:
                size = _short(items) + (f"_{levels}" if number else "")
                keywords = {"num_items": items, "levels": levels}
                yield f"trie/{function.__name__}_{size}", function, keywords


def _graphs(options: Options):
    frozen = {"freeze_features": True}
    yield "gume/train_step_baby", gume.train, {}
    # The public code of GUME trains its features, and encodes for each batch of an
    # evaluation.
    yield "gume/train_step_baby_frozen", gume.train, frozen
    both = frozen | {"torch_freezes": True}
    yield "gume/train_step_baby_both_frozen", gume.train, both
    yield "gume/evaluate_baby", gume.evaluate, {}
    yield "gume/evaluate_baby_encode_once", gume.evaluate, {"encode_once": True}
    yield "gume/epoch_baby", gume.epoch, {}
    yield "gume/build_graphs_baby", graph.construct, {}
    for columns in options.spmm.widths:
        yield f"spmm/baby_{columns}", graph.multiply, {"columns": columns}
    for shape in options.knn.shapes:
        yield f"knn/{_times(shape)}", graph.search, {"shape": shape}
    yield "flow/one_step_overhead", flow.epoch, {}
    yield "flow/diffrax_over_scan", flow.solve, {}
    yield "flow/diffrax_over_scan_gradient", flow.solve, {"gradient": True}


def _short(count: int) -> str:
    power = len(str(count)) - 1
    if power >= 4 and count == 10**power:
        return f"1e{power}"
    return f"{count:g}".replace("e+0", "e")


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def select(cases: Sequence[Case], only: Sequence[str]) -> list[Case]:
    """Returns the selected cases.

    Args:
      cases: All cases.
      only: Names of cases, or beginnings of names up to a slash or an underscore.

    Raises:
      UserError: No case has such a name.
    """
    if not only:
        raise UserError(f"--only is empty: use some of {', '.join(GROUPS)}")
    names, selected = {case.name for case in cases}, set()
    for word in only:
        begins = (f"{word}/", f"{word}_")
        matches = {word} & names or {n for n in names if n.startswith(begins)}
        if not matches:
            known = ", ".join((*GROUPS, *(case.name for case in cases)))
            raise UserError(f"--only={word} is unknown: use some of {known}")
        selected |= matches
    return [case for case in cases if case.name in selected]


def measure_apart(case: Case, torch: bool) -> Row:
    """Measures one case in a new process, so that its peak of memory is its own.

    Raises:
      UserError: The process was killed.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(measure, case, torch).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"{case.name}: the process was killed, perhaps for lack of memory;"
                " reduce the sizes of the case in the config"
            ) from error


def measure(case: Case, torch: bool) -> Row:
    """Measures one case in this process.

    Raises:
      UserError: PyTorch cannot use the accelerator that JAX runs on.
    """
    bench = case.prepare(torch)
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
        them = _convert(them, bench.unit)
    if bench.against is None:
        us = _convert(us, bench.unit)
    else:
        # Within a turn, so that other load on the machine affects both.
        us = statistics.median(a / b for a, b in zip(ours, others, strict=True)) - 1
    device = _host() if case.name.startswith(_ON_HOST) else _device()
    return Row(case.name, bench.unit, us, them, ratio, bench.peak_bytes(), device)


def _convert(seconds: float, unit: str) -> float:
    """Converts the seconds of one unit of work to the unit of the row."""
    scale = _PER_SECOND.get(unit)
    return 1 / seconds if scale is None else seconds * scale


def _warm_up(name: str, bench: Bench) -> None:
    """Runs a first block of each side, and compares their results."""
    first = bench.ours()
    if bench.against is not None:
        bench.against()
    if bench.torch is None:
        return
    error = bench.disagreement(first, bench.torch())
    if not error <= bench.tolerance:
        raise RuntimeError(
            f"{name}: the results of both sides differ by {error:.2g}, more than"
            f" {bench.tolerance:g}; this is a defect of the benchmark"
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


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as text in aligned columns."""
    head = ("name", "ours", "torch", "ratio", "peak", "device")
    return tables.align([head, *map(cells, rows)])


def cells(row: Row) -> tuple[str, ...]:
    """Formats a row."""
    return (
        row.name,
        f"{row.ours:.4g} {row.unit}",
        "-" if row.torch is None else f"{row.torch:.4g} {row.unit}",
        "-" if row.ratio is None else f"{row.ratio:.2f}x",
        f"{row.peak_bytes / 2**20:.4g} MiB",
        row.device,
    )
