# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""From options and item vectors to codes: the one way to build and train a tokenizer.

`rfrec.ItemTokenizer`, the pipeline of `rfrec.launch.rqvae` and the benchmark use it.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Bool, Float, Int

from rfrec import config as cfg
from rfrec.codes import repair as repairs
from rfrec.codes import table
from rfrec.config import UserError
from rfrec.tokenizer import codebooks, kmeans, rqvae, training
from rfrec.tokenizer import loss as losses
from rfrec.tokenizer.encoder import Encoder
from rfrec.train import optim as optimizers
from rfrec.train import options as train_options
from rfrec.train import partition, running
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.state import TrainState

# Criteria by which the best checkpoints are kept; the lowest value is best.
CRITERIA = ("collision_rate", "loss")
# Larger arrays of items are streamed if train.resident=auto.
_RESIDENT_BYTES = 2 * 2**30
# Maximum size of the vectors of one call if items are streamed.
_STREAM_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True)
class Model(rqvae.Layers):
    """The model.

    Attributes:
      method: `rqvae`, or `rkmeans`: residual k-means of the vectors, without training.
    """

    method: Literal["rqvae", "rkmeans"] = "rqvae"


@dataclasses.dataclass(frozen=True)
class Train(train_options.Train, train_options.DataParallel):
    """Training.

    Attributes:
      resident: Whether all items are kept on the devices; `auto` keeps up to 2 GiB.
    """

    resident: Literal["auto", "always", "never"] = "auto"


@dataclasses.dataclass(frozen=True)
class Codes:
    """Which model makes the codes, and how they become unique.

    Attributes:
      checkpoint: Criterion whose best checkpoint makes the codes, or `last`.
      repair: `assign` makes codes unique at the least distance, `reassign` is the
        procedure of MQL4GRec, `suffix` adds one level (TIGER), `none` keeps collisions.
      modality: Letters of the code tokens: `text` in lower, `image` in upper case.
    """

    checkpoint: Literal["collision_rate", "loss", "last"] = "collision_rate"
    repair: Literal["assign", "reassign", "suffix", "none"] = "assign"
    modality: Literal["text", "image"] = "text"


@dataclasses.dataclass(frozen=True)
class Options:
    """All options of a tokenizer, apart from its data.

    Attributes:
      seed: Seed of initialisation, order, noise and k-means.
      model: Encoder and decoder.
      codebook: The residual quantizer and its codebooks.
      loss: Weights of the loss.
      optim: Optimizer.
      train: Length of the training, batches and devices.
      codes: Choice of the model, and repair of colliding codes.
    """

    seed: int = cfg.option(0, cfg.at_least(0))
    model: Model = Model()
    codebook: codebooks.Codebooks = codebooks.Codebooks()
    loss: losses.Objective = losses.Objective()
    optim: optimizers.MomentumOptim = optimizers.MomentumOptim(
        lr=3e-3, schedule="cosine", min_lr=1e-4
    )
    train: Train = Train(epochs=200, batch_size=128, eval_every=20, engine="pmap")
    codes: Codes = Codes()


def check(options: Options) -> None:
    """Refuses options that cannot be combined.

    Raises:
      UserError: Names the keys.
    """
    book, levels = options.codebook, len(options.codebook.sizes)
    if len(book.sk_epsilons) not in (1, levels):
        raise UserError(
            f"config.codebook.sk_epsilons has {len(book.sk_epsilons)} values for"
            f" {levels} levels of config.codebook.sizes; set one value, or one for each"
            " level"
        )
    optimizers.check(options.optim)
    ema, uniform = book.learned_by == "ema", book.init == "uniform"
    gumbel = book.estimator == "gumbel"
    kmeans_init = not uniform and options.model.method == "rqvae"
    largest, batch = max(book.sizes), options.train.batch_size
    bce = options.loss.multi_hot == "bce"
    cfg.refuse_together(
        {
            "codebook.learned_by=ema and codebook.projection=True": ema
            and book.projection,
            "codebook.learned_by=ema and codebook.estimator=gumbel": ema and gumbel,
            "codebook.revive_below>0 and codebook.learned_by=gradient": not ema
            and book.revive_below > 0,
            "codebook.estimator=gumbel and codebook.sk_epsilons>0": gumbel
            and book.balanced,
            "codebook.freeze=True and codebook.init=uniform": book.freeze and uniform,
            "codebook.freeze=True and codebook.learned_by=ema": book.freeze and ema,
            "codebook.freeze=True and model.batch_norm=True": book.freeze
            and options.model.batch_norm,
            "codebook.bypass=True and codebook.init=uniform": book.bypass and uniform,
            "loss.multi_hot=bce and model.normalize_input=True": bce
            and options.model.normalize_input,
            f"codebook.init_epoch={book.init_epoch} and train.epochs="
            f"{options.train.epochs}, which is not above it": kmeans_init
            and book.init_epoch >= options.train.epochs,
            # k-means of fewer vectors than codes makes equal codes.
            f"codebook.kmeans_rows={book.kmeans_rows} and a larger codebook"
            f" ({largest} of codebook.sizes)": kmeans_init
            and book.init_on == "all"
            and (book.kmeans_rows or largest) < largest,
            f"codebook.init_on=batch with train.batch_size={batch} and a larger"
            f" codebook ({largest} of codebook.sizes)": kmeans_init
            and book.init_on == "batch"
            and batch < largest,
        }
    )


