# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a T5 that names the next item of a history by its codes.

python -m rfrec.launch.t5 --config=configs/t5.py --workdir=runs/instruments
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rfrec import files
from rfrec.config import UserError, as_json
from rfrec.launch import cli
from rfrec.pipelines import coded_histories, finished_retriever, retriever, run_folder
from rfrec.pipelines.coded_histories import CodedData
from rfrec.retrieval import tasks, training, vocab_files
from rfrec.retrieval.vocab import Vocabulary
from rfrec.train import running
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.state import TrainState
from rfrec.typing import PyTree


class Start(NamedTuple):
    """What a run begins with.

    Attributes:
      vocabulary: Of the run.
      weights: Of another run, grown; None for fresh ones.
      step: At which the other run stored them.
    """

    vocabulary: Vocabulary
    weights: PyTree = None
    step: int | None = None


def main(config: ConfigDict, workdir: Path) -> None:
    """Runs a config to the end, from where it stands in `workdir`."""
    retriever.check(config)
    data = coded_histories.load(config, tasks.modalities(config.task.names))
    for warning in data.warnings:
        logging.warning("%s", warning)
    # Before the folder is made, so that a refused config leaves nothing behind.
    start = begin(config, data)
    trainer = retriever.trainer(config, data, start.vocabulary, start.weights)
    run_folder.open_workdir(workdir, config)
    keep_vocabulary(start.vocabulary, workdir)
    logging.info(
        "%d users, %d items, %d tokens on %d %s device(s)",
        *(data.inter.num_users, data.inter.num_items, start.vocabulary.size),
        *(jax.device_count(), jax.default_backend()),
    )
    report = train(trainer, data.fingerprint, workdir)
    if jax.process_index() == 0:
        finish(config, data, start, workdir, report)


def begin(config: ConfigDict, data: CodedData) -> Start:
    """Makes the vocabulary, and takes the weights of another run if one is named."""
    if config.init.workdir is None:
        return Start(retriever.vocabulary(config, data))
    workdir = Path(config.init.workdir).expanduser()
    model = finished_retriever.read_model(workdir, config.init.checkpoint)
    vocabulary = retriever.vocabulary(config, data, model.vocabulary)
    arch = retriever.architecture(config, vocabulary)
    weights = finished_retriever.grown(
        training.fresh_weights(arch, config.seed),
        model.params,
        f"config.init.workdir={workdir}",
    )
    logging.info(
        "weights of %s, step %d; %d tokens are new",
        *(workdir, model.step, vocabulary.size - model.vocabulary.size),
    )
    return Start(vocabulary, weights, model.step)


def keep_vocabulary(vocabulary: Vocabulary, workdir: Path) -> None:
    """Writes `vocab.json`, or checks that the run's is the same.

    Raises:
      UserError: It is another.
    """
    path = workdir / "vocab.json"
    if path.exists():
        if vocab_files.read(path) != vocabulary:
            raise UserError(
                f"{path} is not the vocabulary of these codes: restore them, or use"
                " another --workdir"
            )
    elif jax.process_index() == 0:
        vocab_files.write(vocabulary, path)


def train(trainer: training.Trainer, fingerprint: str, workdir: Path) -> dict[str, Any]:
    """Trains, or goes on; returns what the report says of it."""
    run = training.Run(trainer)
    checkpoints = Checkpoints(
        workdir, lowest=retriever.LOWEST, highest=retriever.HIGHEST
    )
    template = trainer.init()
    try:
        padding = run.padding()
        logging.info(
            "histories: %.1f%% of the slots are padding, %.1f%% without length buckets:"
            " %.1f%% saved",
            *(100 * share for share in padding),
        )
        progress = running.train(
            template,
            run.program(),
            trainer.schedule,
            engine=trainer.engine,
            checkpoints=checkpoints,
            workdir=workdir,
            notes={"data": fingerprint},
            what="histories or codes",
            place=trainer.place,
        )
        models = compare(run, checkpoints, template)
    finally:
        checkpoints.close()
    sizes = map(np.size, jax.tree.leaves(template.params))
    return {
        "seconds": progress.seconds,
        "steps": progress.step,
        "parameters": int(sum(sizes)),
        "padding": padding._asdict(),
        "models": models,
    }


def compare(
    run: training.Run, checkpoints: Checkpoints, template: TrainState
) -> dict[str, Any]:
    """Evaluates the last model and the best by each criterion, side by side."""
    steps = {"last": checkpoints.latest()}
    steps |= {name: checkpoints.best(name) for name in checkpoints.criteria}
    known: dict[int, dict[str, Any]] = {}
    for name, step in steps.items():
        assert step is not None, "compared before anything was stored"
        if step not in known:
            host = checkpoints.restore(step, template).state
            known[step] = {"step": step, **run.evaluate(run.trainer.place(host))}
        logging.info(
            "%-8s step %6d  loss %.4f  hr@10 %.4f  ndcg@10 %.4f",
            *(name, step),
            *(known[step][value] for value in ("loss", "hr@10", "ndcg@10")),
        )
    return {name: known[step] for name, step in steps.items() if step is not None}


def finish(
    config: ConfigDict,
    data: CodedData,
    start: Start,
    workdir: Path,
    report: dict[str, Any],
) -> None:
    """Writes the report."""
    device = jax.devices()[0]
    report = {
        "main": "t5",
        "users": data.inter.num_users,
        "items": data.inter.num_items,
        "data": {"names": list(data.names), "sha256": data.fingerprint},
        "warnings": list(data.warnings),
        "vocabulary": start.vocabulary.size,
        "init": {"workdir": config.init.workdir, "step": start.step},
        "seed": config.seed,
        "device": f"{device.device_kind} x {jax.device_count()}",
        **report,
        "config": as_json(config),
    }
    files.write_json(workdir / "report.json", report)
    logging.info("report: %s", workdir / "report.json")


if __name__ == "__main__":
    cli.config_main(main, "t5", page=True)
