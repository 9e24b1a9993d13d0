# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Folders of runs, written without training."""

from collections.abc import Mapping
from pathlib import Path

import jax
from ml_collections import ConfigDict

from rfrec.pipelines import coded_histories, retriever, run_folder
from rfrec.retrieval import builders, training, vocab_files
from rfrec.retrieval.corpus import CodedData
from rfrec.retrieval.options import HIGHEST, LOWEST
from rfrec.train import loop
from rfrec.train.checkpoint import Checkpoints


def load_data(config: ConfigDict) -> CodedData:
    """Loads the data of a config of a T5."""
    options = retriever.check(config)
    return coded_histories.load(options.data, options.modalities, seed=options.seed)


def write_t5_run(
    config: ConfigDict,
    workdir: Path,
    *,
    factor: float = 1.7,
    steps: Mapping[int, float] | None = None,
) -> CodedData:
    """Writes the folder of a run as training leaves it, with initial weights.

    Args:
      config: Config of the run.
      workdir: Folder of the run.
      factor: Factor of the weights; larger ones make scores that differ more.
      steps: NDCG@10 of each stored step.

    Returns:
      The data of the run.
    """
    options, data = retriever.check(config), load_data(config)
    vocabulary = builders.build_vocabulary(options, data)
    arch = builders.build_architecture(options, vocabulary)
    weights = jax.tree.map(lambda a: factor * a, training.fresh_weights(arch, 0))
    trainer = builders.build_trainer(options, data, vocabulary, weights)
    run_folder.open_workdir(workdir, config)
    vocab_files.write(vocabulary, workdir / "vocab.json")
    with Checkpoints(workdir, lowest=LOWEST, highest=HIGHEST) as checkpoints:
        for step, ndcg in (steps or {4: 0.5}).items():
            notes = {"data": data.fingerprint} | vars(loop.Progress(step=step))
            metrics = {"loss": 1.0, "ndcg@10": ndcg}
            checkpoints.save(step, trainer.init(), notes=notes, metrics=metrics)
        checkpoints.wait()
    return data
