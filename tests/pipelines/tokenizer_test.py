# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer's run: variants, resume after kills, streaming, several processes."""

import dataclasses
import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from rfrec.config import UserError
from rfrec.pipelines import tokenizer
from rfrec.train import writer
from tests.support import commands
from tests.support.commands import digest, load_config, load_module

ROOT = Path(__file__).parents[2]
# Of the smoke variant, for runs of a second or two.
TINY = {
    "data.num_items": 120,
    "data.text_width": 8,
    "data.val_ratio": 0.1,
    "model.hidden": (16,),
    "model.latent_width": 4,
    "codebook.sizes": (8, 8, 8),
    "codebook.init_epoch": 1,
    "codebook.kmeans_restarts": 2,
    "codebook.freeze": False,
    "train.epochs": 6,
    "train.batch_size": 32,
}
# Long enough that kills fall into it.
LONG = {"train.epochs": 200, "train.eval_every": 5, "train.steps_per_call": 64}


def make_config(variant="smoke", **overrides):
    tiny = TINY if variant == "smoke" else {}
    return load_config("rqvae", variant, **(tiny | overrides))


def flags(**overrides):
    return [f"--config.{key}={value}" for key, value in (TINY | overrides).items()]


def arrays(workdir, step=None):
    """Every array of a checkpoint, the last by default, read by orbax alone."""
    folder = workdir / "checkpoints"
    steps = sorted(int(path.name) for path in folder.iterdir())
    step = steps[-1] if step is None else step
    with ocp.StandardCheckpointer() as reader:
        tree = reader.restore((folder / str(step) / "state").absolute())
    found = {}

    def collect(prefix, node):
        if isinstance(node, dict):
            for name, inner in node.items():
                collect(f"{prefix}/{name}", inner)
        elif isinstance(node, (list, tuple)):
            for name, inner in enumerate(node):
                collect(f"{prefix}/{name}", inner)
        elif node is not None:
            found[prefix] = np.asarray(node)

    collect("", tree)
    assert len(found) > 5
    return found


def assert_same_run(a, b):
    assert (a / "metrics.jsonl").read_text() == (b / "metrics.jsonl").read_text()
    assert (a / "codes.json").read_bytes() == (b / "codes.json").read_bytes()
    reports = [json.loads((each / "report.json").read_text()) for each in (a, b)]
    for key in ("models", "codes", "levels", "energy_left"):
        assert reports[0][key] == reports[1][key], key
    folders = [{p.name for p in (each / "checkpoints").iterdir()} for each in (a, b)]
    # A kill in the middle of a removal may leave the rest of an old checkpoint.
    assert folders[0] <= folders[1]
    for step in folders[0]:
        one, other = arrays(a, step), arrays(b, step)
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(other[name], array, err_msg=name)


