# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cases of generative retrieval: constrained decoding, and training a T5.

Decoding: both sides search the best items with the same weights. A block of ours
answers all users through `rfrec.retrieval.search`, in batches of similar length. A
block of PyTorch takes the next batch, padded to its longest history as in MQL4GRec.

Training: a block of ours is an epoch over the examples of some users, in buckets of
length. A block of PyTorch takes some steps on the same examples, shuffled and padded as
in MQL4GRec, where almost every batch is as wide as the longest history allows.

Each side has a vocabulary: `compact`, or `t5` with T5's 32,000 pieces, which MQL4GRec
uses.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from rfrec.benchmarks import data, timing, torch_t5
from rfrec.benchmarks.data import CodedHistories
from rfrec.benchmarks.options import Options
from rfrec.codes import trie, trie_edit
from rfrec.data import sequences
from rfrec.data.interactions import Interactions
from rfrec.retrieval import batches, hf, t5, tasks, training, vocab
from rfrec.retrieval import search as search_lib
from rfrec.retrieval.batches import Batch, Examples, Tables
from rfrec.retrieval.corpus import Corpus
from rfrec.retrieval.vocab import Vocabulary
from rfrec.train import loop, optim, partition

NAMES = ("seqrec",)
MODALITY = "text"
# Those of configs/t5.py, without its schedule.
_OPTIMIZER = optim.Optimizer(
    name="adamw", lr=5e-4, weight_decay=0.01, decay="matrices", clip_norm=1.0
)
# First coordinate of the embeddings of used tokens, and of T5's pieces, which are not
# used. The logits of the latter are some hundreds lower, so that their probability is
# 0, as after training: scores do not depend on the vocabulary.
_IN_USE, _OUT_OF_USE = 8.0, -1000.0


class Side(NamedTuple):
    """Model and data of one side, in its vocabulary.

    Attributes:
      vocabulary: Text and image codes, as in MQL4GRec.
      weights: Weights; apart from the order of the embeddings, the same for all
        vocabularies.
      tables: Tables that the examples index.
    """

    vocabulary: Vocabulary
    weights: hf.Weights
    tables: Tables


def build_side(
    options: Options, layout: str, data: CodedHistories, dropout: float = 0.0
) -> Side:
    """Builds one side of a case, with random weights.

    Args:
      options: Sizes of all cases.
      layout: Layout of the vocabulary, `compact` or `t5`.
      data: Histories and codes.
      dropout: Dropout rate.
    """
    seed = options.seed
    words, small = (vocabulary(data.sizes, name) for name in (layout, "compact"))
    arch = build_architecture(options, words, dropout)
    params = training.fresh_weights(arch, seed)
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((small.size, arch.d_model), np.float32)
    rows[:, 0] = _IN_USE
    embedding = rng.standard_normal((words.size, arch.d_model), np.float32)
    embedding[:, 0] = _OUT_OF_USE
    embedding[_tokens(words)] = rows[_tokens(small)]
    return Side(
        words,
        hf.Weights(arch, params | {"embedding": embedding}),
        tasks.tables(words, NAMES, {MODALITY: data.codes}, data.inter),
    )


def build_architecture(
    options: Options, words: Vocabulary, dropout: float = 0.0
) -> t5.Architecture:
    """Returns the architecture of the T5."""
    sizes = dataclasses.asdict(options.model)
    return t5.Architecture(vocab_size=words.size, dropout=dropout, **sizes)


def vocabulary(sizes: tuple[int, ...], layout: str = "compact") -> Vocabulary:
    """Builds the vocabulary of text codes, and of image codes of the same sizes."""
    return vocab.build({MODALITY: sizes, "image": sizes}, layout=layout)


def _tokens(words: Vocabulary) -> Int[np.ndarray, " T"]:
    """Returns all used tokens, in an order that does not depend on the layout."""
    codes = [tokens for m in words.modalities for tokens in words.code_tokens(m)]
    return np.concatenate([[vocab.PAD, vocab.END], *codes])


def some_users(inter: Interactions, examples: int, seed: int) -> Interactions:
    """Draws users until they have at least `examples` training examples.

    The last two items of each history are held out, and the first is not a target.
    """
    order = np.random.default_rng(seed).permutation(inter.num_users)
    counts = np.cumsum(np.diff(inter.indptr)[order] - 3)
    users = order[: 1 + int(np.searchsorted(counts, examples))].tolist()
    histories = [inter.history(user) for user in users]
    return Interactions(
        indptr=np.cumsum([0, *map(len, histories)], dtype=np.int64),
        items=np.concatenate(histories),
        num_items=inter.num_items,
        user_ids=tuple(inter.user_ids[user] for user in users),
        item_ids=inter.item_ids,
    )


def padded(side: Side, examples: Examples, history: int) -> Batch:
    """Returns a batch padded to its longest history, as in MQL4GRec."""
    batch = batches.batch(side.tables, examples, history)
    tokens = np.asarray(batch.tokens)
    width = int((tokens != vocab.PAD).sum(axis=1).max())
    return batch._replace(tokens=jnp.asarray(tokens[:, :width]))


