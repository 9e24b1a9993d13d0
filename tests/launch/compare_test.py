# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Golden checks: recorded files pass, wrong numbers and damaged files are told."""

import json
import pathlib
import types

import numpy as np
import pytest

from rfrec import config as cfg
from rfrec.benchmarks import torch_tokenizer
from rfrec.config import UserError
from rfrec.launch import compare
from rfrec.parity import arrays as golden
from rfrec.rf import settings as rf_settings

GOLDEN = pathlib.Path(__file__).parents[2] / "third_party" / "golden"
RQVAE = GOLDEN / "mql4grec_rqvae_equal.npz"
SMALL = ("mql4grec_repair_heavy", "mql4grec_repair_light", "rotation_trick")


def _failed(arrays):
    return {check.name for check in compare.check_arrays(arrays) if not check.ok}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.npz")), ids=lambda p: p.stem)
def test_a_recorded_file_passes(path):
    checks = compare.check_arrays(golden.read(path))
    assert checks
    assert [check for check in checks if not check.ok] == []


def test_changed_numbers_fail_their_checks_and_no_others():
    arrays = golden.read(RQVAE)
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
    assert _failed(arrays | changed) == {
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
    arrays = golden.read(GOLDEN / f"{stem}.npz")
    assert failed in _failed(arrays | {name: arrays[name] * factor})


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
    assert _failed(record) == set()


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


def test_a_record_with_unequal_codebooks_and_other_sizes_passes(tmp_path, capsys):
    record = _rqvae_record((7, 4, 10), (0.0, 0.05, 0.1))
    np.savez(tmp_path / "other.npz", **record)
    assert compare.compare_folder(tmp_path), capsys.readouterr().out
    out = capsys.readouterr().out
    assert "other.npz sk/codes" in out and "FAIL" not in out


def _without(arrays, name):
    return {n: a for n, a in arrays.items() if n != name}


def _rotation(**changes):
    return {**golden.read(GOLDEN / "rotation_trick.npz"), **changes}


def _repair(**changes):
    return {**golden.read(GOLDEN / "mql4grec_repair_heavy.npz"), **changes}


def _rqvae(**changes):
    return {
        **golden.read(RQVAE),
        **{n.replace("__", "/"): a for n, a in changes.items()},
    }


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"hf/shared.weight": np.ones(2), "logits": np.ones(2)}, "no check reads"),
        ({"recall": np.ones(50), "ndcg": np.ones(50)}, "no check reads"),
        ({}, "no check reads"),
        (_without(_rotation(), "x"), "'x' is missing"),
        (_rotation(more=np.ones(1)), "'more' is not understood"),
        (_rotation(code=np.ones((2, 8))), r"'code' has shape \(2, 8\), not \(32, 8\)"),
        (_rotation(out=np.full((32, 8), "a")), "'out' of type <U1"),
        (_repair(codes_before=np.full((120, 2), 12)), "outside 0..11"),
        (_repair(codes_before=np.zeros((120, 2))), "float64 holds no codes"),
        (_repair(codes_after=np.zeros((3, 2), int)), r"not \(120, 2\)"),
        ({"d": np.ones((2, 2)), "centered": np.ones((2, 2)), "Q_epsx": 1}, "epsilon"),
        ({"d": np.ones((0, 2)), "centered": np.ones((0, 2)), "Q_eps1": 1}, "shape"),
        (_without(_rqvae(), "nn/distances"), "'nn/distances' is missing"),
        (_without(_rqvae(), "grad/decoder.mlp_layers.1.bias"), "is missing"),
        (_rqvae(num_emb_list=np.array([16, 16])), "the weights give"),
        (_rqvae(layers=np.array([40, 25])), "the weights give"),
        (_rqvae(steps__loss=np.ones((19, 3))), r"not \(20, 3\)"),
        (_rqvae(x=np.ones((96, 47))), r"not \(any, 48\)"),
        (_rqvae(sk__codes=np.full((96, 4), 16)), "outside 0..15"),
    ],
)
def test_what_is_not_understood_is_named(arrays, message):
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    with pytest.raises(UserError, match=message):
        compare.check_arrays(arrays)