def assert_close_metrics(a, b):
    one, other = (writer.read_metrics(each / "metrics.jsonl") for each in (a, b))
    assert len(one) == len(other)
    for row, same in zip(one, other, strict=True):
        for name, value in row.items():
            if isinstance(value, float):
                np.testing.assert_allclose(same[name], value, rtol=1e-5, err_msg=name)
            else:
                assert same[name] == value, name


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a finished run."""
    workdir = tmp_path_factory.mktemp("done") / "run"
    tokenizer.run(make_config(), workdir)
    return workdir


@pytest.mark.parametrize("variant", load_module("rqvae").VARIANTS)
def test_every_variant_passes_its_checks(variant):
    config = make_config(variant) if variant != "smoke" else make_config()
    tokenizer.check(config)
    assert config.is_locked
    config.rf.sampling_steps = 1
    docstring = load_module("rqvae").__doc__
    assert (variant or "(default)") in docstring


def test_mql4grec_has_the_settings_of_the_reference():
    config = make_config("mql4grec")
    wanted = {
        "model.hidden": (2048, 1024, 512, 256, 128, 64),
        "model.latent_width": 32,
        "model.dropout": 0.0,
        "model.batch_norm": False,
        "model.normalize_input": False,
        "model.initializer": "xavier",
        "data.scale": "none",
        "data.val_ratio": 0.0,
        "codebook.sizes": (256, 256, 256, 256),
        "codebook.estimator": "ste",
        "codebook.distance": "l2",
        "codebook.residual_grad": "stop",
        "codebook.learned_by": "gradient",
        "codebook.projection": False,
        "codebook.l2_normalize": False,
        "codebook.init": "kmeans",
        "codebook.init_epoch": 0,
        "codebook.init_on": "batch",
        "codebook.kmeans_iterations": 100,
        "codebook.freeze": False,
        "codebook.sk_epsilons": (0.0, 0.0, 0.0, 0.003),
        "codebook.sk_iterations": 50,
        "loss.recon": "mse",
        "loss.recon_reduce": "mean",
        "loss.level_reduce": "mean",
        "loss.quant_weight": 1.0,
        "loss.beta": 0.25,
        "loss.beta_warmup_epochs": 0.0,
        "optim.name": "adamw",
        "optim.lr": 1e-3,
        "optim.weight_decay": 1e-4,
        "optim.schedule": "constant",
        "optim.warmup_steps": 0,
        "train.epochs": 500,
        "train.batch_size": 2048,
        "train.eval_every": 2,
        "codes.checkpoint": "collision_rate",
    }
    for key, value in wanted.items():
        section, name = key.split(".")
        assert config[section][name] == value, key


def test_a_run_leaves_everything_in_its_folder(done):
    names = {path.name for path in done.iterdir()}
    assert {"config.json", "metrics.jsonl", "codes.json", "report.json"} <= names
    assert "checkpoints" in names
    report = json.loads((done / "report.json").read_text())
    assert report["items"] == 120
    assert report["seconds"] > 0
    for when in ("before", "after"):
        assert {"distinct", "conflict_items"} <= report["codes"][when].keys()
    assert report["codes"]["after"]["distinct"] == 120
    assert report["codes"]["after"]["conflict_items"] == 0
    assert len(report["levels"]) == 3
    for level in report["levels"]:
        assert level["size"] == 8
        assert 1 <= level["perplexity"] <= level["used"] <= 8
        np.testing.assert_allclose(np.log(level["perplexity"]), level["entropy"])
    codes = json.loads((done / "codes.json").read_text())
    assert len({tuple(code) for code in codes.values()}) == len(codes) == 120
    rows = writer.read_metrics(done / "metrics.jsonl")
    epochs = [row["epoch"] for row in rows if row["split"] == "eval"]
    assert epochs == [2, 4, 6]
    best = min((r for r in rows if r["split"] == "eval"), key=lambda r: r["loss"])
    assert report["models"]["loss"]["loss"] == best["loss"]


def test_codes_before_repair_are_the_nearest_of_the_latents(done):
    with np.load(done / "latents.npz", allow_pickle=False) as file:
        residual, codes = file["latents"].astype("f8"), file["codes"]
        books = [file[f"codebook_{level}"] for level in range(3)]
    for level, book in enumerate(books):
        nearest = ((residual[:, None] - book[None]) ** 2).sum(2).argmin(axis=1)
        np.testing.assert_array_equal(codes[:, level], nearest)
        residual = residual - book[nearest]
    report = json.loads((done / "report.json").read_text())
    assert report["codes"]["before"]["distinct"] == len(np.unique(codes, axis=0))
    unique = {tuple(code) for code in codes.tolist()}
    assert report["codes"]["before"]["conflict_items"] == 120 - len(unique)


def test_a_finished_run_says_the_same_again(done):
    before = {k: v for k, v in digest(done).items() if "report" not in k.name}
    tokenizer.run(make_config(), done)
    after = {k: v for k, v in digest(done).items() if "report" not in k.name}
    for path in before:
        if "tfevents" not in path.name and path.suffix != ".npz":
            assert after[path] == before[path], path


def test_another_config_is_refused_and_nothing_is_touched(done):
    before = digest(done)
    changed = make_config(**{"optim.lr": 0.01, "train.epochs": 7})
    with pytest.raises(UserError, match=r"differs in optim\.lr, train\.epochs"):
        tokenizer.run(changed, done)
    assert digest(done) == before


def test_other_items_are_refused(done, monkeypatch):
    load = tokenizer.load_items

    def other(options, rf):
        return load(dataclasses.replace(options, seed=5), rf)

    monkeypatch.setattr(tokenizer, "load_items", other)
    with pytest.raises(UserError, match="item vectors are not those"):
        tokenizer.run(make_config(), done)


def test_a_damaged_checkpoint_is_told_in_one_line(tmp_path):
    tokenizer.run(make_config(), tmp_path)
    latest = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    folder = tmp_path / "checkpoints" / str(latest) / "state"
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=f"checkpoints/{latest}") as error:
        tokenizer.run(make_config(), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("steps_per_epoch", [1, 4])
def test_a_run_that_diverges_names_step_and_checkpoint(tmp_path, steps_per_epoch):
    changes = {"optim.lr": 1e30, "optim.min_lr": 0.0, "codebook.bypass": False}
    changes |= {"train.batch_size": 32 if steps_per_epoch == 4 else 128}
    changes |= {"train.eval_every": 1}
    with pytest.raises(UserError, match="not finite at step") as error:
        tokenizer.run(make_config(**changes), tmp_path)
    # No parameter survived the first step, so no checkpoint is good.
    assert "no checkpoint yet" in str(error.value)
    assert not (tmp_path / "report.json").exists()
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_streamed_items_train_as_resident_ones(tmp_path):
    values = np.random.default_rng(0).normal(size=(150, 10)).astype("f2")
    data = tmp_path / "data"
    data.mkdir()
    np.save(data / "toy.text.npy", values)
    for resident in ("always", "never"):
        config = make_config(
            **{
                "data.source": "folder",
                "data.path": str(data),
                "data.scale": "none",
                "train.resident": resident,
            }
        )
        options = tokenizer.check(config)
        items = tokenizer.load_items(options, config.rf)
        trainer = tokenizer.build_trainer(options, items)
        assert trainer.items.resident == (resident == "always")
        assert isinstance(items.values, np.memmap)
        tokenizer.run(config, tmp_path / resident)
    one, other = tmp_path / "always", tmp_path / "never"
    assert (one / "codes.json").read_bytes() == (other / "codes.json").read_bytes()
    # Two programs, between which the compiler may round differently.
    assert_close_metrics(one, other)
    resident, streamed = arrays(one), arrays(other)
    for name, array in resident.items():
        np.testing.assert_allclose(streamed[name], array, atol=1e-6, err_msg=name)


def test_data_sets_of_one_quantizer_get_unique_codes_each(tmp_path):
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    data.mkdir()
    counts = {"one": 70, "two": 50}
    for name, count in counts.items():
        np.save(data / f"{name}.text.npy", rng.normal(size=(count, 8)).astype("f4"))
    config = make_config(
        **{
            "data.source": "folder",
            "data.path": str(data),
            "data.names": tuple(counts),
            "model.method": "rkmeans",
        }
    )
    tokenizer.run(config, tmp_path / "run")
    for name, count in counts.items():
        codes = json.loads((tmp_path / "run" / f"codes.{name}.json").read_text())
        assert len({tuple(code) for code in codes.values()}) == count
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["items"] == report["codes"]["after"]["distinct"] == 120


def test_residual_k_means_from_vectors_to_codes(tmp_path):
    config = make_config(**{"model.method": "rkmeans"})
    tokenizer.run(config, tmp_path)
    options = tokenizer.check(config)
    items = tokenizer.load_items(options, config.rf).values.astype("f8")
    with np.load(tmp_path / "latents.npz", allow_pickle=False) as file:
        residual, codes = items, file["codes"]
        for level in range(3):
            book = file[f"codebook_{level}"].astype("f8")
            nearest = ((residual[:, None] - book[None]) ** 2).sum(2).argmin(axis=1)
            np.testing.assert_array_equal(codes[:, level], nearest)
            residual = residual - book[nearest]
    report = json.loads((tmp_path / "report.json").read_text())
    left = (residual**2).sum() / (items**2).sum()
    np.testing.assert_allclose(report["energy_left"], left, rtol=1e-4)
    assert report["codes"]["after"]["distinct"] == 120
    assert not (tmp_path / "checkpoints").exists()
    first = (tmp_path / "codes.json").read_text()
    tokenizer.run(config, tmp_path)
    assert (tmp_path / "codes.json").read_text() == first


def command(workdir, *more, **overrides):
    return commands.command("rqvae", workdir, *more, **(TINY | overrides))


@pytest.mark.slow
def test_killed_and_preempted_runs_equal_the_uninterrupted_one(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    tokenizer.run(make_config(**LONG), whole)
    kills = [signal.SIGKILL, signal.SIGTERM]
    for number, sent in enumerate(kills):
        log = tmp_path / f"{number}.log"
        process = commands.begin(command(broken, **LONG), log)
        commands.wait_for_rows(broken, process, more=24)
        time.sleep(random.uniform(0, 0.1))
        process.send_signal(sent)
        code = process.wait(timeout=60)
        if sent == signal.SIGTERM:
            assert code == 143, log.read_text()
            line = log.read_text().splitlines()[-1]
            assert line.startswith("rfrec: stopped by SIGTERM at step"), line
            stored = {path.name for path in (broken / "checkpoints").iterdir()}
            assert line.split("step ")[1].split(";")[0] in stored
        else:
            assert code == -signal.SIGKILL
        assert not (broken / "report.json").exists()
    tokenizer.run(make_config(**LONG), broken)
    assert_same_run(whole, broken)


@pytest.mark.slow
@pytest.mark.multidevice
def test_two_processes_of_four_devices_equal_one_process(done, tmp_path):
    workdir = tmp_path / "two"
    commands.run_together("rqvae", workdir, tmp_path, devices=4, **TINY)
    assert (workdir / "codes.json").read_bytes() == (done / "codes.json").read_bytes()
    assert_close_metrics(done, workdir)
    report = json.loads((workdir / "report.json").read_text())
    assert report["device"].endswith("x 8")
    single, double = arrays(done), arrays(workdir)
    for name, array in single.items():
        np.testing.assert_allclose(double[name], array, atol=1e-5, err_msg=name)
