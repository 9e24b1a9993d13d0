# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches of queries through the search, against one search over all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.data import sequences
from rfrec.retrieval import batches, beam, constraint, lists, search, tasks
from rfrec.train import partition
from tests.support import searches
from tests.support.searches import INTER, ITEMS, USERS


def prepare(task, row=0, *, tiger=False):
    """A source with fresh weights, and the test's histories to ask it."""
    source, vocabulary = searches.make(task, row, tiger=tiger)
    windows = sequences.heldout_windows(INTER, "test", most=searches.MOST)
    users = vocabulary.user_tokens(INTER.user_ids) if tiger else None
    return source, search.Queries(INTER.items, INTER.indptr[:-1], windows, users)


def searcher(source, **changes):
    settings = search.Settings(
        batch_size=8, **{"num_beams": 50, "top_k": 50, **changes}
    )
    return search.Searcher(source, settings, partition.make_engine("jit"))


@pytest.mark.parametrize(
    ("task", "row", "tiger"),
    [("fgfusionseqrec", 1, False), ("seqrec", 0, True)],
)
def test_answers_equal_one_search_over_all(task, row, tiger):
    source, queries = prepare(task, row, tiger=tiger)
    asked = searcher(source, buckets=(6, 12))
    made = asked.plan(queries)
    assert len({batch.history for batch in made}) == 2
    found = np.full((USERS, 50), -1)
    scores = np.zeros((USERS, 50))
    for batch, answers in asked.answers(queries, made):
        found[batch.rows[batch.counted]] = answers.items
        scores[batch.rows[batch.counted]] = answers.scores
    examples = tasks.window_examples(queries.windows, row)
    history = int(batches.slots(source.tables, examples).max())
    tokens = batches.batch(source.tables, examples, history).tokens
    index = constraint.make_index(source.trie, source.tokens)
    wanted = jax.jit(beam.search, static_argnums=3)(
        source.params,
        tokens,
        jax.tree.map(jnp.asarray, index),
        beam.settings(source.arch, source.trie, num_beams=50),
    )
    items = np.asarray(wanted.items)[..., 0]
    for user in range(USERS):
        known = dict(zip(items[user], np.asarray(wanted.scores)[user], strict=True))
        listed = found[user][found[user] >= 0]
        assert sorted(listed) == list(range(ITEMS))
        # Logarithms of probabilities: their rounding is that of the logits.
        np.testing.assert_allclose(
            scores[user, :ITEMS],
            [known[item] for item in listed],
            rtol=1e-5,
            atol=5e-5,
        )
    assert (scores[:, ITEMS:] == np.float32(beam.INVALID)).all()


def test_a_plan_holds_every_query_once():
    source, queries = prepare("seqrec")
    for filter_seen in (False, True):
        asked = searcher(source, buckets=(5, 8), filter_seen=filter_seen)
        made = asked.plan(queries)
        rows = np.concatenate([batch.rows[batch.counted] for batch in made])
        assert sorted(rows) == list(range(USERS))
        for batch in made:
            assert len(batch.rows) <= 8
            lengths = queries.windows.length[batch.rows]
            assert lengths.max() <= batch.history
            whole = np.diff(INTER.indptr)[batch.rows] - 1
            assert batch.seen == (64 if filter_seen else 0)
            assert not filter_seen or whole.max() <= batch.seen
        assert len({batch.history for batch in made}) == 3


def test_a_program_is_compiled_once():
    source, queries = prepare("seqrec")
    asked = searcher(source, num_beams=4)
    made = asked.plan(queries)
    assert asked.compile(queries, made) > 0
    before = dict(asked._programs)
    list(asked.answers(queries, made))
    assert asked._programs == before
    assert len(before) == len({(batch.history, len(batch.rows)) for batch in made})


def test_repeats_are_dropped_and_holes_closed():
    leaf_of = np.array([5, 5, 2, 0, -1], np.int32)
    items = np.array([[0, 2, 1, 3], [3, -1, 0, -1]], np.int32)
    found = lists.distinct_codes(items, leaf_of)
    assert found.tolist() == [[5, 2, 0, -1], [0, 5, -1, -1]]
    assert lists.to_front(np.array([[-1, 3, -1, 1]], np.int32)).tolist() == [
        [3, 1, -1, -1]
    ]
