# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns a config of `configs/gume.py` into the parts of a graph recommender."""

from pathlib import Path

import optax
from absl import logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.data import pairs, sources, triplets
from rfrec.data.features import fill_missing
from rfrec.data.pairs import GraphData
from rfrec.graph import (
    adjacency,
    gume,
    gume_model,
    lightgcn,
    loss,
    popularity,
    rf_gume,
    training,
)
from rfrec.graph.model import Model
from rfrec.rf import settings as rf_settings
from rfrec.train import loop, optim, partition
from rfrec.typing import PyTree

RULES: cfg.Rules = {
    # The rows of a batch are coupled, which only one engine allows.
    **{k: rule for k, rule in cfg.TRAINING_RULES.items() if k != "train.engine"},
    "seed": cfg.whole(0),
    "data.source": cfg.one_of(*sources.SOURCES),
    "data.split": cfg.one_of(*pairs.SPLITS),
    "data.shares": cfg.each(cfg.above(0), least=3),
    "data.seed": cfg.whole(0),
    "data.missing": cfg.one_of("zeros", "mean"),
    "data.num_items": cfg.whole(1),
    "data.num_users": cfg.whole(1),
    "graph.neighbours": cfg.whole(1),
    "graph.approximate": cfg.boolean(),
    "model.name": cfg.one_of("gume", "lightgcn", "popularity"),
    "model.width": cfg.whole(1),
    "model.ui_layers": cfg.whole(0),
    "model.item_layers": cfg.whole(0),
    "model.freeze_features": cfg.boolean(),
    "model.merge_projection": cfg.boolean(),
    "loss.behaviour": cfg.at_least(0),
    "loss.behaviour_temperature": cfg.above(0),
    "loss.user": cfg.at_least(0),
    "loss.user_temperature": cfg.above(0),
    "loss.alignment": cfg.at_least(0),
    "loss.embeddings": cfg.at_least(0),
    "loss.interest": cfg.at_least(0),
    "loss.noise": cfg.at_least(0),
    "loss.block": cfg.whole(1),
    "optim.schedule": cfg.one_of("staircase", "constant", "cosine"),
    "optim.decay_rate": cfg.above(0),
    "optim.decay_epochs": cfg.above(0),
    "optim.warmup_steps": cfg.whole(0),
    "optim.momentum": cfg.within(0, 1),
    "train.patience": cfg.whole(1),
    # Metrics look at 50 items.
    "eval.top_k": cfg.whole(50),
    "eval.decimals": cfg.whole(1),
    "eval.cold_share": cfg.Rule(lambda v: 0 < v <= 0.5, "above 0 and at most 0.5"),
    "eval.cold_below": cfg.whole(1),
    "eval.resamples": cfg.whole(1),
}


def check(config: ConfigDict) -> None:
    """Checks each value, then what does not go together.

    Raises:
      UserError: Names the keys.
    """
    cfg.check(config, RULES)
    rf_settings.from_section(config.rf)
    name = config.model.name
    impossible = {
        "optim.min_lr > optim.lr": config.optim.min_lr > config.optim.lr,
        "optim.momentum > 0 and optim.name other than sgd": config.optim.momentum > 0
        and config.optim.name != "sgd",
        f"rf.use_rf and model.name={name}": config.rf.use_rf and name != "gume",
        "model.name=gume and data.features=()": name == "gume"
        and not config.data.features,
    }
    for keys, true in impossible.items():
        if true:
            raise UserError(f"config: {keys} do not go together: change one")


def load(config: ConfigDict) -> GraphData:
    """Loads pairs and features, and tells what is worth knowing about them."""
    data = config.data
    found = pairs.load(
        source=data.source,
        path=data.path,
        name=data.name,
        features=tuple(data.features) if config.model.name == "gume" else (),
        split=data.split,
        shares=tuple(data.shares),
        seed=data.seed,
        num_items=data.num_items,
        num_users=data.num_users,
    )
    for line in found.warnings:
        logging.warning("%s", line)
    return found


