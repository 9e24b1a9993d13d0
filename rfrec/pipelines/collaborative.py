# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Item vectors of a trained GUME, for a tokenizer: the feature `rf`.

Items that occur in GUME's training pairs have their behaviour embedding H, which is
learned from interactions. For the others the rectified flow generates it from their
content. Codes of these vectors separate items that people use differently, as those of
LETTER (Wang et al. 2024, "Learnable Item Tokenization for Generative Recommendation").
"""

from pathlib import Path

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rfrec.config import UserError
from rfrec.data.join import Feature
from rfrec.pipelines import finished_graph, graph
from rfrec.rf import settings as rf_settings

NAME = "rf"
# Keys of the section `rf` that only training reads; the values of the run are used.
_TRAINING_KEYS = ("use_rf", "preset")


def load(workdir: Path, rf: ConfigDict) -> tuple[Feature, tuple[str, ...]]:
    """Returns a vector for each item of a run of GUME, and the items' names.

    Args:
      workdir: Folder of the run, with the flow if an item has no training pair.
      rf: Section `rf` of the tokenizer's config; its values replace those of the run.

    Raises:
      UserError: There is no such run, the section sets a key that is fixed by the
        training, or items without a pair have no flow to generate their vectors.
    """
    run = finished_graph.open_run(workdir, lambda config: override(config, rf))
    if run.config.model.name != "gume":
        raise UserError(
            f"config.data.graph={workdir} is a run of {run.config.model.name}; name"
            " a run of gume"
        )
    split = run.data.split
    ids = split.item_ids or tuple(map(str, range(split.num_items)))
    cold = np.bincount(split.train.items, minlength=split.num_items) == 0
    if not cold.any():
        vectors = run.behaviour().items
    elif run.config.rf.use_rf:
        generated, behaviour = run.generated_and_behaviour()
        vectors = np.where(cold[:, None], generated.items, behaviour.items)
    else:
        raise UserError(
            f"config.data.graph={workdir} was trained without the flow, and"
            f" {cold.sum()} of its items have no training pair (such as"
            f" {ids[int(cold.argmax())]}); train it with --config.rf.use_rf=True"
        )
    logging.info("rf: vectors of %d items, %d of them generated", len(cold), cold.sum())
    return Feature(NAME, vectors, "dense", f"item vectors of {workdir}"), ids


def override(config: ConfigDict, rf: ConfigDict) -> None:
    """Replaces values of a run's config that concern the sampling.

    Args:
      config: Config of the run.
      rf: Section `rf` of another config; None leaves the value of the run.

    Raises:
      UserError: The section sets a key that is fixed by the training.
    """
    for name, value in rf.items():
        if value is None or name in _TRAINING_KEYS:
            continue
        key = f"rf.{rf_settings.ALIASES.get(name, name)}"
        if key not in graph.EVALUATION_KEYS and config.rf[name] != value:
            raise UserError(
                f"config.rf.{name}={value!r} is fixed by the run at data.graph; remove"
                " the override, or retrain GUME with it"
            )
        config.rf[name] = value
