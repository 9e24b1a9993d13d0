# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds the parts of a T5 retriever from its options and coded histories."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping

import jax
import numpy as np
import optax
from jax import numpy as jnp

from rfrec.codes import catalogue
from rfrec.config import UserError
from rfrec.data import sequences
from rfrec.data.interactions import Interactions
from rfrec.data.sequences import Windows
from rfrec.retrieval import search, t5, tasks, training, validation, vocab
from rfrec.retrieval.batches import Examples, take
from rfrec.retrieval.corpus import Catalogue, CodedData, Corpus, index_items
from rfrec.retrieval.options import Options
from rfrec.retrieval.queries import Queries
from rfrec.retrieval.tasks import ListTask
from rfrec.retrieval.vocab import Vocabulary
from rfrec.train import optim, partition
from rfrec.train.state import TrainState, create
from rfrec.typing import PyTree


def build_vocabulary(
    options: Options,
    data: CodedData,
    earlier: Vocabulary | None = None,
    origin: str = "",
) -> Vocabulary:
    """Builds a vocabulary, or extends an earlier one.

    Args:
      options: Options of the retriever.
      data: Data whose codes the vocabulary contains.
      earlier: Vocabulary of the model whose weights are the start.
      origin: Names that model in errors.

    Raises:
      UserError: The vocabulary does not extend the earlier one.
    """
    sizes = _code_sizes(options.vocab.codes, data)
    other_blocks = {
        "prompts": tasks.prompt_sizes(options.task.names, options.task.prompt_tokens),
        "separator": options.task.separator,
        "user_buckets": options.task.user_buckets,
    }
    if earlier is None:
        return vocab.build(sizes, layout=options.vocab.layout, **other_blocks)
    if earlier.layout != options.vocab.layout:
        raise UserError(
            f"{origin}: its vocabulary has the {earlier.layout} layout; set"
            f" config.vocab.layout={earlier.layout}"
        )
    if not options.vocab.codes:
        sizes = _at_least_as_large(sizes, earlier)
    try:
        return vocab.grow(earlier, sizes, **other_blocks)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error


def _code_sizes(num_codes: int, data: CodedData) -> dict[str, tuple[int, ...]]:
    """Returns the codes of each level: as configured, or as many as the data have."""
    sizes = {m: tuple((c.max(axis=0) + 1).tolist()) for m, c in data.codes.items()}
    if not num_codes:
        return sizes
    for modality, levels in sizes.items():
        if max(levels) > num_codes:
            raise UserError(
                f"config.vocab.codes={num_codes}: the {modality} codes go up to"
                f" {max(levels) - 1}; set it to at least {max(levels)}"
            )
    return {m: (num_codes,) * len(levels) for m, levels in sizes.items()}


def _at_least_as_large(
    sizes: Mapping[str, tuple[int, ...]], earlier: Vocabulary
) -> dict[str, tuple[int, ...]]:
    """Returns the size of each level, not smaller than in an earlier vocabulary."""

    def larger(modality: str, level: int, size: int) -> int:
        block = earlier.find("code", modality, level)
        return max(size, block.size) if block else size

    return {
        modality: tuple(larger(modality, i, size) for i, size in enumerate(levels))
        for modality, levels in sizes.items()
    }


def build_architecture(options: Options, vocabulary: Vocabulary) -> t5.Architecture:
    """Returns the shape of the model."""
    shape = dataclasses.asdict(options.model)
    heads = vocabulary.sizes(options.modality) if shape.pop("level_heads") else ()
    dtype = jnp.dtype(shape.pop("dtype"))
    return t5.Architecture(vocabulary.size, level_heads=heads, dtype=dtype, **shape)


def build_optimizer(options: Options, total_steps: int) -> optax.GradientTransformation:
    """Builds the optimizer of a run of `total_steps` steps."""
    return optim.build(options.optim, total_steps)


def build_template(options: Options, arch: t5.Architecture) -> TrainState:
    """Returns a state with the shapes and types of a run's, without values."""
    optimizer = build_optimizer(options, 1)

    def init() -> TrainState:
        params = t5.init(arch, jax.random.key(0))
        return create(params=params, model_state={}, optimizer=optimizer, seed=0)

    return jax.tree.map(lambda a: np.empty(a.shape, a.dtype), jax.eval_shape(init))


