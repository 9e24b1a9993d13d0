# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME's cases of the benchmark: sizes in, two sides ready to run out.

Steps, evaluation and graphs are those of `rfrec.launch.gume`. PyTorch's side starts
from the same parameters, and sees the same batches and the same graphs.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from rfrec.benchmarks import graph, timing, torch_gume
from rfrec.benchmarks.graph import Data
from rfrec.data import pairs, triplets
from rfrec.evaluation import metrics, ranking, report
from rfrec.graph import adjacency, gume, losses, training
from rfrec.graph.model import GUME, make_constants
from rfrec.train import loop, optim, partition

OPTIMIZER = optim.Optimizer(name="adam", lr=1e-3)
_EPOCHS = 1000


def architecture(settings: dict[str, Any], data: Data) -> gume.Architecture:
    """Returns the shape of the model that is trained."""
    return gume.Architecture(
        num_users=data.split.num_users,
        num_items=data.split.num_items,
        modalities=tuple(data.features),
        feature_widths=tuple(x.shape[1] for x in data.features.values()),
        width=settings["width"],
        ui_layers=settings["ui_layers"],
        item_layers=settings["item_layers"],
        freeze_features=settings.get("freeze_features", False),
    )


def make_trainer(settings: dict[str, Any], data: Data) -> training.Trainer:
    """Returns a trainer of a plain GUME."""
    arch, features = architecture(settings, data), list(data.features.values())
    weights = losses.Weights(batch_size=settings["batch_size"])
    graphs = adjacency.place(data.matrices)
    return wire(
        settings,
        data,
        model=GUME(arch, weights, features),
        constants=make_constants(arch, graphs, features),
        optimizer=optim.build(OPTIMIZER, 1),
    )


