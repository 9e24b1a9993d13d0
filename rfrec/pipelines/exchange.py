# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exchanges models with other programs: MQL4GRec's RQ-VAE, T5 of Hugging Face.

A model that is imported becomes a run with one checkpoint; `config.init.workdir` of
another run can name it. A run is exported as a folder that `from_pretrained` loads.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.pipelines import retriever, run_folder, tokenizer
from rfrec.pipelines.retriever import Options
from rfrec.retrieval import (
    builders,
    hf,
    hf_vocab,
    t5,
    tasks,
    training,
    vocab,
    vocab_files,
)
from rfrec.retrieval.options import CHECKPOINTS, HIGHEST, LOWEST
from rfrec.retrieval.vocab import Vocabulary
from rfrec.tokenizer import fitting, mql4grec
from rfrec.tokenizer import training as tokenizer_training
from rfrec.train import loop
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.state import create

# Keys of a run's config that describe the shape of a model.
SHAPE = (
    *("d_model", "d_ff", "d_kv", "num_heads", "num_layers", "num_decoder_layers"),
    *("feed_forward", "dropout", "tied"),
)


def import_folder(config: ConfigDict, folder: Path, workdir: Path) -> None:
    """Creates a run whose only checkpoint is the T5 of a folder.

    Args:
      config: Config of the run. The shape of its model is replaced by that of the
        folder. If `vocab.layout` is `compact` and the model has the T5 layout, only
        the rows of the codes and of the prompts of `task.names` are taken.
      folder: Folder that `save_pretrained` wrote, with its tokenizer.
      workdir: Folder of the new run.

    Raises:
      UserError: A file is not understood, or config and model do not match.
    """
    if "task" not in config:
        raise UserError("importing a T5 requires --config=configs/t5.py[:finetune]")
    options = retriever.check(config)
    refuse_run(workdir)
    weights, known = read_folder(folder)
    wanted = convert_layout(options, known, folder)
    if wanted != known:
        weights = _compact(weights, options, known, wanted)
    adapted = adapt(config, weights.arch, folder)
    options = cfg.parse(Options, adapted)
    run_folder.open_workdir(workdir, adapted)
    vocab_files.write(wanted, workdir / "vocab.json")
    _store(options, weights, workdir)
    logging.info("%d tokens, %s layout: %s", wanted.size, wanted.layout, workdir)


def refuse_run(workdir: Path) -> None:
    """Refuses a folder that contains a run.

    Raises:
      UserError: The folder contains a run.
    """
    for name in ("config.json", "checkpoints"):
        if (workdir / name).exists():
            raise UserError(f"{workdir} contains a run; use another --workdir")


def read_folder(folder: Path) -> tuple[hf.Weights, Vocabulary]:
    """Reads a model and its vocabulary; rows without a token are left out.

    Raises:
      UserError: A file is missing or damaged, or there are more tokens than rows.
    """
    weights, vocabulary = hf.read(folder), hf_vocab.read(folder)
    spare = weights.arch.vocab_size - vocabulary.size
    if spare < 0:
        raise UserError(
            f"{folder}: its tokenizer has {vocabulary.size} tokens, its model"
            f" {weights.arch.vocab_size}; they do not match"
        )
    if spare:
        logging.warning("%s: %d rows without a token are left out", folder, spare)
    return hf.trim(weights, vocabulary.size), vocabulary


def convert_layout(options: Options, known: Vocabulary, folder: Path) -> Vocabulary:
    """Returns the vocabulary of the run: unchanged, or compact.

    Raises:
      UserError: A compact model would need the T5 layout, or there are no codes.
    """
    wanted = options.vocab.layout
    if wanted == known.layout:
        return known
    if wanted == "t5":
        raise UserError(
            f"{folder} has a compact vocabulary; set config.vocab.layout=compact"
        )
    codes = {modality: known.sizes(modality) for modality in known.modalities}
    if not codes:
        raise UserError(
            f"{folder} has no codes, so a compact vocabulary would be empty; set"
            " config.vocab.layout=t5"
        )
    return vocab.build(codes, prompts=_prompts(options))


def _prompts(options: Options) -> dict[str, int]:
    return tasks.prompt_sizes(options.task.names, options.task.prompt_tokens)


def _compact(
    weights: hf.Weights, options: Options, known: Vocabulary, wanted: Vocabulary
) -> hf.Weights:
    arch = dataclasses.replace(weights.arch, vocab_size=wanted.size)
    source = vocab.grow(known, {}, prompts=_prompts(options))
    fresh = training.fresh_weights(arch, options.seed)
    return hf.Weights(arch, hf_vocab.move_rows(weights.params, source, wanted, fresh))


