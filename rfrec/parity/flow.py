# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of a recorded rectified flow: network, guidance, loss, ODE and mixing.

The record's names are those of `third_party/golden/README.md`. Sizes come from the
arrays: any width, number of hidden units, blocks, rows and steps.
"""

import dataclasses
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfrec.parity import arrays as golden
from rfrec.parity.arrays import Arrays, Check, near
from rfrec.rf import flow, generator, sample, settings, velocity
from rfrec.typing import PyTree

# How the record was made.
_PLUGIN = dataclasses.replace(
    settings.PRESETS["plugin"],
    mix_ratio=0.1,
    inference_mix_ratio=0.2,
    warmup_epochs=2,
)

_ROWS = (
    *("x1", "prior", "x_t", "v_eval", "v_train_guided", "cos_grad", "x0", "z0"),
    *("mix_input", "mix_infer"),
)
_CONDITIONS = ("cond_image", "cond_text")
_FIXED = (*_ROWS, *_CONDITIONS, "t", "t_train", "rf_loss")
_PATH = re.compile(r"euler_([1-9]\d*)")
_MIXED = re.compile(r"mix_train_epoch(\d+)")

# Where the reference's parameters stand in our network.
_PLACES = {
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


class _Recorded(NamedTuple):
    """A record, and its network in our layout."""

    arrays: Arrays
    arch: velocity.Architecture
    params: PyTree

    def get(self, name: str) -> Float[Array, "..."]:
        """Returns an array in float32."""
        return jnp.asarray(self.arrays[name], jnp.float32)

    def times(self, name: str) -> Float[Array, " B"]:
        """Returns the time of each row, which is recorded as a column."""
        return self.get(name)[:, 0]

    @property
    def condition(self) -> Float[Array, "B C"]:
        """Returns the conditions side by side."""
        return generator.join([self.get(name) for name in _CONDITIONS])


def is_rf(arrays: Arrays) -> bool:
    """Whether this is a record of a rectified flow."""
    return any(name.startswith("init/time_embed.") for name in arrays)


def check_rf(arrays: Arrays) -> list[Check]:
    """Runs all checks of a record."""
    record = _understand(arrays)
    return [*_velocities(record), *_gradients(record), *_paths(record), *_mixed(record)]


def _understand(arrays: Arrays) -> _Recorded:
    """Refuses what does not fit together."""
    weights = _part(arrays, "init")
    blocks = {n.split(".")[1] for n in weights if n.startswith("res_blocks.")}
    places = _places(len(blocks))
    wanted = {f"{part}/{name}" for part in ("init", "grad") for name in places}
    more = {n for n in arrays if _PATH.fullmatch(n) or _MIXED.fullmatch(n)}
    golden.expect(arrays, wanted.union(_FIXED), allowed=more)
    golden.expect_shape(arrays, "x1", (None, None))
    rows, width = arrays["x1"].shape
    for name in (*_ROWS, *more):
        golden.expect_shape(arrays, name, (rows, width))
    for name in _CONDITIONS:
        golden.expect_shape(arrays, name, (rows, None))
    for name in ("t", "t_train"):
        golden.expect_shape(arrays, name, (rows, 1))
    golden.expect_shape(arrays, "rf_loss", ())
    golden.expect_shape(arrays, "init/time_embed.1.bias", (None,))
    arch = velocity.Architecture(
        width=width,
        condition_width=sum(arrays[name].shape[1] for name in _CONDITIONS),
        hidden=len(arrays["init/time_embed.1.bias"]),
        layers=len(blocks),
        dropout=0.0,
    )
    params = jax.eval_shape(lambda: velocity.init(arch, jax.random.key(0)))
    for part in ("init", "grad"):
        for name, path in places.items():
            shape = _at(params, path).shape
            golden.expect_shape(arrays, f"{part}/{name}", shape[::-1])
    return _Recorded(arrays, arch, _from_torch(weights, places))


def _part(arrays: Arrays, part: str) -> dict[str, np.ndarray]:
    """Returns the parameters, or what belongs to them, under a prefix."""
    prefix = f"{part}/"
    return {
        n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)
    }


def _places(blocks: int) -> dict[str, tuple[str, ...]]:
    """Returns where each parameter of the reference stands in ours."""
    layers = dict(_PLACES)
    for i in range(blocks):
        for number, path in _BLOCK.items():
            layers[f"res_blocks.{i}.net.{number}"] = (f"blocks_{i}", *path)
    places = {}
    for name, path in layers.items():
        places[f"{name}.weight"] = (*path, "scale" if "norm" in path else "kernel")
        places[f"{name}.bias"] = (*path, "bias")
    return places


def _at(tree: PyTree, path: tuple[str, ...]):
    for name in path:
        tree = tree[name]
    return tree


def _from_torch(
    tensors: dict[str, np.ndarray], places: dict[str, tuple[str, ...]]
) -> PyTree:
    """Returns parameters in our layout; a weight [out, in] becomes [in, out]."""
    params: PyTree = {}
    for name, (*folders, last) in places.items():
        inner = params
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = jnp.asarray(tensors[name].T, jnp.float32)
    return params


def _guided(
    record: _Recorded,
    params: PyTree,
    x_t: Float[Array, "B D"],
    t: Float[Array, " B"],
) -> Float[Array, "B D"]:
    """Returns the velocity that training compares."""
    v = velocity.apply(record.arch, params, x_t, t, record.condition)
    return v + flow.guidance(
        x_t,
        record.get("x1"),
        t,
        record.get("prior"),
        prior_scale=_PLUGIN.user_guidance_scale,
        prior_power=_PLUGIN.guidance_decay_power,
        cosine_scale=_PLUGIN.cosine_guidance_scale,
        cosine_power=_PLUGIN.cosine_decay_power,
    )


def _velocities(record: _Recorded) -> list[Check]:
    """Checks the network and its guidance at recorded points."""
    x_t, x1, t = record.get("x_t"), record.get("x1"), record.times("t")
    run = jax.jit(lambda *rows: velocity.apply(record.arch, record.params, *rows))
    guided = jax.jit(lambda *rows: _guided(record, record.params, *rows))
    ours = {
        "v_eval": run(x_t, t, record.condition),
        "v_train_guided": guided(x_t, t),
        "cos_grad": jax.jit(flow.cosine_gradient)(x_t, x1),
    }
    return [near(name, value, record.arrays[name]) for name, value in ours.items()]


def _gradients(record: _Recorded) -> list[Check]:
    """Checks the loss of the flow and its gradient."""
    x0, x1 = record.get("x0"), record.get("x1")
    t = record.times("t_train")

    def objective(params: PyTree):
        predicted = _guided(record, params, flow.interpolate(x0, x1, t), t)
        return flow.regression(predicted, flow.target(x0, x1))

    loss, slopes = jax.jit(jax.value_and_grad(objective))(record.params)
    checks = [near("rf_loss", loss, record.arrays["rf_loss"])]
    for name, path in _places(record.arch.layers).items():
        ours, recorded = _at(slopes, path).T, record.arrays[f"grad/{name}"]
        checks.append(near(f"grad/{name}", ours, recorded, golden.GRADIENT))
    return checks


def _paths(record: _Recorded) -> list[Check]:
    """Checks where each recorded number of Euler's steps leads, and their count."""
    field, checks = sample.build_field(record.arch), []
    given = sample.prepare(record.arch, record.params, record.condition)
    for match in filter(None, map(_PATH.fullmatch, record.arrays)):
        solver = sample.Solver("euler", int(match[1]))
        solve = jax.jit(lambda z, s=solver: sample.solve(field, given, z, s))
        solution = solve(record.get("z0"))
        checks.append(near(match[0], solution.x, record.arrays[match[0]]))
        count = np.asarray(solver.steps)
        name = f"{match[0]} evaluations"
        checks.append(golden.exact(name, solution.evaluations, count))
    return checks


def _mixed(record: _Recorded) -> list[Check]:
    """Checks mixing in training, before and after the warm-up, and at inference."""

    def mixed(name: str, training: bool, epoch: int) -> Check:
        rows = (record.get("x1"), record.get("mix_input"))
        ours = generator.mix(_PLUGIN, *rows, training=training, epoch=epoch)
        return near(name, ours, record.arrays[name])

    checks = [mixed("mix_infer", False, _PLUGIN.warmup_epochs)]
    for match in filter(None, map(_MIXED.fullmatch, record.arrays)):
        checks.append(mixed(match[0], True, int(match[1])))
    return checks
