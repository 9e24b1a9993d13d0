# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The search against scores of every item, computed one by one without a search."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfrec.codes import trie
from rfrec.retrieval import beam, constraint, t5

SIZES = (5, 7, 4)
FIRST = (3, 8, 15)
ARCH = t5.Architecture(
    vocab_size=20, d_model=16, d_ff=24, d_kv=8, num_heads=2, num_layers=1,
    num_decoder_layers=2,
)  # fmt: skip
TIGER = t5.Architecture(
    vocab_size=20, d_model=16, d_ff=24, d_kv=8, num_heads=2, num_layers=1,
    num_decoder_layers=1, level_heads=SIZES,
)  # fmt: skip
TOKENS = tuple(np.arange(k, dtype=np.int32) + f for k, f in zip(SIZES, FIRST))  # noqa: B905


def catalogue(seed: int, items: int, *, distinct: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if distinct:
        flat = rng.choice(np.prod(SIZES), items, replace=False)
        return np.stack(np.unravel_index(flat, SIZES), 1).astype(np.int32)
    return rng.integers(0, SIZES, (items, len(SIZES))).astype(np.int32)


def histories(seed: int, users: int = 3) -> jax.Array:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, 20, (users, 9)).astype(np.int32)
    for user, length in enumerate(rng.integers(1, 9, users)):
        tokens[user, length:] = 0
        tokens[user, length - 1] = 1
    return jnp.asarray(tokens)


@functools.cache
def weights(arch: t5.Architecture):
    params = t5.init(arch, jax.random.key(1))
    # Sharper than at the start, so that scores differ well beyond rounding.
    return jax.tree.map(lambda a: 1.7 * a, params)


@functools.partial(jax.jit, static_argnums=0)
def run(spec, params, tokens, index, allowed):
    return beam.search(params, tokens, index, spec, allowed=allowed)


def fill(array, length: int, value: int) -> np.ndarray:
    """Lengthens an array, so that all catalogues share one compiled program."""
    return np.pad(array, (0, length - len(array)), constant_values=value)


def make_index(built: trie.Trie, dense: bool) -> constraint.Index:
    """Lays out a trie with room for every tuple there is, and 8 items of each."""
    levels, nodes = [], 1
    for table, size in zip(trie.tables(built), SIZES, strict=True):
        indptr = fill(table.indptr, nodes + 1, table.indptr[-1])
        child = np.pad(table.child, ((0, nodes - len(table.child)), (0, 0)))
        nodes *= size
        codes = fill(table.codes[: nodes + size], nodes + size, -1)
        levels.append(trie.Table(indptr, codes, child if dense else None))
    items = trie.leaf_table(built)
    items = np.pad(
        items,
        ((0, nodes + 1 - len(items)), (0, 8 - items.shape[1])),
        constant_values=-1,
    )
    return constraint.Index(tuple(levels), TOKENS, items)


def make_filter(built: trie.Trie, **masks) -> constraint.Filter:
    """Makes a filter as long as the index."""
    allowed = constraint.make_filter(built, **masks)
    most = np.cumprod(SIZES)
    counts = [fill(c, n, 0) for c, n in zip(allowed.counts, most, strict=True)]
    return allowed._replace(counts=tuple(counts))


def search(codes, tokens, *, arch=ARCH, beams=20, score="full", dense=True, **masks):
    built = trie.build(codes, SIZES)
    index = make_index(built, dense)
    allowed = make_filter(built, **masks) if masks else None
    most = tuple(min(n, beams) for n in np.cumprod(SIZES).tolist())
    spec = beam.Search(arch, most, SIZES, beams, score)
    return run(spec, weights(arch), tokens, index, allowed)


