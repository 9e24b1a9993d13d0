# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Options of a generative retriever."""

import dataclasses
from typing import Literal

import numpy as np

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.data import sequences
from rfrec.retrieval import tasks
from rfrec.train import optim
from rfrec.train import options as train_options

# Criteria by which the best checkpoint of a run is kept.
LOWEST, HIGHEST = ("loss",), ("ndcg@10",)
CHECKPOINTS = (*HIGHEST, *LOWEST, "last")


@dataclasses.dataclass(frozen=True)
class History:
    """How histories become training examples.

    Attributes:
      max_history: Maximum number of items of a history; the latest are used.
      mode: MQL4GRec's `train_data_mode`, from 0 (all prefixes of a history) to 4
        (random windows); see `rfrec.data.sequences.training_windows`.
    """

    max_history: int = cfg.option(20, cfg.whole(1))
    mode: int = cfg.option(0, cfg.within(0, len(sequences.MODES)))


@dataclasses.dataclass(frozen=True)
class Task:
    """Tasks of training and the form of their token streams.

    Attributes:
      names: Tasks to train on, keys of `rfrec.retrieval.tasks.TASKS`.
      weights: Weight of the loss of each task; () weighs all equally.
      prompt_tokens: Tokens of a task's prompt.
      separator: Whether a separator token follows each item.
      user_buckets: Number of hashed user tokens; 0 uses no user token.
    """

    names: tuple[str, ...] = cfg.option(
        ("seqrec",), cfg.each(cfg.one_of(*tasks.TASKS), least=1)
    )
    weights: tuple[float, ...] = cfg.option((), cfg.each(cfg.above(0)))
    prompt_tokens: int = cfg.option(4, cfg.whole(0))
    separator: bool = False
    user_buckets: int = cfg.option(0, cfg.whole(0))


@dataclasses.dataclass(frozen=True)
class Vocab:
    """Vocabulary.

    Attributes:
      layout: `compact`, or `t5`: the 32,100 pieces of T5 come first.
      codes: Codes of every level; 0 uses as many as the data contain.
    """

    layout: Literal["compact", "t5"] = "compact"
    codes: int = cfg.option(0, cfg.whole(0))


@dataclasses.dataclass(frozen=True)
class Model:
    """Shape of the T5.

    Attributes:
      d_model: Width of the residual stream.
      d_ff: Width of the feed-forward layers.
      d_kv: Width of one attention head.
      num_heads: Attention heads.
      num_layers: Layers of the encoder.
      num_decoder_layers: Layers of the decoder.
      feed_forward: `relu` (T5) or `gated-gelu` (T5 1.1).
      dropout: Dropout rate.
      tied: Whether logits come from the embedding.
      level_heads: Whether each level has an output head of its own, instead of one
        output over the vocabulary.
      remat: Whether layers are recomputed in the backward pass to save memory.
      dtype: Data type of the computation.
    """

    d_model: int = cfg.option(128, cfg.whole(1))
    d_ff: int = cfg.option(1024, cfg.whole(1))
    d_kv: int = cfg.option(64, cfg.whole(1))
    num_heads: int = cfg.option(6, cfg.whole(1))
    num_layers: int = cfg.option(4, cfg.whole(1))
    num_decoder_layers: int = cfg.option(4, cfg.whole(1))
    feed_forward: Literal["relu", "gated-gelu"] = "relu"
    dropout: float = cfg.option(0.1, cfg.within(0, 1))
    tied: bool = True
    level_heads: bool = False
    remat: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True)
class Optim(optim.Optim):
    """Optimizer.

    Attributes:
      warmup_share: Share of all updates in which the learning rate grows from 0.
      decay: Parameters that decay: `all`, or `matrices` without biases and norms.
      accumulate: Number of batches whose mean gradient makes one update.
    """

    lr: float = cfg.option(5e-4, cfg.above(0))
    schedule: Literal["constant", "cosine", "staircase"] = cfg.option(
        "cosine", cfg.one_of("constant", "cosine")
    )
    weight_decay: float = cfg.option(0.01, cfg.at_least(0))
    clip_norm: float | None = cfg.option(1.0, cfg.above(0))
    warmup_share: float = cfg.option(0.01, cfg.within(0, 1))
    decay: Literal["all", "matrices"] = "matrices"
    accumulate: int = cfg.option(1, cfg.whole(1))


