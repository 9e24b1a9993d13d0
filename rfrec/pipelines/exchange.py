# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""T5 folders of Hugging Face to and from runs of `rfrec.launch.t5`.

A folder that `save_pretrained` wrote comes in and a run comes out, whose weights
`config.init.workdir` takes; or a run comes in and such a folder goes out.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rfrec.config import UserError, read_config
from rfrec.pipelines import finished_retriever, retriever, run_folder
from rfrec.retrieval import hf, hf_vocab, t5, tasks, training, vocab, vocab_files
from rfrec.retrieval.vocab import Vocabulary
from rfrec.train import loop
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.state import create

# What a run's config says of the shape of a model.
SHAPE = (
    *("d_model", "d_ff", "d_kv", "num_heads", "num_layers", "num_decoder_layers"),
    *("feed_forward", "dropout", "tied"),
)


def import_folder(config: ConfigDict, folder: Path, workdir: Path) -> None:
    """Makes a run whose only checkpoint is the model of a folder.

    Args:
      config: Of the run; its model's shape is taken from the folder, and the
        vocabulary keeps the layout `vocab.layout`: of a model in the T5 layout, a
        compact one takes the rows of the codes and of the prompts of `task.names`.
      folder: What `save_pretrained` wrote, with its tokenizer.
      workdir: New.

    Raises:
      UserError: One of them is not understood, or they do not go together.
    """
    if "task" not in config:
        raise UserError("--config=configs/t5.py[:finetune] is needed to import a T5")
    retriever.check(config)
    refuse_run(workdir)
    weights, known = read_folder(folder)
    wanted = in_layout(config, known, folder)
    if wanted != known:
        weights = _compact(weights, config, known, wanted)
    adapted = adapt(config, weights.arch, folder)
    run_folder.open_workdir(workdir, adapted)
    vocab_files.write(wanted, workdir / "vocab.json")
    _store(adapted, weights, workdir)
    logging.info("%d tokens, %s layout: %s", wanted.size, wanted.layout, workdir)


def refuse_run(workdir: Path) -> None:
    """Refuses a folder that holds a run already.

    Raises:
      UserError: It does.
    """
    for name in ("config.json", "checkpoints"):
        if (workdir / name).exists():
            raise UserError(f"{workdir} holds a run already: use another --workdir")


def read_folder(folder: Path) -> tuple[hf.Weights, Vocabulary]:
    """Reads a model and its vocabulary; rows that no token has are left out.

    Raises:
      UserError: A file is missing or damaged, or there are more tokens than rows.
    """
    weights, vocabulary = hf.read(folder), hf_vocab.read(folder)
    spare = weights.arch.vocab_size - vocabulary.size
    if spare < 0:
        raise UserError(
            f"{folder}: its tokenizer has {vocabulary.size} tokens, its model"
            f" {weights.arch.vocab_size}: they do not belong together"
        )
    if spare:
        logging.warning("%s: %d rows that no token has are left out", folder, spare)
    return hf.trim(weights, vocabulary.size), vocabulary


def in_layout(config: ConfigDict, known: Vocabulary, folder: Path) -> Vocabulary:
    """Returns the vocabulary of the run: as it is, or compact.

    Raises:
      UserError: The T5 layout is wanted of a compact model, or there are no codes.
    """
    wanted = config.vocab.layout
    if wanted == known.layout:
        return known
    if wanted == "t5":
        raise UserError(
            f"{folder} has a compact vocabulary: set config.vocab.layout=compact"
        )
    codes = {modality: known.sizes(modality) for modality in known.modalities}
    if not codes:
        raise UserError(
            f"{folder} knows no codes, so nothing is left of its tokens in a compact"
            " vocabulary: set config.vocab.layout=t5"
        )
    return vocab.build(codes, prompts=_prompts(config))


def _prompts(config: ConfigDict) -> dict[str, int]:
    return tasks.prompt_sizes(config.task.names, config.task.prompt_tokens)


