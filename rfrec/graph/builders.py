# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds the trainer of a graph recommender from options, pairs and features."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import optax
from jaxtyping import Float

from rfrec.data import triplets
from rfrec.data.pairs import PairSplit
from rfrec.graph import adjacency, baselines, gume, losses, rf_gume, training
from rfrec.graph.model import GUME, Model, make_constants
from rfrec.graph.options import Optim, Options
from rfrec.rf.settings import Settings
from rfrec.train import loop, optim, partition
from rfrec.typing import PyTree

Features = Mapping[str, Float[np.ndarray, "I _"]]


def build_trainer(
    options: Options,
    flow: Settings | None,
    split: PairSplit,
    features: Features,
    *,
    fingerprint: str,
    top_k: int = 50,
    decimals: int | None = None,
) -> training.Trainer:
    """Builds a trainer, including its graphs.

    Args:
      options: Options of the recommender.
      flow: Settings of the flow; None trains GUME without it.
      split: Training, validation and test pairs.
      features: Features of each modality by name; read by GUME only.
      fingerprint: Fingerprint of pairs and features, stored with checkpoints.
      top_k: Length of the ranked lists.
      decimals: Digits to which validation metrics are rounded; None does not round.

    Raises:
      UserError: Pairs and features do not fit together, there are fewer items than
        neighbours, or a user has all items.
    """
    train = options.train
    if options.model.name == "popularity":  # It has nothing to learn.
        train = dataclasses.replace(train, epochs=1)
    # The rows of a batch are coupled, which only one engine allows.
    engine = partition.make_engine("jit")
    engine.check_batch(train.batch_size, "config.train.batch_size")
    table = triplets.build(split.train, user_ids=split.user_ids)
    schedule = train.schedule(
        triplets.num_batches(table, train.batch_size),
        patience=train.patience,
        criterion=training.CRITERION,
    )
    model, constants = build_model(options, flow, split, features)
    optimizer = build_optimizer(options.optim, schedule)
    if flow is not None:
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
        top_k=top_k,
        fingerprint=fingerprint,
        decimals=decimals,
    )


def build_model(
    options: Options, flow: Settings | None, split: PairSplit, features: Features
) -> tuple[Model, PyTree]:
    """Returns a model and its constants; arguments as for `build_trainer`."""
    shape, (indptr, items) = options.model, split.train
    if shape.name == "popularity":
        counts = baselines.count_items(items, split.num_items)
        return baselines.Popularity(split.num_users), counts
    if shape.name == "lightgcn":
        model = baselines.LightGCN(
            split.num_users,
            split.num_items,
            width=shape.width,
            layers=shape.ui_layers,
        )
        return model, baselines.normalised_graph(indptr, items, split.num_items)
    arch = build_architecture(options, split, features)
    matrices = adjacency.build(indptr, items, features, options.graph)
    weights = losses.Weights(
        **dataclasses.asdict(options.loss), batch_size=options.train.batch_size
    )
    values = tuple(features.values())
    constants = make_constants(arch, adjacency.place(matrices), values)
    if flow is None:
        return GUME(arch, weights, values), constants
    return rf_gume.RFGume(arch, weights, values, flow), constants


def build_architecture(
    options: Options, split: PairSplit, features: Features
) -> gume.Architecture:
    """Returns the shape of a GUME; arguments as for `build_trainer`."""
    shape = dataclasses.asdict(options.model)
    shape.pop("name")
    return gume.Architecture(
        num_users=split.num_users,
        num_items=split.num_items,
        modalities=tuple(features),
        feature_widths=tuple(values.shape[1] for values in features.values()),
        **shape,
    )


def build_optimizer(
    options: Optim, schedule: loop.Schedule
) -> optax.GradientTransformation:
    """Returns the optimizer of the recommender's own parameters.

    Args:
      options: Options of the optimizer.
      schedule: Schedule of the run; a stair of the learning rate is one epoch.
    """
    values = dataclasses.asdict(options)
    rate, epochs = values.pop("decay_rate"), values.pop("decay_epochs")
    return optim.build(
        optim.Optimizer(
            **values,
            stair=schedule.steps_per_epoch,
            stair_factor=rate ** (1 / epochs),
        ),
        schedule.total_steps,
    )