def relative_gap(a: float, b: float) -> float:
    """Returns the distance of two numbers, relative to the second."""
    return abs(a / b - 1)


def list_gap(
    ours: Float[np.ndarray, "U S 2"], theirs: Float[np.ndarray, "U T 2"]
) -> float:
    """Returns the largest relative distance of the scores of two sides' lists.

    A list has rows of leaf and score, best first. Rows with leaf -1 are padding, and
    repeated leaves count once. A leaf in one list only is compared with the last score
    of the other list, so that lists may differ by ties and by nothing else.
    """
    gaps = [0.0]
    for user in zip(ours, theirs, strict=True):
        lists = [rows[rows[:, 0] >= 0] for rows in user]
        if any((np.diff(rows[:, 1]) > 0).any() or not len(rows) for rows in lists):
            return np.inf
        (a, last_a), (b, last_b) = ((dict(rows), rows[-1, 1]) for rows in lists)
        if len(a) != len(b):
            return np.inf
        gaps += [
            relative_gap(a.get(leaf, last_a), b.get(leaf, last_b))
            for leaf in a.keys() | b.keys()
        ]
    return float(np.max(gaps))


class _Users(NamedTuple):
    """Users of the test split, and the items to search."""

    data: CodedHistories
    rows: Int[np.ndarray, " U"]
    windows: sequences.Windows
    built: trie.Trie


def decode(options: Options, torch: bool, *, ours: str, theirs: str) -> timing.Bench:
    """Times searches from histories to items.

    Args:
      options: Sizes of all cases.
      torch: Whether to prepare PyTorch's side.
      ours: Layout of our vocabulary.
      theirs: Layout of PyTorch's vocabulary.
    """
    users, sizes = _draw_users(options), options.beam
    search = _Search(build_side(options, ours, users.data), users, options)
    block = None
    if torch:
        other = build_side(options, theirs, users.data)
        block = torch_t5.decode(
            other.weights,
            _in_order(other, users, options),
            users.data.codes,
            other.vocabulary.code_tokens(MODALITY),
            beams=sizes.beams,
            device=timing.torch_device(),
        )

    def disagreement(ours: np.ndarray, theirs: np.ndarray) -> float:
        return list_gap(ours[: len(theirs)], by_leaf(users.built, theirs))

    return timing.Bench(
        ours=search.run,
        torch=block,
        unit="users/s",
        per_block=len(users.rows),
        disagreement=disagreement,
        # Scores are means of log-probabilities in float32, about -5.
        tolerance=1e-4,
        peak_bytes=lambda: timing.peak(search.largest),
        torch_per_block=min(sizes.torch_batch_size, len(users.rows)),
    )


def _draw_users(options: Options) -> _Users:
    coded = data.coded_histories(options.histories, options.seed)
    most = options.histories.max_history
    heldout = sequences.heldout_windows(coded.inter, "test", most=most)
    batch = options.beam.torch_batch_size
    count = min(options.beam.users, coded.inter.num_users)
    # Only full batches for PyTorch.
    count -= count % batch if count > batch else 0
    rng = np.random.default_rng(options.seed)
    rows = rng.choice(coded.inter.num_users, count, replace=False)
    windows = sequences.Windows(*(column[rows] for column in heldout))
    return _Users(coded, rows, windows, trie.build(coded.codes, coded.sizes))


def _in_order(
    side: Side, users: _Users, options: Options
) -> list[Int[np.ndarray, "_ _"]]:
    """Returns the tokens of the users' histories in batches, in their order."""
    most, size = options.histories.max_history, options.beam.torch_batch_size
    examples, count = tasks.window_examples(users.windows), len(users.rows)
    parts = [
        batches.take(examples, np.arange(count)[i : i + size])
        for i in range(0, count, size)
    ]
    return [np.asarray(padded(side, part, most).tokens) for part in parts]


def by_leaf(
    built: trie.Trie, lists: Float[np.ndarray, "U S C"]
) -> Float[np.ndarray, "U S 2"]:
    """Replaces the codes in rows of codes and score by their leaf; -1 if unknown."""
    codes = lists[..., :-1].astype(np.int64)
    leaves = trie_edit.find(built, codes.reshape(-1, codes.shape[2]))
    return np.stack([leaves.reshape(codes.shape[:2]), lists[..., -1]], axis=2)