def item_scores(codes, tokens, score, legal=None, arch=ARCH) -> np.ndarray:
    """Scores every item for every user, in NumPy from the logits of its tokens.

    Args:
      legal: Items among which `level` renormalises; None for all.
    """
    model, params = t5.T5(arch), weights(arch)
    legal = np.ones(len(codes), bool) if legal is None else legal
    labels = np.stack(
        [TOKENS[q][codes[:, q]] for q in range(3)] + [codes[:, 0] * 0 + 1], 1
    )
    labels = labels[:, :3] if arch.level_heads else labels
    out = np.zeros((len(tokens), len(codes)))
    for user, history in enumerate(tokens):
        rows = jnp.broadcast_to(history[None], (len(codes), len(history)))
        shifted = t5.shift_right(jnp.asarray(labels))
        logits = np.asarray(model.apply({"params": params}, rows, shifted), np.float64)
        for i, item in enumerate(codes):
            if not legal[i]:
                continue
            total = 0.0
            for q in range(labels.shape[1]):
                row = logits[i, q]
                if arch.level_heads:
                    row, place = row[: SIZES[q]], item[q]
                else:
                    place = labels[i, q]
                if score == "level":
                    if q == 3:
                        continue
                    same = (codes[:, :q] == item[:q]).all(1) & legal
                    options = np.unique(codes[same, q])
                    row = row[options if arch.level_heads else TOKENS[q][options]]
                    place = int(np.flatnonzero(options == item[q])[0])
                total += row[place] - np.log(np.exp(row - row.max()).sum()) - row.max()
            ends = score == "full" and not arch.level_heads
            out[user, i] = total / 4 if ends else total
    return out


@pytest.mark.parametrize(
    ("arch", "score", "dense"),
    [(ARCH, "full", True), (ARCH, "level", False), (TIGER, "level", True)],
)
def test_wide_beam_equals_scores_of_all_items(arch, score, dense):
    codes, tokens = catalogue(0, 40, distinct=True), histories(0)
    found = search(codes, tokens, arch=arch, beams=64, score=score, dense=dense)
    wanted = item_scores(codes, tokens, score, arch=arch)
    order = np.argsort(-wanted, axis=1)
    np.testing.assert_array_equal(found.valid, [[True] * 40 + [False] * 24] * 3)
    np.testing.assert_array_equal(found.items[:, :40, 0], order)
    ranked = np.take_along_axis(wanted, order, 1)
    np.testing.assert_allclose(found.scores[:, :40], ranked, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(found.codes[:, :40], codes[order])


def greedy_beams(codes, tokens, beams: int) -> list[list[tuple[int, ...]]]:
    """A beam search written with Python dicts, over full-vocabulary scores."""
    kept = []
    for user in range(len(tokens)):
        prefixes = {(): 0.0}
        for q in range(3):
            options = {}
            for prefix, score in prefixes.items():
                rows = np.array(
                    [[0] + [int(TOKENS[i][c]) for i, c in enumerate(prefix)]]
                )
                logits = t5.T5(ARCH).apply(
                    {"params": weights(ARCH)},
                    tokens[user : user + 1],
                    jnp.asarray(rows),
                )
                logs = np.asarray(jax.nn.log_softmax(logits[0, -1]))
                for code in {int(c[q]) for c in codes if tuple(c[:q]) == prefix}:
                    options[*prefix, code] = score + logs[TOKENS[q][code]]
            best = sorted(options, key=options.get, reverse=True)[:beams]
            prefixes = {prefix: options[prefix] for prefix in best}
        kept.append(sorted(prefixes))
    return kept


@pytest.mark.parametrize("beams", [1, 4])
def test_narrow_beam_equals_search_in_python(beams):
    codes, tokens = catalogue(3, 50), histories(3, users=2)
    found = search(codes, tokens, beams=beams)
    ours = [sorted(map(tuple, user.tolist())) for user in found.codes]
    assert ours == greedy_beams(codes, tokens, beams)


def test_level_scores_are_a_distribution_over_items():
    codes, tokens = catalogue(1, 60, distinct=True), histories(1)
    found = search(codes, tokens, beams=64, score="level", dense=False)
    np.testing.assert_allclose(np.exp(found.scores).sum(1), 1.0, rtol=1e-5)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    items=st.integers(1, 60),
    beams=st.sampled_from([1, 64]),
    dense=st.booleans(),
)
def test_beams_are_distinct_codes_of_the_catalogue(seed, items, beams, dense):
    codes = catalogue(seed, items)
    found = search(codes, histories(7), beams=beams, dense=dense)
    rows = {tuple(c) for c in codes.tolist()}
    legal = min(beams, len(rows))
    assert np.isfinite(found.scores).all()
    for user in range(3):
        valid = np.asarray(found.valid[user])
        assert valid.sum() == legal and valid[:legal].all()
        tuples = [tuple(c) for c in np.asarray(found.codes[user])[:legal].tolist()]
        assert len(set(tuples)) == legal and set(tuples) <= rows
        for place, entry in enumerate(tuples):
            same = sorted(i for i, c in enumerate(codes.tolist()) if tuple(c) == entry)
            got = np.asarray(found.items[user, place])
            assert got[got >= 0].tolist() == same
    assert (np.diff(found.scores[:, :legal], axis=1) <= 0).all()


