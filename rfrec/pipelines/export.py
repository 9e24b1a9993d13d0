# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Export of the search of a finished T5 run."""

import dataclasses
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.pipelines import options as options_lib
from rfrec.pipelines import retriever, systems
from rfrec.pipelines.systems import DataChanges
from rfrec.retrieval.options import CHECKPOINTS
from rfrec.retrieval.retriever import GenerativeRetriever
from rfrec.serving import artefact
from rfrec.serving import export as serving_export
from rfrec.serving.export import ExportOptions


@dataclasses.dataclass(frozen=True)
class Options(ExportOptions):
    """Options of `rfrec.launch.export`.

    Attributes:
      platforms: Platforms that the programs can run on: cpu, cuda, rocm, tpu.
      room: Additional items that a grown catalogue may have without another export, as
        a share of the present number.
      search: Options of the search.
      run: Folder of a run of rfrec.launch.t5.
      checkpoint: Checkpoint of the run: the best by a criterion, or the last.
      task: One of the run's tasks; None takes the one that training evaluated.
        `TASK:image` chooses the direction of a task that has two.
      data: Data set of the catalogue.
    """

    run: str | None = None
    checkpoint: str = cfg.option("ndcg@10", cfg.one_of(*CHECKPOINTS))
    task: str | None = None
    data: DataChanges = DataChanges()


def export_run(config: ConfigDict, folder: Path) -> None:
    """Exports the search of a run to a folder, completely or not at all.

    Args:
      config: Config of `configs/export.py`.
      folder: Folder to create.

    Raises:
      UserError: The config is invalid, the run or its data cannot be read, or the
        folder is not empty.
    """
    options_lib.check(config, Options)
    options = cfg.parse(Options, config)
    if options.run is None:
        raise UserError(
            "config.run is required: the folder of a run of rfrec.launch.t5, as in"
            " --config.run=FOLDER"
        )
    serving_export.check(options)
    artefact.check_empty(folder)
    run = Path(options.run).expanduser()
    model = retriever.read_model(run, options.checkpoint)
    task = systems.find_task(options.task, model.options, "config.task")
    data = systems.load_data(options.data, run, model, task.modalities)
    fitted = GenerativeRetriever.from_fitted(
        model.options, data, model.vocabulary, model.params
    )
    manifest = serving_export.export_retriever(
        fitted,
        folder,
        task=task,
        run=str(run),
        step=model.step,
        platforms=options.platforms,
        room=options.room,
        search=dataclasses.asdict(options.search),
    )
    size = sum(file.bytes for file in manifest.files.values())
    logging.info(
        "%s: %d items, %d programs for %s, %.1f MB, capacity for %d items",
        *(folder, data.inter.num_items, len(manifest.buckets)),
        *(", ".join(manifest.platforms), size / 1e6, manifest.capacity.items),
    )
