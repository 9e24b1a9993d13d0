# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which examples an epoch holds, and what is refused."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from rfrec.codes import table
from rfrec.config import UserError
from rfrec.data import sequences, sources
from rfrec.retrieval import batches, tasks, vocab

CODES = {"text": np.zeros((6, 2), int), "image": np.ones((6, 3), int)}
SIZES = {"text": (4, 4), "image": (4, 4, 4)}


def small():
    return sequences.from_histories([[0, 1, 2, 3], [4, 5, 0], [1, 2, 3, 4, 5]], 6)


def vocabulary(names, **options):
    return vocab.build(SIZES, prompts=tasks.prompt_sizes(names), **options)


def listed(names, **options):
    return tasks.training_examples(names, small(), held=2, seed=0, epoch=0, **options)


def test_every_task_has_all_its_examples():
    prefixes, items = 3, 6  # users keep 2, 1 and 3 items
    for name, task in tasks.TASKS.items():
        assert len(listed((name,)).task) == (items if task.pairs else prefixes)
    both = listed(("seqrec", "item2image"))
    assert both.task.tolist() == [0] * prefixes + [1] * items
    assert all(column.dtype == np.int32 for column in both)


def test_coins_are_fair_and_thrown_anew_each_epoch():
    inter = sequences.from_histories([list(range(6))] * 500, 6)
    names = ("fusionseqrec",)

    def coins(seed, epoch):
        return tasks.training_examples(
            names, inter, held=2, seed=seed, epoch=epoch
        ).task

    assert set(coins(0, 0)) == {0, 1} and abs(coins(0, 0).mean() - 0.5) < 0.05
    assert np.array_equal(coins(0, 1), coins(0, 1))
    assert not np.array_equal(coins(0, 0), coins(0, 1))
    assert not np.array_equal(coins(0, 0), coins(1, 0))


def test_only_seqrec_and_seqimage_follow_the_mode():
    names = ("seqrec", "seqimage2item")
    sampled = listed(names, mode=3)
    counts = np.bincount(sampled.task)
    assert counts.tolist() == [2, 3]


def test_item_tasks_skip_items_without_codes():
    rows = np.asarray([1, 4])
    chosen = listed(("item2image",), items=rows)
    tables = tasks.tables(vocabulary(("item2image",)), ("item2image",), CODES, small())
    assert tables.items[chosen.start].tolist() == [1, 4]
    assert chosen.target.tolist() == [1, 4]


def test_two_segments_count_twice():
    names = ("seqrec", "fgfusionseqrec")
    examples = listed(names)
    tables = tasks.tables(vocabulary(names), names, CODES, small())
    slots = batches.slots(tables, examples)
    assert slots.tolist() == [1, 1, 2, 2, 2, 4]


def test_only_needed_modalities_are_kept():
    assert tasks.modalities(("seqrec",)) == ("text",)
    assert tasks.modalities(("seqimage", "fusionseqrec")) == ("text", "image")
    tables = tasks.tables(vocabulary(("seqimage",)), ("seqimage",), CODES, small())
    assert tables.tokens.shape == (1, 6, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tasks.check_tasks(()), "no task is named"),
        (
            lambda: tasks.check_tasks(("seqtext",)),
            "'seqtext' does not exist; use one of seqrec",
        ),
        (lambda: tasks.check_tasks(("seqrec", "seqrec")), "occurs twice; use weights"),
        (
            lambda: tasks.tables(
                vocabulary(("seqimage",)),
                ("seqimage",),
                {"text": CODES["text"]},
                small(),
            ),
            "tasks seqimage need image codes",
        ),
        (
            lambda: tasks.tables(
                vocabulary(("seqrec",)),
                ("seqrec",),
                {"text": CODES["text"] + 4},
                small(),
            ),
            r"codes: row 0, level 0 is 4, out of range 0 to 3",
        ),
        (
            lambda: tasks.tables(
                vocabulary(("seqrec",)), ("item2image",), CODES, small()
            ),
            "0 prompt tokens of item2image",
        ),
        (
            lambda: tasks.tables(
                vocabulary(("seqrec",)),
                ("seqrec",),
                CODES,
                small(),
                form=tasks.Form(separator=True, user=True, end=False),
            ),
            "has no separator",
        ),
        (
            lambda: tasks.tables(
                vocabulary(("seqrec",)),
                ("seqrec",),
                CODES,
                small(),
                form=tasks.Form(user=True),
            ),
            "no user tokens",
        ),
        (
            lambda: tasks.tables(
                vocabulary(("item2image",), user_buckets=3),
                ("item2image",),
                CODES,
                small(),
                form=tasks.Form(user=True),
            ),
            "item2image has no user",
        ),
        (
            lambda: tasks.tables(
                vocabulary(("seqrec",)),
                ("seqrec",),
                CODES,
                small(),
                weights={"seqimage": 2.0},
            ),
            "weight of task 'seqimage', which is not among the tasks",
        ),
    ],
)
def test_bad_wishes_are_named(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.realdata
def test_five_tasks_of_instruments():
    root = Path(os.environ["RFREC_DATA"])
    found = [
        *root.glob("Instruments.index_lemb.json"),
        *root.glob("*/Instruments.index_lemb.json"),
    ]
    if not found:
        pytest.skip("needs Instruments in RFREC_DATA")
    inter = sources.load_interactions(source="folder", name="Instruments")
    paths = {
        "text": found[0],
        "image": found[0].with_name("Instruments.index_vitemb.json"),
    }
    codes = {modality: table.read_index(path).codes for modality, path in paths.items()}
    names = ("seqrec", "seqimage", "item2image", "image2item", "fusionseqrec")
    examples = tasks.training_examples(names, inter, held=2, seed=0, epoch=0)
    assert len(examples.task) == 3 * 84_890 + 2 * 6250
    sizes = {"text": (256,) * 4, "image": (256,) * 4}
    built = vocab.build(sizes, prompts=tasks.prompt_sizes(names))
    tables = tasks.tables(built, names, codes, inter)
    assert batches.width(tables, 20) == 4 + 80 + 1
    some = batches.take(examples, np.arange(0, len(examples.task), 4000))
    made = jax.jit(batches.batch, static_argnums=2)(tables, some, 20)
    filled = (np.asarray(made.tokens) > 0).sum(axis=1)
    prompted = (some.task > 1) * 4
    assert np.array_equal(filled, prompted + 4 * some.length + 1)
    names = vocab.token_strings(built)
    index = json.loads(paths["text"].read_text())
    for row in np.flatnonzero(some.task == 0):
        past = tables.items[some.start[row] :][: some.length[row]]
        wanted = [code for item in past for code in index[str(item)]]
        assert [names[t] for t in made.tokens[row][: filled[row] - 1]] == wanted
        assert [names[t] for t in made.labels[row]] == [
            *index[str(some.target[row])],
            "</s>",
        ]
    assert int(made.tokens.max()) < built.size
