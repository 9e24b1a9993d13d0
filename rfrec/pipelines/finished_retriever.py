# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The folder of a T5's run in; its model out, to serve, or to start another run."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from rfrec.codes import catalogue
from rfrec.config import UserError, read_config
from rfrec.pipelines import retriever
from rfrec.retrieval import t5, vocab_files
from rfrec.retrieval.vocab import Vocabulary
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.state import create
from rfrec.typing import PyTree

# Parameters with a row for each token: they grow with the vocabulary.
_BY_TOKEN = ("embedding", "output")


class Model(NamedTuple):
    """A trained T5.

    Attributes:
      config: Of its run.
      vocabulary: Of its run.
      arch: Its shape.
      params: On the host.
      step: Of the checkpoint.
      data: Fingerprint of the histories and codes it was trained on; empty where that
        is not known.
    """

    config: ConfigDict
    vocabulary: Vocabulary
    arch: t5.Architecture
    params: PyTree
    step: int
    data: str


def read_model(workdir: Path, checkpoint: str) -> Model:
    """Reads a model from the folder of its run, in which nothing changes.

    Args:
      workdir: Of the run.
      checkpoint: `last`, or the criterion whose best is wanted.

    Raises:
      UserError: It is no such folder, or holds no checkpoint yet.
    """
    config = read_config(workdir / "config.json")
    if "task" not in config or "vocab" not in config:
        raise UserError(f"{workdir} holds no run of rfrec.launch.t5: name another")
    vocabulary = vocab_files.read(workdir / "vocab.json")
    arch = retriever.architecture(config, vocabulary)
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir} holds no checkpoint yet: train it first")
    checkpoints = Checkpoints(
        workdir,
        lowest=retriever.LOWEST,
        highest=retriever.HIGHEST,
        read_only=True,
    )
    try:
        best = checkpoints.criteria
        step = (
            checkpoints.best(checkpoint) if checkpoint in best else checkpoints.latest()
        )
        if step is None:
            raise UserError(f"{workdir} holds no checkpoint yet: train it first")
        found = checkpoints.restore(step, _template(config, arch))
    finally:
        checkpoints.close()
    params, data = found.state.params, found.notes["data"]
    return Model(config, vocabulary, arch, params, step, data)


def version(run: Path, model: Model) -> catalogue.T5:
    """Returns what identifies a model to a catalogue."""
    text = json.dumps(dataclasses.asdict(model.vocabulary), sort_keys=True)
    paths = jax.tree_util.tree_leaves_with_path(model.params)
    return catalogue.T5(
        run=str(run),
        step=model.step,
        vocabulary=hashlib.sha256(text.encode()).hexdigest(),
        weights=catalogue.fingerprint({_name(p): np.asarray(a) for p, a in paths}),
    )


def _template(config: ConfigDict, arch: t5.Architecture) -> PyTree:
    """Returns a state with the arrays of a run, of no values."""
    optimizer = retriever.optimizer(config, 1)

    def make():
        params = t5.init(arch, jax.random.key(0))
        return create(params=params, model_state={}, optimizer=optimizer, seed=0)

    return jax.tree.map(lambda a: np.empty(a.shape, a.dtype), jax.eval_shape(make))


def grown(fresh: PyTree, earlier: PyTree, origin: str) -> PyTree:
    """Returns earlier weights, with fresh rows for the tokens they lack.

    Args:
      fresh: Parameters of the new model.
      earlier: Of the model to start from.
      origin: Of the latter, named in errors.

    Raises:
      UserError: The models differ in more than their tokens.
    """
    fresh_leaves, tree = jax.tree_util.tree_flatten_with_path(fresh)
    known = dict(jax.tree_util.tree_leaves_with_path(earlier))
    paths = [path for path, _ in fresh_leaves]
    for path in {*paths} ^ {*known}:
        raise UserError(
            f"{origin}: its model {'has' if path in known else 'lacks'} the parameter"
            f" {_name(path)}: use its config.model"
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
                f" needs {new.shape}: use its config.model"
            )
        leaves.append(merged)
    return jax.tree.unflatten(tree, leaves)


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
