# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compiled batches of every task against strings put together in plain Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.data import sequences
from rfrec.retrieval import batches, tasks, vocab

NUM_ITEMS = 30
SIZES = {"text": (7, 11, 13), "image": (5, 12)}
ALL_TASKS = tuple(tasks.TASKS)
SOURCES = {
    "seqrec": [("text", "text")],
    "seqimage": [("image", "image")],
    "item2image": [("text", "image")],
    "image2item": [("image", "text")],
    "seqitem2image": [("text", "image")],
    "seqimage2item": [("image", "text")],
    "fusionseqrec": [("text", "image"), ("image", "text")],
    "fgfusionseqrec": [("text+image", "text"), ("text+image", "image")],
}
BATCH = jax.jit(batches.batch, static_argnames="history")
LETTERS = {"text": "abc", "image": "AB"}


def make_codes(seed=0):
    rng = np.random.default_rng(seed)
    return {m: rng.integers(0, s, (NUM_ITEMS, len(s))) for m, s in SIZES.items()}


def make_histories(lengths=(3, 4, 5, 9, 27), seed=1):
    rng = np.random.default_rng(seed)
    lists = [rng.permutation(NUM_ITEMS)[:n].tolist() for n in lengths]
    names = [f"u{i}" for i in range(len(lists))]
    return sequences.from_histories(lists, NUM_ITEMS, user_ids=names)


def make_vocabulary(names, layout="compact", prompt_num=3):
    return vocab.build(
        SIZES,
        prompts=tasks.prompt_sizes(names, prompt_num),
        separator=True,
        user_buckets=5,
        layout=layout,
    )


def strings_of(name, way, codes, history, target, separator="", prompt_num=3):
    """Writes input and output of an example as MQL4GRec's strings."""

    def item(modality, row):
        letters = zip(LETTERS[modality], codes[modality][row], strict=True)
        return "".join(f"<{letter}_{code}>" for letter, code in letters)

    def prompt(part):
        numbers = range(part * prompt_num, (part + 1) * prompt_num)
        return "".join(f"<{name}_{i}>" for i in numbers)

    source, answer = SOURCES[name][way]
    text = ""
    for place, modality in enumerate(source.split("+")):
        if name == "fgfusionseqrec":
            text += prompt(2 * way + place)
        elif name not in ("seqrec", "seqimage"):
            text += prompt(0)
        text += "".join(item(modality, row) + separator for row in history)
    return text + "</s>", item(answer, target) + "</s>"


def numberer(vocabulary):
    known = {s: i for i, s in enumerate(vocab.token_strings(vocabulary))}
    return lambda text: [known[part + ">"] for part in text.split(">")[:-1]]


def check_all(names, vocabulary, **epoch):
    """Compares every example of an epoch with its strings."""
    inter, codes = make_histories(), make_codes()
    tables = tasks.tables(vocabulary, names, codes, inter)
    examples = tasks.training_examples(names, inter, held=2, seed=0, epoch=0, **epoch)
    history = int(batches.slots(tables, examples).max())
    made = BATCH(jax.device_put(tables), jax.device_put(examples), history=history)
    tokens, labels = np.asarray(made.tokens), np.asarray(made.labels)
    numbers = numberer(vocabulary)
    assert made.tokens.dtype == made.labels.dtype == jnp.int32
    assert made.tokens.shape == (len(examples.task), batches.width(tables, history))
    owner = [(n, way) for n in names for way in range(len(tasks.TASKS[n].directions))]
    for row, (task, start, length, target) in enumerate(zip(*examples, strict=True)):
        items = tables.items[start : start + length]
        source, answer = strings_of(*owner[int(task)], codes, items, target)
        for array, text in ((tokens, source), (labels, answer)):
            wanted, found = numbers(text), array[row].tolist()
            assert found == wanted + [0] * (len(found) - len(wanted)), (
                owner[task],
                row,
            )
    return {owner[task] for task in examples.task}


@pytest.mark.parametrize("layout", vocab.LAYOUTS)
def test_all_tasks_together_equal_their_strings(layout):
    seen = check_all(ALL_TASKS, make_vocabulary(ALL_TASKS, layout))
    assert seen == {(n, way) for n in ALL_TASKS for way in range(len(SOURCES[n]))}


@pytest.mark.parametrize("name", ALL_TASKS)
def test_each_task_alone_equals_its_strings(name):
    check_all((name,), make_vocabulary((name,)))


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
def test_sampled_windows_equal_their_strings(mode):
    names = ("seqrec", "fusionseqrec")
    check_all(names, make_vocabulary(names), mode=mode, most=4)


