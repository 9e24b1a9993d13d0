# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""`launch/pipeline.sh`: every stage on a small folder of data, restarts, mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rfrec.codes import table
from rfrec.data import synthetic
from rfrec.data.interactions import write_inter_json
from rfrec.evaluation import metrics, predictions
from tests.support.commands import ROOT, digest

ITEMS, USERS = 60, 70
SMALL = {
    "RFREC_TOKENIZER_ARGS": "--config.model.method=rkmeans"
    " --config.codebook.sizes=(8,8,8) --config.codebook.kmeans_iterations=5",
    "RFREC_T5": "configs/t5.py:smoke",
    "RFREC_T5_ARGS": "--config.train.epochs=1 --config.model.d_model=16"
    " --config.model.d_ff=16 --config.model.num_heads=2 --config.train.buckets=()"
    " --config.eval.beams=4 --config.eval.users=20",
    "RFREC_RECOMMEND_ARGS": "--config.eval.resamples=20 --config.search.batch_size=32",
    "RFREC_SASREC_ARGS": "--config.model.history=8 --config.model.width=8"
    " --config.model.hidden=8 --config.model.layers=1 --config.train.epochs=1"
    " --config.train.eval_every=1 --config.eval.resamples=20",
}


def make_data(folder, *, image=True):
    """Writes histories and item vectors."""
    folder.mkdir()
    inter = synthetic.histories(USERS, num_items=ITEMS, num_clusters=3, seed=0)
    write_inter_json(inter, folder / "toy.inter.json")
    rng = np.random.default_rng(0)
    for name in ("text", "image") if image else ("text",):
        np.save(folder / f"toy.{name}.npy", rng.normal(size=(ITEMS, 12)).astype("f4"))
    return inter


