# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cases of GUME: training steps, an epoch, evaluation.

Steps, evaluation and graphs are those of `rfrec.launch.gume`. PyTorch's side starts
from the same parameters and uses the same batches and graphs.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from rfrec.benchmarks import graph, timing, torch_gume
from rfrec.benchmarks.graph import Data
from rfrec.benchmarks.options import Gume, Options
from rfrec.data import pairs, triplets
from rfrec.evaluation import metrics, ranking, report
from rfrec.graph import adjacency, gume, losses, training
from rfrec.graph.model import GUME, make_constants
from rfrec.train import loop, optim, partition

OPTIMIZER = optim.Optimizer(name="adam", lr=1e-3)
_EPOCHS = 1000


def build_architecture(
    sizes: Gume, data: Data, freeze_features: bool = False
) -> gume.Architecture:
    """Returns the architecture of the model."""
    return gume.Architecture(
        num_users=data.split.num_users,
        num_items=data.split.num_items,
        modalities=tuple(data.features),
        feature_widths=tuple(x.shape[1] for x in data.features.values()),
        width=sizes.width,
        ui_layers=sizes.ui_layers,
        item_layers=sizes.item_layers,
        freeze_features=freeze_features,
    )


def build_trainer(
    sizes: Gume, data: Data, freeze_features: bool = False
) -> training.Trainer:
    """Returns a trainer of a plain GUME."""
    arch = build_architecture(sizes, data, freeze_features)
    features = list(data.features.values())
    weights = losses.Weights(batch_size=sizes.batch_size)
    graphs = adjacency.place(data.matrices)
    return wire(
        sizes,
        data,
        model=GUME(arch, weights, features),
        constants=make_constants(arch, graphs, features),
        optimizer=optim.build(OPTIMIZER, 1),
    )


