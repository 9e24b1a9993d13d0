# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows of retrieval: both sides do the same, and the numbers are what they say."""

import dataclasses
import itertools
import json
import types
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.benchmarks import cases, data, retrieval, timing, torch_t5
from rfrec.benchmarks import trie as bench_trie
from rfrec.benchmarks.options import SMOKE, Histories, Options, check_sizes
from rfrec.codes import trie
from rfrec.config import UserError, override
from rfrec.data import sequences
from rfrec.retrieval import beam, constraint, hf, t5, tasks, training


@pytest.fixture(autouse=True)
def synthetic(request, monkeypatch):
    if not request.node.get_closest_marker("realdata"):
        monkeypatch.delenv("RFREC_DATA", raising=False)


def _case(name, **changes):
    """Returns a case of the tiny sizes, with some sizes of its group replaced."""
    options = override(SMOKE, **{name.split("/")[0]: changes})
    return next(case for case in cases.build(options) if case.name == name)


def _found(seed=0):
    return data.coded_histories(SMOKE.histories, seed)


def test_the_rows_have_the_promised_names():
    names = [case.name for case in cases.build(Options())]
    sizes = [f"1e{n}{levels}" for levels in ("", "_8") for n in range(4, 8)]
    begin, end = map(names.index, ("beam/t5_vocabulary", "gume/train_step_baby"))
    assert names[begin:end] == [
        "beam/t5_vocabulary",
        "beam/compact",
        "beam/as_shipped",
        "t5/train_step",
        "t5/train_as_shipped",
        *(f"trie/build_{size}" for size in sizes),
        *(f"trie/step_overhead_{size}" for size in sizes),
        *(f"trie/search_{size}" for size in sizes),
    ]


def test_the_model_and_its_use_are_mql4grecs():
    options = Options()
    arch = t5.Architecture(vocab_size=1)
    for name, value in dataclasses.asdict(options.model).items():
        assert getattr(arch, name) == value
    assert options.t5.dropout == arch.dropout
    assert (options.beam.beams, options.t5.batch_size) == (20, 256)
    assert options.histories.max_history == 20
    assert retrieval.vocabulary((256,) * 4, "t5").size == 34_148
    assert retrieval.vocabulary((256,) * 4).size == 2 + 2048


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beam": {"buckets": (8, 4)}}, "must be history lengths in ascending order"),
        ({"t5": {"dropout": 1.0}}, "dropout"),
        ({"trie": {"levels": (0,)}}, "levels"),
        ({"model": {"d_ff": 0}}, "d_ff=0"),
    ],
)
def test_impossible_sizes_are_named(change, message):
    with pytest.raises(UserError, match=message):
        override(SMOKE, **change)


def test_more_users_than_there_are_is_refused():
    with pytest.raises(UserError, match="config.beam.users=61: must be at most 60"):
        check_sizes(override(SMOKE, beam={"users": 61}))


# The data.


def test_synthetic_histories_are_as_long_as_those_of_instruments():
    sizes = Histories()
    found = data.coded_histories(sizes, 0)
    lengths = np.diff(found.inter.indptr)
    assert lengths.min() == 5 and lengths.mean() == pytest.approx(7.96, abs=0.1)
    assert np.mean(lengths == 5) == pytest.approx(0.331, abs=0.01)
    assert np.mean(lengths > 20) == pytest.approx(0.026, abs=0.003)
    assert found.codes.shape == (6250, 4) and found.sizes == (256,) * 4


@pytest.mark.realdata
def test_the_lengths_are_those_of_the_data():
    if not data.has_instruments():
        pytest.skip("RFREC_DATA holds no Instruments")
    sizes = Histories()
    found = data.coded_histories(sizes, 0)
    assert found.inter.num_users == sizes.num_users
    assert found.codes.shape == (sizes.num_items, sizes.levels)
    lengths = np.diff(found.inter.indptr)
    shares = data._USERS / data._USERS.sum()
    assert lengths.mean() == pytest.approx(shares @ data._LENGTHS, rel=0.005)
    for length, share in zip(range(5, 21), shares, strict=False):
        assert np.mean(lengths == length) == pytest.approx(share, abs=1e-3)