def make_trainer(config: ConfigDict, data: GraphData) -> training.Trainer:
    """Builds the trainer of a config, its graphs included."""
    train, split = config.train, data.split
    engine = partition.make_engine("jit")
    engine.check_batch(train.batch_size, "config.train.batch_size")
    table = triplets.build(split.train, user_ids=split.user_ids)
    schedule = loop.Schedule(
        # There is nothing to learn about popularity.
        epochs=1 if config.model.name == "popularity" else train.epochs,
        steps_per_epoch=triplets.num_batches(table, train.batch_size),
        steps_per_call=train.steps_per_call,
        eval_every=train.eval_every,
        patience=train.patience,
        criterion=training.CRITERION,
    )
    model, constants = make_model(config, data)
    optimizer = make_optimizer(config, schedule)
    if config.rf.use_rf:
        flow = rf_settings.from_section(config.rf)
        optimizer = rf_gume.optimizer(flow, optimizer, model)
    return training.Trainer(
        model=model,
        constants=constants,
        optimizer=optimizer,
        schedule=schedule,
        batch_size=train.batch_size,
        engine=engine,
        split=split,
        table=table,
        top_k=config.eval.top_k,
        fingerprint=data.fingerprint,
        decimals=config.eval.decimals,
    )


def make_model(config: ConfigDict, data: GraphData) -> tuple[Model, PyTree]:
    """Returns the model of a config, and its constants."""
    split, settings = data.split, config.model
    indptr, items = split.train
    if settings.name == "popularity":
        counts = popularity.constants(items, split.num_items)
        return popularity.model(split.num_users), counts
    if settings.name == "lightgcn":
        made = lightgcn.Settings(
            split.num_users,
            split.num_items,
            width=settings.width,
            layers=settings.ui_layers,
        )
        return lightgcn.model(made), lightgcn.constants(indptr, items, split.num_items)
    return _make_gume(config, data)


def architecture(config: ConfigDict, data: GraphData) -> gume.Architecture:
    """Returns the shape of a config's GUME."""
    split, settings = data.split, dict(config.model)
    settings.pop("name")
    return gume.Architecture(
        num_users=split.num_users,
        num_items=split.num_items,
        modalities=tuple(feature.name for feature in data.features),
        feature_widths=tuple(feature.values.shape[1] for feature in data.features),
        **settings,
    )


def _make_gume(config: ConfigDict, data: GraphData) -> tuple[Model, PyTree]:
    arch = architecture(config, data)
    features = {feature.name: feature.values for feature in data.features}
    if config.data.missing == "mean":
        features = {name: fill_missing(values) for name, values in features.items()}
    folder = config.graph.cache
    matrices = adjacency.build(
        *data.split.train,
        features,
        adjacency.Settings(config.graph.neighbours, config.graph.approximate),
        folder=Path(folder).expanduser() if folder else None,
    )
    weights = loss.Weights(batch_size=config.train.batch_size, **config.loss)
    given = tuple(features.values())
    constants = gume_model.constants(arch, adjacency.place(matrices), given)
    if config.rf.use_rf:
        flow = rf_settings.from_section(config.rf)
        return rf_gume.rf_gume_model(arch, weights, given, flow), constants
    return gume_model.gume_model(arch, weights, given), constants


def make_optimizer(
    config: ConfigDict, schedule: loop.Schedule
) -> optax.GradientTransformation:
    """Returns the optimiser of a recommender's own parameters."""
    settings = dict(config.optim)
    rate, epochs = settings.pop("decay_rate"), settings.pop("decay_epochs")
    return optim.build(
        optim.Optimizer(
            **settings,
            stair=schedule.steps_per_epoch,
            stair_factor=rate ** (1 / epochs),
        ),
        schedule.total_steps,
    )