@dataclasses.dataclass(frozen=True)
class Train(
    train_options.Train, train_options.DataParallel, train_options.EarlyStopping
):
    """Training.

    Attributes:
      batch_size: Number of examples in a batch, over all devices.
      criterion: Validation metric by which the best checkpoint is chosen.
      tensor: Devices that share one copy of the parameters (engine `jit` only).
      buckets: Lengths of history, in items over all segments, with a program of their
        own; the longest length is added.
      run: Maximum number of consecutive steps of one length, in one call.
    """

    epochs: int = cfg.option(200, cfg.whole(1))
    patience: int | None = cfg.option(10, cfg.whole(1))
    criterion: Literal["ndcg@10", "loss"] = "ndcg@10"
    tensor: int = cfg.option(1, cfg.whole(1))
    buckets: tuple[int, ...] = cfg.option((2, 4, 8, 12), cfg.each(cfg.whole(1)))
    run: int = cfg.option(16, cfg.whole(1))


@dataclasses.dataclass(frozen=True)
class Eval:
    """Evaluation during training.

    Attributes:
      task: Task whose loss and ranked lists are evaluated; None uses the first task.
      users: Number of users whose validation item is searched for, drawn once; 0 uses
        all.
      beams: Beams of the search.
      batch_size: Examples of a batch of the evaluation.
    """

    task: str | None = cfg.option(None, cfg.one_of(*tasks.TASKS))
    users: int = cfg.option(1000, cfg.whole(0))
    beams: int = cfg.option(20, cfg.whole(1))
    batch_size: int = cfg.option(256, cfg.whole(1))


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a retriever and its training.

    Attributes:
      seed: Seed of initialisation, order and dropout.
      data: How histories become training examples.
      task: Tasks of training.
      vocab: Vocabulary.
      model: Shape of the model.
      optim: Optimizer.
      train: Training.
      eval: Evaluation during training.
    """

    seed: int = cfg.option(0, cfg.at_least(0))
    data: History = History()
    task: Task = Task()
    vocab: Vocab = Vocab()
    model: Model = Model()
    optim: Optim = Optim()
    train: Train = Train()
    eval: Eval = Eval()

    @property
    def watched(self) -> str:
        """Task whose loss and ranked lists are evaluated."""
        return self.eval.task or self.task.names[0]

    @property
    def modality(self) -> str:
        """Modality of the targets of the watched task."""
        return tasks.TASKS[self.watched].directions[0].target

    @property
    def form(self) -> tasks.Form:
        """How token streams are written; level heads need no end token."""
        return tasks.Form(
            separator=self.task.separator,
            user=self.task.user_buckets > 0,
            end=not self.model.level_heads,
        )


def check(options: Options) -> None:
    """Refuses options that cannot be combined.

    Raises:
      UserError: Names the options.
    """
    task, names, train = options.task, options.task.names, options.train
    tasks.check_tasks(names)
    if len(task.weights) not in (0, len(names)):
        raise UserError(
            f"config.task.weights has {len(task.weights)} values for {len(names)}"
            " tasks; set one for each task, or ()"
        )
    if options.watched not in names:
        raise UserError(
            f"config.eval.task={options.watched!r} is not trained; use one of"
            f" {', '.join(names)}"
        )
    if tasks.TASKS[options.watched].pairs:
        raise UserError(
            f"config.eval.task={options.watched!r} continues no history; set it to a"
            " task that does"
        )
    optim.check(options.optim)
    if (np.diff(train.buckets) <= 0).any():
        raise UserError(f"config.train.buckets={train.buckets}: must ascend")
    targets = {way.target for n in names for way in tasks.TASKS[n].directions}
    heads, pairs = options.model.level_heads, any(tasks.TASKS[n].pairs for n in names)
    cfg.refuse_together(
        {
            "model.level_heads and tasks of two target modalities": heads
            and len(targets) > 1,
            "model.level_heads and vocab.layout=t5": heads
            and options.vocab.layout == "t5",
            "task.user_buckets>0 and item2image or image2item": task.user_buckets > 0
            and pairs,
            "train.tensor>1 and train.engine=pmap": train.tensor > 1
            and train.engine == "pmap",
        }
    )