def test_instruments_are_read_from_a_folder_below(monkeypatch, tmp_path):
    monkeypatch.setenv("RFREC_DATA", str(tmp_path))
    assert not data.has_instruments()
    folder = tmp_path / "any"
    folder.mkdir()
    users = {"0": [0, 1, 2, 3, 4], "1": [4, 3, 2, 1, 0, 5]}
    index = {str(i): [f"<a_{i}>", f"<b_{i + 1}>"] for i in range(6)}
    (folder / "Instruments.inter.json").write_text(json.dumps(users))
    assert not data.has_instruments()
    (folder / "Instruments.index_lemb.json").write_text(json.dumps(index))
    assert data.has_instruments()
    found = data.coded_histories(Histories(), 0)
    assert found.inter.history(1).tolist() == users["1"]
    assert found.codes.tolist() == [[i, i + 1] for i in range(6)]
    assert found.sizes == (256, 256)


def test_first_codes_follow_a_power_law():
    codes = data.drawn_codes(np.random.default_rng(0), 50_000, 3, 256)
    perplexity = []
    for column in codes.T:
        share = np.bincount(column) / len(column)
        share = share[share > 0]
        perplexity.append(np.exp(-np.sum(share * np.log(share))))
    assert 14 < perplexity[0] < 17 and min(perplexity[1:]) > 250


def test_as_many_users_are_drawn_as_give_the_examples():
    inter = _found().inter
    some = retrieval.some_users(inter, 50, 0)
    made = np.diff(some.indptr) - 3
    assert made[:-1].sum() < 50 <= made.sum()
    names = [some.user_ids.index(name) for name in some.user_ids]
    for user, name in enumerate(some.user_ids):
        np.testing.assert_array_equal(some.history(user), inter.history(int(name)))
    assert names == list(range(some.num_users))


# Both sides.


class Sides(NamedTuple):
    ours: Callable[[], np.ndarray]
    torch: Callable[[], np.ndarray]
    bench: timing.Bench


def _both_sides(case):
    pytest.importorskip("torch", reason="times or compares torch")
    made = case.prepare(torch=True)
    assert made.torch is not None
    return Sides(made.ours, made.torch, made)


@pytest.mark.parametrize("name", ["t5_vocabulary", "as_shipped"])
def test_both_sides_find_the_same_items(name):
    made = _both_sides(_case(f"beam/{name}", users=11))
    ours, theirs = made.ours(), np.concatenate([made.torch(), made.torch()])
    assert made.bench.per_block == 8 and made.bench.torch_per_block == 4
    assert len(ours) == 8 and theirs.shape == (8, 5, 3 + 1)
    assert made.bench.disagreement(ours, theirs) < 1e-5
    # Users get different lists: the weights do something.
    assert len({tuple(rows[:, 0]) for rows in ours}) > 1
    theirs[5, 2, 0] = 7 - theirs[5, 2, 0]
    assert made.bench.disagreement(ours, theirs) > 1e-4
    # Theirs goes on with the first users.
    np.testing.assert_allclose(made.torch(), theirs[:4], rtol=1e-6)


def test_both_sides_start_from_the_same_loss():
    made = _both_sides(_case("t5/train_as_shipped"))
    ours, theirs = made.ours(), made.torch()
    assert made.bench.disagreement(ours, theirs) < 1e-5
    assert made.bench.disagreement(ours, theirs * np.nan) == np.inf
    assert 30 <= made.bench.per_block < 50 and made.bench.torch_per_block == 16
    assert len(ours) == -(-made.bench.per_block // 16) and len(theirs) == 1


def test_both_sides_train_alike_without_dropout():
    case = _case("t5/train_step", dropout=0.0, examples=10)
    count = case.prepare(torch=False).per_block
    # One batch of all examples, so that their order does not matter.
    case = _case("t5/train_step", dropout=0.0, examples=10, batch_size=count)
    made = _both_sides(case)
    losses = np.array([(made.ours(), made.torch()) for _ in range(4)])[..., 0]
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-4)
    assert losses[-1, 0] < 0.99 * losses[0, 0]


