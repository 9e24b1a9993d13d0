# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a SASRec and evaluates it on the test items.

python -m rfrec.launch.sasrec --config=configs/sasrec.py --workdir=runs/sasrec
"""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax import numpy as jnp
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.config import UserError, as_json
from rfrec.data import sources
from rfrec.data.interactions import Interactions
from rfrec.evaluation import groups, metrics, predictions, ranking, report
from rfrec.launch import cli
from rfrec.pipelines import run_folder
from rfrec.retrieval import sasrec, sasrec_training
from rfrec.train import loop, optim, partition, running
from rfrec.train.checkpoint import Checkpoints

CRITERION = "ndcg@10"

RULES: cfg.Rules = {
    "seed": cfg.at_least(0),
    "data.source": cfg.one_of(*sources.SOURCES),
    "data.num_items": cfg.at_least(1),
    "data.num_users": cfg.at_least(1),
    "model.history": cfg.at_least(1),
    "model.width": cfg.at_least(1),
    "model.hidden": cfg.at_least(1),
    "model.heads": cfg.at_least(1),
    "model.layers": cfg.at_least(1),
    "model.dropout": cfg.within(0, 1),
    "model.dtype": cfg.one_of("float32", "bfloat16"),
    "optim.warmup_steps": cfg.at_least(0),
    "optim.momentum": cfg.within(0, 1),
    "train.patience": cfg.at_least(1),
    # The criterion looks at 10 items.
    "eval.top_k": cfg.at_least(10),
    "eval.cold_share": cfg.Rule(lambda v: 0 < v <= 0.5, "above 0 and at most 0.5"),
    "eval.cold_below": cfg.whole(1),
    "eval.resamples": cfg.at_least(1),
    **cfg.TRAINING_RULES,
}


def check(config: ConfigDict) -> None:
    """Checks each value, then what does not go together.

    Raises:
      UserError: Names the keys.
    """
    cfg.check(config, RULES)
    model = config.model
    if model.width % model.heads:
        raise UserError(
            f"config.model.width={model.width} is no multiple of"
            f" config.model.heads={model.heads}: change one"
        )
    if config.optim.min_lr > config.optim.lr:
        raise UserError("config: optim.min_lr > optim.lr do not go together")
    if config.optim.momentum > 0 and config.optim.name != "sgd":
        raise UserError("config.optim.momentum is of sgd alone: set it to 0")


def load(config: ConfigDict) -> Interactions:
    """Loads the histories that a config names."""
    data = config.data
    return sources.load_interactions(
        source=data.source,
        path=data.path,
        name=data.name,
        num_items=data.num_items,
        num_users=data.num_users,
        seed=config.seed,
    )


def make_trainer(config: ConfigDict, inter: Interactions) -> sasrec_training.Trainer:
    """Builds the trainer of a config for histories."""
    train = config.train
    engine = partition.make_engine(train.engine)
    engine.check_batch(train.batch_size, "config.train.batch_size")
    data = sasrec_training.prepare(inter, config.model.history, config.seed)
    schedule = loop.Schedule(
        epochs=train.epochs,
        steps_per_epoch=-(-len(data.rows.items) // train.batch_size),
        steps_per_call=train.steps_per_call,
        eval_every=train.eval_every,
        patience=train.patience,
        criterion=CRITERION,
    )
    model = dict(config.model)
    dtype = jnp.dtype(model.pop("dtype"))
    return sasrec_training.Trainer(
        arch=sasrec.Architecture(inter.num_items, **model, dtype=dtype),
        optimizer=optim.build(optim.Optimizer(**config.optim), schedule.total_steps),
        schedule=schedule,
        batch_size=train.batch_size,
        seed=config.seed,
        engine=engine,
        data=data,
        top_k=config.eval.top_k,
        filter_seen=config.eval.filter_seen,
    )


def fingerprint(inter: Interactions) -> str:
    """Returns a hash of all histories."""
    digest = hashlib.sha256(inter.indptr.tobytes())
    digest.update(inter.items.tobytes())
    return digest.hexdigest()


def main(config: ConfigDict, workdir: Path) -> None:
    """Runs a config to the end, from where it stands in `workdir`."""
    check(config)
    inter = load(config)
    # Before the folder is made, so that a refused config leaves nothing behind.
    trainer = make_trainer(config, inter)
    run_folder.open_workdir(workdir, config)
    logging.info(
        "%d users, %d items, %d interactions on %d %s device(s)",
        *(inter.num_users, inter.num_items, len(inter.items)),
        *(jax.device_count(), jax.default_backend()),
    )
    run, template = sasrec_training.Run(trainer), trainer.init()
    checkpoints = Checkpoints(workdir, highest=(CRITERION,))
    try:
        progress = running.train(
            template,
            run.program(),
            trainer.schedule,
            engine=trainer.engine,
            checkpoints=checkpoints,
            workdir=workdir,
            notes={"data": fingerprint(inter)},
            what="histories",
        )
        step = checkpoints.best(CRITERION)
        assert step is not None, "evaluated before anything was stored"
        state = checkpoints.restore(step, template).state
    finally:
        checkpoints.close()
    state = trainer.engine.replicate(state)
    lists = {which: run.rank(state, which) for which in ("valid", "test")}
    if jax.process_index() == 0:
        told = {
            "seconds": progress.seconds,
            "steps": progress.step,
            "best_step": step,
            "epochs": progress.step / trainer.schedule.steps_per_epoch,
            "parameters": sum(np.size(a) for a in jax.tree.leaves(template.params)),
        }
        finish(config, run, lists, workdir, told)


def finish(
    config: ConfigDict,
    run: sasrec_training.Run,
    lists: dict[str, ranking.Lists],
    workdir: Path,
    told: dict[str, Any],
) -> None:
    """Writes the predictions of the test items and the report."""
    inter, split, _ = run.trainer.data
    predictions.write(
        workdir / "predictions.jsonl", inter.user_ids, lists["test"], inter.item_ids
    )
    valid = metrics.match(lists["valid"].items, run.targets("valid"))
    device = jax.devices()[0]
    result = {
        "main": "sasrec",
        "users": inter.num_users,
        "items": inter.num_items,
        "data": {"name": config.data.name, "sha256": fingerprint(inter)},
        "seed": config.seed,
        "device": f"{device.device_kind} x {jax.device_count()}",
        **told,
        "valid": report.means(valid),
        "test": report.evaluate(
            lists["test"],
            run.targets("test"),
            counts=groups.count_items(split.train.items, inter.num_items),
            cold_share=config.eval.cold_share,
            cold_below=config.eval.cold_below,
            resamples=config.eval.resamples,
            seed=config.seed,
        ),
        "config": as_json(config),
    }
    files.write_json(workdir / "report.json", result)
    row = result["test"]["metrics"]["all"]
    means = (f"{name} {row[name]['mean']:.4f}" for name in report.NAMES)
    logging.info("test: %s", "  ".join(means))
    logging.info("report: %s", workdir / "report.json")


if __name__ == "__main__":
    cli.config_main(main, "sasrec", page=True)
