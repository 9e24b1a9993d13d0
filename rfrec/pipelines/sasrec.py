# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run of SASRec: trains it, ranks the test items and reports."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.data import sources
from rfrec.data.interactions import Interactions
from rfrec.evaluation import groups, metrics, predictions, ranking, report
from rfrec.evaluation.options import Evaluation
from rfrec.pipelines import options as options_lib
from rfrec.pipelines import run_folder
from rfrec.retrieval.sasrec import training
from rfrec.retrieval.sasrec.training import CRITERION
from rfrec.train import running
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.optim import MomentumOptim


@dataclasses.dataclass(frozen=True)
class Data:
    """Interactions.

    Attributes:
      source: Format of the data.
      path: Folder of the data; None uses the environment variable RFREC_DATA.
      name: Data set within the folder; None if the folder contains one.
      num_items: Number of items of synthetic data.
      num_users: Number of users of synthetic data.
    """

    source: str = cfg.option("movielens-100k", cfg.one_of(*sources.SOURCES))
    path: str | None = None
    name: str | None = None
    num_items: int = cfg.option(10_000, cfg.at_least(1))
    num_users: int = cfg.option(10_000, cfg.at_least(1))


@dataclasses.dataclass(frozen=True)
class Eval(Evaluation):
    """Evaluation of the ranked lists.

    Attributes:
      top_k: Length of the ranked lists; the reciprocal rank beyond it counts as 0.
      filter_seen: Whether lists leave out the items of the user's history. MQL4GRec and
        TIGER rank them too; leaving them out helps if no user repeats an item.
    """

    # The criterion of training looks at 10 items.
    top_k: int = cfg.option(20, cfg.at_least(10))
    filter_seen: bool = False


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `rfrec.launch.sasrec`.

    Attributes:
      seed: Seed of the data, of training and of the bootstrap resampling.
      data: Interactions.
      model: Shape of the model.
      optim: Optimizer.
      train: Training.
      eval: Evaluation.
    """

    seed: int = cfg.option(0, cfg.at_least(0))
    data: Data = Data()
    model: training.Model = training.Model()
    optim: MomentumOptim = MomentumOptim()
    train: training.Train = training.Train()
    eval: Eval = Eval()


def check(config: ConfigDict) -> Options:
    """Returns the options of a config.

    Raises:
      UserError: A value is not allowed, or values cannot be combined; names the keys.
    """
    options_lib.check(config, Options)
    options = cfg.parse(Options, config)
    training.check(options.model, options.optim)
    return options


def load(options: Options) -> Interactions:
    """Loads the histories."""
    return sources.load_interactions(
        **dataclasses.asdict(options.data), seed=options.seed
    )


def fingerprint(inter: Interactions) -> str:
    """Returns the SHA-256 of all histories."""
    digest = hashlib.sha256(inter.indptr.tobytes())
    digest.update(inter.items.tobytes())
    return digest.hexdigest()


def run(config: ConfigDict, workdir: Path) -> None:
    """Trains to the end, resuming what `workdir` contains, evaluates and reports."""
    options = check(config)
    inter = load(options)
    # Before the folder is created, so that a refused config leaves nothing behind.
    trainer = training.build_trainer(
        inter,
        model=options.model,
        optimizer=options.optim,
        train=options.train,
        top_k=options.eval.top_k,
        filter_seen=options.eval.filter_seen,
        seed=options.seed,
    )
    run_folder.open_workdir(workdir, config)
    logging.info(
        "%d users, %d items, %d interactions on %d %s device(s)",
        *(inter.num_users, inter.num_items, len(inter.items)),
        *(jax.device_count(), jax.default_backend()),
    )
    started, template = training.Run(trainer), trainer.init()
    with Checkpoints(workdir, highest=(CRITERION,)) as checkpoints:
        progress = running.train(
            template,
            started.program(),
            trainer.schedule,
            engine=trainer.engine,
            checkpoints=checkpoints,
            workdir=workdir,
            notes={"data": fingerprint(inter)},
            what="histories",
        )
        step = checkpoints.best(CRITERION)
        assert step is not None, "nothing was stored before the evaluation"
        state = trainer.engine.replicate(checkpoints.restore(step, template).state)
    lists = {which: started.rank(state, which) for which in ("valid", "test")}
    if jax.process_index() == 0:
        result = {
            "seconds": progress.seconds,
            "steps": progress.step,
            "best_step": step,
            "epochs": progress.step / trainer.schedule.steps_per_epoch,
            "parameters": sum(np.size(a) for a in jax.tree.leaves(template.params)),
        }
        result |= evaluate(options, started, lists)
        write(config, inter, lists["test"], workdir, result)


def evaluate(
    options: Options, run: training.Run, lists: dict[str, ranking.Lists]
) -> dict[str, Any]:
    """Returns the metrics of the lists of the validation and of the test items."""
    inter, split, _ = run.trainer.data
    valid = metrics.match(lists["valid"].items, run.targets("valid"))
    return {
        "valid": report.means(valid),
        "test": report.evaluate(
            lists["test"],
            run.targets("test"),
            counts=groups.count_items(split.train.items, inter.num_items),
            cold_share=options.eval.cold_share,
            cold_below=options.eval.cold_below,
            resamples=options.eval.resamples,
            seed=options.seed,
        ),
    }


def write(
    config: ConfigDict,
    inter: Interactions,
    lists: ranking.Lists,
    workdir: Path,
    result: dict[str, Any],
) -> None:
    """Writes the predictions of the test items and the report."""
    predictions.write(
        workdir / "predictions.jsonl", inter.user_ids, lists, inter.item_ids
    )
    described = {
        "users": inter.num_users,
        "items": inter.num_items,
        "data": {"name": config.data.name, "sha256": fingerprint(inter)},
    }
    head = run_folder.report_head("sasrec", config)
    run_folder.write_report(workdir, head | described | result)
    row = result["test"]["metrics"]["all"]
    means = (f"{name} {row[name]['mean']:.4f}" for name in report.NAMES)
    logging.info("test: %s", "  ".join(means))