def wire(sizes: Gume, data: Data, **parts: Any) -> training.Trainer:
    """Returns a trainer with a model, its constants and its optimizer."""
    size = -(-len(data.split.train.items) // sizes.batch_size)
    schedule = loop.Schedule(
        epochs=_EPOCHS, steps_per_epoch=size, steps_per_call=size, eval_every=1
    )
    return training.Trainer(
        **parts,
        schedule=schedule,
        batch_size=sizes.batch_size,
        # PyTorch uses one device too.
        engine=partition.make_engine("jit", devices=jax.local_devices()[:1]),
        split=data.split,
        table=triplets.build(data.split.train),
    )


class Running:
    """A run, driven step by step as the training loop drives it."""

    def __init__(self, trainer: training.Trainer, seed: int):
        self.trainer, self._done = trainer, 0
        self.run = training.Run(trainer)
        self._program = self.run.program()
        self.state = trainer.engine.replicate(trainer.init(seed))

    def advance(self, count: int) -> Float[np.ndarray, " S"]:
        """Trains some steps; returns their losses."""
        losses, size = [], self.trainer.schedule.steps_per_epoch
        while count:
            some = min(count, size - self._done % size)
            self.state, metrics = self._program.run(self.state, self._done, some)
            losses.append(np.asarray(metrics["loss"])[:some])
            self._done, count = self._done + some, count - some
        return np.concatenate(losses)

    def epoch(self) -> Float[np.ndarray, " M"]:
        """Trains and evaluates an epoch; returns the metrics."""
        self.advance(self.trainer.schedule.steps_per_epoch)
        metrics = self._program.evaluate(self.state)
        return np.array([metrics[name] for name in report.PAIR_NAMES])

    def compiled(self) -> jax.stages.Compiled:
        """Returns the program of the steps."""
        trainer, engine = self.trainer, self.trainer.engine
        placed = engine.replicate((trainer.constants, trainer.table))
        program = trainer.compile_steps()
        return program.lower(self.state, placed, (), np.int32(1)).compile()


def train(
    options: Options,
    torch: bool,
    *,
    freeze_features: bool = False,
    torch_freezes: bool = False,
) -> timing.Bench:
    """Times training steps; the losses are fetched once a block.

    Args:
      options: Sizes of all cases.
      torch: Whether to prepare PyTorch's side.
      freeze_features: Whether our item features are frozen.
      torch_freezes: Whether those of PyTorch are frozen; the public code trains them.
    """
    sizes, seed = options.gume, options.seed
    data = graph.draw(sizes, seed)
    trainer = build_trainer(sizes, data, freeze_features)
    ours, theirs = Running(trainer, seed), None
    if torch:
        steps = sizes.torch_steps
        drawn = batches(trainer, seed, steps * (sizes.repetitions + 1))
        params = trainer.init(seed).params
        model = plain_model(sizes, data, params, torch_freezes)
        theirs = torch_gume.train(model, drawn, steps)
    return timing.Bench(
        ours=lambda: ours.advance(sizes.steps),
        torch=theirs,
        unit="ms/step",
        per_block=sizes.steps,
        torch_per_block=sizes.torch_steps,
        # Each side draws its own perturbations.
        disagreement=lambda a, b: float(np.abs(a[0] / b[0] - 1)),
        tolerance=1e-2,
        peak_bytes=lambda: timing.peak(ours.compiled),
    )


def batches(
    trainer: training.Trainer, seed: int, count: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns users, positives and negatives of the first steps of a run."""
    state, draw = trainer.init(seed), jax.jit(trainer.batch)
    drawn = []
    for step in range(count):
        batch = jax.device_get(draw(state.replace(step=np.int32(step)), trainer.table))
        rows = batch.weights > 0
        drawn.append((batch.users[rows], batch.positives[rows], batch.negatives[rows]))
    return drawn


def plain_model(
    sizes: Gume, data: Data, params: dict[str, Any], freeze_features: bool = False
) -> torch_gume.Model:
    """Returns PyTorch's model with our parameters."""
    names, maps = tuple(data.features), params["project"]

    def linear(group):
        return np.array(group["kernel"]), np.array(group["bias"])

    weights = torch_gume.Weights(
        users=params["users"],
        items=params["items"],
        interests=tuple(params["preferences"][name] for name in names),
        features=tuple(data.features.values()),
        projections=tuple(
            (linear(maps[name]["reduce"]), linear(maps[name]["transform"]))
            for name in names
        ),
        attention=linear(params["attention"]),
        attention_out=params["attention"]["score"],
        gates=tuple(linear(params["behaviour"][name]) for name in names),
    )
    loss = losses.Weights()
    settings = torch_gume.Settings(
        ui_layers=sizes.ui_layers,
        item_layers=sizes.item_layers,
        bm_temp=loss.behaviour_temperature,
        um_temp=loss.user_temperature,
        bm_loss=loss.behaviour,
        um_loss=loss.user,
        vt_loss=loss.alignment,
        reg_weight_1=loss.embeddings,
        reg_weight_2=loss.interest,
        batch_size=sizes.batch_size,
        lr=OPTIMIZER.lr,
        freeze_features=freeze_features,
    )
    graphs = torch_gume.Graphs(*data.matrices)
    return torch_gume.Model(weights, graphs, settings, timing.torch_device())


def epoch(options: Options, torch: bool) -> timing.Bench:
    """Times an epoch with its evaluation; there is no side of PyTorch."""
    del torch
    data = graph.draw(options.gume, options.seed)
    ours = Running(build_trainer(options.gume, data), options.seed)
    return timing.Bench(
        ours=ours.epoch,
        unit="s",
        per_block=1,
        peak_bytes=lambda: timing.peak(ours.compiled),
    )


def evaluate(
    options: Options, torch: bool, *, encode_once: bool = False
) -> timing.Bench:
    """Times a full evaluation: all metrics of validation and test.

    Args:
      options: Sizes of all cases.
      torch: Whether to prepare PyTorch's side.
      encode_once: Whether PyTorch encodes once; the public code encodes for each batch.
    """
    sizes, seed = options.gume, options.seed
    data = graph.draw(sizes, seed)
    trainer = build_trainer(sizes, data)
    run, split, theirs = training.Run(trainer), data.split, None
    state = trainer.engine.replicate(trainer.init(seed))
    heldout = (split.valid, split.test)

    def ours():
        lists = run.rank(run.encode(state, {}))
        matches = [metrics.match_rows(lists.items, *rows) for rows in heldout]
        means = [report.means(rows, report.PAIR_NAMES) for rows in matches]
        return np.array([list(values.values()) for values in means])

    def compiled():
        placed = trainer.engine.replicate(trainer.constants)
        program = trainer.compile_encoding()
        return program.lower(state, placed, {}, np.int32(0)).compile()

    if torch:
        theirs = torch_gume.evaluate(
            plain_model(sizes, data, trainer.init(seed).params),
            padded(split),
            sizes.torch_users,
            encode_once=encode_once,
        )
    return timing.Bench(
        ours=ours,
        torch=theirs,
        unit="s",
        per_block=1,
        # Relative to the largest: rounding swaps items with equal scores.
        disagreement=lambda a, b: float(np.max(np.abs(a - b)) / np.max(b)),
        tolerance=1e-2,
        peak_bytes=lambda: timing.peak(compiled),
    )


def padded(split: pairs.PairSplit) -> torch_gume.Split:
    """Returns the items of each user as padded rows."""
    rows = np.arange(split.num_users)
    parts = (split.train, split.valid, split.test)
    train, *heldout = (ranking.padded_rows(*part, rows) for part in parts)
    return torch_gume.Split(train, tuple(heldout))
