# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Training a T5, as a case of the benchmark: the step of `rfrec.launch.t5` itself.

A block of ours is an epoch over the examples of some users, in buckets of length.
Theirs does some steps a block on the same examples, shuffled and padded as MQL4GRec
does it, where almost every batch is as wide as the longest history allows.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfrec.benchmarks import data, retrieval, timing, torch_t5
from rfrec.benchmarks.retrieval import MODALITY, NAMES, Side
from rfrec.retrieval import batches, training
from rfrec.retrieval.corpus import Corpus
from rfrec.train import loop, optim, partition

# As configs/t5.py has it, without its schedule.
_OPTIMIZER = optim.Optimizer(
    name="adamw", lr=5e-4, weight_decay=0.01, decay="matrices", clip_norm=1.0
)


def train(settings: dict[str, Any], seed: int, torch: bool) -> timing.Bench:
    """Times training steps, losses fetched once a block."""
    found = data.coded_histories(settings["data"], seed)
    inter = retrieval.some_users(found.inter, settings["examples"], seed)
    found = found._replace(inter=inter)
    side = retrieval.make_side(settings, settings["ours"], found, seed)
    trainer = make_trainer(side, found, settings, seed)
    run, steps = training.Run(trainer), trainer.schedule.steps_per_epoch
    program = run.program()
    examples = trainer.corpus.examples(seed=seed, epoch=0)
    held = {"state": trainer.place(trainer.init()), "step": 0}

    def ours():
        held["state"], losses = program.run(held["state"], held["step"], steps)
        held["step"] += steps
        return losses["loss"]

    def compiled():
        engine, history = trainer.engine, trainer.corpus.buckets[-1]
        rows = np.zeros((trainer.sizes.run, trainer.sizes.batch), np.int32)
        lowered = trainer.compile_steps(history).lower(
            held["state"],
            engine.replicate((trainer.corpus.tables, examples)),
            engine.shard(lambda part: rows[:, part], rows.shape),
            np.int32(1),
        )
        return lowered.compile()

    theirs, gap = None, 0.0
    if torch:
        device = timing.torch_device()
        other = retrieval.make_side(settings, settings["theirs"], found, seed)
        shuffled = _shuffled(other, examples, settings, seed)
        theirs = torch_t5.train(
            other.weights,
            shuffled,
            steps=settings["torch_steps"],
            optimizer=_OPTIMIZER,
            device=device,
        )
        gap = retrieval.relative_gap(
            _first_loss(trainer, side, examples, settings, seed),
            torch_t5.loss_of(other.weights, shuffled[0], device),
        )
    return timing.Bench(
        ours=ours,
        torch=theirs,
        unit="samples/s",
        # The last batch is filled up with examples that have been.
        per_block=len(examples.task),
        # Of a batch without dropout, whose noise differs.
        disagreement=lambda a, b: gap if np.isfinite([*a, *b]).all() else np.inf,
        tolerance=1e-4,
        peak_bytes=lambda: timing.peak(compiled),
        torch_per_block=settings["torch_steps"] * settings["batch_size"],
    )


def make_trainer(
    side: Side, found: data.CodedHistories, settings: dict[str, Any], seed: int
) -> training.Trainer:
    """Returns a trainer whose epoch has all examples of the histories."""
    most, size = settings["data"]["max_history"], settings["batch_size"]
    none = batches.Examples(*(np.zeros(0, np.int32),) * 4)
    corpus = Corpus(
        inter=found.inter,
        names=NAMES,
        vocabulary=side.vocabulary,
        tables=side.tables,
        buckets=(*(b for b in settings["buckets"] if b < most), most),
        most=most,
        mode=0,
        items=None,
        validation=none,
        modality=MODALITY,
        catalogues=(),
    )
    steps = -(-len(corpus.examples(seed=seed, epoch=0).task) // size)
    return training.Trainer(
        arch=side.weights.arch,
        optimizer=optim.build(_OPTIMIZER, steps),
        schedule=loop.Schedule(1, steps, steps, 1),
        sizes=training.Sizes(batch=size, run=settings["run"], evaluation=size, beams=1),
        seed=seed,
        # PyTorch's side has one device too.
        engine=partition.make_engine("jit", devices=jax.local_devices()[:1]),
        corpus=corpus,
        weights=side.weights.params,
    )


def _shuffled(
    side: Side, examples: batches.Examples, settings: dict[str, Any], seed: int
) -> list[batches.Batch]:
    """Returns MQL4GRec's batches: random, each padded to its longest."""
    most = settings["data"]["max_history"]
    return [
        retrieval.padded(side, batches.take(examples, rows), most)
        for rows in _random_rows(examples, settings, seed)
    ]


def _random_rows(examples: batches.Examples, settings: dict[str, Any], seed: int):
    count, size = len(examples.task), settings["batch_size"]
    order = np.random.default_rng(seed).permutation(count)
    return np.resize(order, (max(count // size, 1), size))


def _first_loss(
    trainer: training.Trainer, side: Side, examples, settings, seed: int
) -> float:
    """Returns our loss of their first batch, without dropout."""
    rows = _random_rows(examples, settings, seed)[0]
    most = settings["data"]["max_history"]
    batch = batches.batch(side.tables, batches.take(examples, rows), most)
    losses, counted = jax.jit(trainer.token_losses)(side.weights.params, batch)
    return float(jnp.sum(losses) / jnp.sum(counted))