def wire(settings: dict[str, Any], data: Data, **parts: Any) -> training.Trainer:
    """Returns a trainer of these parts: a model, its constants and its optimiser."""
    size = -(-len(data.split.train.items) // settings["batch_size"])
    schedule = loop.Schedule(
        epochs=_EPOCHS, steps_per_epoch=size, steps_per_call=size, eval_every=1
    )
    return training.Trainer(
        **parts,
        schedule=schedule,
        batch_size=settings["batch_size"],
        # PyTorch's side has one device too.
        engine=partition.make_engine("jit", devices=jax.local_devices()[:1]),
        split=data.split,
        table=triplets.build(data.split.train),
    )


class Running:
    """A run that is under way, as the loop drives it."""

    def __init__(self, trainer: training.Trainer, seed: int):
        self.trainer, self._done = trainer, 0
        self.run = training.Run(trainer)
        self._program = self.run.program()
        self.state = trainer.engine.replicate(trainer.init(seed))

    def advance(self, count: int) -> Float[np.ndarray, " S"]:
        """Does steps; returns their losses."""
        found, size = [], self.trainer.schedule.steps_per_epoch
        while count:
            some = min(count, size - self._done % size)
            self.state, told = self._program.run(self.state, self._done, some)
            found.append(np.asarray(told["loss"])[:some])
            self._done, count = self._done + some, count - some
        return np.concatenate(found)

    def epoch(self) -> Float[np.ndarray, " M"]:
        """Does an epoch and its evaluation; returns the metrics."""
        self.advance(self.trainer.schedule.steps_per_epoch)
        told = self._program.evaluate(self.state)
        return np.array([told[name] for name in report.PAIR_NAMES])

    def compiled(self) -> jax.stages.Compiled:
        """Returns the program of the steps."""
        trainer, engine = self.trainer, self.trainer.engine
        placed = engine.replicate((trainer.constants, trainer.table))
        program = trainer.compile_steps()
        return program.lower(self.state, placed, (), np.int32(1)).compile()


def prepare(settings: dict[str, Any], seed: int, torch: bool) -> timing.Bench:
    """Times what the settings say: train, epoch, evaluate or build."""
    if settings["what"] == "build":
        return graph.construct(settings, seed, torch)
    make = {"train": _train, "epoch": _epoch, "evaluate": _evaluate}[settings["what"]]
    return make(settings, graph.draw(settings, seed), seed, torch)


def _train(
    settings: dict[str, Any], data: Data, seed: int, torch: bool
) -> timing.Bench:
    """Times training steps, losses fetched once a block."""
    trainer = make_trainer(settings, data)
    ours, theirs = Running(trainer, seed), None
    if torch:
        steps = settings["torch_steps"]
        drawn = batches(trainer, seed, steps * (settings["repetitions"] + 1))
        model = plain_model(settings, data, trainer.init(seed).params)
        theirs = torch_gume.train(model, drawn, steps)
    return timing.Bench(
        ours=lambda: ours.advance(settings["steps"]),
        torch=theirs,
        unit="ms/step",
        per_block=settings["steps"],
        torch_per_block=settings["torch_steps"],
        # The perturbations are drawn by each side for itself.
        disagreement=lambda a, b: float(np.abs(a[0] / b[0] - 1)),
        tolerance=1e-2,
        peak_bytes=lambda: timing.peak(ours.compiled),
    )


def batches(
    trainer: training.Trainer, seed: int, count: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns users, positives and negatives of the first steps of a run."""
    state, draw = trainer.init(seed), jax.jit(trainer.batch)
    found = []
    for step in range(count):
        made = jax.device_get(draw(state.replace(step=np.int32(step)), trainer.table))
        rows = made.weights > 0
        found.append((made.users[rows], made.positives[rows], made.negatives[rows]))
    return found


def plain_model(
    settings: dict[str, Any], data: Data, params: dict[str, Any]
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
    chosen = torch_gume.Settings(
        ui_layers=settings["ui_layers"],
        item_layers=settings["item_layers"],
        bm_temp=loss.behaviour_temperature,
        um_temp=loss.user_temperature,
        bm_loss=loss.behaviour,
        um_loss=loss.user,
        vt_loss=loss.alignment,
        reg_weight_1=loss.embeddings,
        reg_weight_2=loss.interest,
        batch_size=settings["batch_size"],
        lr=OPTIMIZER.lr,
        freeze_features=settings.get("torch_freezes", False),
    )
    graphs = torch_gume.Graphs(*data.matrices)
    return torch_gume.Model(weights, graphs, chosen, timing.torch_device())


def _epoch(
    settings: dict[str, Any], data: Data, seed: int, torch: bool
) -> timing.Bench:
    """Times an epoch with its evaluation, of ours alone."""
    del torch
    ours = Running(make_trainer(settings, data), seed)
    return timing.Bench(
        ours=ours.epoch,
        torch=None,
        unit="s",
        per_block=1,
        disagreement=lambda a, b: 0.0,
        tolerance=0.0,
        peak_bytes=lambda: timing.peak(ours.compiled),
    )


def _evaluate(
    settings: dict[str, Any], data: Data, seed: int, torch: bool
) -> timing.Bench:
    """Times a full evaluation: all metrics of the validation and of the test items."""
    trainer = make_trainer(settings, data)
    run, split, theirs = training.Run(trainer), data.split, None
    state = trainer.engine.replicate(trainer.init(seed))
    heldout = (split.valid, split.test)

    def ours():
        lists = run.rank(run.encode(state, {}))
        found = [metrics.match_rows(lists.items, *rows) for rows in heldout]
        means = [report.means(matches, report.PAIR_NAMES) for matches in found]
        return np.array([list(told.values()) for told in means])

    def compiled():
        placed = trainer.engine.replicate(trainer.constants)
        program = trainer.compile_encoding()
        return program.lower(state, placed, {}, np.int32(0)).compile()

    if torch:
        theirs = torch_gume.evaluate(
            plain_model(settings, data, trainer.init(seed).params),
            padded(split),
            settings["torch_users"],
            encode_once=settings.get("torch_encodes_once", False),
        )
    return timing.Bench(
        ours=ours,
        torch=theirs,
        unit="s",
        per_block=1,
        # Of the largest: rounding swaps items that are scored alike.
        disagreement=lambda a, b: float(np.max(np.abs(a - b)) / np.max(b)),
        tolerance=1e-2,
        peak_bytes=lambda: timing.peak(compiled),
    )


def padded(split: pairs.PairSplit) -> torch_gume.Split:
    """Lays the items of each user out in rows."""
    rows = np.arange(split.num_users)
    parts = (split.train, split.valid, split.test)
    train, *heldout = (ranking.padded_rows(*part, rows) for part in parts)
    return torch_gume.Split(train, tuple(heldout))
