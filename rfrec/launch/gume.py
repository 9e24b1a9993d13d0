# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains GUME, with or without the rectified flow, or a floor; ranks the test items.

python -m rfrec.launch.gume --config=configs/gume.py:ml100k --workdir=runs/ml100k
python -m rfrec.launch.gume --config=configs/gume.py:ml100k --workdir=runs/ml100k_rf \
  --config.rf.use_rf=true --seeds=5 --against=runs/ml100k
python -m rfrec.launch.gume --config=configs/gume.py:ml100k --workdir=runs/ml100k_10 \
  --config.rf.use_rf=true --config.rf.sampling_steps=10 --seeds=5 --again=runs/ml100k_rf
"""

import copy
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from rfrec.config import UserError
from rfrec.graph import training
from rfrec.launch import cli
from rfrec.pipelines import finished_graph, graph, graph_report, run_folder
from rfrec.pipelines import seeds as gume_seeds
from rfrec.train import loop, running
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.state import TrainState


def main(
    config: ConfigDict,
    workdir: Path,
    seeds: int = 1,
    against: Path | None = None,
    again: Path | None = None,
) -> None:
    """Runs a config to the end, from where it stands in `workdir`.

    Args:
      config: Of the run; its seed is the first.
      workdir: Of the run; of several seeds, each has the folder `seed_N` in it.
      seeds: Number of runs, which differ in their seed alone.
      against: Folder of finished runs to compare with.
      again: Folder of finished runs whose best checkpoints are ranked once more, with
        other sampling or mixing; None trains.

    Raises:
      UserError: Names what is wrong.
    """
    graph.check(config)
    if seeds < 1:
        raise UserError(f"--seeds={seeds}: must be at least 1")
    if against is not None:
        gume_seeds.read(against)
    folders = _folders(workdir, config.seed, seeds)
    data = graph.load(config)
    if against is not None:
        gume_seeds.check_same_pairs(against, data.split.fingerprint)
    # Before a folder is made, so that a refused config leaves nothing behind.
    run = training.Run(graph.make_trainer(config, data))
    split = data.split
    logging.info(
        "%d users, %d items, %d training pairs on %d %s device(s)",
        *(split.num_users, split.num_items, len(split.train.items)),
        *(jax.device_count(), jax.default_backend()),
    )
    for number, folder in enumerate(folders):
        one = copy.deepcopy(config)
        one.seed = config.seed + number
        if again is None:
            run_one(one, run, folder)
        else:
            rank_again(one, run, folder, again / folder.relative_to(workdir))
    if jax.process_index() == 0 and (seeds > 1 or against is not None):
        resamples = config.eval.resamples
        gume_seeds.write(workdir, folders, against=against, resamples=resamples)


def _folders(workdir: Path, first: int, seeds: int) -> list[Path]:
    """Returns the folder of each seed.

    Raises:
      UserError: The workdir holds one run where seeds are to be, or the reverse.
    """
    if seeds > 1 and (workdir / "config.json").exists():
        raise UserError(
            f"{workdir} holds a run of its own, where --seeds={seeds} would put the"
            " folders of theirs: use another --workdir"
        )
    if seeds == 1 and any(workdir.glob("seed_*/config.json")):
        raise UserError(
            f"{workdir} holds the folders of seeds, where one run would put its own"
            " files: use another --workdir, or --seeds"
        )
    if seeds == 1:
        return [workdir]
    return [workdir / f"seed_{first + number}" for number in range(seeds)]


def run_one(config: ConfigDict, run: training.Run, workdir: Path) -> None:
    """Trains and evaluates one seed.

    Raises:
      UserError: The folder is that of a run ranked again, or of another config.
    """
    if graph_report.was_ranked_again(workdir):
        raise UserError(
            f"{workdir} holds what --again made of another run: use another --workdir"
        )
    run_folder.open_workdir(workdir, config)
    template = run.trainer.init(config.seed)
    checkpoints = Checkpoints(workdir, highest=(training.CRITERION,))
    try:
        progress = running.train(
            template,
            run.program(),
            run.trainer.schedule,
            engine=run.trainer.engine,
            checkpoints=checkpoints,
            workdir=workdir,
            notes={"data": run.trainer.fingerprint},
            what="pairs or features",
        )
        step = checkpoints.best(training.CRITERION)
        assert step is not None, "evaluated before anything was stored"
        state = checkpoints.restore(step, template).state
    finally:
        checkpoints.close()
    told = describe(run.trainer, template, progress, step)
    finish(config, run, workdir, state, told)


def rank_again(
    config: ConfigDict, run: training.Run, workdir: Path, trained: Path
) -> None:
    """Evaluates one seed of a finished run under a config that samples otherwise.

    Raises:
      UserError: There is no such run, or the folder is that of a trained one.
    """
    if (workdir / "checkpoints").exists():
        raise UserError(
            f"{workdir} holds a trained run, whose report --again would replace: use"
            " another --workdir"
        )
    finished_graph.check_same(config, trained)
    state, step = finished_graph.best(run.trainer, config.seed, trained)
    run_folder.open_workdir(workdir, config)
    told = {"again": str(trained), "best_step": step}
    finish(config, run, workdir, state, told)


def finish(
    config: ConfigDict,
    run: training.Run,
    workdir: Path,
    state: TrainState,
    told: dict[str, Any],
) -> None:
    """Straightens the flow if so set, chooses on validation how to mix, and ranks.

    Args:
      config: Of the run.
      run: That makes lists.
      workdir: Of the run.
      state: On the host, of the chosen step.
      told: What else the report tells.
    """
    if config.rf.use_rf and config.rf.reflow not in (None, "none"):
        logging.info("%s of the chosen flow begins", config.rf.reflow)
    state = run.refine(run.trainer.engine.replicate(state))
    choice = run.choose(state)
    encoded = run.encode(state, choice.arguments)
    lists = run.rank(encoded)
    if jax.process_index() == 0:
        told["choice"] = {**choice.arguments, "tried": choice.tried}
        told["numbers"] = {k: float(v) for k, v in encoded.numbers.items()}
        graph_report.write(config, run, workdir, lists, told)


def describe(
    trainer: training.Trainer,
    template: TrainState,
    progress: loop.Progress,
    step: int,
) -> dict[str, Any]:
    """Returns what a report tells of a training."""
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


def _define_flags() -> None:
    flags.DEFINE_integer("seeds", 1, "Runs, each with its own seed and folder.")
    flags.DEFINE_string("against", None, "Folder of finished runs to compare with.")
    flags.DEFINE_string(
        "again", None, "Folder of finished runs to rank with other sampling or mixing."
    )


def _folder(flag: str) -> Path | None:
    given = flags.FLAGS[flag].value
    return Path(given).expanduser() if given else None


if __name__ == "__main__":
    _define_flags()
    cli.config_main(
        lambda config, workdir: main(
            config, workdir, flags.FLAGS.seeds, _folder("against"), _folder("again")
        ),
        "gume",
        page=True,
        flow=True,
    )
