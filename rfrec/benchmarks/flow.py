# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The flow's cases of the benchmark, each a fraction: what it adds to other work.

A recommender's epoch with the flow against the same without; diffrax against a plain
scan over the steps of Euler's method.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rfrec.benchmarks import graph, gume, timing
from rfrec.graph import adjacency, losses, rf_gume, training
from rfrec.graph.model import make_constants
from rfrec.rf import sample, velocity
from rfrec.rf import settings as rf_settings
from rfrec.train import optim


def prepare(settings: dict[str, Any], seed: int, torch: bool) -> timing.Bench:
    """Times what the settings say, epoch or solver; PyTorch has neither."""
    del torch
    return {"epoch": _epoch, "solver": _solver}[settings["what"]](settings, seed)


def _solver(settings: dict[str, Any], seed: int) -> timing.Bench:
    """Times generation by diffrax, or its gradient, against that by a scan."""
    steps, calls = settings["sampling_steps"], settings["calls"]
    preset = rf_settings.PRESETS["plugin"]
    width = settings["width"]
    arch = velocity.Architecture(
        width=width,
        condition_width=width * len(settings["feature_widths"]),
        hidden=preset.hidden_dim,
        layers=preset.n_layers,
        time=preset.time_code,
    )
    params = velocity.init(arch, jax.random.key(seed))
    rng = np.random.default_rng(seed)
    shapes = (arch.condition_width, width)
    condition, x0 = (
        jax.device_put(rng.standard_normal((settings["rows"], size), np.float32))
        for size in shapes
    )
    solver = sample.Solver(preset.solver, steps)
    field = sample.build_field(arch)

    def diffrax(params, condition, x0):
        given = sample.prepare(arch, params, condition)
        return sample.solve(field, given, x0, solver).x

    def scan(params, condition, x0):
        given = sample.prepare(arch, params, condition)

        def step(x, t):
            return x + field(given, t, x) / steps, None

        return lax.scan(step, x0, jnp.arange(steps) / steps)[0]

    asked = _gradient if settings.get("gradient") else jax.jit
    ours, other = asked(diffrax), asked(scan)

    def block(program):
        for _ in range(calls):
            made = jax.block_until_ready(program(params, condition, x0))
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(made)])

    return timing.Bench(
        ours=lambda: block(ours),
        torch=None,
        unit="fraction",
        per_block=calls,
        disagreement=lambda a, b: 0.0,
        tolerance=0.0,
        peak_bytes=lambda: timing.peak(
            lambda: ours.lower(params, condition, x0).compile()
        ),
        against=lambda: block(other),
    )


def _gradient(generate):
    """Returns the gradient of half the squared rows, with respect to parameters."""

    def loss(params, condition, x0):
        return 0.5 * jnp.sum(generate(params, condition, x0) ** 2)

    return jax.jit(jax.grad(loss))


def make_trainer(settings: dict[str, Any], data: graph.Data) -> training.Trainer:
    """Returns a trainer of a GUME with the flow of preset `improved`, in one step."""
    arch, features = (
        gume.architecture(settings, data),
        list(data.features.values()),
    )
    weights = losses.Weights(batch_size=settings["batch_size"])
    chosen = rf_settings.resolve("improved", {"sampling_steps": 1})
    model = rf_gume.RFGume(arch, weights, features, chosen)
    host = optim.build(gume.OPTIMIZER, 1)
    return gume.wire(
        settings,
        data,
        model=model,
        constants=make_constants(arch, adjacency.place(data.matrices), features),
        optimizer=rf_gume.optimizer(chosen, host, model),
    )


def _epoch(settings: dict[str, Any], seed: int) -> timing.Bench:
    """Times an epoch with its evaluation, with the flow against without."""
    data = graph.draw(settings, seed)
    without = gume.Running(gume.make_trainer(settings, data), seed)
    ours = gume.Running(make_trainer(settings, data), seed)
    return timing.Bench(
        ours=ours.epoch,
        torch=None,
        unit="fraction",
        per_block=1,
        disagreement=lambda a, b: 0.0,
        tolerance=0.0,
        peak_bytes=lambda: timing.peak(ours.compiled),
        against=without.epoch,
    )
