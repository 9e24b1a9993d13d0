# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of a recorded rectified flow: network, guidance, loss, ODE and mixing."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfrec.parity.arrays import (
    GRADIENT,
    Arrays,
    Check,
    Recorded,
    exact,
    leaf,
    near,
    part,
)
from rfrec.rf import flow, generator, sample, settings, velocity
from rfrec.typing import PyTree

# Settings of the recorded module.
_PLUGIN = dataclasses.replace(
    settings.PRESETS["plugin"],
    mix_ratio=0.1,
    inference_mix_ratio=0.2,
    warmup_epochs=2,
)
_CONDITIONS = ("cond_image", "cond_text")
_PATH = re.compile(r"euler_(\d+)")
_MIXED = re.compile(r"mix_train_epoch(\d+)")

# Path of each of the reference's layers in our parameters.
_LAYERS = {
    "time_embed.1": ("time",),
    "condition_encoder.0": ("condition", "linear"),
    "condition_encoder.1": ("condition", "norm"),
    "input_proj.0": ("input", "linear"),
    "input_proj.1": ("input", "norm"),
    "output_proj.0": ("last", "linear"),
    "output_proj.1": ("last", "norm"),
    "output_proj.4": ("output",),
}
_BLOCK = {
    "0": ("layer", "linear"),
    "1": ("layer", "norm"),
    "4": ("linear",),
    "5": ("norm",),
}


def check_rf(arrays: Arrays) -> list[Check]:
    """Checks velocities, the loss with its gradient, ODE solutions and mixing."""
    weights = part(arrays, "init")
    blocks = {name.split(".")[1] for name in weights if name.startswith("res_blocks.")}
    arch = velocity.Architecture(
        width=arrays["x1"].shape[1],
        condition_width=sum(arrays[name].shape[1] for name in _CONDITIONS),
        hidden=len(weights["time_embed.1.bias"]),
        layers=len(blocks),
        dropout=0.0,
    )
    params = _from_torch(weights, _parameter_paths(len(blocks)))
    record = Recorded(arrays, arch, params)
    return [*_velocities(record), *_gradients(record), *_paths(record), *_mixed(record)]


def _parameter_paths(blocks: int) -> dict[str, tuple[str, ...]]:
    """Returns the path of each of the reference's parameters in ours."""
    layers = dict(_LAYERS)
    for i in range(blocks):
        for number, path in _BLOCK.items():
            layers[f"res_blocks.{i}.net.{number}"] = (f"blocks_{i}", *path)
    paths = {}
    for name, path in layers.items():
        paths[f"{name}.weight"] = (*path, "scale" if "norm" in path else "kernel")
        paths[f"{name}.bias"] = (*path, "bias")
    return paths


def _from_torch(
    tensors: dict[str, np.ndarray], paths: dict[str, tuple[str, ...]]
) -> PyTree:
    """Returns parameters in our layout; a weight [out, in] becomes [in, out]."""
    params: PyTree = {}
    for name, (*folders, last) in paths.items():
        inner = params
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = jnp.asarray(tensors[name].T, jnp.float32)
    return params


def _condition(record: Recorded) -> Float[Array, "B C"]:
    return generator.join([record.float32(name) for name in _CONDITIONS])


def _guided(
    record: Recorded, params: PyTree, x_t: Float[Array, "B D"], t: Float[Array, " B"]
) -> Float[Array, "B D"]:
    """Returns the velocity that the training loss compares with its target."""
    v = velocity.apply(record.arch, params, x_t, t, _condition(record))
    return v + flow.guidance(
        x_t,
        record.float32("x1"),
        t,
        record.float32("prior"),
        prior_scale=_PLUGIN.user_guidance_scale,
        prior_power=_PLUGIN.guidance_decay_power,
        cosine_scale=_PLUGIN.cosine_guidance_scale,
        cosine_power=_PLUGIN.cosine_decay_power,
    )


def _velocities(record: Recorded) -> list[Check]:
    """Checks the network and its guidance at recorded points."""
    x_t, x1 = record.float32("x_t"), record.float32("x1")
    t = record.float32("t")[:, 0]
    run = jax.jit(lambda *rows: velocity.apply(record.arch, record.params, *rows))
    guided = jax.jit(lambda *rows: _guided(record, record.params, *rows))
    ours = {
        "v_eval": run(x_t, t, _condition(record)),
        "v_train_guided": guided(x_t, t),
        "cos_grad": jax.jit(flow.cosine_gradient)(x_t, x1),
    }
    return [near(name, value, record.arrays[name]) for name, value in ours.items()]


def _gradients(record: Recorded) -> list[Check]:
    """Checks the loss of the flow and its gradient."""
    x0, x1 = record.float32("x0"), record.float32("x1")
    t = record.float32("t_train")[:, 0]

    def objective(params: PyTree):
        predicted = _guided(record, params, flow.interpolate(x0, x1, t), t)
        return flow.regression(predicted, flow.target(x0, x1))

    loss, slopes = jax.jit(jax.value_and_grad(objective))(record.params)
    checks = [near("rf_loss", loss, record.arrays["rf_loss"])]
    for name, path in _parameter_paths(record.arch.layers).items():
        ours, recorded = leaf(slopes, path).T, record.arrays[f"grad/{name}"]
        checks.append(near(f"grad/{name}", ours, recorded, GRADIENT))
    return checks


def _paths(record: Recorded) -> list[Check]:
    """Checks the result and the evaluations of each recorded number of Euler steps."""
    field, checks = sample.build_field(record.arch), []
    prepared = sample.prepare(record.arch, record.params, _condition(record))
    for match in filter(None, map(_PATH.fullmatch, record.arrays)):
        solver = sample.Solver("euler", int(match[1]))
        solve = jax.jit(lambda z, s=solver: sample.solve(field, prepared, z, s))
        solution = solve(record.float32("z0"))
        checks.append(near(match[0], solution.x, record.arrays[match[0]]))
        count = np.asarray(solver.steps)
        checks.append(exact(f"{match[0]} evaluations", solution.evaluations, count))
    return checks


def _mixed(record: Recorded) -> list[Check]:
    """Checks mixing in training, before and after the warm-up, and at inference."""

    def mixed(name: str, training: bool, epoch: int) -> Check:
        rows = (record.float32("x1"), record.float32("mix_input"))
        ours = generator.mix(_PLUGIN, *rows, training=training, epoch=epoch)
        return near(name, ours, record.arrays[name])

    checks = [mixed("mix_infer", False, _PLUGIN.warmup_epochs)]
    for match in filter(None, map(_MIXED.fullmatch, record.arrays)):
        checks.append(mixed(match[0], True, int(match[1])))
    return checks