def test_a_batch_of_theirs_is_as_wide_as_its_longest():
    found = _found()
    side = retrieval.build_side(SMOKE, "compact", found)
    windows = sequences.heldout_windows(found.inter, "test", most=20)
    examples = tasks.window_examples(windows)
    longest = int(windows.length.max())
    tokens = np.asarray(retrieval.padded(side, examples, 20).tokens)
    assert tokens.shape == (60, 3 * longest + 1)
    assert ((tokens != 0).sum(axis=1) == 3 * windows.length + 1).all()


def test_the_weights_are_the_same_but_for_tokens_out_of_use():
    found = _found()
    small, large = (
        retrieval.build_side(SMOKE, layout, found) for layout in ("compact", "t5")
    )
    for name in ("text", "image"):
        pairs = zip(
            small.vocabulary.code_tokens(name),
            large.vocabulary.code_tokens(name),
            strict=True,
        )
        for here, there in pairs:
            np.testing.assert_array_equal(
                small.weights.params["embedding"][here],
                large.weights.params["embedding"][there],
            )
    rest = [
        {k: v for k, v in side.weights.params.items() if k != "embedding"}
        for side in (small, large)
    ]
    assert jax.tree.all(jax.tree.map(np.array_equal, *rest))
    tokens, spelled = jnp.array([[5, 9, 1]]), retrieval._tokens(large.vocabulary)
    logits, there = (
        jax.jit(t5.T5(side.weights.arch).apply)(
            {"params": side.weights.params}, rows, jnp.array([[0]])
        )
        for side, rows in ((small, tokens), (large, jnp.asarray(spelled)[tokens]))
    )
    chances = np.asarray(jax.nn.softmax(jnp.asarray(there)))[0, 0]
    wanted = np.asarray(jax.nn.softmax(jnp.asarray(logits)))[0, 0]
    order = retrieval._tokens(small.vocabulary)
    np.testing.assert_allclose(chances[spelled], wanted[order], rtol=1e-5)
    assert np.delete(chances, spelled).max() == 0


def test_their_trie_allows_what_items_have():
    items = np.array([[4, 7], [4, 8], [5, 7], [4, 8]])
    allowed = torch_t5.prefixes(items)
    for prefix, wanted in [
        ([0], {4, 5}),
        ([0, 4], {7, 8}),
        ([0, 5], {7}),
        ([0, 4, 8], {1}),
    ]:
        assert set(allowed(0, np.array(prefix))) == wanted


def _lists(*rows):
    return np.array([rows], float)


@pytest.mark.parametrize(
    ("ours", "theirs", "gap"),
    [
        # One list; another order of a tie; a tie at the end broken otherwise.
        (_lists([1, -1], [2, -2]), _lists([1, -1], [2, -2]), 0),
        (_lists([1, -1], [2, -1]), _lists([2, -1], [1, -1]), 0),
        (_lists([1, -1], [2, -2]), _lists([1, -1], [3, -2]), 0),
        # Two items of one leaf; the rest of a list.
        (_lists([1, -1], [1, -1], [2, -2], [-1, -9]), _lists([1, -1], [2, -2]), 0),
        # A score that differs; a leaf that is not found; one that should not be.
        (_lists([1, -1], [2, -2]), _lists([1, -1], [2, -1.6]), 0.25),
        (_lists([1, -1], [3, -4]), _lists([1, -1], [2, -2]), 1),
        (_lists([1, -1], [2, -2]), _lists([2, -1], [1, -2]), 1),
        # Not in order; fewer leaves; none.
        (_lists([1, -2], [2, -1]), _lists([1, -2], [2, -1]), np.inf),
        (_lists([1, -1], [-1, -1]), _lists([1, -1], [2, -1]), np.inf),
        (_lists([-1, -1]), _lists([-1, -1]), np.inf),
    ],
)
def test_lists_differ_by_more_than_ties(ours, theirs, gap):
    assert retrieval.list_gap(ours, theirs) == pytest.approx(gap)


