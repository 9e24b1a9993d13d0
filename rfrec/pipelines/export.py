# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Export of the search of a finished T5 run."""

import dataclasses
from pathlib import Path
from typing import Literal

from absl import logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.pipelines import (
    finished_retriever,
    options,
    recommend,
    recommend_data,
    retriever,
)
from rfrec.retrieval import tasks
from rfrec.serving import artefact
from rfrec.serving import export as serving_export
from rfrec.serving.export import ExportOptions, TrainedModel


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Data set of the catalogue; None takes what the run's config says.

    Attributes:
      path: Folder of the data.
      name: Name of one of the run's data sets.
      text: File of text codes, or `catalogue.json` of a catalogue.
      image: File of image codes, or `catalogue.json` of a catalogue.
    """

    path: str | None = None
    name: str | None = None
    text: str | None = None
    image: str | None = None


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
    checkpoint: Literal["ndcg@10", "loss", "last"] = "ndcg@10"
    task: str | None = None
    data: DataOptions = DataOptions()


def export_run(config: ConfigDict, folder: Path) -> None:
    """Exports the search of a run to a folder, completely or not at all.

    Args:
      config: Config of `configs/export.py`.
      folder: Folder to create.

    Raises:
      UserError: The config is invalid, the run or its data cannot be read, or the
        folder is not empty.
    """
    options.check(config, Options)
    chosen = cfg.parse(Options, config)
    if chosen.run is None:
        raise UserError(
            "config.run is required: the folder of a run of rfrec.launch.t5, as in"
            " --config.run=FOLDER"
        )
    serving_export.check(chosen)
    artefact.check_empty(folder)
    model = read_run(config)
    manifest = serving_export.export(model, folder, chosen)
    size = sum(file.bytes for file in manifest.files.values())
    logging.info(
        "%s: %d items, %d programs for %s, %.1f MB, capacity for %d items",
        *(folder, len(model.trie.leaf_items), len(manifest.buckets)),
        *(", ".join(manifest.platforms), size / 1e6, manifest.capacity.items),
    )


def read_run(config: ConfigDict) -> TrainedModel:
    """Reads the model and the catalogue of a run.

    Args:
      config: Config with `run`, `checkpoint`, `task` and `data`.

    Raises:
      UserError: The run, the task or the data cannot be used.
    """
    run = Path(config.run).expanduser()
    model = finished_retriever.read_model(run, config.checkpoint)
    task = recommend.find_task(config.task, model.config, "config.task")
    data = recommend_data.load(config, run, model, task.modalities)
    sizes = model.vocabulary.sizes(task.target)
    return TrainedModel(
        arch=model.arch,
        params=model.params,
        vocabulary=model.vocabulary,
        tables=tasks.tables(
            model.vocabulary,
            (task.task,),
            data.codes,
            data.inter,
            form=retriever.form(model.config),
        ),
        row=task.row,
        task=task.task,
        sources=task.sources,
        target=task.target,
        trie=retriever.item_trie(data, 0, task.target, sizes),
        item_ids=data.inter.item_ids,
        max_history=model.config.data.max_history,
        buckets=tuple(model.config.train.buckets),
        version=finished_retriever.version(run, model),
    )
