# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run of a graph recommender: trains or evaluates, and reports, for each seed."""

import copy
import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.data import pairs
from rfrec.data.features import fill_missing
from rfrec.data.pairs import GraphData
from rfrec.graph import builders, training
from rfrec.graph import options as graph_options
from rfrec.pipelines import graph_report, run_folder
from rfrec.pipelines import options as options_lib
from rfrec.pipelines import seeds as seed_runs
from rfrec.rf import settings as rf_settings
from rfrec.train import loop, running
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Data:
    """Options of the pairs and features.

    Attributes:
      source: Kind of the data.
      path: Folder of the data; None uses the environment variable RFREC_DATA.
      name: Data set in the folder; None if the folder contains one.
      features: Modalities, by the names of their files.
      missing: Vector of an item without features. `zeros`: the item is similar to
        itself alone; `mean`: mean of the other items.
      split: How pairs are split. `label`: by MMRec's column x_label; `leave_one_out`:
        the last two items of each user; `time` or `random`: by `shares`.
      shares: Shares of the pairs for training, validation and test.
      seed: Seed of the random split and of synthetic data; all seeds of a run use it.
      num_items: Number of synthetic items.
      num_users: Number of synthetic users.
    """

    source: Literal["movielens-100k", "movielens", "folder", "mmrec", "synthetic"] = (
        "mmrec"
    )
    path: str | None = cfg.option(None, when="evaluation")
    name: str | None = None
    features: tuple[str, ...] = ("image", "text")
    missing: Literal["zeros", "mean"] = "zeros"
    split: Literal["label", "leave_one_out", "time", "random"] = "label"
    shares: tuple[float, ...] = cfg.option(
        (0.8, 0.1, 0.1), cfg.each(cfg.above(0), least=3)
    )
    seed: int = cfg.option(0, cfg.whole(0))
    num_items: int = cfg.option(10_000, cfg.whole(1))
    num_users: int = cfg.option(10_000, cfg.whole(1))


_COLD_SHARE = cfg.Rule(lambda v: 0 < v <= 0.5, "above 0 and at most 0.5")


@dataclasses.dataclass(frozen=True)
class Eval:
    """Options of the evaluation.

    Attributes:
      top_k: Length of the ranked lists; metrics read 50 items.
      decimals: Digits to which validation metrics are rounded before they are compared,
        4 in MMRec; None does not round.
      cold_share: Share of the catalogue that counts as cold: the items with the fewest
        training pairs.
      cold_below: Items with fewer training pairs than this are cold; None uses
        `cold_share`.
      resamples: Number of bootstrap resamples of the intervals.
    """

    top_k: int = cfg.option(50, cfg.whole(50), when="evaluation")
    decimals: int | None = cfg.option(None, cfg.whole(1), when="evaluation")
    cold_share: float = cfg.option(0.2, _COLD_SHARE, when="evaluation")
    cold_below: int | None = cfg.option(None, cfg.whole(1), when="evaluation")
    resamples: int = cfg.option(1000, cfg.whole(1), when="evaluation")


@dataclasses.dataclass(frozen=True)
class Options(graph_options.Options):
    """Options of `rfrec.launch.gume`; the section `rf` holds those of the flow.

    Attributes:
      data: Pairs and features.
      eval: Evaluation.
    """

    data: Data = Data()
    eval: Eval = Eval()


# Keys that may differ when a finished run is evaluated again: they are read after
# training only.
EVALUATION_KEYS = cfg.keys_read(Options, "evaluation") | cfg.keys_read(
    rf_settings.Settings, "evaluation", "rf."
)


class Setup(NamedTuple):
    """A checked config.

    Attributes:
      config: The config, as it is stored in the run folder.
      options: The same as options.
      flow: Settings of the flow; None without a flow.
    """

    config: ConfigDict
    options: Options
    flow: rf_settings.Settings | None


def check(config: ConfigDict) -> Setup:
    """Parses a config.

    Raises:
      UserError: A value is not allowed, or values cannot be combined; names the keys.
    """
    options_lib.check(config, Options)
    options = cfg.parse(Options, config)
    flow = rf_settings.from_section(config.rf)
    graph_options.check(options, flow, len(options.data.features))
    return Setup(config, options, flow)


