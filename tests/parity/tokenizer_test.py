# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Records of tokenizer parts: other sizes pass, changed numbers fail."""

import pathlib

import numpy as np
import pytest

from rfrec.benchmarks import torch_tokenizer
from rfrec.parity import checks, tokenizer

GOLDEN = pathlib.Path(__file__).parents[2] / "third_party" / "golden"
RQVAE = GOLDEN / "mql4grec_rqvae_equal.npz"


def _failed(results):
    return {check.name for check in results if not check.ok}


def test_changed_numbers_fail_their_checks_and_no_others():
    arrays = checks.read(RQVAE)
    codes = arrays["sk/codes"].copy()
    codes[3, 0] = (codes[3, 0] + 1) % 16
    losses = arrays["steps/loss"].copy()
    losses[5, 2] *= 1.01
    changed = {
        "z": arrays["z"] * 1.0001,
        "sk/codes": codes,
        "nn/distances": np.where(arrays["nn/distances"] > 0, np.nan, 0),
        "train/rq_loss": np.asarray(arrays["train/rq_loss"] + 1e-4),
        "grad/rq.vq_layers.2.embedding.weight": 1.001
        * arrays["grad/rq.vq_layers.2.embedding.weight"],
        "final/encoder.mlp_layers.4.bias": arrays["init/encoder.mlp_layers.4.bias"],
        "steps/loss": losses,
    }
    assert _failed(tokenizer.check_rqvae(arrays | changed)) == {
        "z",
        "sk/codes",
        "nn/distances",
        "train/rq_loss",
        "grad/codebook/2",
        "final/encoder/linear_1/bias",
        "steps/loss quantization",
    }


@pytest.mark.parametrize(
    ("stem", "name", "factor", "failed"),
    [
        ("mql4grec_sinkhorn_64x64", "centered", 1.001, "centered"),
        ("rotation_trick", "out", 1.001, "out"),
        ("rotation_trick", "grad_x", 1.001, "grad_x"),
        ("mql4grec_repair_light", "codes_after", 0, "codes_after"),
    ],
)
def test_a_changed_array_fails(stem, name, factor, failed):
    name_of_file = f"{stem}.npz"
    arrays = checks.read(GOLDEN / name_of_file)
    changed = arrays | {name: arrays[name] * factor}
    assert failed in _failed(checks.check(name_of_file, changed))


def _sinkhorn_record(rng, rows, codes, epsilon):
    """Scales a plan by definition in float64, the rows first."""
    d = rng.random((rows, codes))
    middle = (d.max() + d.min()) / 2
    centered = (d - middle) / (d.max() - middle + 1e-5)
    plan = np.exp(-centered / epsilon)
    for _ in range(50):
        plan /= plan.sum(1, keepdims=True) * rows
        plan /= plan.sum(0, keepdims=True) * codes
    return {"d": d, "centered": centered, f"Q_eps{epsilon}": plan * rows}


def test_a_sinkhorn_record_of_other_sizes_passes():
    record = _sinkhorn_record(np.random.default_rng(0), 21, 5, 0.02)
    assert _failed(tokenizer.check_sinkhorn(record)) == set()


def _rqvae_record(sizes, epsilons, *, hidden=(14, 9), width=11, latent=6, batch=17):
    """Records a small RQ-VAE with PyTorch, written by definition."""
    torch = pytest.importorskip("torch", reason="times or compares torch")
    torch.manual_seed(1)
    F = torch.nn.functional
    weights, layers = {}, {}
    for part, widths in (
        ("encoder", (width, *hidden, latent)),
        ("decoder", (latent, *reversed(hidden), width)),
    ):
        layers[part] = []
        for i, (fan_in, fan_out) in enumerate(zip(widths, widths[1:], strict=False)):
            name = f"{part}.mlp_layers.{3 * i + 1}"
            weights[f"{name}.weight"] = torch.randn(fan_out, fan_in) / fan_in**0.5
            weights[f"{name}.bias"] = 0.1 * torch.randn(fan_out)
            layers[part].append(name)
    for level, size in enumerate(sizes):
        weights[f"rq.vq_layers.{level}.embedding.weight"] = torch.randn(size, latent)
    weights = {name: torch.nn.Parameter(w) for name, w in weights.items()}

    def mlp(part, x):
        for name in layers[part]:
            x = F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
            x = x if name == layers[part][-1] else x.relu()
        return x

    def quantize(z, balanced):
        residual, x_q, losses, codes = z, 0, [], []
        for level, epsilon in enumerate(epsilons):
            book = weights[f"rq.vq_layers.{level}.embedding.weight"]
            with torch.no_grad():
                d = torch.cdist(residual, book) ** 2
                code = d.argmin(1)
                if balanced and epsilon:
                    code = torch_tokenizer.balance(d, epsilon=epsilon, iterations=50)
            q = book[code]
            losses.append(
                F.mse_loss(q, residual.detach()) + F.mse_loss(residual, q.detach()) / 4
            )
            q = residual + (q - residual).detach()
            x_q, residual = x_q + q, residual - q
            codes.append(code)
        return x_q, torch.stack(losses).mean(), torch.stack(codes, 1)

    def forward(x):
        x_q, rq_loss, _ = quantize(mlp("encoder", x), True)
        recon = mlp("decoder", x_q)
        recon_loss = F.mse_loss(recon, x)
        return recon, recon_loss + rq_loss, recon_loss, rq_loss

    x, batches = torch.randn(batch, width), torch.randn(3, batch + 2, width)
    record = {f"init/{name}": w.detach().clone() for name, w in weights.items()}
    record |= {"x": x, "z": mlp("encoder", x), "steps/x": batches}
    for part in ("nn", "sk"):
        names = (f"{part}/x_q", f"{part}/rq_loss", f"{part}/codes")
        record |= zip(names, quantize(record["z"], part == "sk"), strict=True)
    outputs = forward(x)
    names = ("recon", "loss", "recon_loss", "rq_loss")
    record |= {f"train/{n}": out for n, out in zip(names, outputs, strict=True)}
    outputs[1].backward()
    record |= {f"grad/{name}": w.grad.clone() for name, w in weights.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-3, weight_decay=1e-4)
    losses = []
    for rows in batches:
        optimizer.zero_grad()
        _, *parts = forward(rows)
        parts[0].backward()
        optimizer.step()
        losses.append(torch.stack(parts).detach())
    record |= {"steps/loss": torch.stack(losses)}
    record |= {f"final/{name}": w for name, w in weights.items()}
    return {name: value.detach().numpy() for name, value in record.items()} | {
        "sk_epsilons": np.array(epsilons),
        "num_emb_list": np.array(sizes),
        "layers": np.array(hidden),
    }


def test_a_record_with_unequal_codebooks_and_other_sizes_passes():
    record = _rqvae_record((7, 4, 10), (0.0, 0.05, 0.1))
    results = tokenizer.check_rqvae(record)
    assert _failed(results) == set()
    assert "sk/codes" in {check.name for check in results}