def pipeline(*args, **env):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    base = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PATH": path}
    return subprocess.run(
        [str(ROOT / "launch" / "pipeline.sh"), *map(str, args)],
        env=base | env,
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.slow
def test_vectors_in_ranked_items_out(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    inter = make_data(data)
    before = digest(data)
    # Ended in the middle, as by a kill: the first stage is done, the second is not.
    broken = pipeline(data, "toy", out, **SMALL | {"RFREC_T5_ARGS": "--config.oops=1"})
    assert broken.returncode == 2
    assert "no such key" in broken.stderr
    assert not (out / "t5").exists()
    done = pipeline(data, "toy", out, **SMALL)
    assert done.returncode == 0, done.stderr
    assert "pipeline.sh: tokenizer_text is done" in done.stderr
    assert digest(data) == before

    for modality in ("text", "image"):
        index = table.read_index(out / f"toy.index_{modality}.json")
        assert index.modality == modality
        assert len(np.unique(index.codes, axis=0)) == len(index.codes) == ITEMS
    report = json.loads((out / "recommend" / "report.json").read_text())
    assert report["lists"].keys() == {"text", "image", "ensemble"}
    assert report["lists"]["text"]["trained_on_these_data"] is True
    users, lists = predictions.read(out / "recommend" / "predictions.jsonl")
    assert users == inter.user_ids
    ranks = metrics.match(lists.items, inter.items[inter.indptr[1:] - 1])
    mean = float(metrics.hit_rate(ranks, 10).mean())
    row = report["lists"]["ensemble"]["by_item"]["metrics"]["all"]
    assert row["hr@10"]["mean"] == pytest.approx(mean)
    header, *rows = done.stdout.splitlines()
    assert header.split()[2:] == ["hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr"]
    assert [line.split()[0] for line in rows] == ["text", "image", "ensemble", "sasrec"]
    assert f"{mean:.4f}" == rows[2].split()[3]

    # A second call has nothing left to do.
    before = digest(out)
    second = pipeline(data, "toy", out, **SMALL)
    assert second.returncode == 0 and second.stdout == done.stdout
    assert second.stderr.count(" is done\n") == 5
    assert digest(out) == before

    # Other settings are refused.
    other = SMALL | {"RFREC_T5_ARGS": SMALL["RFREC_T5_ARGS"] + " --config.seed=1"}
    refused = pipeline(data, "toy", out, **other)
    assert refused.returncode == 2
    assert "differs in seed" in refused.stderr.splitlines()[-1]
    assert {k: v for k, v in digest(out).items() if "t5" in k.parts} == {
        k: v for k, v in before.items() if "t5" in k.parts
    }


# Stands in for Python: notes each main and its flags, and leaves a report.
PYTHON = f"""#!{sys.executable}
import json, os, pathlib, sys
args = sys.argv[1:]
if args[0] == "-":
    os.execv(sys.executable, [sys.executable, *args])
workdir = pathlib.Path(args.pop().removeprefix("--workdir="))
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(args) + "\\n")
if "stop" in args:
    sys.exit(7)
workdir.mkdir(parents=True, exist_ok=True)
(workdir / "codes.json").write_text(args[1])
names = ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr")
row = dict.fromkeys(names, {{"mean": 0}})
table = {{"metrics": {{"all": row}}}}
report = {{"lists": {{"text": {{"by_item": table}}}}, "test": table}}
(workdir / "report.json").write_text(json.dumps(report))
"""


@pytest.fixture
def rehearse(tmp_path):
    """Return a function that runs the pipeline with a stand-in for its commands."""
    bin_folder, calls = tmp_path / "bin", tmp_path / "calls"
    bin_folder.mkdir()
    (bin_folder / "python").write_text(PYTHON)
    (bin_folder / "python").chmod(0o755)

    def run(*args, **env):
        calls.write_text("")
        path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
        done = pipeline(*args, PATH=path, CALLS=str(calls), **env)
        return done, [json.loads(line) for line in calls.read_text().splitlines()]

    return run


def mains(calls):
    return [call[1].removeprefix("rfrec.launch.") for call in calls]


def test_one_modality_with_codes_of_its_own(tmp_path, rehearse):
    data, out = tmp_path / "data", tmp_path / "out"
    make_data(data, image=False)
    (tmp_path / "codes.json").write_text("given")
    env = {"RFREC_TEXT_CODES": str(tmp_path / "codes.json"), "RFREC_SASREC": "0"}
    done, calls = rehearse(data, "toy", out, **env)
    assert done.returncode == 0, done.stderr
    assert mains(calls) == ["t5", "recommend"]
    index = out / "toy.index_text.json"
    assert index.read_text() == "given"
    wanted = [f"--config.data.text={index}", "--config.data.image=None"]
    assert [*wanted, "--config.task.names=('seqrec',)"] == calls[0][-3:]
    assert "--config.ensemble.method=none" in calls[1]
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["test", "text"]


def test_settings_reach_their_stage_and_only_what_is_missing_is_run(tmp_path, rehearse):
    data, out = tmp_path / "da ta", tmp_path / "o ut"
    make_data(data)
    env = {
        "RFREC_TASKS": "seqrec,seqimage,item2image",
        "RFREC_ENSEMBLE": "reciprocal",
        "RFREC_TOKENIZER": "configs/rqvae.py:tiger",
        "RFREC_TOKENIZER_ARGS": "--config.seed=1",
        "RFREC_T5_ARGS": "--config.seed=2 --config.train.epochs=3",
        "RFREC_RECOMMEND_ARGS": "--config.seed=3",
        "RFREC_SASREC_ARGS": "stop",
    }
    done, calls = rehearse(data, "toy", out, **env)
    assert (done.returncode, done.stdout) == (7, "")
    assert mains(calls) == ["rqvae", "rqvae", "t5", "recommend", "sasrec"]
    for call, modality in zip(calls, ("text", "image"), strict=False):
        assert call[2] == "--config=configs/rqvae.py:tiger"
        assert f"--config.data.path={data}" in call
        assert f"--config.data.features={modality}" in call
        assert f"--config.codes.modality={modality}" in call
        assert call[-1] == "--config.seed=1"
    assert "--config.task.names=('seqrec','seqimage','item2image',)" in calls[2]
    assert calls[2][-2:] == ["--config.seed=2", "--config.train.epochs=3"]
    assert "--config.ensemble.method=reciprocal" in calls[3]
    env |= {"RFREC_SASREC_ARGS": "", "RFREC_RECOMMEND_ARGS": "--config.seed=4"}
    done, calls = rehearse(data, "toy", out, **env)
    assert done.returncode == 0, done.stderr
    assert mains(calls) == ["recommend", "sasrec"]


def test_mistakes_are_one_line(tmp_path):
    make_data(tmp_path / "data")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "toy.inter.json").write_text("{}")
    data, out = tmp_path / "data", tmp_path / "out"
    calls = {
        "expected three arguments": (data, "toy"),
        "/nowhere is not a folder": ("/nowhere", "toy", out),
        "other.inter.json does not exist": (data, "other", out),
        "the output folder must differ": (data, "toy", data),
        "neither toy.text.npy nor toy.image.npy": (tmp_path / "bare", "toy", out),
    }
    for message, args in calls.items():
        done = pipeline(*args)
        assert done.returncode == 2, message
        assert message in done.stderr and done.stderr.count("\n") == 1
    done = pipeline(data, "toy", out, RFREC_TEXT_CODES="/nowhere/x.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "pipeline.sh: /nowhere/x.json does not exist (-h for help)\n"