def load(options: Options) -> GraphData:
    """Loads pairs and features, and logs warnings about them."""
    data = options.data
    loaded = pairs.load(
        source=data.source,
        path=data.path,
        name=data.name,
        features=data.features if options.model.name == "gume" else (),
        split=data.split,
        shares=data.shares,
        seed=data.seed,
        num_items=data.num_items,
        num_users=data.num_users,
    )
    for line in loaded.warnings:
        logging.warning("%s", line)
    return loaded


def read_values(options: Options, data: GraphData) -> builders.Features:
    """Returns the features by name, with missing vectors filled if so configured."""
    fill = fill_missing if options.data.missing == "mean" else lambda values: values
    return {feature.name: fill(feature.values) for feature in data.features}


def build_trainer(setup: Setup, data: GraphData) -> training.Trainer:
    """Builds the trainer of a config, including its graphs."""
    options = setup.options
    return builders.build_trainer(
        options,
        setup.flow,
        data.split,
        read_values(options, data),
        fingerprint=data.fingerprint,
        top_k=options.eval.top_k,
        decimals=options.eval.decimals,
    )


def run(
    config: ConfigDict,
    workdir: Path,
    seeds: int = 1,
    against: Path | None = None,
    trained: Path | None = None,
) -> None:
    """Runs a config for each seed, resuming what `workdir` contains.

    Args:
      config: Config of the run; its seed is the first one.
      workdir: Folder of the run; several seeds have the folders `seed_N` in it.
      seeds: Number of runs, which differ in their seed only.
      against: Folder of finished runs to compare with.
      trained: Folder of finished runs whose best checkpoints are evaluated again, with
        other sampling or mixing; None trains.

    Raises:
      UserError: A value, a folder or the data cannot be used.
    """
    setup = check(config)
    if seeds < 1:
        raise UserError(f"--seeds={seeds}: must be at least 1")
    if against is not None:
        seed_runs.read(against)
    folders = _seed_folders(workdir, config.seed, seeds)
    data = load(setup.options)
    if against is not None:
        seed_runs.check_same_pairs(against, data.split.fingerprint)
    # Before a folder is created, so that a refused config leaves nothing behind.
    runner = training.Run(build_trainer(setup, data))
    split = data.split
    logging.info(
        "%d users, %d items, %d training pairs on %d %s device(s)",
        *(split.num_users, split.num_items, len(split.train.items)),
        *(jax.device_count(), jax.default_backend()),
    )
    for number, folder in enumerate(folders):
        own = copy.deepcopy(config)
        own.seed = config.seed + number
        if trained is None:
            _train(setup._replace(config=own), runner, folder)
        else:
            source = trained / folder.relative_to(workdir)
            _evaluate_again(setup._replace(config=own), runner, folder, source)
    if jax.process_index() == 0 and (seeds > 1 or against is not None):
        resamples = setup.options.eval.resamples
        seed_runs.write(workdir, folders, against=against, resamples=resamples)


def _seed_folders(workdir: Path, first: int, seeds: int) -> list[Path]:
    """Returns the folder of each seed.

    Raises:
      UserError: The folder contains one run and several are started, or the reverse.
    """
    if seeds > 1 and (workdir / "config.json").exists():
        raise UserError(
            f"{workdir} contains a single run, --seeds={seeds} needs a folder for"
            " the folders of its seeds: use another --workdir"
        )
    if seeds == 1 and any(workdir.glob("seed_*/config.json")):
        raise UserError(
            f"{workdir} contains the folders of several seeds, a single run needs its"
            " own folder: use another --workdir, or --seeds"
        )
    if seeds == 1:
        return [workdir]
    return [workdir / f"seed_{first + number}" for number in range(seeds)]


def _train(setup: Setup, runner: training.Run, workdir: Path) -> None:
    """Trains and evaluates one seed.

    Raises:
      UserError: The folder contains a run that was evaluated again, or another config.
    """
    if graph_report.was_evaluated_again(workdir):
        raise UserError(
            f"{workdir} contains the results of --again: use another --workdir"
        )
    run_folder.open_workdir(workdir, setup.config)
    trainer = runner.trainer
    template = trainer.init(setup.config.seed)
    with Checkpoints(workdir, highest=(training.CRITERION,)) as checkpoints:
        progress = running.train(
            template,
            runner.program(),
            trainer.schedule,
            engine=trainer.engine,
            checkpoints=checkpoints,
            workdir=workdir,
            notes={"data": trainer.fingerprint},
            what="pairs or features",
        )
        step = checkpoints.best(training.CRITERION)
        assert step is not None, "evaluated before anything was stored"
        state = checkpoints.restore(step, template).state
    _finish(setup, runner, workdir, state, _describe(trainer, template, progress, step))