def test_what_is_missing_is_marked_invalid_and_finite():
    codes = catalogue(2, 40, distinct=True)
    keep = np.zeros(40, bool)
    keep[[3, 17, 30]] = True
    found = search(codes, histories(2), beams=64, keep=keep)
    assert found.valid.sum(1).tolist() == [3, 3, 3]
    assert np.isfinite(found.scores).all()
    for rest in (found.codes[:, 3:], found.items[:, 3:], found.leaves[:, 3:]):
        assert (np.asarray(rest) == -1).all()
    assert (found.scores[:, 3:] == beam.INVALID).all()
    assert all(set(user) == {3, 17, 30} for user in found.items[:, :3, 0].tolist())


def test_nothing_allowed_gives_nothing():
    codes = catalogue(2, 12)
    found = search(codes, histories(2), beams=64, keep=np.zeros(12, bool))
    assert not found.valid.any() and np.isfinite(found.scores).all()
    assert (np.asarray(found.items) == -1).all()


@pytest.mark.parametrize(("score", "dense"), [("full", False), ("level", True)])
def test_masks_equal_a_search_among_the_rest(score, dense):
    rng = np.random.default_rng(4)
    codes, tokens = catalogue(4, 70), histories(4)
    keep = rng.random(70) < 0.6
    seen = np.full((3, 40), -1)
    for user in range(3):
        chosen = rng.choice(70, [0, 10, 39][user], replace=False)
        seen[user, : len(chosen)] = chosen
    found = search(
        codes, tokens, beams=64, score=score, dense=dense, keep=keep, seen=seen
    )
    for user in range(3):
        legal = keep & ~np.isin(np.arange(70), seen[user])
        wanted = item_scores(codes, tokens[user : user + 1], score, legal)[0]
        best = {}
        for item in np.flatnonzero(legal):
            best.setdefault(tuple(codes[item].tolist()), []).append(item)
        ranked = sorted(best.values(), key=lambda same: -wanted[same[0]])
        count = len(ranked)
        assert found.valid[user].sum() == count
        got = [[i for i in row if i >= 0] for row in found.items[user].tolist()[:count]]
        assert got == [list(same) for same in ranked]
        np.testing.assert_allclose(
            found.scores[user, :count],
            [wanted[same[0]] for same in ranked],
            rtol=2e-5,
            atol=2e-5,
        )


def test_seen_items_can_fill_a_whole_branch_without_costing_beams():
    codes = catalogue(5, 60, distinct=True)
    seen = np.flatnonzero(codes[:, 0] == codes[0, 0])
    left, seen = 60 - len(seen), fill(seen, 40, -1)
    seen = np.broadcast_to(seen, (3, 40))
    keep = np.ones(60, bool)
    found = search(codes, histories(5), beams=64, dense=False, keep=keep, seen=seen)
    assert found.valid.sum(1).tolist() == [left] * 3
    assert not np.isin(found.items[:, :left], seen[0][seen[0] >= 0]).any()