def _compact(
    weights: hf.Weights, config: ConfigDict, known: Vocabulary, wanted: Vocabulary
) -> hf.Weights:
    arch = dataclasses.replace(weights.arch, vocab_size=wanted.size)
    source = vocab.grow(known, {}, prompts=_prompts(config))
    fresh = training.fresh_weights(arch, config.seed)
    return hf.Weights(arch, hf_vocab.move_rows(weights.params, source, wanted, fresh))


def adapt(config: ConfigDict, arch: t5.Architecture, folder: Path) -> ConfigDict:
    """Returns the run's config with the model's shape.

    Raises:
      UserError: The shape has no keys in `config.model`.
    """
    adapted = config.copy_and_resolve_references()
    with adapted.unlocked():
        for name in SHAPE:
            adapted.model[name] = getattr(arch, name)
        adapted.model.level_heads = False
        adapted.init.workdir = None
    plain = t5.Architecture(arch.vocab_size)
    for name in ("relative_buckets", "relative_max_distance", "epsilon"):
        if getattr(arch, name) != getattr(plain, name):
            raise UserError(
                f"{folder}: its {name} is {getattr(arch, name)}, which runs cannot"
                f" have: only {getattr(plain, name)}"
            )
    return adapted


def _store(config: ConfigDict, weights: hf.Weights, workdir: Path) -> None:
    """Stores the weights as the first step of the run."""
    state = create(
        params=weights.params,
        model_state={},
        optimizer=retriever.optimizer(config, 1),
        seed=config.seed,
    )
    checkpoints = Checkpoints(
        workdir, lowest=retriever.LOWEST, highest=retriever.HIGHEST
    )
    try:
        notes = {"data": ""} | vars(loop.Progress())
        host = jax.tree.map(np.asarray, state)
        checkpoints.save(0, host, notes=notes, metrics=None)
        checkpoints.wait()
    finally:
        checkpoints.close()


def export_run(
    workdir: Path, folder: Path, *, checkpoint: str | None, base: Path | None
) -> None:
    """Writes a model of a run as a folder that `from_pretrained` loads.

    Args:
      workdir: Of the run.
      folder: New.
      checkpoint: The criterion whose best is wanted, or `last`; None takes the run's.
      base: Folder of a model in the T5 layout whose codes the run shares: the model is
        written in that layout, with the tokenizer files and the rows of all other
        tokens from there.

    Raises:
      UserError: The run has no such model, the folder holds something, or the base
        is a model of another shape or other codes.
    """
    if checkpoint not in (None, "last", *retriever.LOWEST, *retriever.HIGHEST):
        raise UserError(f"--best={checkpoint}: use ndcg@10, loss or last")
    config = read_config(workdir / "config.json")
    if checkpoint is None and "train" in config:
        checkpoint = config.train.get("criterion")
    model = finished_retriever.read_model(workdir, checkpoint or "last")
    weights, vocabulary = hf.Weights(model.arch, model.params), model.vocabulary
    if base is not None:
        weights, vocabulary = _upon(base, weights, vocabulary, model.config)
    hf.write(folder, weights, vocabulary, tokenizer_of=base)
    logging.info("step %d of %s: %s", model.step, workdir, folder)


def _upon(
    base: Path, weights: hf.Weights, vocabulary: Vocabulary, config: ConfigDict
) -> tuple[hf.Weights, Vocabulary]:
    """Returns the model in the vocabulary of the base."""
    there = hf.read(base)
    target = vocab.grow(hf_vocab.read(base), {}, prompts=_prompts(config))
    arch = dataclasses.replace(
        weights.arch,
        vocab_size=there.arch.vocab_size,
        dropout=there.arch.dropout,
        remat=there.arch.remat,
        dtype=there.arch.dtype,
    )
    if arch != there.arch:
        fields = dataclasses.asdict(arch)
        name = next(n for n, v in fields.items() if v != getattr(there.arch, n))
        raise UserError(
            f"--base={base}: its {name} is {getattr(there.arch, name)}, the run's"
            f" {fields[name]}: name the model that the run began with"
        )
    params = hf_vocab.move_rows(weights.params, vocabulary, target, there.params)
    return hf.Weights(there.arch, params), target