def test_scores_that_are_none_differ():
    lists = _lists([1, -1], [2, np.nan])
    assert not retrieval.list_gap(lists, lists) <= 1e9


def test_a_search_where_all_is_legal_equals_one_among_all_tuples():
    words = retrieval.vocabulary((4, 4, 4))
    arch = retrieval.build_architecture(SMOKE, words)
    params = training.fresh_weights(arch, 0)
    every = np.array(list(itertools.product(range(4), repeat=3)), np.int32)
    built, tokens = trie.build(every, (4, 4, 4)), words.code_tokens("text")
    histories = bench_trie._histories(words, SMOKE)
    limited = beam.settings(arch, built, num_beams=6)
    free = bench_trie.free_search(arch, (4, 4, 4), 6)
    search = jax.jit(beam.search, static_argnums=3)
    index = constraint.make_index(built, tokens)
    wanted = search(params, histories, index, limited)
    found = search(params, histories, bench_trie.free_index(tokens), free)
    np.testing.assert_array_equal(found.codes, wanted.codes)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-6)


# The numbers.


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("beam/as_shipped", "users/s"),
        ("t5/train_step", "samples/s"),
        ("trie/build_2000_4", "s"),
        ("trie/step_overhead_1000", "fraction"),
        ("trie/search_1000", "users/s"),
    ],
)
def test_a_row_holds_what_was_measured(name, unit):
    row = cases.measure(_case(name), torch=False)
    assert row.name == name and row.unit == unit and row.device
    assert row.torch is None and row.ratio is None and row.peak_bytes >= 0
    assert -1 < row.ours < 1e5 and (unit == "fraction" or row.ours > 0)
    assert json.loads(json.dumps(row._asdict())) == row._asdict()


def test_memory_of_a_search_covers_the_trie():
    rows = [
        cases.measure(_case(f"trie/step_overhead_{n}", num_items=(n,)), torch=False)
        for n in (10, 4000)
    ]
    assert rows[1].peak_bytes > rows[0].peak_bytes + 3000 * 4


def _timed(monkeypatch, costs, **fields):
    """Measures a made-up case whose blocks take these seconds, in this order."""
    now, costs = [0.0], iter(costs)

    def block():
        now[0] += next(costs)
        return np.array(0)

    made = timing.Bench(
        ours=block,
        torch=block if "torch_per_block" in fields else None,
        against=block if fields["unit"] == "fraction" else None,
        disagreement=lambda a, b: 0.0,
        tolerance=0.0,
        peak_bytes=lambda: 0,
        **fields,
    )
    monkeypatch.setattr(cases.Case, "prepare", lambda case, torch: made)
    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(cases, "time", clock)
    monkeypatch.setattr(cases.Case, "repetitions", 3)
    return cases.measure(_case("beam/compact"), torch=True)


def test_the_ratio_of_rates_counts_the_work_of_each_side(monkeypatch):
    costs = [9, 9, 1, 8, 2, 8, 7, 9]
    row = _timed(monkeypatch, costs, unit="users/s", per_block=100, torch_per_block=20)
    assert (row.ours, row.torch, row.ratio) == (50, 2.5, 20)


def test_a_fraction_is_what_a_block_takes_beyond_the_other(monkeypatch):
    row = _timed(monkeypatch, [9, 9, 3, 2, 5, 4, 6, 2], unit="fraction", per_block=1)
    assert (row.ours, row.torch, row.ratio) == (0.5, None, None)


def test_the_hf_model_is_ours():
    torch = pytest.importorskip("torch", reason="times or compares torch")
    side = retrieval.build_side(SMOKE, "compact", _found())
    model = torch_t5.build(side.weights, "cpu")
    assert model.lm_head.weight is model.shared.weight
    state = model.state_dict()
    for name, tensor in hf.to_tensors(side.weights).items():
        assert torch.equal(state[name], torch.tensor(tensor))
