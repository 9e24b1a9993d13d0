# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the benchmark measures: settings in, a row of numbers out.

A case does blocks of work through the code that trains. With PyTorch, blocks of the two
sides alternate, so that what else the machine does falls on both, and what the first
blocks computed is compared: sides that do different work are not timed.
"""

import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Int
from ml_collections import ConfigDict

from rfrec.codes import repair
from rfrec.config import UserError
from rfrec.launch import bench_data, bench_torch
from rfrec.tokenizer import (
    catalogue,
    codebooks,
    kmeans,
    loss,
    quantizer,
    rqvae,
    sinkhorn,
    training,
)
from rfrec.train import loop, optim, partition

_OPTIMIZER = optim.Optimizer(name="adamw", lr=1e-3, weight_decay=1e-4)
_OBJECTIVE = loss.Objective()
_PER_SECOND = {"ms/step": 1e3, "ms": 1e3, "s": 1.0}


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
      unit: Of `ours` and `torch`.
      ours: Median.
      torch: Median, None if PyTorch was not timed.
      ratio: torch / ours.
      peak_bytes: On an accelerator the most bytes in use; on a CPU arguments, outputs
        and temporaries of the compiled program; of the repair the growth of the
        process.
      device: What it ran on.
    """

    name: str
    unit: str
    ours: float
    torch: float | None
    ratio: float | None
    peak_bytes: int
    device: str


class Bench(NamedTuple):
    """Two sides of one case, ready to run.

    Attributes:
      ours: Does a block, waits for it and returns what it computed.
      torch: Does the same; None if it is not timed.
      unit: Of the result.
      per_block: Units of work in a block.
      disagreement: Of the first results of both sides.
      tolerance: Of the disagreement.
      peak_bytes: Called at the end.
      warm: Whether the first block only compiles.
    """

    ours: Callable[[], np.ndarray]
    torch: Callable[[], np.ndarray] | None
    unit: str
    per_block: int
    disagreement: Callable[[np.ndarray, np.ndarray], float]
    tolerance: float
    peak_bytes: Callable[[], int]
    warm: bool = True


def build(config: ConfigDict) -> list[Case]:
    """Returns all cases of a config."""
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
        name = f"{items:g}".replace("e+0", "e")
        settings[f"repair/{name}"] = common | {"num_items": items}
    return [
        Case(name, s, config.seed, s.get("repetitions", config.repetitions))
        for name, s in settings.items()
    ]


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
    ours, theirs = [], []
    for _ in range(case.repetitions):
        ours.append(_seconds(bench.ours))
        if bench.torch is not None:
            theirs.append(_seconds(bench.torch))
    scale = _PER_SECOND[bench.unit] / bench.per_block
    us = statistics.median(ours) * scale
    them = statistics.median(theirs) * scale if theirs else None
    device = _host() if case.name.startswith("repair/") else _device()
    ratio = None if them is None else them / us
    return Row(case.name, bench.unit, us, them, ratio, bench.peak_bytes(), device)


def prepare(case: Case, torch: bool) -> Bench:
    """Returns both sides of a case; their first blocks compile."""
    make = {"rqvae": _steps, "sinkhorn": _assign, "kmeans": _cluster, "repair": _repair}
    return make[case.name.split("/")[0]](case.settings, case.seed, torch)


def _warm_up(name: str, bench: Bench) -> None:
    """Does a first block of each side, which have to agree."""
    first = bench.ours()
    if bench.torch is None:
        return
    error = bench.disagreement(first, bench.torch())
    if not error <= bench.tolerance:
        raise RuntimeError(
            f"{name}: the two sides differ by {error:.2g}, more than"
            f" {bench.tolerance:g}: they do different work, a defect of rfrec"
        )


def _seconds(block: Callable[[], np.ndarray]) -> float:
    started = time.perf_counter()
    block()
    return time.perf_counter() - started


def _host() -> str:
    return f"cpu, {os.cpu_count()} cores"


def _device() -> str:
    device = jax.devices()[0]
    return _host() if device.platform == "cpu" else device.device_kind


def _torch_device() -> str:
    """Returns where PyTorch has to run to be comparable."""
    backend = jax.default_backend()
    if backend == "cpu":
        return "cpu"
    if backend != "gpu" or not bench_torch.sees_gpu():
        raise UserError(
            f"--torch: PyTorch cannot use the {backend} that JAX runs on: install a"
            " PyTorch that does, or set JAX_PLATFORMS=cpu"
        )
    return "cuda"


def _peak(lower: Callable[[], Any]) -> int:
    """Returns the peak of the device, or on a CPU, which counts none, of the program.

    Args:
      lower: Returns the lowered program.
    """
    counted = jax.local_devices()[0].memory_stats()
    if counted and "peak_bytes_in_use" in counted:
        return int(counted["peak_bytes_in_use"])
    sizes = lower().compile().memory_analysis()
    return int(
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes
    )


