# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run of a T5 retriever: trains and reports; loads the model of a finished run."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.codes import catalogue
from rfrec.config import UserError, read_config
from rfrec.pipelines import coded_histories, run_folder
from rfrec.pipelines import options as options_lib
from rfrec.retrieval import builders, t5, tasks, training, vocab_files
from rfrec.retrieval import options as retrieval_options
from rfrec.retrieval.corpus import CodedData
from rfrec.retrieval.options import HIGHEST, LOWEST
from rfrec.retrieval.vocab import Vocabulary
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.state import TrainState
from rfrec.typing import PyTree

# Parameters with a row for each token: they grow with the vocabulary.
_BY_TOKEN = ("embedding", "output")


@dataclasses.dataclass(frozen=True)
class Init:
    """Weights to start from.

    Attributes:
      workdir: Folder of a run whose weights are the start and whose vocabulary is
        extended; None initialises the weights.
      checkpoint: Checkpoint of that run: the best by a criterion, or the last.
    """

    workdir: str | None = None
    checkpoint: Literal["ndcg@10", "loss", "last"] = "ndcg@10"


@dataclasses.dataclass(frozen=True)
class Options(retrieval_options.Options):
    """Options of `rfrec.launch.t5`.

    Attributes:
      data: Histories and codes.
      init: Weights to start from.
    """

    data: coded_histories.Data = coded_histories.Data()
    init: Init = Init()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities whose codes the tasks need."""
        return tasks.modalities(self.task.names)


class Start(NamedTuple):
    """Vocabulary and weights at the beginning of a run.

    Attributes:
      vocabulary: Vocabulary of the run.
      weights: Weights of another run, extended; None initialises them.
      step: Step at which the other run stored them.
    """

    vocabulary: Vocabulary
    weights: PyTree = None
    step: int | None = None


class Model(NamedTuple):
    """A trained T5.

    Attributes:
      config: Config of its run.
      options: The same as options.
      vocabulary: Vocabulary of its run.
      arch: Shape of the model.
      params: Parameters, on the host.
      step: Step of the checkpoint.
      data: Fingerprint of the histories and codes of training; empty if unknown.
    """

    config: ConfigDict
    options: Options
    vocabulary: Vocabulary
    arch: t5.Architecture
    params: PyTree
    step: int
    data: str


def check(config: ConfigDict) -> Options:
    """Returns the options of a config.

    Raises:
      UserError: A value is not allowed, or values cannot be combined; names the keys.
    """
    options_lib.check(config, Options)
    options = cfg.parse(Options, config)
    retrieval_options.check(options)
    return options


def run(config: ConfigDict, workdir: Path) -> None:
    """Trains to the end, resuming what `workdir` contains, and reports."""
    options = check(config)
    data = coded_histories.load(options.data, options.modalities, seed=options.seed)
    for warning in data.warnings:
        logging.warning("%s", warning)
    # Before the folder is created, so that a refused config leaves nothing behind.
    start = begin(options, data)
    trainer = builders.build_trainer(options, data, start.vocabulary, start.weights)
    run_folder.open_workdir(workdir, config)
    keep_vocabulary(start.vocabulary, workdir)
    logging.info(
        "%d users, %d items, %d tokens on %d %s device(s)",
        *(data.inter.num_users, data.inter.num_items, start.vocabulary.size),
        *(jax.device_count(), jax.default_backend()),
    )
    result = train(trainer, data.fingerprint, workdir)
    if jax.process_index() == 0:
        described = {
            "users": data.inter.num_users,
            "items": data.inter.num_items,
            "data": {"names": list(data.names), "sha256": data.fingerprint},
            "warnings": list(data.warnings),
            "vocabulary": start.vocabulary.size,
            "init": {"workdir": options.init.workdir, "step": start.step},
        }
        head = run_folder.report_head("t5", config)
        run_folder.write_report(workdir, head | described | result)


def begin(options: Options, data: CodedData) -> Start:
    """Builds the vocabulary, and reads the weights of another run if one is named."""
    if options.init.workdir is None:
        return Start(builders.build_vocabulary(options, data))
    workdir = Path(options.init.workdir).expanduser()
    model = read_model(workdir, options.init.checkpoint)
    origin = f"config.init.workdir={workdir}"
    vocabulary = builders.build_vocabulary(options, data, model.vocabulary, origin)
    arch = builders.build_architecture(options, vocabulary)
    fresh = training.fresh_weights(arch, options.seed)
    weights = extend_weights(fresh, model.params, origin)
    logging.info(
        "weights of %s, step %d; %d tokens are new",
        *(workdir, model.step, vocabulary.size - model.vocabulary.size),
    )
    return Start(vocabulary, weights, model.step)


def keep_vocabulary(vocabulary: Vocabulary, workdir: Path) -> None:
    """Writes `vocab.json`, or checks that the run has the same vocabulary.

    Raises:
      UserError: The run has another vocabulary.
    """
    path = workdir / "vocab.json"
    if path.exists():
        if vocab_files.read(path) != vocabulary:
            raise UserError(
                f"{path} is not the vocabulary of these codes; restore the codes, or"
                " use another --workdir"
            )
    elif jax.process_index() == 0:
        vocab_files.write(vocabulary, path)


def train(trainer: training.Trainer, fingerprint: str, workdir: Path) -> dict[str, Any]:
    """Trains to the end; returns the training part of the report."""
    started, template = training.Run(trainer), trainer.init()
    with Checkpoints(workdir, lowest=LOWEST, highest=HIGHEST) as checkpoints:
        progress = started.fit(
            checkpoints, workdir=workdir, notes={"data": fingerprint}
        )
        models = compare(started, checkpoints, template)
    return {
        "seconds": progress.seconds,
        "steps": progress.step,
        "parameters": int(sum(map(np.size, jax.tree.leaves(template.params)))),
        "padding": started.padding()._asdict(),
        "models": models,
    }


def compare(
    run: training.Run, checkpoints: Checkpoints, template: TrainState
) -> dict[str, Any]:
    """Evaluates the last model and the best by each criterion."""
    steps = {"last": checkpoints.latest()}
    steps |= {name: checkpoints.best(name) for name in checkpoints.criteria}
    by_step: dict[int, dict[str, Any]] = {}
    for name, step in steps.items():
        assert step is not None, "nothing was stored before the comparison"
        if step not in by_step:
            host = checkpoints.restore(step, template).state
            by_step[step] = {"step": step, **run.evaluate(run.trainer.place(host))}
        logging.info(
            "%-8s step %6d  loss %.4f  hr@10 %.4f  ndcg@10 %.4f",
            *(name, step),
            *(by_step[step][metric] for metric in ("loss", "hr@10", "ndcg@10")),
        )
    return {name: by_step[step] for name, step in steps.items() if step is not None}


def read_model(workdir: Path, checkpoint: str | None) -> Model:
    """Reads a model from the folder of its run, which is not changed.

    Args:
      workdir: Folder of the run.
      checkpoint: The best checkpoint by a criterion, or `last`; None uses the criterion
        of the run.

    Raises:
      UserError: The folder contains no such run, or no checkpoint yet.
    """
    config = read_config(workdir / "config.json")
    if "task" not in config or "vocab" not in config:
        raise UserError(f"{workdir} contains no run of rfrec.launch.t5; name another")
    options = cfg.parse(Options, config)
    vocabulary = vocab_files.read(workdir / "vocab.json")
    arch = builders.build_architecture(options, vocabulary)
    restored = run_folder.restore_best(
        workdir,
        checkpoint or options.train.criterion,
        builders.build_template(options, arch),
        lowest=LOWEST,
        highest=HIGHEST,
    )
    return Model(
        config,
        options,
        vocabulary,
        arch,
        restored.state.params,
        restored.step,
        restored.notes["data"],
    )


def version(run: Path, model: Model) -> catalogue.T5Record:
    """Returns what identifies a model in the manifest of a catalogue."""
    return builders.identify(
        model.vocabulary, model.params, run=str(run), step=model.step
    )


def extend_weights(fresh: PyTree, earlier: PyTree, origin: str) -> PyTree:
    """Returns earlier weights, with initialised rows for additional tokens.

    Args:
      fresh: Initial parameters of the new model.
      earlier: Parameters of the model to start from.
      origin: Names that model in errors.

    Raises:
      UserError: The models differ in more than their tokens.
    """
    fresh_leaves, tree = jax.tree_util.tree_flatten_with_path(fresh)
    known = dict(jax.tree_util.tree_leaves_with_path(earlier))
    paths = [path for path, _ in fresh_leaves]
    for path in {*paths} ^ {*known}:
        raise UserError(
            f"{origin}: its model {'has' if path in known else 'lacks'} the parameter"
            f" {_name(path)}; use its config.model"
        )
    leaves = []
    for path, new in fresh_leaves:
        old, rows = known[path], 0
        if _name(path) in _BY_TOKEN and old.shape[1:] == new.shape[1:]:
            rows = max(len(new) - len(old), 0)
        merged = np.concatenate([old, new[len(new) - rows :]]) if rows else old
        if merged.shape != new.shape:
            raise UserError(
                f"{origin}: parameter {_name(path)} has shape {old.shape}, this config"
                f" needs {new.shape}; use its config.model"
            )
        leaves.append(merged)
    return jax.tree.unflatten(tree, leaves)


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
