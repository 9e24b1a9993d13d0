# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Records of a rectified flow: other sizes pass, changed numbers fail."""

import functools
import pathlib

import numpy as np
import pytest

from rfrec.parity import checks, flow

GOLDEN = pathlib.Path(__file__).parents[2] / "third_party" / "golden"


@functools.cache
def _file():
    return checks.read(GOLDEN / "rf_module.npz")


def _failed(arrays):
    return {check.name for check in flow.check_rf(arrays) if not check.ok}


def _network(torch, weights, blocks):
    """Returns the velocity by the network's equations, in PyTorch."""
    F = torch.nn.functional

    def linear(name, x):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name, x):
        shape = (x.shape[-1],)
        return F.layer_norm(
            x, shape, weights[f"{name}.weight"], weights[f"{name}.bias"]
        )

    def layer(name, x):
        return F.silu(norm(f"{name}.1", linear(f"{name}.0", x)))

    def velocity(x, t, condition):
        rate = torch.exp(-np.log(1e4) * torch.arange(32) / 31)
        angles = t[:, None] * rate
        code = torch.cat([angles.sin(), angles.cos()], 1)
        y = F.silu(linear("time_embed.1", code))
        y = y + layer("condition_encoder", condition) + layer("input_proj", x)
        for i in range(blocks):
            name = f"res_blocks.{i}.net"
            z = linear(f"{name}.4", layer(name, y))
            y = F.silu(y + norm(f"{name}.5", z))
        return linear("output_proj.4", layer("output_proj", y))

    return velocity


def _weights(torch, width, condition, hidden, blocks):
    layers = {"time_embed.1": (64, hidden), "output_proj.4": (hidden, width)}
    normed = {"condition_encoder": condition, "input_proj": width}
    normed |= {"output_proj": hidden}
    layers |= {f"{name}.0": (inputs, hidden) for name, inputs in normed.items()}
    norms = [f"{name}.1" for name in normed]
    for i in range(blocks):
        layers |= {f"res_blocks.{i}.net.{n}": (hidden, hidden) for n in "04"}
        norms += [f"res_blocks.{i}.net.{n}" for n in "15"]
    weights = {}
    for name, (inputs, outputs) in layers.items():
        weights[f"{name}.weight"] = torch.randn(outputs, inputs) / inputs**0.5
        weights[f"{name}.bias"] = 0.1 * torch.randn(outputs)
    for name in norms:
        weights[f"{name}.weight"] = 1 + 0.1 * torch.randn(hidden)
        weights[f"{name}.bias"] = 0.1 * torch.randn(hidden)
    return {name: torch.nn.Parameter(w) for name, w in weights.items()}


def _record(*, rows=9, width=6, image=5, text=3, hidden=20, blocks=3, steps=(1, 4)):
    torch = pytest.importorskip("torch", reason="records what PyTorch computes")
    torch.manual_seed(2)
    weights = _weights(torch, width, image + text, hidden, blocks)
    network = _network(torch, weights, blocks)
    record = {f"init/{n}": w.detach().numpy().copy() for n, w in weights.items()}
    x1, x0, z0, prior, x_t = torch.randn(5, rows, width)
    conditions = torch.randn(rows, image), torch.randn(rows, text)
    condition = torch.cat(conditions, 1)
    t, t_train = torch.rand(2, rows)

    def turn(x):
        x = x.clone().requires_grad_()
        torch.cosine_similarity(x, x1).sum().backward()
        return x.grad

    def guided(x, t):
        left = (1 - t[:, None]) ** 2
        return network(x, t, condition) + left * (0.2 * prior + 0.1 * turn(x))

    line = t_train[:, None] * x1 + (1 - t_train[:, None]) * x0
    loss = ((guided(line, t_train) - (x1 - x0)) ** 2).mean()
    loss.backward()
    record |= {f"grad/{n}": w.grad.numpy().copy() for n, w in weights.items()}
    paths = {}
    with torch.no_grad():
        for count in steps:
            x = z0
            for i in range(count):
                x = x + network(x, torch.full((rows,), i / count), condition) / count
            paths[f"euler_{count}"] = x
        plain = network(x_t, t, condition)
    tensors = paths | {
        "x1": x1,
        "x0": x0,
        "z0": z0,
        "prior": prior,
        "x_t": x_t,
        "rf_loss": loss,
        "v_eval": plain,
        "cond_image": conditions[0],
        "cond_text": conditions[1],
        "v_train_guided": guided(x_t, t),
        "cos_grad": turn(x_t),
        "mix_input": x,
        "mix_infer": 0.8 * x1 + 0.2 * x,
        "mix_train_epoch0": x1,
        "mix_train_epoch7": 0.9 * x1 + 0.1 * x,
    }
    columns = {"t": t[:, None], "t_train": t_train[:, None]}
    return record | {n: a.detach().numpy() for n, a in (tensors | columns).items()}


@pytest.mark.parametrize("sizes", [{}, {"blocks": 0, "hidden": 12, "steps": (60,)}])
def test_a_record_of_other_sizes_passes(sizes):
    assert _failed(_record(**sizes)) == set()


def test_changed_arrays_fail_their_checks_and_no_others():
    changed = {
        *("v_eval", "v_train_guided", "cos_grad", "rf_loss", "euler_5", "mix_infer"),
        *(
            "mix_train_epoch1",
            "grad/res_blocks.1.net.5.weight",
            "grad/time_embed.1.bias",
        ),
    }
    arrays = _file() | {name: np.asarray(1.001 * _file()[name]) for name in changed}
    assert _failed(arrays) == changed


def test_a_changed_weight_fails_all_that_the_network_gives():
    name = "init/input_proj.0.weight"
    failed = _failed({**_file(), name: 1.01 * _file()[name]})
    assert {"v_eval", "v_train_guided", "euler_1", "euler_10"} <= failed
    assert not failed & {"cos_grad", "mix_infer", "euler_1 evaluations"}


def test_changed_embeddings_fail_what_is_mixed_of_them():
    arrays = {**_file(), "mix_input": 1.01 * _file()["mix_input"]}
    assert _failed(arrays) == {"mix_infer", "mix_train_epoch2"}