class _Search:
    """Our search, as `rfrec.launch.recommend` runs it."""

    def __init__(self, side: Side, users: _Users, options: Options):
        built, sizes = users.built, options.beam
        source = search_lib.Source(
            arch=side.weights.arch,
            params=side.weights.params,
            trie=built,
            tokens=side.vocabulary.code_tokens(MODALITY),
            tables=side.tables,
            row=0,
        )
        settings = search_lib.Settings(
            num_beams=sizes.beams,
            # All items of all beams, so that lists can be compared.
            top_k=sizes.beams * int(np.diff(built.leaf_indptr).max()),
            batch_size=sizes.batch_size,
            buckets=sizes.buckets,
        )
        # PyTorch uses one device too.
        engine = partition.make_engine("jit", devices=jax.local_devices()[:1])
        self._searcher = search_lib.Searcher(source, settings, engine)
        inter = users.data.inter
        begin = inter.indptr[:-1][users.rows]
        self._queries = search_lib.Queries(inter.items, begin, users.windows)
        self._leaf_of = trie.leaf_of(built)

    def run(self) -> Float[np.ndarray, "U K 2"]:
        """Returns leaf and score of each user's items; -1 after the last."""
        plan = self._searcher.plan(self._queries)
        count, width = len(self._queries.begin), self._searcher.settings.top_k
        lists = np.empty((count, width, 2))
        for batch, answers in self._searcher.answers(self._queries, plan):
            rows, items = batch.rows[batch.counted], answers.items
            lists[rows, :, 0] = np.where(items >= 0, self._leaf_of[items], -1)
            lists[rows, :, 1] = answers.scores
        return lists

    def largest(self) -> jax.stages.Compiled:
        """Returns the program that needs the most memory."""
        programs = self._searcher._programs.values()
        return max(programs, key=lambda p: p.memory_analysis().temp_size_in_bytes)


def train(options: Options, torch: bool, *, ours: str, theirs: str) -> timing.Bench:
    """Times training steps; the losses are fetched once a block.

    Args:
      options: Sizes of all cases.
      torch: Whether to prepare PyTorch's side.
      ours: Layout of our vocabulary.
      theirs: Layout of PyTorch's vocabulary.
    """
    seed, sizes = options.seed, options.t5
    coded = data.coded_histories(options.histories, seed)
    coded = coded._replace(inter=some_users(coded.inter, sizes.examples, seed))
    side = build_side(options, ours, coded, sizes.dropout)
    trainer = build_trainer(side, coded, options)
    run, steps = training.Run(trainer), trainer.schedule.steps_per_epoch
    program = run.program()
    examples = trainer.corpus.examples(seed=seed, epoch=0)
    held = {"state": trainer.place(trainer.init()), "step": 0}

    def block():
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

    torch_block, gap = None, 0.0
    if torch:
        torch_block, loss = _torch_train(options, theirs, coded, examples)
        gap = relative_gap(_first_loss(trainer, side, examples, options), loss)
    return timing.Bench(
        ours=block,
        torch=torch_block,
        unit="samples/s",
        # The last batch is filled up with earlier examples.
        per_block=len(examples.task),
        # The loss of a batch without dropout: the noise of the sides differs.
        disagreement=lambda a, b: gap if np.isfinite([*a, *b]).all() else np.inf,
        tolerance=1e-4,
        peak_bytes=lambda: timing.peak(compiled),
        torch_per_block=sizes.torch_steps * sizes.batch_size,
    )


def _torch_train(
    options: Options, layout: str, coded: CodedHistories, examples: Examples
) -> tuple[timing.Block, float]:
    """Returns PyTorch's block, and its loss of the first batch without dropout."""
    side = build_side(options, layout, coded, options.t5.dropout)
    shuffled, device = _shuffled(side, examples, options), timing.torch_device()
    block = torch_t5.train(
        side.weights,
        shuffled,
        steps=options.t5.torch_steps,
        optimizer=_OPTIMIZER,
        device=device,
    )
    return block, torch_t5.loss_of(side.weights, shuffled[0], device)


def build_trainer(
    side: Side, coded: CodedHistories, options: Options
) -> training.Trainer:
    """Returns a trainer whose epoch has all examples of the histories."""
    seed, sizes = options.seed, options.t5
    most, size = options.histories.max_history, sizes.batch_size
    none = batches.Examples(*(np.zeros(0, np.int32),) * 4)
    corpus = Corpus(
        inter=coded.inter,
        names=NAMES,
        vocabulary=side.vocabulary,
        tables=side.tables,
        buckets=(*(b for b in sizes.buckets if b < most), most),
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
        sizes=training.Sizes(batch=size, run=sizes.run, evaluation=size, beams=1),
        seed=seed,
        # PyTorch uses one device too.
        engine=partition.make_engine("jit", devices=jax.local_devices()[:1]),
        corpus=corpus,
        weights=side.weights.params,
    )


def _shuffled(side: Side, examples: Examples, options: Options) -> list[Batch]:
    """Returns MQL4GRec's batches: random, each padded to its longest history."""
    most = options.histories.max_history
    return [
        padded(side, batches.take(examples, rows), most)
        for rows in _random_rows(examples, options)
    ]


def _random_rows(examples: Examples, options: Options):
    count, size = len(examples.task), options.t5.batch_size
    order = np.random.default_rng(options.seed).permutation(count)
    return np.resize(order, (max(count // size, 1), size))


def _first_loss(
    trainer: training.Trainer, side: Side, examples: Examples, options: Options
) -> float:
    """Returns our loss of PyTorch's first batch, without dropout."""
    rows = _random_rows(examples, options)[0]
    most = options.histories.max_history
    batch = batches.batch(side.tables, batches.take(examples, rows), most)
    losses, counted = jax.jit(trainer.token_losses)(side.weights.params, batch)
    return float(jnp.sum(losses) / jnp.sum(counted))