def make_trainer(settings: dict[str, Any], seed: int) -> training.Trainer:
    """Returns a trainer on synthetic items, with k-means before the first step."""
    items, batch, steps = (settings[n] for n in ("num_items", "batch_size", "steps"))
    sizes = settings["sizes"]
    spec = quantizer.Quantization(
        sizes=sizes,
        sk_epsilons=(0.0,) * (len(sizes) - 1) + (settings["epsilon"],),
    )
    x = bench_data.clusters(np.random.default_rng(seed), items, settings["width"])
    steps_per_epoch = -(-items // batch)
    return training.Trainer(
        arch=rqvae.Architecture(
            input_width=settings["width"],
            hidden=settings["hidden"],
            latent_width=settings["latent_width"],
            quantization=spec,
        ),
        objective=_OBJECTIVE,
        codebooks=codebooks.Codebooks(init="kmeans", init_on="all"),
        optimizer=optim.build(_OPTIMIZER, steps),
        schedule=loop.Schedule(1, steps_per_epoch, steps, 1),
        batch_size=batch,
        seed=seed,
        # PyTorch's side has one device too.
        engine=partition.make_engine("pmap", devices=jax.local_devices()[:1]),
        items=catalogue.Items(x, np.arange(items), np.arange(0)),
    )


def _batches(trainer: training.Trainer, first: int) -> Int[np.ndarray, "S B"]:
    """Returns the rows of a block's steps, as the run itself draws them."""
    size, count = trainer.schedule.steps_per_epoch, trainer.schedule.steps_per_call
    epochs = range(first // size, (first + count - 1) // size + 1)
    drawn = [
        catalogue.epoch_rows(
            trainer.items.train, trainer.batch_size, seed=trainer.seed, epoch=epoch
        )
        for epoch in epochs
    ]
    start = first - epochs[0] * size
    return np.concatenate(drawn)[start : start + count]


def _steps(settings: dict[str, Any], seed: int, torch: bool) -> Bench:
    """Times training steps, losses fetched once a block."""
    trainer, count = make_trainer(settings, seed), settings["steps"]
    program, engine = training.Run(trainer).program(), trainer.engine
    held = {
        "state": program.begin_epoch(engine.replicate(trainer.init()), 0),
        "step": 0,
    }
    # A copy: the step reuses the buffers.
    start = jax.tree.map(np.array, engine.fetch(held["state"]).params)

    def ours():
        held["state"], losses = program.run(held["state"], held["step"], count)
        held["step"] += count
        return np.stack(list(losses.values()), axis=1)

    def lower():
        return trainer.compile_steps(frozen=False).lower(
            held["state"],
            trainer.place_vectors(),
            trainer.place_batches(_batches(trainer, 0)),
            np.int32(count),
        )

    theirs = None
    if torch:
        theirs = bench_torch.train(
            start,
            trainer.items.values,
            lambda first: _batches(trainer, first),
            trainer.arch.quantization,
            beta=_OBJECTIVE.beta,
            lr=_OPTIMIZER.lr,
            weight_decay=_OPTIMIZER.weight_decay,
            device=_torch_device(),
        )
    return Bench(
        ours=ours,
        torch=theirs,
        unit="ms/step",
        per_block=count,
        # Later losses drift apart with the first code that rounding decides.
        disagreement=lambda a, b: float(np.max(np.abs(a[0] / b[0] - 1))),
        tolerance=1e-2,
        peak_bytes=lambda: _peak(lower),
    )


def _assign(settings: dict[str, Any], seed: int, torch: bool) -> Bench:
    """Times balanced assignments, several batches a call as in training."""
    rows, codes = settings["shape"]
    calls, epsilon = settings["calls"], settings["epsilon"]
    rng = np.random.default_rng(seed)
    x, centers = (
        bench_data.clusters(rng, rows * calls, 32),
        bench_data.clusters(rng, codes, 32),
    )
    d = kmeans.squared_distances(jnp.asarray(x), jnp.asarray(centers))
    d = np.asarray(d).reshape(calls, rows, codes)
    assign = jax.jit(
        lambda d: lax.map(lambda batch: sinkhorn.assign(batch, epsilon=epsilon), d)
    )
    placed = jax.device_put(d)
    theirs = None
    if torch:
        theirs = bench_torch.assign(
            d, epsilon=epsilon, iterations=50, device=_torch_device()
        )
    return Bench(
        ours=lambda: np.asarray(assign(placed)),
        torch=theirs,
        unit="ms",
        per_block=calls,
        disagreement=lambda a, b: float(np.mean(a != b)),
        tolerance=1e-2,
        peak_bytes=lambda: _peak(lambda: assign.lower(placed)),
    )


def _cluster(settings: dict[str, Any], seed: int, torch: bool) -> Bench:
    """Times k-means with its seeding."""
    rows, width, k = settings["shape"]
    x = bench_data.clusters(np.random.default_rng(seed), rows, width)
    placed, key = jax.device_put(x), jax.random.key(seed)
    static = {"k": k, "iterations": settings["iterations"]}
    theirs = None
    if torch:
        # As many as we need, should we converge before the last.
        done = int(kmeans.fit(key, placed, **static).iterations)
        theirs = bench_torch.cluster(x, k, iterations=done, device=_torch_device())
    return Bench(
        ours=lambda: np.asarray(kmeans.fit(key, placed, **static).inertia),
        torch=theirs,
        unit="s",
        per_block=1,
        # Seeds differ.
        disagreement=lambda a, b: float(np.abs(a / b - 1)),
        tolerance=0.1,
        peak_bytes=lambda: _peak(lambda: kmeans.fit.lower(key, placed, **static)),
    )


def _repair(settings: dict[str, Any], seed: int, torch: bool) -> Bench:
    """Times the default repair of a table with conflicts, on the host."""
    del torch
    made = bench_data.conflicting_codes(settings, seed)
    before = _resident_bytes("VmRSS")
    return Bench(
        ours=lambda: repair.repair(made.codes, made.latents, made.codebooks).codes,
        torch=None,
        unit="s",
        per_block=1,
        disagreement=lambda a, b: float(np.mean(a != b)),
        tolerance=0.0,
        peak_bytes=lambda: max(_resident_bytes("VmHWM") - before, 0),
        warm=False,
    )


def _resident_bytes(field: str) -> int:
    """Returns `VmRSS`, the memory of this process now, or `VmHWM`, the most so far.

    Where the kernel does not tell, it is the most so far for both.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = status.read_text(encoding="ascii").splitlines()
    return next(int(li.split()[1]) * 1024 for li in lines if li.startswith(field))
