# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exports the search of a trained T5: programs, weights and catalogue in one folder.

python -m rfrec.launch.export --config=configs/export.py \
  --config.run=runs/instruments --workdir=artefacts/instruments
"""

from pathlib import Path

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict
from tqdm import tqdm

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.launch import cli
from rfrec.pipelines import retriever, systems
from rfrec.retrieval import builders
from rfrec.retrieval.corpus import CodedData, index_items
from rfrec.retrieval.options import CHECKPOINTS
from rfrec.retrieval.tasks import ListTask
from rfrec.serving import artefact, capacity, search_program
from rfrec.serving.artefact import Manifest, Parts

RULES: cfg.Rules = {
    "checkpoint": cfg.one_of(*CHECKPOINTS),
    "platforms": cfg.each(cfg.one_of(*search_program.PLATFORMS), least=1),
    "room": cfg.at_least(0),
    "search.beams": cfg.whole(1),
    "search.top_k": cfg.whole(1),
    "search.score": cfg.one_of("full", "level"),
    "search.buckets": cfg.each(cfg.whole(1)),
}


def main(config: ConfigDict, workdir: Path) -> None:
    """Writes the artefact to `workdir`, whole or not at all."""
    check(config)
    artefact.check_free(workdir)
    run = Path(config.run).expanduser()
    model = retriever.read_model(run, config.checkpoint)
    task = systems.find_task(config.task, model.options, "config.task")
    changes = cfg.parse(systems.DataChanges, config.data)
    data = systems.load_data(changes, run, model, task.modalities)
    parts, manifest = build(config, run, model, task, data)
    manifest = artefact.write(workdir, parts, manifest)
    size = sum(file.bytes for file in manifest.files.values())
    logging.info(
        "%s: %d items, %d programs for %s, %.1f MB, room for %d items",
        *(workdir, len(parts.trie.leaf_items), len(manifest.buckets)),
        *(", ".join(manifest.platforms), size / 1e6, manifest.room.items),
    )


def check(config: ConfigDict) -> None:
    """Checks each value, then what does not go together.

    Raises:
      UserError: Names the key.
    """
    cfg.check(config, RULES)
    if config.run is None:
        raise UserError(
            "config.run is needed: the folder of a run of rfrec.launch.t5, given as"
            " --config.run=FOLDER"
        )
    search = config.search
    if search.top_k > search.beams:
        raise UserError(
            f"config.search.top_k={search.top_k} is more than config.search.beams="
            f"{search.beams}: a list is as long as there are beams at most"
        )
    if (np.diff(search.buckets) <= 0).any():
        raise UserError(f"config.search.buckets={search.buckets}: must ascend")


def build(
    config: ConfigDict,
    run: Path,
    model: retriever.Model,
    task: ListTask,
    data: CodedData,
) -> tuple[Parts, Manifest]:
    """Exports every program.

    Returns:
      What to write.
    """
    vocabulary, target = model.vocabulary, task.target
    index = index_items(data, 0, target, vocabulary.sizes(target))
    tables = builders.build_list_tables(model.options, vocabulary, data, task)
    tables = tables._replace(items=np.zeros(1, np.int32), users=tables.users[:1])
    made = capacity.make_room(index, config.room)
    search = search_program.Asked(
        arch=model.arch,
        capacity=made,
        row=task.row,
        segments=len(task.sources),
        num_beams=config.search.beams,
        score=config.search.score,
    )
    weights = search_program.flat_weights(model.params)
    laid = capacity.lay_out(made, index, vocabulary.code_tokens(target), tables)
    most = model.options.data.max_history
    programs = {}
    for slots in tqdm(_buckets(config, model, most, search.segments), unit="program"):
        programs[slots] = search_program.serialize(
            search, slots, weights, laid, config.platforms
        )
    manifest = Manifest(
        jax=jax.__version__,
        platforms=tuple(config.platforms),
        t5=retriever.version(run, model),
        task=task.name,
        row=task.row,
        sources=task.sources,
        target=target,
        segments=search.segments,
        max_history=most,
        beams=config.search.beams,
        top_k=config.search.top_k,
        room=made,
    )
    kept = Parts(programs, weights, tables, index, vocabulary, data.inter.item_ids)
    return kept, manifest


def _buckets(
    config: ConfigDict, model: retriever.Model, most: int, segments: int
) -> list[int]:
    """Returns the slots of each program, ascending, whole items all."""
    buckets = config.search.buckets or model.options.train.buckets
    whole = {bucket // segments * segments for bucket in buckets}
    longest = most * segments
    return sorted({b for b in whole if 0 < b < longest} | {longest})


if __name__ == "__main__":
    cli.config_main(main, "export")
