# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns a config of `configs/t5.py` into the parts of a T5's training."""

import math
from collections.abc import Mapping

import numpy as np
from jax import numpy as jnp
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.codes import trie
from rfrec.config import UserError
from rfrec.data import sequences, sources
from rfrec.pipelines.coded_histories import CodedData
from rfrec.retrieval import t5, tasks, training, validation, vocab
from rfrec.retrieval.batches import slots, take
from rfrec.retrieval.corpus import Catalogue, Corpus
from rfrec.retrieval.vocab import Vocabulary
from rfrec.train import loop, optim, partition
from rfrec.typing import PyTree

LOWEST, HIGHEST = ("loss",), ("ndcg@10",)

RULES: cfg.Rules = {
    "seed": cfg.at_least(0),
    "data.source": cfg.one_of(*sources.SOURCES),
    "data.max_history": cfg.whole(1),
    "data.mode": cfg.within(0, len(sequences.MODES)),
    "data.num_items": cfg.whole(1),
    "data.num_users": cfg.whole(1),
    "task.names": cfg.each(cfg.one_of(*tasks.TASKS), least=1),
    "task.weights": cfg.each(cfg.above(0)),
    "task.prompt_tokens": cfg.whole(0),
    "task.user_buckets": cfg.whole(0),
    "vocab.layout": cfg.one_of(*vocab.LAYOUTS),
    "vocab.codes": cfg.whole(0),
    "init.checkpoint": cfg.one_of(*LOWEST, *HIGHEST, "last"),
    "model.d_model": cfg.whole(1),
    "model.d_ff": cfg.whole(1),
    "model.d_kv": cfg.whole(1),
    "model.num_heads": cfg.whole(1),
    "model.num_layers": cfg.whole(1),
    "model.num_decoder_layers": cfg.whole(1),
    "model.feed_forward": cfg.one_of("relu", "gated-gelu"),
    "model.dropout": cfg.within(0, 1),
    "model.dtype": cfg.one_of("float32", "bfloat16"),
    "optim.warmup_share": cfg.within(0, 1),
    "optim.decay": cfg.one_of("all", "matrices"),
    "optim.accumulate": cfg.whole(1),
    "train.patience": cfg.whole(1),
    "train.criterion": cfg.one_of(*LOWEST, *HIGHEST),
    "train.tensor": cfg.whole(1),
    "train.buckets": cfg.each(cfg.whole(1)),
    "train.run": cfg.whole(1),
    "eval.task": cfg.one_of(*tasks.TASKS),
    "eval.users": cfg.whole(0),
    "eval.beams": cfg.whole(1),
    "eval.batch_size": cfg.whole(1),
    **cfg.TRAINING_RULES,
}


def check(config: ConfigDict) -> None:
    """Checks each value, then what does not go together.

    Raises:
      UserError: Names the keys.
    """
    cfg.check(config, RULES)
    task, names = config.task, tuple(config.task.names)
    tasks.check_tasks(names)
    if len(task.weights) not in (0, len(names)):
        raise UserError(
            f"config.task.weights has {len(task.weights)} values for {len(names)}"
            " tasks: give one each, or ()"
        )
    if watched(config) not in names:
        raise UserError(
            f"config.eval.task={config.eval.task!r} is not trained: use one of"
            f" {', '.join(names)}"
        )
    targets = {way.target for n in names for way in tasks.TASKS[n].directions}
    heads, pairs = config.model.level_heads, any(tasks.TASKS[n].pairs for n in names)
    impossible = {
        "model.level_heads and tasks of two target modalities": heads
        and len(targets) > 1,
        "model.level_heads and vocab.layout=t5": heads and config.vocab.layout == "t5",
        "task.user_buckets>0 and item2image or image2item": task.user_buckets > 0
        and pairs,
        "eval.task of single items (item2image, image2item)": tasks.TASKS[
            watched(config)
        ].pairs,
        "optim.min_lr > optim.lr": config.optim.min_lr > config.optim.lr,
        "train.tensor>1 and train.engine=pmap": config.train.tensor > 1
        and config.train.engine == "pmap",
        "train.buckets that do not ascend and": (
            np.diff(config.train.buckets) <= 0
        ).any(),
    }
    for keys, true in impossible.items():
        if true:
            raise UserError(f"config: {keys} do not go together: change one")


