# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The T5's training: its loss, its order of steps, same numbers on every engine.

Run as a script it trains every case on every engine of 8 devices and writes an .npz:
the tests of several devices need a process of their own.
"""

import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.codes import trie
from rfrec.data import sequences, synthetic
from rfrec.retrieval import batches, t5, tasks, training, validation, vocab
from rfrec.retrieval.corpus import Catalogue, Corpus
from rfrec.train import chunks, loop, optim, partition
from tests.support import commands

BATCH = 16
STEPS = 5
ITEMS = 60
SIZES = {"text": (6, 5, 4), "image": (5, 8)}
TINY: dict[str, Any] = {
    "d_model": 16,
    "d_ff": 24,
    "d_kv": 8,
    "num_heads": 2,
    "num_layers": 1,
    "num_decoder_layers": 1,
}

CASES = {
    # Tasks of unequal weights and levels, prompts, coins, accumulation. Plain SGD shows
    # the scale of gradients.
    "tasks": {
        "names": ("seqrec", "fgfusionseqrec"),
        "weights": {"fgfusionseqrec": 0.3},
        "optimizer": {"name": "sgd", "lr": 0.5, "clip_norm": 2.0, "accumulate": 2},
        "engines": ("one", "pmap", "jit", "4x2"),
    },
    "tiger": {
        "names": ("seqrec",),
        "form": tasks.Form(separator=True, user=True, end=False),
        "buckets": (8,),
        "optimizer": {"weight_decay": 0.01},
        "engines": ("one", "4x2"),
    },
}


def unique_codes(sizes, seed):
    rng = np.random.default_rng(seed)
    keys = rng.choice(int(np.prod(sizes)), ITEMS, replace=int(np.prod(sizes)) < ITEMS)
    return np.stack(np.unravel_index(keys, sizes), axis=1).astype(np.int32)


def make_corpus(
    names=("seqrec",), *, weights=None, form=None, mode=0, users=40, buckets=(3, 8)
):
    inter = synthetic.histories(users, num_items=ITEMS, mean_length=9.0, seed=1)
    used = tasks.modalities(names)
    codes = {m: unique_codes(SIZES[m], i) for i, m in enumerate(used)}
    form = form or tasks.Form()
    vocabulary = vocab.build(
        {m: SIZES[m] for m in used},
        prompts=tasks.prompt_sizes(names, 2),
        separator=form.separator,
        user_buckets=5 if form.user else 0,
    )
    tables = tasks.tables(vocabulary, names, codes, inter, form=form, weights=weights)
    held = sequences.heldout_windows(inter, "valid", most=8)
    examples = tasks.window_examples(held)
    return Corpus(
        inter=inter,
        names=names,
        vocabulary=vocabulary,
        tables=tables,
        buckets=buckets if tables.segments.shape[1] == 1 else (16,),
        most=8,
        mode=mode,
        items=None,
        validation=examples,
        modality="text",
        catalogues=(
            Catalogue(
                "toy",
                trie.build(codes["text"], SIZES["text"], num_items=ITEMS),
                batches.take(examples, np.arange(0, users, 3)),
            ),
        ),
    )


def make_trainer(case, engine, *, dropout=0.2, **more):
    corpus = make_corpus(
        case.get("names", ("seqrec",)),
        **{
            k: v for k, v in case.items() if k in ("weights", "form", "buckets", "mode")
        },
    )
    heads = () if corpus.tables.end.shape[0] else SIZES["text"]
    examples = corpus.examples(seed=3, epoch=0)
    settings = optim.Optimizer(**{"lr": 3e-3} | case.get("optimizer", {}))
    made = training.Trainer(
        arch=t5.Architecture(
            vocab_size=corpus.vocabulary.size,
            dropout=dropout,
            level_heads=heads,
            **TINY,
        ),
        optimizer=optim.build(settings, 40),
        schedule=loop.Schedule(
            epochs=3,
            steps_per_epoch=-(-len(examples.task) // BATCH),
            steps_per_call=64,
            eval_every=1,
        ),
        sizes=training.Sizes(batch=BATCH, run=4, evaluation=16, beams=6),
        seed=3,
        engine=engine,
        corpus=corpus,
    )
    return dataclasses.replace(made, **more)


@pytest.fixture(scope="module")
def one_device():
    return partition.make_engine("jit", devices=jax.devices()[:1])


def write_engines(path):
    """Trains each case on 1 and on 8 devices with every engine."""
    engines = {
        "one": partition.make_engine("jit", devices=jax.devices()[:1]),
        "pmap": partition.make_engine("pmap"),
        "jit": partition.make_engine("jit"),
        "4x2": partition.make_engine("jit", tensor=2),
    }
    assert engines["pmap"].num_devices == 8
    arrays: dict[str, np.ndarray] = {}
    for case, settings in CASES.items():
        start = make_trainer(settings, engines["one"]).init()
        for name in settings["engines"]:
            # One device passes the whole batch at once, the others pass it in chunks.
            chunks._MOST = 8192 if name == "one" else 40
            trainer = make_trainer(settings, engines[name])
            run = training.Run(trainer)
            state, metrics = run.program().run(trainer.place(start), 0, STEPS)
            made: dict[str, Any] = {"losses": metrics["loss"]}
            if case == "tasks" and name != "jit":
                made |= {"valid": run.losses(state), "leaves": run.leaves(state, 0)}
            if name == "4x2":
                embedding = state.params["embedding"].addressable_shards[0].data
                made["local"] = np.array(embedding.shape)
            host = trainer.engine.fetch(state)
            for path_, leaf in jax.tree_util.tree_leaves_with_path(host):
                made[f"state{jax.tree_util.keystr(path_)}"] = np.asarray(leaf)
            arrays |= {f"{case}|{name}|{k}": v for k, v in made.items()}
    np.savez(path, **arrays)


@pytest.fixture
def engines(tmp_path, run_python):
    """What the script wrote, {(case, engine): {name: array}}; made once."""
    return commands.split_by_engine(__file__, tmp_path, run_python)


PAIRS = [(c, e) for c, case in CASES.items() for e in case["engines"] if e != "one"]


@pytest.mark.slow
@pytest.mark.multidevice
@pytest.mark.parametrize(("case", "engine"), PAIRS)
def test_eight_devices_train_as_one(engines, case, engine):
    one, eight = engines[case, "one"], engines[case, engine]
    assert one["losses"].shape == (STEPS,)
    for name in one.keys() & eight.keys():
        if name == "leaves":
            np.testing.assert_array_equal(eight[name], one[name])
        else:
            np.testing.assert_allclose(
                eight[name], one[name], rtol=1e-4, atol=2e-5, err_msg=name
            )


@pytest.mark.slow
@pytest.mark.multidevice
def test_two_devices_split_an_embedding_that_divides(engines):
    for case, settings in CASES.items():
        corpus = make_corpus(settings["names"], form=settings.get("form"))
        # What does not divide stays whole.
        size = corpus.vocabulary.size
        rows = size if size % 2 else size // 2
        local = engines[case, "4x2"]["local"].tolist()
        assert local == [rows, TINY["d_model"]]
        assert engines[case, "one"]["state.step"] == STEPS


def reference_loss(trainer, params, batch, labels):
    """The weighted mean over label tokens, in float64."""
    logits = t5.T5(trainer.arch).apply(
        {"params": params}, batch.tokens, t5.shift_right(batch.labels)
    )
    logits = np.asarray(logits, np.float64)
    total, weight = 0.0, 0.0
    for row in range(len(labels)):
        for place, label in enumerate(labels[row]):
            if batch.labels[row, place] == vocab.PAD:
                continue
            scores = logits[row, place]
            loss = np.log(np.exp(scores - scores.max()).sum()) + scores.max()
            total += float(batch.weights[row]) * (loss - scores[label])
            weight += float(batch.weights[row])
    return total / weight


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_the_weighted_mean_over_label_tokens(one_device, case):
    trainer = make_trainer(CASES[case], one_device, dropout=0.0)
    corpus, state = trainer.corpus, trainer.init()
    examples = corpus.examples(seed=0, epoch=0)
    rows = np.random.default_rng(0).integers(len(examples.task), size=BATCH)
    chosen, history = batches.take(examples, rows), corpus.buckets[-1]
    batch = batches.batch(corpus.tables, chosen, history)
    labels = np.asarray(batch.labels)
    if case == "tasks":
        assert len(np.unique(batch.weights)) == 2
        assert (labels == vocab.PAD).any()
    else:  # heads know codes, not tokens
        first = np.array([first for first, _ in corpus.vocabulary.level_range("text")])
        labels = labels - first
    state = jax.tree.map(jnp.asarray, state)
    loss, _ = jax.jit(trainer._gradient)(state, batch)
    wanted = reference_loss(trainer, state.params, batch, labels)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def batches_of(run, first, count):
    """Rows and bucket of each step, as the run would dispatch them."""
    return [
        (piece.bucket, *row)
        for piece in run._pieces(first, count)
        for row in piece.rows.tolist()
    ]


def test_steps_follow_the_epoch_whatever_the_calls(one_device):
    run = training.Run(make_trainer({}, one_device))
    size = run.trainer.schedule.steps_per_epoch
    assert size > 8
    whole = batches_of(run, 0, 2 * size + 3)
    assert len(whole) == 2 * size + 3
    for cut in (1, size - 1, size, size + 5):
        assert batches_of(run, 0, cut) + batches_of(run, cut, len(whole) - cut) == whole
    # In an epoch each example comes once, but for those that fill up the last batch.
    lengths = batches.slots(
        run.trainer.corpus.tables, run.trainer.corpus.examples(seed=3, epoch=0)
    )
    for epoch in range(2):
        steps = whole[epoch * size : (epoch + 1) * size]
        rows = np.concatenate([step[1:] for step in steps])
        assert set(rows.tolist()) == set(range(len(lengths)))
        assert len(rows) - len(lengths) < BATCH
        for bucket, *rows in steps:
            assert lengths[rows].max() <= run.trainer.corpus.buckets[bucket]
    assert whole[:size] != whole[size : 2 * size]
    pieces = list(run._pieces(0, size))
    assert max(len(piece.rows) for piece in pieces) <= run.trainer.sizes.run
    assert len({piece.bucket for piece in pieces}) == 2


def test_calls_of_any_length_give_the_same_state(one_device):
    trainer = make_trainer({}, one_device)
    run, states, losses = training.Run(trainer), [], []
    for cuts in ([0, 9], [0, 2, 3, 7, 9]):
        state, made = trainer.place(trainer.init()), []
        for first, stop in zip(cuts[:-1], cuts[1:], strict=True):
            state, metrics = run.program().run(state, first, stop - first)
            assert len(metrics["loss"]) == stop - first
            made += metrics["loss"].tolist()
        states.append(trainer.engine.fetch(state))
        losses.append(made)
    assert losses[0] == losses[1]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)
    # A program each for the two buckets, whatever the number of steps.
    assert all(steps._cache_size() == 1 for steps in run._compiled.values())
    assert len(run._compiled) == 2


def test_examples_are_placed_once_unless_an_epoch_draws_others(one_device):
    fixed, drawn = (
        training.Run(make_trainer(case, one_device))
        for case in ({}, {"names": ("fusionseqrec",)})
    )
    for run, same in ((fixed, True), (drawn, False)):
        run._open(0)
        before = run._examples
        run._open(1)
        assert (run._examples is before) == same


def test_the_padding_saved_is_told(one_device):
    run = training.Run(make_trainer({}, one_device))
    padding = run.padding()
    lengths = run.trainer.corpus.examples(seed=3, epoch=0).length
    np.testing.assert_allclose(padding.longest, 1 - lengths.mean() / 8, atol=0.02)
    assert 0.1 < padding.saved < padding.longest
    assert padding.bucketed < padding.longest


@pytest.mark.slow
def test_what_is_learned_is_found(one_device):
    trainer = make_trainer({"optimizer": {"lr": 5e-3}}, one_device, dropout=0.0)
    # It is asked what it was trained on.
    corpus = trainer.corpus
    windows = sequences.training_windows(corpus.inter, held=2, most=8)
    known = tasks.window_examples(windows)
    trainer = dataclasses.replace(
        trainer,
        corpus=dataclasses.replace(
            corpus,
            validation=known,
            catalogues=(dataclasses.replace(corpus.catalogues[0], examples=known),),
        ),
    )
    run = training.Run(trainer)
    state = trainer.place(trainer.init())
    before = run.evaluate(state)
    state, _ = run.program().run(state, 0, 400)
    after = run.evaluate(state)
    assert before["ndcg@10"] < 0.2
    assert after["loss"] < 0.6 * before["loss"]
    assert after["ndcg@10"] > 0.4
    assert after["code_ndcg@10"] >= after["ndcg@10"]
    assert after.keys() == {"loss", *validation.NAMES}


if __name__ == "__main__":
    write_engines(sys.argv[1])
