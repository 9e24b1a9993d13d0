# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the mains say of wrong command lines: one line that names the key, exit 2.

Run as a script it calls a main once for each command line, each in a process forked
from one that has the imports done, and prints what came of it as JSON.
"""

import json
import os
import sys
import tempfile

import pytest

SMOKE = "--config=configs/rqvae.py:smoke"
FOLDER = "--workdir={tmp}/new-{label}"
CODES = "rfrec.launch.codes"

# Overrides of the smoke variant, and what the line has to hold.
OVERRIDES = {
    "--config.modle.dropout=0.1": "modle",
    "--config.optim.learning_rate=1": "learning_rate",
    "--config.epochs=3": "epochs",
    "--config.train.epochs=ten": "config.train.epochs",
    "--config.train.epochs=1.5": "config.train.epochs",
    "--config.optim.lr=fast": "config.optim.lr",
    "--config.codebook.projection=perhaps": "config.codebook.projection",
    "--config.train=3": "config.train",
    "--config.codebook.sizes=('a',)": "codebook.sizes",
    "--config.codebook.sizes=(16.5,16)": "codebook.sizes",
    "--config.model.hidden=(8.0,)": "model.hidden",
    "--config.codebook.sizes=()": "codebook.sizes",
    "--config.codebook.sizes=(16,0)": "codebook.sizes",
    "--config.codebook.sk_epsilons=(0.1,-1.0,0.0)": "codebook.sk_epsilons",
    "--config.data.names=(3,)": "data.names",
    "--config.train.batch_size=0": "train.batch_size",
    "--config.model.dropout=1.0": "model.dropout",
    "--config.optim.lr=nan": "optim.lr",
    "--config.optim.lr=0.0": "optim.lr",
    "--config.optim.clip_norm=0.0": "optim.clip_norm",
    "--config.train.engine=tpu": "train.engine",
    "--config.optim.name=lion": "optim.name",
    "--config.rf.sampling_steps=0": "rf.sampling_steps",
    "--config.train.epochs=None": "train.epochs",
    "--config.data.source=None": "data.source",
    "--config.optim.nothing=None": "nothing",
    "--config.codebook.sk_epsilons=(0.1,0.1)": "codebook.sk_epsilons",
    "--config.codebook.temperature=(1.0,0.5,0.2)": "codebook.temperature",
    "--config.codebook.init_epoch=6": "codebook.init_epoch",
    "--config.codebook.init=uniform": "codebook.init",
    "--config.codebook.kmeans_rows=15": "codebook.kmeans_rows",
    "--config.codebook.revive_below=1.0": "codebook.revive_below",
    "--config.optim.min_lr=0.1": "optim.min_lr",
    "--config.optim.momentum=0.9": "optim.momentum",
    "--config.data.path=somewhere": "data.path",
    "--config.data.names=('a',)": "data.names",
    "--config.data.features=('rf',)": "data.features",
    "--config.data.features=('nonsense',)": "nonsense",
    "--config.data.source=folder": "RFREC_DATA",
    "--config.data.val_ratio=0.9999": "val_ratio",
    # Needs the devices: 8 here.
    "--config.train.batch_size=20": "config.train.batch_size=20 is not a multiple",
}
LINES = {
    "two that do not go together": (
        [
            SMOKE,
            FOLDER,
            "--config.codebook.learned_by=ema",
            "--config.codebook.projection",
            "--config.codebook.freeze=False",
        ],
        "codebook.projection",
    ),
    "gumbel with sinkhorn": (
        [
            SMOKE,
            FOLDER,
            "--config.codebook.estimator=gumbel",
            "--config.codebook.sk_epsilons=(0.1,)",
        ],
        "codebook.estimator",
    ),
    "k-means of a batch smaller than a codebook": (
        [
            SMOKE,
            FOLDER,
            "--config.codebook.init_on=batch",
            "--config.train.batch_size=8",
        ],
        "codebook.init_on=batch with train.batch_size",
    ),
    "two names of one switch": (
        [SMOKE, FOLDER, "--config.rf.lr=0.1", "--config.rf.learning_rate=0.2"],
        "--config.rf.lr=0.1 and --config.rf.learning_rate=0.2 set the same key",
    ),
    "none where it may stand": (
        [SMOKE, FOLDER, "--config.optim.clip_norm=None", "--config.seed=-1"],
        "config.seed=-1",
    ),
    "no folder": ([SMOKE], "--workdir"),
    "unknown variant": (["--config=configs/rqvae.py:smok", FOLDER], "'smok'"),
    "missing config": (["--config=configs/nothing.py", FOLDER], "nothing.py"),
    "unknown flag": ([SMOKE, FOLDER, "--wrokdir=x"], "wrokdir"),
    "stray word": ([SMOKE, FOLDER, "train"], "'train'"),
    "lone coordinator": (
        [SMOKE, FOLDER, "--coordinator_address=127.0.0.1:1"],
        "--num_processes",
    ),
    "folder is a file": ([SMOKE, "--workdir={tmp}/file"], "file"),
    "folder of another run": (
        [SMOKE, "--workdir={tmp}/other", "--config.train.epochs=7"],
        "train.epochs",
    ),
    "damaged config of a run": ([SMOKE, "--workdir={tmp}/damaged"], "config.json"),
    "codes without a run": ([CODES, "--workdir={tmp}/none"], "config.json"),
    "codes of an unfinished run": ([CODES, "--workdir={tmp}/other"], "report.json"),
    "misspelt key of the default config": (
        [CODES, "--workdir={tmp}/other", "--config.repiar=suffix"],
        "--config.repiar=suffix: no such key",
    ),
    "codes with a wrong repair": (
        [CODES, "--workdir={tmp}/other", "--config.repair=fix"],
        "config.repair",
    ),
}
LINES |= {
    override: ([SMOKE, FOLDER, override], named)
    for override, named in OVERRIDES.items()
}


def call(name, argv, tmp):
    """Runs a main in a forked process; returns its exit code and streams."""
    files = [open(os.path.join(tmp, f"{n}.txt"), "w+") for n in "12"]  # noqa: SIM115
    child = os.fork()
    if child == 0:
        code = 70
        try:
            for number, file in enumerate(files, start=1):
                os.dup2(file.fileno(), number)
            # What `python -m` would do.
            import importlib

            from rfrec.launch import cli

            sys.argv = [name, *argv]
            module = importlib.import_module(name)
            cli.config_main(module.main, name.rsplit(".", 1)[1])
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    texts = []
    for file in files:
        file.seek(0)
        texts.append(file.read())
        file.close()
    return {"code": os.waitstatus_to_exitcode(status), "out": texts[0], "err": texts[1]}


def call_all():
    # Imported before the processes are forked.
    import rfrec.launch.codes  # noqa: F401
    from rfrec.config import as_json

    made = {}
    with tempfile.TemporaryDirectory() as tmp:
        prepare(tmp, as_json)
        for number, (label, (line, _)) in enumerate(LINES.items()):
            name, *rest = line
            argv = rest if name == CODES else line
            name = CODES if name == CODES else "rfrec.launch.rqvae"
            argv = [
                a.format(tmp=tmp, label=number) if "{tmp}" in a else a for a in argv
            ]
            made[label] = call(name, argv, tmp)
            made[label]["made a folder"] = os.path.exists(f"{tmp}/new-{number}")
    print(json.dumps(made))


def prepare(tmp, as_json):
    """Makes a file, the folder of a run just begun, and a damaged one."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("configs_rqvae", "configs/rqvae.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    smoke = json.dumps(as_json(module.get_config("smoke")))
    for path, text in (
        ("file", ""),
        ("other/config.json", smoke),
        ("damaged/config.json", smoke[:40]),
    ):
        path = os.path.join(tmp, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)


MADE = {}


@pytest.fixture
def results(run_python):
    if not MADE:
        done = run_python([__file__], devices=8, env={"RFREC_DATA": ""})
        MADE.update(json.loads(done.stdout.splitlines()[-1]))
    return MADE


@pytest.mark.multidevice
@pytest.mark.parametrize("label", LINES)
def test_one_line_names_what_is_wrong(results, label):
    made, named = results[label], LINES[label][1]
    assert "Traceback" not in made["err"], made["err"]
    assert made["code"] == 2, made
    told = [line for line in made["err"].splitlines() if line.startswith("rfrec: ")]
    assert len(told) == 1, made["err"]
    assert made["err"].splitlines()[-1] == told[0], made["err"]
    assert named in told[0], told


@pytest.mark.multidevice
@pytest.mark.parametrize("label", LINES)
def test_a_refused_command_line_makes_no_folder(results, label):
    # Else the same command, put right, would be another config in that folder.
    assert not results[label]["made a folder"]


if __name__ == "__main__":
    call_all()