def architecture(options: Options, input_width: int) -> rqvae.Architecture:
    """Returns the architecture of a model for vectors of a width."""
    names = [field.name for field in dataclasses.fields(rqvae.Layers)]
    return rqvae.Architecture(
        **{name: getattr(options.model, name) for name in names},
        input_width=input_width,
        quantization=options.codebook,
    )


def build_trainer(
    options: Options,
    values: Float[np.ndarray, "N D"],
    *,
    val_ratio: float = 0.0,
    multi_hot: Bool[np.ndarray, " D"] | None = None,
    engine: partition.Engine | None = None,
) -> training.Trainer:
    """Builds the trainer of an RQ-VAE.

    Args:
      options: Options, already checked.
      values: Item vectors, possibly memory-mapped.
      val_ratio: Share of the items that are not trained on.
      multi_hot: True for the columns of multi-hot features; None if there are none.
      engine: Places and compiles; None uses all devices, as the options state.

    Raises:
      UserError: The batch does not divide by the devices, or no item is left to train
        on.
    """
    train_on, batch = options.train, options.train.batch_size
    engine = engine or partition.make_engine(train_on.engine)
    engine.check_batch(batch, "config.train.batch_size")
    train, validation = training.split_items(len(values), val_ratio, options.seed)
    if not len(train):
        raise UserError("config.data.val_ratio leaves no item to train on; lower it")
    resident = train_on.resident == "always" or (
        train_on.resident == "auto" and values.nbytes <= _RESIDENT_BYTES
    )
    if not resident:
        row = batch * values.shape[1] * values.dtype.itemsize
        most = max(1, min(train_on.steps_per_call, _STREAM_BYTES // row))
        train_on = dataclasses.replace(train_on, steps_per_call=most)
    book = options.codebook
    schedule = train_on.schedule(
        -(-len(train) // batch),
        events=(book.init_epoch,) if book.init == "kmeans" else (),
    )
    return training.Trainer(
        arch=architecture(options, values.shape[1]),
        objective=options.loss,
        codebooks=book,
        optimizer=optimizers.build(options.optim, schedule.total_steps),
        schedule=schedule,
        batch_size=batch,
        seed=options.seed,
        engine=engine,
        items=training.Items(values, train, validation, multi_hot, resident),
    )


@dataclasses.dataclass(frozen=True)
class Tokenized:
    """All items in the space in which codes are chosen.

    Attributes:
      codes: Nearest codes.
      latents: Vectors that the codes approximate.
      encoder: The model that made them.
      energy_left: Summed squared error of the reconstruction over the summed squares of
        the items.
    """

    codes: Int[np.ndarray, "N Q"]
    latents: Float[np.ndarray, "N W"]
    encoder: Encoder
    energy_left: float

    def repair(self, method: str, rows: slice = slice(None)) -> repairs.Repair:
        """Returns the codes of some items after a repair; see `codes.repair`."""
        codebooks = self.encoder.codebooks
        return repairs.repair(self.codes[rows], self.latents[rows], codebooks, method)

    def levels(self) -> list[dict[str, Any]]:
        """Returns the statistics of each level before repair, as JSON values."""
        return table.statistics(self.codes, self.encoder.sizes).as_dict()["levels"]

    def describe(
        self, repaired: repairs.Repair, rows: slice = slice(None)
    ) -> dict[str, Any]:
        """Returns what a report states about a repair of some items."""
        before = table.statistics(self.codes[rows], self.encoder.sizes).as_dict()
        after = table.statistics(repaired.codes, repaired.sizes).as_dict()
        return {
            "before": {k: v for k, v in before.items() if k != "levels"},
            "after": {k: v for k, v in after.items() if k != "levels"},
            "moved": repaired.moved,
            "distance_before": repaired.cost_before,
            "distance_after": repaired.cost_after,
        }


def cluster(values: Float[np.ndarray, "N D"], options: Options) -> Tokenized:
    """Tokenizes without training: k-means, level by level, of the vectors."""
    x = jnp.asarray(values, jnp.float32)
    fit = kmeans.fit_residual(
        jax.random.key(options.seed),
        x,
        options.codebook.sizes,
        iterations=options.codebook.kmeans_iterations,
    )
    energy = jnp.sum(fit.residual**2) / jnp.maximum(jnp.sum(x**2), 1e-30)
    books = tuple(np.asarray(c) for c in fit.codebooks)
    codes = np.asarray(fit.codes)
    return Tokenized(codes, np.asarray(x), Encoder(books, None, {}), float(energy))


class Fit(NamedTuple):
    """A finished training.

    Attributes:
      tokenized: All items, tokenized by the chosen model.
      models: Evaluation of the last model and of the best by each criterion.
      seconds: Training time over all resumptions.
    """

    tokenized: Tokenized
    models: dict[str, Any]
    seconds: float


def train(
    trainer: training.Trainer,
    checkpoints: Checkpoints,
    *,
    chosen: str,
    notes: dict[str, Any],
    workdir: Path | None,
    what: str = "item vectors",
) -> Fit:
    """Trains, or resumes, to the end and tokenizes all items.

    Args:
      trainer: Trainer of the model.
      checkpoints: Checkpoints of the run by `CRITERIA`, on disk or in memory.
      chosen: Criterion whose best model tokenizes the items, or `last`.
      notes: JSON values that identify the data; a run with others is not resumed.
      workdir: Folder for the metrics; None writes none.
      what: Names what the notes identify, for the error message.
    """
    run, template = training.Run(trainer), trainer.init()
    progress = running.train(
        template,
        run.program(),
        trainer.schedule,
        engine=trainer.engine,
        checkpoints=checkpoints,
        workdir=workdir,
        notes=notes,
        what=what,
    )
    tokenized, models = compare(run, checkpoints, chosen, template)
    return Fit(tokenized, models, progress.seconds)


def compare(
    run: training.Run, checkpoints: Checkpoints, chosen: str, template: TrainState
) -> tuple[Tokenized, dict[str, Any]]:
    """Evaluates the last model and the best by each criterion.

    Args:
      run: Compiled evaluation.
      checkpoints: Checkpoints of the run, at least one.
      chosen: Criterion whose best model tokenizes the items, or `last`.
      template: Host state of the same model.

    Returns:
      All items tokenized by the chosen model, and the metrics of each model.
    """
    trainer = run.trainer
    steps = {"last": checkpoints.latest()}
    steps |= {name: checkpoints.best(name) for name in CRITERIA}
    models, tokenized = {}, None
    for name, step in steps.items():
        assert step is not None, "compared before anything was stored"
        host = checkpoints.restore(step, template).state
        result = run.evaluate(
            trainer.engine.replicate(host), np.arange(len(trainer.items.values))
        )
        sizes = trainer.arch.quantization.sizes
        values = training.metrics(result, trainer.items, sizes)
        models[name] = {"step": step, **values}
        logging.info(
            "%-14s step %6d  distinct %d  conflict items %d  energy left %.4f",
            *(name, step, values["distinct"], values["conflict_items"]),
            values["energy_left"],
        )
        if name == chosen:
            encoder = make_encoder(host, trainer.arch)
            tokenized = Tokenized(
                result.codes, result.latents, encoder, values["energy_left"]
            )
    assert tokenized is not None
    return tokenized, models


def make_encoder(state: TrainState, arch: rqvae.Architecture) -> Encoder:
    """Returns the model of a host state, with the code vectors in use."""
    variables = {"params": state.params, **state.model_state}
    vectors = np.asarray(rqvae.RQVAE(arch).apply(variables, method="code_vectors"))
    pairs = zip(vectors, arch.quantization.sizes, strict=True)
    return Encoder(tuple(v[:k] for v, k in pairs), arch, variables)