def test_result_does_not_depend_on_the_batch_or_on_padding():
    codes, tokens = catalogue(6, 50), histories(6)
    found = search(codes, tokens, beams=4)
    turned = search(codes, tokens[::-1], beams=4)
    wider = search(codes, jnp.pad(tokens, ((0, 0), (0, 5))), beams=4)
    for other in (jax.tree.map(lambda a: a[::-1], turned), wider):
        np.testing.assert_array_equal(found.codes, other.codes)
        np.testing.assert_allclose(found.scores, other.scores, atol=1e-5)


def test_a_catalogue_that_grows_a_little_keeps_its_program():
    codes = catalogue(8, 100, distinct=True)
    small, large = (trie.build(codes[:n], SIZES) for n in (97, 100))
    specs = [beam.settings(ARCH, built, num_beams=10) for built in (small, large)]
    shapes = [
        jax.tree.map(np.shape, constraint.make_index(built, TOKENS))
        for built in (small, large)
    ]
    assert specs[0] == specs[1] and shapes[0] == shapes[1]


@functools.partial(jax.jit, static_argnames=("spec", "top_p"))
def draw(params, tokens, index, keys, temperature, *, spec, top_p=1.0, allowed=None):
    return beam.sample(
        params, tokens, index, spec, keys,
        temperature=temperature, top_p=top_p, allowed=allowed,
    )  # fmt: skip


def drawn(codes, tokens, keys, *, temperature=1.0, top_p=1.0, count=2000, keep=None):
    built = trie.build(codes, SIZES)
    index = constraint.make_index(built, TOKENS)
    spec = beam.settings(ARCH, built, num_beams=count, score="level")
    allowed = None if keep is None else constraint.make_filter(built, keep=keep)
    return draw(
        weights(ARCH), tokens, index, keys, temperature,
        spec=spec, top_p=top_p, allowed=allowed,
    )  # fmt: skip


def test_samples_follow_the_distribution_over_items():
    codes, tokens = catalogue(9, 12, distinct=True), histories(9, users=2)
    found = drawn(codes, tokens, jax.random.split(jax.random.key(0), 2))
    wanted = item_scores(codes, tokens, "level")
    for user in range(2):
        items = np.asarray(found.items[user, :, 0])
        share = np.bincount(items, minlength=12) / 2000
        np.testing.assert_allclose(share, np.exp(wanted[user]), atol=0.05)
        np.testing.assert_allclose(found.scores[user], wanted[user][items], atol=1e-4)


def test_cold_samples_are_the_greedy_item_and_a_small_nucleus_too():
    codes, tokens = catalogue(9, 12, distinct=True), histories(9, users=2)
    keys = jax.random.split(jax.random.key(0), 2)
    greedy = search(codes, tokens, beams=64, score="level", dense=False).items[:, 0, 0]
    cold = drawn(codes, tokens, keys, temperature=1e-4, count=20).items[..., 0]
    nucleus = drawn(codes, tokens, keys, top_p=1e-6, count=20).items[..., 0]
    for items in (cold, nucleus):
        np.testing.assert_array_equal(items, np.repeat(greedy[:, None], 20, 1))


def test_samples_respect_masks_and_do_not_depend_on_the_batch():
    codes, tokens = catalogue(10, 50), histories(10)
    keys = jax.random.split(jax.random.key(3), 3)
    keep = np.arange(50) % 3 == 0
    found = drawn(codes, tokens, keys, count=50, keep=keep)
    items = np.asarray(found.items)
    assert keep[items[items >= 0]].all() and (items >= 0).any(2).all()
    turned = drawn(codes, tokens[::-1], keys[::-1], count=50, keep=keep)
    np.testing.assert_array_equal(turned.codes[::-1], found.codes)