def test_tiger_has_user_first_separators_and_no_end():
    inter, codes = make_histories(), make_codes()
    vocabulary = make_vocabulary(("seqrec",))
    tables = tasks.tables(
        vocabulary,
        ("seqrec",),
        codes,
        inter,
        form=tasks.Form(separator=True, user=True, end=False),
    )
    windows = sequences.heldout_windows(inter, "test")
    made = BATCH(tables, tasks.window_examples(windows), history=20)
    users, numbers = vocabulary.user_tokens(inter.user_ids), numberer(vocabulary)
    assert made.tokens.shape == (5, 1 + 20 * 4 + 1) and made.labels.shape == (5, 3)
    for user in range(inter.num_users):
        past, target = inter.history(user)[:-1][-20:], inter.history(user)[-1]
        source, answer = strings_of(
            "seqrec", 0, codes, past, target, separator="<separator_0>"
        )
        wanted = [int(users[user]), *numbers(source)]
        found = np.asarray(made.tokens[user]).tolist()
        assert found == wanted + [0] * (len(found) - len(wanted))
        assert np.asarray(made.labels[user]).tolist() == (numbers(answer)[:-1])


@pytest.mark.parametrize(
    "form", [tasks.Form(), tasks.Form(separator=True, user=True, end=False)]
)
def test_given_histories_read_as_the_data_set_does(form):
    inter, vocabulary = make_histories((1, 2, 20, 26)), make_vocabulary(("seqrec",))
    tables = tasks.tables(vocabulary, ("seqrec",), make_codes(), inter, form=form)
    windows = sequences.latest_windows(inter)
    known = BATCH(tables, tasks.window_examples(windows), history=20)
    assert not np.asarray(known.labels).any()
    rows = sequences.padded_histories(inter.items, windows, 20)
    users = vocabulary.user_tokens(inter.user_ids) if form.user else None
    served = jax.jit(batches.encode_histories, static_argnames="history")(
        tables, rows, windows.length, users, history=20
    )
    assert np.array_equal(served, known.tokens)


def test_users_are_given_exactly_when_they_are_known():
    inter, vocabulary = make_histories(), make_vocabulary(("seqrec",))
    rows, one = jnp.zeros((1, 4), jnp.int32), jnp.ones(1, jnp.int32)
    for form, users in (
        (tasks.Form(separator=True, user=True, end=False), None),
        (tasks.Form(), one),
    ):
        tables = tasks.tables(vocabulary, ("seqrec",), make_codes(), inter, form=form)
        with pytest.raises(ValueError, match="users are required if the tables have"):
            batches.encode_histories(tables, rows, one, users, history=4)


def test_a_larger_bucket_only_adds_padding():
    inter, vocabulary = make_histories(), make_vocabulary(ALL_TASKS)
    tables = tasks.tables(vocabulary, ALL_TASKS, make_codes(), inter)
    examples = tasks.training_examples(ALL_TASKS, inter, held=2, seed=0, epoch=0)
    small = np.flatnonzero(batches.slots(tables, examples) <= 6)[::3]
    chosen = batches.take(examples, small)
    near, far = (BATCH(tables, chosen, history=history) for history in (6, 40))
    assert np.array_equal(near.tokens, far.tokens[:, : near.tokens.shape[1]])
    assert not np.asarray(far.tokens[:, near.tokens.shape[1] :]).any()
    assert np.array_equal(near.labels, far.labels)


def test_batches_are_made_inside_a_loop_on_the_device():
    inter, vocabulary = make_histories(), make_vocabulary(ALL_TASKS)
    tables = tasks.tables(vocabulary, ALL_TASKS, make_codes(), inter)
    examples = tasks.training_examples(ALL_TASKS, inter, held=2, seed=0, epoch=0)
    rows = np.random.default_rng(0).integers(0, len(examples.task), (6, 4))

    @jax.jit
    def total(tables, examples, rows):
        def one(step, total):
            made = batches.batch(tables, batches.take(examples, rows[step]), 40)
            return total + made.tokens.sum() + made.labels.sum()

        return jax.lax.fori_loop(0, rows.shape[0], one, jnp.int32(0))

    whole = BATCH(tables, batches.take(examples, rows.ravel()), history=40)
    assert total(tables, jax.device_put(examples), rows) == (
        whole.tokens.sum() + whole.labels.sum()
    )


def test_weights_belong_to_their_tasks():
    names = ("seqrec", "fusionseqrec", "item2image")
    inter, vocabulary = make_histories(), make_vocabulary(names)
    tables = tasks.tables(
        vocabulary, names, make_codes(), inter, weights={"fusionseqrec": 0.25}
    )
    examples = tasks.training_examples(names, inter, held=2, seed=0, epoch=0)
    weights = np.asarray(BATCH(tables, examples, history=20).weights)
    rows = tasks.task_rows(names)
    fused = np.isin(examples.task, rows["fusionseqrec"])
    assert (weights[fused] == 0.25).all() and (weights[~fused] == 1).all()
