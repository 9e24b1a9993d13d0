# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns a config of `configs/rqvae.py` into the parts of a tokenizer."""

from pathlib import Path

import numpy as np
from jax import numpy as jnp
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.data import join, sources
from rfrec.data.features import ItemVectors
from rfrec.pipelines import collaborative
from rfrec.tokenizer import catalogue, codebooks, loss, quantizer, rqvae, training
from rfrec.train import loop, optim, partition

# Items above this size are streamed when train.resident is auto.
_RESIDENT_BYTES = 2 * 2**30
# Most bytes of vectors of one call when items are streamed.
_STREAM_BYTES = 256 * 2**20

RULES: cfg.Rules = {
    "seed": cfg.at_least(0),
    "data.source": cfg.one_of(*sources.SOURCES),
    "data.scale": cfg.one_of("none", "mean_square"),
    "data.text_width": cfg.at_least(1),
    "data.num_items": cfg.at_least(1),
    "data.val_ratio": cfg.within(0, 1),
    "model.method": cfg.one_of("rqvae", "rkmeans"),
    "model.hidden": cfg.each(cfg.whole(1)),
    "model.latent_width": cfg.at_least(1),
    "model.dropout": cfg.within(0, 1),
    "model.initializer": cfg.one_of(*rqvae.INITIALIZERS),
    "model.dtype": cfg.one_of("float32", "bfloat16"),
    "codebook.sizes": cfg.each(cfg.whole(1), least=1),
    "codebook.estimator": cfg.one_of("ste", "rotation", "gumbel"),
    "codebook.distance": cfg.one_of("l2", "cosine"),
    "codebook.residual_grad": cfg.one_of("stop", "flow"),
    "codebook.learned_by": cfg.one_of("gradient", "ema"),
    "codebook.ema_decay": cfg.within(0, 1),
    "codebook.revive_below": cfg.at_least(0),
    "codebook.init": cfg.one_of("kmeans", "uniform"),
    "codebook.init_epoch": cfg.at_least(0),
    "codebook.init_on": cfg.one_of("all", "batch"),
    "codebook.kmeans_rows": cfg.at_least(1),
    "codebook.kmeans_iterations": cfg.at_least(1),
    "codebook.kmeans_restarts": cfg.at_least(1),
    "codebook.sk_epsilons": cfg.each(cfg.at_least(0), least=1),
    "codebook.sk_iterations": cfg.at_least(1),
    "codebook.temperature": cfg.each(cfg.above(0), least=2),
    "codebook.temperature_epochs": cfg.above(0),
    "loss.recon": cfg.one_of("mse", "l1"),
    "loss.multi_hot": cfg.one_of("bce", "dense"),
    "loss.recon_reduce": cfg.one_of("mean", "sum"),
    "loss.level_reduce": cfg.one_of("mean", "sum"),
    "loss.recon_weight": cfg.at_least(0),
    "loss.quant_weight": cfg.at_least(0),
    "loss.codebook_weight": cfg.at_least(0),
    "loss.beta": cfg.at_least(0),
    "loss.beta_warmup_epochs": cfg.at_least(0),
    "optim.warmup_steps": cfg.at_least(0),
    "optim.momentum": cfg.within(0, 1),
    "train.resident": cfg.one_of("auto", "always", "never"),
    "codes.checkpoint": cfg.one_of("collision_rate", "loss", "last"),
    "codes.repair": cfg.one_of("assign", "reassign", "suffix", "none"),
    "codes.modality": cfg.one_of("text", "image"),
    **cfg.TRAINING_RULES,
}


def check(config: ConfigDict) -> None:
    """Checks each value, then what does not go together.

    Raises:
      UserError: Names the keys.
    """
    cfg.check(config, RULES)
    book, levels = config.codebook, len(config.codebook.sizes)
    if len(book.sk_epsilons) not in (1, levels):
        raise UserError(
            f"config.codebook.sk_epsilons has {len(book.sk_epsilons)} values, but"
            f" config.codebook.sizes {levels} levels: give one value, or one a level"
        )
    if len(book.temperature) != 2:
        raise UserError("config.codebook.temperature: give two values, first and last")
    for keys, true in _impossible(config).items():
        if true:
            raise UserError(f"config: {keys} do not go together: change one")


def _impossible(config: ConfigDict) -> dict[str, bool]:
    """Returns True for each group of keys that does not go together."""
    book = config.codebook
    asked = collaborative.NAME in config.data.features
    # Runs of older versions have no such key.
    graph = config.data.get("graph")
    kmeans = book.init == "kmeans" and config.model.method == "rqvae"
    largest = max(book.sizes)
    return {
        "data.features with 'rf' and data.graph=None": asked and not graph,
        "data.graph and data.features without 'rf'": bool(graph) and not asked,
        "data.features with 'rf' and several data.names": asked
        and len(config.data.names) > 1,
        "codebook.learned_by=ema and codebook.projection": book.learned_by == "ema"
        and book.projection,
        "codebook.learned_by=ema and codebook.estimator=gumbel": book.learned_by
        == "ema"
        and book.estimator == "gumbel",
        "codebook.revive_below>0 and codebook.learned_by=gradient": book.revive_below
        > 0
        and book.learned_by == "gradient",
        "codebook.estimator=gumbel and codebook.sk_epsilons>0": max(book.sk_epsilons)
        > 0
        and book.estimator == "gumbel",
        "codebook.freeze and codebook.init=uniform": book.freeze
        and book.init == "uniform",
        "codebook.freeze and codebook.learned_by=ema": book.freeze
        and book.learned_by == "ema",
        "codebook.freeze and model.batch_norm": book.freeze and config.model.batch_norm,
        "codebook.bypass and codebook.init=uniform": book.bypass
        and book.init == "uniform",
        "loss.multi_hot=bce and model.normalize_input": config.model.normalize_input
        and config.loss.multi_hot == "bce",
        "optim.min_lr > optim.lr": config.optim.min_lr > config.optim.lr,
        "optim.momentum>0 and optim.name other than sgd": config.optim.momentum > 0
        and config.optim.name != "sgd",
        "codebook.init_epoch >= train.epochs": kmeans
        and book.init_epoch >= config.train.epochs,
        # k-means of fewer vectors than codes leaves codes that coincide.
        "codebook.kmeans_rows below the largest of codebook.sizes": kmeans
        and book.init_on == "all"
        and (book.kmeans_rows or largest) < largest,
        "codebook.init_on=batch and train.batch_size below the largest of"
        " codebook.sizes": kmeans
        and book.init_on == "batch"
        and config.train.batch_size < largest,
    }


