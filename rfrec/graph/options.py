# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Options of a graph recommender, without those of the flow (`rf.settings`)."""

import dataclasses
from typing import Literal

from rfrec import config as cfg
from rfrec.graph import adjacency, losses
from rfrec.rf.settings import Settings
from rfrec.train import optim
from rfrec.train import options as train_options


@dataclasses.dataclass(frozen=True)
class Model:
    """Shape of the model.

    Attributes:
      name: `gume`, or one of the baselines.
      width: Width of all embeddings.
      ui_layers: Number of products with the user-item graph.
      item_layers: Number of products with the item graph of a modality.
      freeze_features: Whether feature vectors are constants.
      merge_projection: Whether features are projected by one linear map instead of the
        authors' two in sequence.
    """

    name: Literal["gume", "lightgcn", "popularity"] = "gume"
    width: int = cfg.option(64, cfg.whole(1))
    ui_layers: int = cfg.option(3, cfg.whole(0))
    item_layers: int = cfg.option(2, cfg.whole(0))
    freeze_features: bool = False
    merge_projection: bool = False


@dataclasses.dataclass(frozen=True)
class Optim(optim.MomentumOptim):
    """Optimizer of the recommender; the flow has its own.

    Attributes:
      schedule: `staircase`: times decay_rate ** (1 / decay_epochs) after each epoch;
        `constant`; `cosine` to `min_lr`.
      decay_rate: Factor of the learning rate after `decay_epochs` epochs.
      decay_epochs: Number of epochs of one factor.
    """

    name: Literal["adamw", "adam", "adagrad", "sgd"] = "adam"
    schedule: Literal["staircase", "constant", "cosine"] = "staircase"
    decay_rate: float = cfg.option(0.96, cfg.above(0))
    decay_epochs: int = cfg.option(50, cfg.above(0))


@dataclasses.dataclass(frozen=True)
class Train(train_options.Train, train_options.EarlyStopping):
    """Training of the recommender.

    Attributes:
      patience: Evaluations without a better Recall@20 of the validation items after
        which training stops; None never stops early. MMRec's 20 stops after 21.
    """

    epochs: int = cfg.option(1000, cfg.whole(1))
    batch_size: int = cfg.option(2048, cfg.whole(1))
    steps_per_call: int = cfg.option(1024, cfg.whole(1))
    patience: int | None = cfg.option(20, cfg.whole(1))


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a graph recommender; the defaults are those of GUME's authors.

    Attributes:
      seed: Seed of initial parameters, order, negatives and noise.
      graph: Options of the item graphs.
      model: Shape of the model.
      loss: Weights and temperatures of GUME's losses.
      optim: Optimizer.
      train: Training.
    """

    seed: int = cfg.option(0, cfg.whole(0))
    graph: adjacency.Options = adjacency.Options()
    model: Model = Model()
    loss: losses.Options = losses.Options()
    optim: Optim = Optim()
    train: Train = Train()


def check(options: Options, flow: Settings | None, num_features: int) -> None:
    """Refuses options that cannot be combined.

    Args:
      options: Options of the recommender.
      flow: Settings of the flow; None without a flow.
      num_features: Number of modalities.

    Raises:
      UserError: Names the options.
    """
    optim.check(options.optim)
    name = options.model.name
    cfg.refuse_together(
        {
            f"rf.use_rf=True and model.name={name}": flow is not None
            and name != "gume",
            "model.name=gume and data.features=()": name == "gume" and not num_features,
        }
    )