def adapt(config: ConfigDict, arch: t5.Architecture, folder: Path) -> ConfigDict:
    """Returns the run's config with the shape of a model.

    Raises:
      UserError: `config.model` has no key for a part of the shape.
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
                f"{folder}: its {name} is {getattr(arch, name)}; only"
                f" {getattr(plain, name)} is supported"
            )
    return adapted


def _store(options: Options, weights: hf.Weights, workdir: Path) -> None:
    """Stores the weights as the first step of the run."""
    state = create(
        params=weights.params,
        model_state={},
        optimizer=builders.build_optimizer(options, 1),
        seed=options.seed,
    )
    with Checkpoints(workdir, lowest=LOWEST, highest=HIGHEST) as checkpoints:
        notes = {"data": ""} | vars(loop.Progress())
        host = jax.tree.map(np.asarray, state)
        checkpoints.save(0, host, notes=notes, metrics=None)
        checkpoints.wait()


def export_run(
    workdir: Path, folder: Path, *, checkpoint: str | None, base: Path | None
) -> None:
    """Writes a model of a run as a folder that `from_pretrained` loads.

    Args:
      workdir: Folder of the run.
      folder: New folder.
      checkpoint: The best checkpoint by a criterion, or `last`; None uses the criterion
        of the run.
      base: Folder of a model in the T5 layout with the codes of the run. The model is
        written in that layout, with the tokenizer files and the rows of all other
        tokens from the base.

    Raises:
      UserError: The run has no such model, the folder is not empty, or the base has
        another shape or other codes.
    """
    if checkpoint not in (None, *CHECKPOINTS):
        raise UserError(f"--best={checkpoint}: use ndcg@10, loss or last")
    model = retriever.read_model(workdir, checkpoint)
    weights, vocabulary = hf.Weights(model.arch, model.params), model.vocabulary
    if base is not None:
        weights, vocabulary = _rebase(base, weights, vocabulary, model.options)
    hf.write(folder, weights, vocabulary, tokenizer_of=base)
    logging.info("step %d of %s: %s", model.step, workdir, folder)


def _rebase(
    base: Path, weights: hf.Weights, vocabulary: Vocabulary, options: Options
) -> tuple[hf.Weights, Vocabulary]:
    """Returns the model in the vocabulary of the base."""
    original = hf.read(base)
    target = vocab.grow(hf_vocab.read(base), {}, prompts=_prompts(options))
    arch = dataclasses.replace(
        weights.arch,
        vocab_size=original.arch.vocab_size,
        dropout=original.arch.dropout,
        remat=original.arch.remat,
        dtype=original.arch.dtype,
    )
    if arch != original.arch:
        fields = dataclasses.asdict(arch)
        name = next(n for n, v in fields.items() if v != getattr(original.arch, n))
        raise UserError(
            f"--base={base}: its {name} is {getattr(original.arch, name)}, the run's"
            f" {fields[name]}; use the model that the run started from"
        )
    params = hf_vocab.move_rows(weights.params, vocabulary, target, original.params)
    return hf.Weights(original.arch, params), target


def import_tokenizer(config: ConfigDict, path: Path, workdir: Path) -> None:
    """Creates a run whose only checkpoint is an RQ-VAE of MQL4GRec; exports its codes.

    Args:
      config: Config of the run; the shape of its model is replaced by that of the
        checkpoint.
      path: Checkpoint that MQL4GRec wrote.
      workdir: Folder of the new run.

    Raises:
      UserError: The checkpoint cannot be read, or the items have another width.
    """
    refuse_run(workdir)
    weights = mql4grec.read_checkpoint(path)
    run_config = adapt_tokenizer(config, weights)
    options = tokenizer.check(run_config)
    items = tokenizer.load_items(options, run_config.rf)
    if items.values.shape[1] != weights.input_width:
        raise UserError(
            f"{path} reads vectors of width {weights.input_width}, the items have"
            f" {items.values.shape[1]}; choose other data.features"
        )
    run_folder.open_workdir(workdir, run_config)
    trainer = tokenizer.build_trainer(options, items)
    with Checkpoints(workdir, lowest=fitting.CRITERIA) as checkpoints:
        store_tokenizer(trainer, weights, checkpoints, items.fingerprint)
        tokenized, models = fitting.compare(
            tokenizer_training.Run(trainer),
            checkpoints,
            options.codes.checkpoint,
            trainer.init(),
        )
    measured = {"seconds": 0.0, "models": models}
    tokenizer.finish(run_config, options, items, tokenized, workdir, measured)


def adapt_tokenizer(config: ConfigDict, weights: mql4grec.Weights) -> ConfigDict:
    """Returns the config of a tokenizer's run with the shape of a checkpoint."""
    adapted = config.copy_and_resolve_references()
    with adapted.unlocked():
        adapted.model.hidden = weights.hidden
        adapted.model.latent_width = weights.latent_width
        adapted.model.batch_norm = bool(weights.batch_stats)
        adapted.codebook.sizes = weights.sizes
        if len(adapted.codebook.sk_epsilons) != len(weights.sizes):
            adapted.codebook.sk_epsilons = (0.0,)
    return adapted


def store_tokenizer(
    trainer: tokenizer_training.Trainer,
    weights: mql4grec.Weights,
    checkpoints: Checkpoints,
    fingerprint: str,
) -> None:
    """Stores the weights of a tokenizer as the last step of a run."""
    state = trainer.init()
    model_state = dict(state.model_state)
    if weights.batch_stats:
        model_state["batch_stats"] = weights.batch_stats
    step = trainer.schedule.total_steps
    state = state.replace(
        step=np.int32(step), params=weights.params, model_state=model_state
    )
    notes = {"items": fingerprint} | vars(loop.Progress(step=step))
    checkpoints.save(step, state, notes=notes, metrics=None)
    checkpoints.wait()
    logging.info("stored %s", checkpoints.latest())