def build_corpus(options: Options, data: CodedData, vocabulary: Vocabulary) -> Corpus:
    """Collects the training examples and the held-out examples."""
    names, most = tuple(options.task.names), options.data.max_history
    tables = tasks.tables(
        vocabulary,
        names,
        data.codes,
        data.inter,
        form=options.form,
        weights=dict(zip(names, options.task.weights, strict=False)),
    )
    held = sequences.heldout_windows(data.inter, "valid", most=most)
    row = tasks.task_rows(names)[options.watched][0]
    examples = tasks.window_examples(held, row)
    known = np.all([codes[:, 0] >= 0 for codes in data.codes.values()], axis=0)
    longest = min(most, max(int(np.diff(data.inter.indptr).max()) - 2, 1))
    longest *= tables.segments.shape[1]
    shorter = [length for length in options.train.buckets if length < longest]
    return Corpus(
        inter=data.inter,
        names=names,
        vocabulary=vocabulary,
        tables=tables,
        buckets=(*shorter, longest),
        most=most,
        mode=options.data.mode,
        items=None if known.all() else np.flatnonzero(known),
        validation=examples,
        modality=options.modality,
        catalogues=_draw_catalogues(options, data, vocabulary, examples),
    )


def _draw_catalogues(
    options: Options, data: CodedData, vocabulary: Vocabulary, examples: Examples
) -> tuple[Catalogue, ...]:
    """Draws the users of the evaluation; each data set gets its share of them."""
    modality, total = options.modality, data.inter.num_users
    sizes, catalogues = vocabulary.sizes(modality), []
    for number, name in enumerate(data.names):
        users = np.arange(total)[data.users(number)]
        share = math.ceil(options.eval.users * len(users) / total)
        drawn = users[validation.draw_users(len(users), share, options.seed)]
        items = index_items(data, number, modality, sizes)
        catalogues.append(Catalogue(name, items, take(examples, drawn)))
    return tuple(catalogues)


def build_trainer(
    options: Options,
    data: CodedData,
    vocabulary: Vocabulary,
    weights: PyTree = None,
) -> training.Trainer:
    """Builds the trainer.

    Args:
      options: Options of the retriever.
      data: Data to train on.
      vocabulary: Vocabulary of the model.
      weights: Parameters to start from, on the host; None initialises them.

    Raises:
      UserError: A batch size does not divide among the devices, or a history is too
        short.
    """
    train, evaluation = options.train, options.eval
    engine = partition.make_engine(train.engine, tensor=train.tensor)
    engine.check_batch(train.batch_size, "config.train.batch_size")
    engine.check_batch(evaluation.batch_size, "config.eval.batch_size")
    corpus = build_corpus(options, data, vocabulary)
    examples = corpus.examples(seed=options.seed, epoch=0)
    schedule = train.schedule(
        -(-len(examples.task) // train.batch_size),
        patience=train.patience,
        criterion=train.criterion,
    )
    return training.Trainer(
        arch=build_architecture(options, vocabulary),
        optimizer=build_optimizer(options, schedule.total_steps),
        schedule=schedule,
        sizes=training.Sizes(
            batch=train.batch_size,
            run=train.run,
            evaluation=evaluation.batch_size,
            beams=evaluation.beams,
        ),
        seed=options.seed,
        engine=engine,
        corpus=corpus,
        weights=weights,
    )


def build_source(
    options: Options,
    params: PyTree,
    vocabulary: Vocabulary,
    data: CodedData,
    task: ListTask,
) -> search.Source:
    """Combines a model and a catalogue for the search.

    Args:
      options: Options of the retriever.
      params: Parameters, on the host.
      vocabulary: Vocabulary of the model.
      data: The one data set whose items are recommended.
      task: Task that makes the lists.
    """
    target = task.target
    tables = tasks.tables(
        vocabulary, (task.name,), data.codes, data.inter, form=options.form
    )
    return search.Source(
        arch=build_architecture(options, vocabulary),
        params=params,
        trie=index_items(data, 0, target, vocabulary.sizes(target)),
        tokens=vocabulary.code_tokens(target),
        tables=tables,
        row=task.row,
    )


def build_queries(
    options: Options,
    vocabulary: Vocabulary,
    inter: Interactions,
    windows: Windows,
) -> Queries:
    """Returns one query for each user.

    Args:
      options: Options of the retriever.
      vocabulary: Vocabulary of the model.
      inter: Histories.
      windows: The window of each user that the model reads.
    """
    tokens = None
    if options.task.user_buckets > 0:
        tokens = vocabulary.user_tokens(inter.user_ids)
    return Queries(inter.items, inter.indptr[:-1], windows, tokens)


def identify(
    vocabulary: Vocabulary, params: PyTree, *, run: str, step: int
) -> catalogue.T5Record:
    """Returns what identifies a model: its run, its step and two fingerprints.

    Args:
      vocabulary: Vocabulary of the model.
      params: Parameters of the model.
      run: Name of its run.
      step: Step of the checkpoint.
    """
    text = json.dumps(dataclasses.asdict(vocabulary), sort_keys=True)
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(array)
        for path, array in jax.tree_util.tree_leaves_with_path(params)
    }
    return catalogue.T5Record(
        run=run,
        step=step,
        vocabulary=hashlib.sha256(text.encode()).hexdigest(),
        weights=catalogue.fingerprint(arrays),
    )