def _damage(path, how):
    good = (GOLDEN / "rotation_trick.npz").read_bytes()
    if how == "pickle":
        np.savez(path, x=np.array([None], object), code=1, cotangent=1)
    elif how == "flipped":
        path.write_bytes(good[:300] + b"\xff" * 40 + good[340:])
    elif how == "array":
        with path.open("wb") as stream:
            np.save(stream, np.ones(3))
    elif how == "folder":
        path.mkdir()
    else:
        path.write_bytes(
            {"empty": b"", "truncated": good[:-500], "text": b"x"}[how] or b""
        )


@pytest.mark.parametrize(
    "how", ["empty", "truncated", "text", "pickle", "flipped", "array", "folder"]
)
def test_a_damaged_file_is_one_line_and_the_others_are_checked(tmp_path, capsys, how):
    _damage(tmp_path / "bad.npz", how)
    good = GOLDEN / "mql4grec_repair_heavy.npz"
    (tmp_path / "good.npz").write_bytes(good.read_bytes())
    assert not compare.compare_folder(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if f"{tmp_path / 'bad.npz'}: FAIL, not und" in line]
    assert [line for line in lines if line.startswith("good.npz codes_after")]
    assert len(lines) == 4
    assert lines[-1] == "2 files, 1 checks: 0 failed, 1 files not understood"


def test_a_folder_without_files_does_not_pass(tmp_path, capsys):
    assert not compare.compare_folder(tmp_path)
    assert "there is no .npz file" in capsys.readouterr().out
    with pytest.raises(UserError, match="nowhere is no folder"):
        compare.compare_folder(tmp_path / "nowhere")


REPORT = {
    "items": 3883,
    "codes": {
        "before": {"distinct": 3840, "conflict_items": 43},
        "after": {"distinct": 3883, "conflict_items": 0},
    },
    "levels": [{"size": 64, "used": 63, "perplexity": 51.25, "entropy": 3.9}],
}
NUMBERS = GOLDEN.parent / "reference_numbers.json"


def test_a_run_is_shown_beside_the_published_numbers(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    lines = compare.compare_run(tmp_path, NUMBERS).splitlines()
    rows = [line.split() for line in lines]
    assert ["this", "run,", "before", "repair", "3883", "3840", "43", "51.25"] in rows
    assert ["this", "run,", "after", "repair", "3883", "3883", "0", "-"] in rows
    assert ["1", "64", "63", "98.4%", "51.25", "3.9"] in rows
    assert ["random", "initialisation", "-", "1", "3881", "-"] in rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "report.json is damaged, no JSON"),
        ("[]", "report.json is damaged, no JSON object"),
        ("\udcff", "report.json is damaged"),
        ('{"items": 1}', "report.json is damaged: it lacks levels.0.perplexity"),
        (json.dumps(REPORT | {"items": "many"}), "items is 'many', not a int"),
        (json.dumps(REPORT | {"codes": []}), "it lacks codes.before.distinct"),
        (json.dumps(REPORT | {"levels": {}}), "it lacks levels.0"),
    ],
)
def test_a_damaged_report_is_one_line(tmp_path, text, message):
    path = tmp_path / "report.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=message) as error:
        compare.compare_run(tmp_path, NUMBERS)
    assert "\n" not in str(error.value)


def test_a_missing_report_names_the_remedy(tmp_path):
    with pytest.raises(UserError, match=r"report.json cannot be read .*: finish the"):
        compare.compare_run(tmp_path, NUMBERS)


def test_main_needs_something_to_compare(monkeypatch):
    nothing = types.SimpleNamespace(golden=None, run=None)
    monkeypatch.setattr(compare.flags, "FLAGS", nothing)
    config = cfg.ConfigDict({"reference_numbers": "x", "rf": rf_settings.section()})
    with pytest.raises(UserError, match="--golden=FOLDER .* or --run=FOLDER"):
        compare.main(config, None)


def test_the_command_exits_with_its_verdict(tmp_path, run_python):
    for stem in SMALL:
        content = (GOLDEN / f"{stem}.npz").read_bytes()
        (tmp_path / f"{stem}.npz").write_bytes(content)
    command = ["-m", "rfrec.launch.compare", f"--golden={tmp_path}"]
    done = run_python([*command, "--config.rf.sampling_steps=1"], devices=2)
    assert "3 files, 4 checks: 0 failed" in done.stdout
    (tmp_path / "new.npz").write_bytes(b"PK")
    done = run_python(command, devices=1, check=False)
    assert done.returncode == 1
    assert "new.npz: FAIL, not understood" in done.stdout