def load_items(config: ConfigDict) -> ItemVectors:
    """Loads the item vectors that a config names."""
    data, seed = config.data, config.seed
    files = tuple(name for name in data.features if name != collaborative.NAME)
    if len(files) == len(data.features):
        return _load_files(data, files, seed)
    feature, ids = collaborative.load(Path(data.graph).expanduser(), config.rf)
    if not files:
        name = data.names[0] if data.names else data.source
        return join.join([feature], name=name, scale=data.scale, ids=ids)
    items = _load_files(data, files, seed)
    names = items.ids or tuple(map(str, range(len(items.values))))
    if names != ids:
        raise UserError(
            f"config.data.graph={data.graph} has {len(ids)} items, which are not the"
            f" {len(names)} of the data, one by one: train it on the same items"
        )
    return join.beside(items, feature, scale=data.scale)


def _load_files(data: ConfigDict, features: tuple[str, ...], seed: int) -> ItemVectors:
    return sources.load_items(
        source=data.source,
        path=data.path,
        names=tuple(data.names),
        features=features,
        scale=data.scale,
        seed=seed,
        num_items=data.num_items,
        text_width=data.text_width,
    )


def multi_hot_columns(items: ItemVectors) -> np.ndarray | None:
    """Returns True for the columns of multi-hot features, None if there are none."""
    columns = [np.full(b.width, b.kind == "multi_hot") for b in items.blocks]
    mask = np.concatenate(columns)
    return mask if mask.any() else None


def quantization(config: ConfigDict) -> quantizer.Quantization:
    """Returns how latents become codes."""
    book = config.codebook
    epsilons = tuple(map(float, book.sk_epsilons))
    if len(epsilons) == 1:
        epsilons *= len(book.sizes)
    return quantizer.Quantization(
        sizes=tuple(book.sizes),
        estimator=book.estimator,
        distance=book.distance,
        residual_grad=book.residual_grad,
        sk_epsilons=epsilons,
        sk_iterations=book.sk_iterations,
    )


def architecture(config: ConfigDict, input_width: int) -> rqvae.Architecture:
    """Returns the shape of the model."""
    model, book = config.model, config.codebook
    return rqvae.Architecture(
        input_width=input_width,
        hidden=tuple(model.hidden),
        latent_width=model.latent_width,
        quantization=quantization(config),
        dropout=model.dropout,
        batch_norm=model.batch_norm,
        initializer=model.initializer,
        normalize_input=model.normalize_input,
        l2_normalize=book.l2_normalize,
        projection=book.projection,
        learned_by=book.learned_by,
        dtype=jnp.dtype(model.dtype),
    )


def trainer(config: ConfigDict, vectors: ItemVectors) -> training.Trainer:
    """Builds the trainer of a config for item vectors."""
    values, batch = vectors.values, config.train.batch_size
    engine = partition.make_engine(config.train.engine)
    engine.check_batch(batch, "config.train.batch_size")
    train, validation = catalogue.split_items(
        len(values), config.data.val_ratio, config.seed
    )
    if not len(train):
        raise UserError("config.data.val_ratio leaves no item to train on: lower it")
    resident = config.train.resident == "always" or (
        config.train.resident == "auto" and values.nbytes <= _RESIDENT_BYTES
    )
    most = config.train.steps_per_call
    if not resident:
        row = batch * values.shape[1] * values.dtype.itemsize
        most = max(1, min(most, _STREAM_BYTES // row))
    book = config.codebook
    schedule = loop.Schedule(
        epochs=config.train.epochs,
        steps_per_epoch=-(-len(train) // batch),
        steps_per_call=most,
        eval_every=config.train.eval_every,
        events=(book.init_epoch,) if book.init == "kmeans" else (),
    )
    return training.Trainer(
        arch=architecture(config, values.shape[1]),
        objective=loss.Objective(**config.loss),
        codebooks=codebooks.Codebooks(
            init=book.init,
            init_epoch=book.init_epoch,
            init_on=book.init_on,
            bypass=book.bypass,
            kmeans_rows=book.kmeans_rows,
            kmeans_iterations=book.kmeans_iterations,
            kmeans_restarts=book.kmeans_restarts,
            freeze=book.freeze,
            ema_decay=book.ema_decay,
            revive_below=book.revive_below,
            temperature=tuple(book.temperature),
            temperature_epochs=book.temperature_epochs,
        ),
        optimizer=optim.build(optim.Optimizer(**config.optim), schedule.total_steps),
        schedule=schedule,
        batch_size=batch,
        seed=config.seed,
        engine=engine,
        items=catalogue.Items(
            values=values,
            train=train,
            validation=validation,
            multi_hot=multi_hot_columns(vectors),
            resident=resident,
        ),
    )
