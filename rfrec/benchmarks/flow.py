# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cases of the rectified flow: the share of time that it adds to other work.

An epoch of a recommender with the flow against one without; diffrax against a plain
scan over the steps of Euler's method.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rfrec.benchmarks import graph, gume, timing
from rfrec.benchmarks.options import Gume, Options
from rfrec.graph import adjacency, losses, rf_gume, training
from rfrec.graph.model import make_constants
from rfrec.rf import sample, velocity
from rfrec.rf import settings as rf_settings
from rfrec.train import optim


def solve(options: Options, torch: bool, *, gradient: bool = False) -> timing.Bench:
    """Times generation by diffrax, or its gradient, against that by a scan."""
    del torch
    steps, calls = options.flow.sampling_steps, options.flow.calls
    seed, width = options.seed, options.gume.width
    preset = rf_settings.PRESETS["plugin"]
    arch = velocity.Architecture(
        width=width,
        condition_width=width * len(options.gume.feature_widths),
        hidden=preset.hidden_dim,
        layers=preset.n_layers,
        time=preset.time_code,
    )
    params = velocity.init(arch, jax.random.key(seed))
    rng = np.random.default_rng(seed)
    shapes = (arch.condition_width, width)
    condition, x0 = (
        jax.device_put(rng.standard_normal((options.flow.rows, size), np.float32))
        for size in shapes
    )
    solver = sample.Solver(preset.solver, steps)
    field = sample.build_field(arch)

    def diffrax(params, condition, x0):
        prepared = sample.prepare(arch, params, condition)
        return sample.solve(field, prepared, x0, solver).x

    def scan(params, condition, x0):
        prepared = sample.prepare(arch, params, condition)

        def step(x, t):
            return x + field(prepared, t, x) / steps, None

        return lax.scan(step, x0, jnp.arange(steps) / steps)[0]

    compile_ = _gradient if gradient else jax.jit
    ours, other = compile_(diffrax), compile_(scan)

    def block(program):
        for _ in range(calls):
            result = jax.block_until_ready(program(params, condition, x0))
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(result)])

    return timing.Bench(
        ours=lambda: block(ours),
        unit="fraction",
        per_block=calls,
        peak_bytes=lambda: timing.peak(
            lambda: ours.lower(params, condition, x0).compile()
        ),
        against=lambda: block(other),
    )


def _gradient(generate):
    """Compiles the gradient of half the squared result, by the parameters."""

    def loss(params, condition, x0):
        return 0.5 * jnp.sum(generate(params, condition, x0) ** 2)

    return jax.jit(jax.grad(loss))


def build_trainer(sizes: Gume, data: graph.Data) -> training.Trainer:
    """Returns a trainer of GUME with the preset `improved`, and one sampling step."""
    arch = gume.build_architecture(sizes, data)
    features = list(data.features.values())
    weights = losses.Weights(batch_size=sizes.batch_size)
    chosen = rf_settings.resolve("improved", {"sampling_steps": 1})
    model = rf_gume.RFGume(arch, weights, features, chosen)
    host = optim.build(gume.OPTIMIZER, 1)
    return gume.wire(
        sizes,
        data,
        model=model,
        constants=make_constants(arch, adjacency.place(data.matrices), features),
        optimizer=rf_gume.optimizer(chosen, host, model),
    )


def epoch(options: Options, torch: bool) -> timing.Bench:
    """Times an epoch with its evaluation, with the flow against without."""
    del torch
    sizes, seed = options.gume, options.seed
    data = graph.draw(sizes, seed)
    without = gume.Running(gume.build_trainer(sizes, data), seed)
    ours = gume.Running(build_trainer(sizes, data), seed)
    return timing.Bench(
        ours=ours.epoch,
        unit="fraction",
        per_block=1,
        peak_bytes=lambda: timing.peak(ours.compiled),
        against=without.epoch,
    )