def _evaluate_again(
    setup: Setup, runner: training.Run, workdir: Path, trained: Path
) -> None:
    """Evaluates one seed of a finished run with other sampling or mixing.

    Raises:
      UserError: There is no such run, or `workdir` contains a trained one.
    """
    if (workdir / "checkpoints").exists():
        raise UserError(
            f"{workdir} contains a trained run, whose report --again would replace: use"
            " another --workdir"
        )
    check_same(setup.config, trained)
    state, step = restore_best(runner.trainer, setup.config.seed, trained)
    run_folder.open_workdir(workdir, setup.config)
    details = {"again": str(trained), "best_step": step}
    _finish(setup, runner, workdir, state, details)


def check_same(config: ConfigDict, workdir: Path) -> None:
    """Checks that a config describes how a run was trained.

    Args:
      config: Config, which may differ from that of the run in `EVALUATION_KEYS`.
      workdir: Folder of the run.

    Raises:
      UserError: There is no run, or its training differed; names the keys.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: pass the folder of a finished run of"
            " rfrec.launch.gume, or the folder of its seeds with --seeds"
        )
    stored = cfg.as_json(cfg.read_config(path))
    keys = set(cfg.differing_keys(stored, cfg.as_json(config))) - EVALUATION_KEYS
    if keys:
        raise UserError(
            f"{workdir} was trained with another config, which differs in"
            f" {', '.join(sorted(keys))}: use its values"
        )


def restore_best(
    trainer: training.Trainer, seed: int, workdir: Path
) -> tuple[TrainState, int]:
    """Returns the best state of a run by validation, on the host, and its step.

    Args:
      trainer: Trainer of the run's config.
      seed: Seed of the run.
      workdir: Folder of the run, which is only read.

    Raises:
      UserError: There is no checkpoint, it is damaged, or the data differ.
    """
    highest = (training.CRITERION,)
    restored = run_folder.restore_best(
        workdir, training.CRITERION, trainer.init(seed), highest=highest
    )
    if restored.notes.get("data") != trainer.fingerprint:
        raise UserError(
            f"the pairs or features are not those that {workdir} was trained on:"
            " restore them"
        )
    return restored.state, restored.step


def _finish(
    setup: Setup,
    runner: training.Run,
    workdir: Path,
    state: TrainState,
    details: dict[str, Any],
) -> None:
    """Refines the model, chooses on validation how to mix, ranks and reports.

    Args:
      setup: Config of the run.
      runner: Compiled functions of the run.
      workdir: Folder of the run.
      state: Best state, on the host.
      details: Further entries of the report.
    """
    if runner.trainer.model.refines and setup.flow is not None:
        logging.info("%s of the chosen flow begins", setup.flow.reflow)
    state = runner.refine(runner.trainer.engine.replicate(state))
    choice = runner.choose(state)
    encoded = runner.encode(state, choice.arguments)
    lists = runner.rank(encoded)
    if jax.process_index() == 0:
        details["choice"] = {**choice.arguments, "tried": choice.tried}
        details["numbers"] = {k: float(v) for k, v in encoded.numbers.items()}
        graph_report.write(setup.config, runner, workdir, lists, details)


def _describe(
    trainer: training.Trainer,
    template: TrainState,
    progress: loop.Progress,
    step: int,
) -> dict[str, Any]:
    """Returns the entries of a report about training."""
    size = trainer.schedule.steps_per_epoch
    return {
        "seconds": progress.seconds,
        "steps": progress.step,
        "best_step": step,
        "epochs": progress.step / size,
        "best_epoch": step / size,
        "seconds_per_epoch": progress.seconds * size / progress.step,
        "parameters": sum(np.size(a) for a in jax.tree.leaves(template.params)),
    }