def watched(config: ConfigDict) -> str:
    """Returns the task whose loss and search are watched."""
    return config.eval.task or config.task.names[0]


def vocabulary(
    config: ConfigDict, data: CodedData, earlier: Vocabulary | None = None
) -> Vocabulary:
    """Builds the vocabulary of a run, or grows an earlier one.

    Args:
      config: Of the run.
      data: Whose codes it holds.
      earlier: Of the run whose weights are the start.

    Raises:
      UserError: It does not extend the earlier one.
    """
    sizes = code_sizes(config, data)
    grown = {
        "prompts": tasks.prompt_sizes(config.task.names, config.task.prompt_tokens),
        "separator": config.task.separator,
        "user_buckets": config.task.user_buckets,
    }
    if earlier is None:
        return vocab.build(sizes, layout=config.vocab.layout, **grown)
    origin = f"config.init.workdir={config.init.workdir}"
    if earlier.layout != config.vocab.layout:
        raise UserError(
            f"{origin}: its vocabulary has the {earlier.layout} layout: set"
            f" config.vocab.layout={earlier.layout}"
        )
    try:
        return vocab.grow(earlier, _kept(sizes, earlier, config.vocab.codes), **grown)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error


def code_sizes(config: ConfigDict, data: CodedData) -> dict[str, tuple[int, ...]]:
    """Returns the codes of each level: as configured, or as many as the data have."""
    sizes = {m: tuple((c.max(axis=0) + 1).tolist()) for m, c in data.codes.items()}
    wanted = config.vocab.codes
    for modality, found in sizes.items():
        if wanted and max(found) > wanted:
            raise UserError(
                f"config.vocab.codes={wanted}: the {modality} codes go up to"
                f" {max(found) - 1}: set it to {max(found)} or more"
            )
    if not wanted:
        return sizes
    return {m: (wanted,) * len(found) for m, found in sizes.items()}


def _kept(
    sizes: Mapping[str, tuple[int, ...]], earlier: Vocabulary, wanted: int
) -> dict[str, tuple[int, ...]]:
    """Takes an earlier level of more codes than the data have as it is."""

    def keep(modality: str, level: int, size: int) -> int:
        block = earlier.find("code", modality, level)
        return max(size, block.size) if block and not wanted else size

    return {
        modality: tuple(keep(modality, level, size) for level, size in enumerate(found))
        for modality, found in sizes.items()
    }


def architecture(config: ConfigDict, vocabulary: Vocabulary) -> t5.Architecture:
    """Returns the shape of the model."""
    model = {k: v for k, v in config.model.items() if k not in ("dtype", "level_heads")}
    heads = ()
    if config.model.level_heads:
        heads = vocabulary.sizes(target_modality(config))
    return t5.Architecture(
        vocab_size=vocabulary.size,
        level_heads=heads,
        dtype=jnp.dtype(config.model.dtype),
        **model,
    )


def form(config: ConfigDict) -> tasks.Form:
    """Returns how streams of tokens are written; level heads need no end token."""
    return tasks.Form(
        separator=config.task.separator,
        user=config.task.user_buckets > 0,
        end=not config.model.level_heads,
    )


def target_modality(config: ConfigDict) -> str:
    """Returns the modality that the watched task asks for."""
    return tasks.TASKS[watched(config)].directions[0].target


def task_tables(config: ConfigDict, data: CodedData, vocabulary: Vocabulary):
    """Returns the tables of a run's tasks, see `rfrec.retrieval.tasks`."""
    names = tuple(config.task.names)
    weights = dict(zip(names, config.task.weights, strict=False))
    return tasks.tables(
        vocabulary,
        names,
        data.codes,
        data.inter,
        form=form(config),
        weights=weights,
    )


def optimizer(config: ConfigDict, total_steps: int):
    """Builds the optimiser."""
    return optim.build(optim.Optimizer(**config.optim), total_steps)


def corpus(config: ConfigDict, data: CodedData, vocabulary: Vocabulary) -> Corpus:
    """Lists what is trained on and what is watched."""
    names, most = tuple(config.task.names), config.data.max_history
    tables = task_tables(config, data, vocabulary)
    held = sequences.heldout_windows(data.inter, "valid", most=most)
    row = tasks.task_rows(names)[watched(config)][0]
    examples = tasks.window_examples(held, row)
    known = np.all([codes[:, 0] >= 0 for codes in data.codes.values()], axis=0)
    longest = min(most, max(int(np.diff(data.inter.indptr).max()) - 2, 1))
    longest *= tables.segments.shape[1]
    shorter = [length for length in config.train.buckets if length < longest]
    return Corpus(
        inter=data.inter,
        names=names,
        vocabulary=vocabulary,
        tables=tables,
        buckets=(*shorter, longest),
        most=most,
        mode=config.data.mode,
        items=None if known.all() else np.flatnonzero(known),
        validation=examples,
        modality=target_modality(config),
        catalogues=catalogues(config, data, vocabulary, examples),
    )


def catalogues(
    config: ConfigDict, data: CodedData, vocabulary: Vocabulary, examples
) -> tuple[Catalogue, ...]:
    """Draws the users of the search; each data set gets its share of them."""
    modality, total = target_modality(config), data.inter.num_users
    made = []
    for number, name in enumerate(data.names):
        users = np.arange(total)[data.users(number)]
        share = math.ceil(config.eval.users * len(users) / total)
        drawn = users[validation.draw_users(len(users), share, config.seed)]
        made.append(
            Catalogue(
                name=name,
                trie=item_trie(data, number, modality, vocabulary.sizes(modality)),
                examples=take(examples, drawn),
            )
        )
    return tuple(made)


def item_trie(
    data: CodedData, number: int, modality: str, sizes: tuple[int, ...]
) -> trie.Trie:
    """Indexes the items of one data set that may be named, by their rows of all sets.

    These have codes and are not removed.
    """
    rows = data.rows(number)
    codes = data.codes[modality][rows]
    known = np.flatnonzero((codes[:, 0] >= 0) & ~data.removed[modality][rows])
    return trie.build(
        codes[known], sizes, items=known + rows.start, num_items=data.inter.num_items
    )


def trainer(
    config: ConfigDict,
    data: CodedData,
    vocabulary: Vocabulary,
    weights: PyTree = None,
) -> training.Trainer:
    """Builds the trainer of a config."""
    train, batch = config.train, config.train.batch_size
    engine = partition.make_engine(train.engine, tensor=train.tensor)
    engine.check_batch(batch, "config.train.batch_size")
    engine.check_batch(config.eval.batch_size, "config.eval.batch_size")
    found = corpus(config, data, vocabulary)
    examples = found.examples(seed=config.seed, epoch=0)
    schedule = loop.Schedule(
        epochs=train.epochs,
        steps_per_epoch=-(-len(slots(found.tables, examples)) // batch),
        steps_per_call=train.steps_per_call,
        eval_every=train.eval_every,
        patience=train.patience,
        criterion=train.criterion,
    )
    return training.Trainer(
        arch=architecture(config, vocabulary),
        optimizer=optimizer(config, schedule.total_steps),
        schedule=schedule,
        sizes=training.Sizes(
            batch=batch,
            run=train.run,
            evaluation=config.eval.batch_size,
            beams=config.eval.beams,
        ),
        seed=config.seed,
        engine=engine,
        corpus=found,
        weights=weights,
    )
