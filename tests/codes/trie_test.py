# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The trie against sets of prefixes, its changes against building anew, its files."""

import collections
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfrec.codes import table, trie, trie_edit, trie_file
from rfrec.config import UserError

# Levels that fit one machine word, that need several, and of one code.
SIZES = ((5,), (1,), (3, 2), (4, 1, 3), (2, 7, 3, 2), (2**31 - 1,) * 3, (256,) * 9)


@st.composite
def catalogues(draw):
    """Draws colliding codes, sizes, and items in any order with gaps."""
    sizes = draw(st.sampled_from(SIZES))
    seed = draw(st.integers(0, 2**32 - 1))
    rows = draw(st.sampled_from((1, 2, 3, 8, 40, 200)))
    rng = np.random.default_rng(seed)
    # A few codes of each level, its first and last among them.
    pool = [np.unique([0, size - 1, *rng.integers(0, size, 2)]) for size in sizes]
    codes = np.stack([rng.choice(used, rows) for used in pool], 1).astype(np.int32)
    items = rng.choice(rows * 2, rows, replace=False)
    return codes, sizes, items


def prefix_tree(codes, items):
    """Maps each prefix to the codes that follow it, each full tuple to its items."""
    tree = collections.defaultdict(set)
    for row, item in zip(codes.tolist(), items.tolist(), strict=True):
        for level, code in enumerate(row):
            tree[tuple(row[:level])].add(code)
        tree[tuple(row)].add(item)
    return {prefix: sorted(following) for prefix, following in tree.items()}


def prefixes_of(built):
    """Walks a trie: the prefixes of each depth, in order of the nodes."""
    depths: list[list[tuple[int, ...]]] = [[()]]
    for indptr, codes in zip(built.indptr, built.codes, strict=True):
        depths.append(
            [
                (*prefix, int(codes[child]))
                for node, prefix in enumerate(depths[-1])
                for child in range(indptr[node], indptr[node + 1])
            ]
        )
    return depths


def as_tree(built):
    tree = {}
    for prefixes, indptr, values in zip(
        prefixes_of(built), built.pointers, built.values, strict=True
    ):
        for node, prefix in enumerate(prefixes):
            tree[prefix] = values[indptr[node] : indptr[node + 1]].tolist()
    return tree


def codes_of(built):
    """Lists the table that a trie indexes: code tuples in order, and their items."""
    bounds = trie.leaf_bounds(built, built.leaf_indptr)
    codes = np.empty((len(built.leaf_items), len(built.sizes)), np.int32)
    for level, below in enumerate(bounds[1:]):
        codes[:, level] = np.repeat(built.codes[level], np.diff(below))
    return codes, built.leaf_items


def assert_same(one, other):
    assert (one.sizes, one.num_items) == (other.sizes, other.num_items)
    pairs = zip(
        (*one.pointers, *one.values), (*other.pointers, *other.values), strict=True
    )
    for left, right in pairs:
        assert left.dtype == right.dtype == np.int32
        np.testing.assert_array_equal(left, right)


# What a trie holds.


@given(catalogues())
def test_trie_holds_exactly_the_prefixes(catalogue):
    codes, sizes, items = catalogue
    built = trie.build(codes, sizes, items)
    assert as_tree(built) == prefix_tree(codes, items)
    for prefixes in prefixes_of(built):
        assert prefixes == sorted(prefixes)
    assert built.num_items == items.max() + 1
    prefixes = [{tuple(row[: d + 1]) for row in codes} for d in range(len(sizes))]
    assert built.num_nodes == tuple(map(len, prefixes))
    tree = prefix_tree(codes, items)
    widths = [max(len(tree[p]) for p in tree if len(p) == d) for d in range(len(sizes))]
    assert built.widths == tuple(widths)


@given(catalogues())
def test_codes_of_lists_the_table_and_leaf_of_inverts_it(catalogue):
    codes, sizes, items = catalogue
    built = trie.build(codes, sizes, items, num_items=3 * len(items))
    rows, owners = codes_of(built)
    expected = sorted(zip(codes.tolist(), items.tolist(), strict=True))
    assert list(zip(rows.tolist(), owners.tolist(), strict=True)) == expected
    leaves, found = trie.leaf_of(built), trie_edit.find(built, codes)
    np.testing.assert_array_equal(leaves[items], found)
    assert (np.delete(leaves, items) == -1).all()
    last = prefixes_of(built)[-1]
    assert [last[leaf] for leaf in found] == [tuple(row) for row in codes.tolist()]


def test_items_default_to_rows():
    codes = np.array([[1, 0], [0, 1], [1, 0]])
    assert_same(
        trie.build(codes, (2, 2)), trie.build(codes[::-1], (2, 2), np.arange(3)[::-1])
    )


@given(catalogues(), st.integers(0, 2**32 - 1))
def test_find_knows_only_what_is_there(catalogue, seed):
    codes, sizes, items = catalogue
    built = trie.build(codes, sizes, items)
    rng = np.random.default_rng(seed)
    mixed = np.stack([rng.permutation(column) for column in codes.T], 1)
    asked = np.concatenate([mixed, mixed + 1, mixed - 1, codes])
    known = {prefix: leaf for leaf, prefix in enumerate(prefixes_of(built)[-1])}
    expected = [known.get(tuple(row), -1) for row in asked.tolist()]
    assert trie_edit.find(built, asked).tolist() == expected
    assert trie_edit.find(built, asked[:0]).shape == (0,)


def test_large_tables_equal_numpy():
    """Rows enough that words of 8 levels and a row number exceed 63 bits."""
    codes = np.random.default_rng(0).integers(0, 3, (5000, 8), np.int32) * 100
    codes[:, 7] += np.arange(5000) % 2
    built = trie.build(codes, (256,) * 8)
    rows, items = codes_of(built)
    order = np.lexsort(codes.T[::-1])
    np.testing.assert_array_equal(items, order)
    np.testing.assert_array_equal(rows, codes[order])
    for depth in range(1, 9):
        assert built.num_nodes[depth - 1] == len(np.unique(codes[:, :depth], axis=0))


# Changes.


@given(catalogues(), st.data())
def test_adding_and_removing_equal_a_rebuild(catalogue, data):
    codes, sizes, items = catalogue
    kept = data.draw(st.integers(1, len(items)))
    small = trie.build(codes[:kept], sizes, items[:kept])
    whole = trie.build(codes, sizes, items)
    if kept == len(items):
        return
    assert_same(trie_edit.add(small, codes[kept:], items[kept:]), whole)
    rebuilt = trie.build(codes[:kept], sizes, items[:kept], whole.num_items)
    assert_same(trie_edit.remove(whole, items[kept:]), rebuilt)


def test_adding_one_by_one_in_any_order_equals_a_build():
    rng = np.random.default_rng(1)
    codes, sizes = rng.integers(0, (3, 4, 2), (60, 3)), (3, 4, 2)
    first, *others = rng.permutation(60)
    grown = trie.build(codes[[first]], sizes, np.array([first]))
    for item in others:
        grown = trie_edit.add(grown, codes[[item]], np.array([item]))
    assert_same(grown, trie.build(codes, sizes))
    for item in others:
        grown = trie_edit.remove(grown, np.array([item]))
    assert_same(grown, trie.build(codes[[first]], sizes, np.array([first]), 60))


def test_an_item_joins_a_leaf_in_order_and_leaves_it_again():
    built = trie.build(np.array([[1, 1], [0, 2], [1, 1]]), (2, 3), np.array([7, 3, 1]))
    joined = trie_edit.add(built, np.array([[1, 1]]), np.array([5]))
    assert as_tree(joined)[1, 1] == [1, 5, 7]
    assert joined.num_nodes == built.num_nodes
    assert_same(trie_edit.remove(joined, np.array([5])), built)
    assert (1,) not in as_tree(trie_edit.remove(built, np.array([1, 7])))


def test_changes_leave_the_trie_as_it_was():
    codes = np.array([[0, 1], [1, 0]])
    built, same = trie.build(codes, (2, 2)), trie.build(codes, (2, 2))
    trie_edit.add(built, codes, np.array([2, 3]))
    trie_edit.remove(built, np.array([0]))
    assert_same(built, same)


def test_removing_nothing_changes_nothing():
    built = trie.build(np.array([[0, 1], [1, 0]]), (2, 2))
    assert_same(trie_edit.remove(built, np.zeros(0, int)), built)


@pytest.mark.parametrize(
    ("codes", "items", "message"),
    [
        ([[0, 1]], [1], "item 1 is already in the trie; remove it first"),
        ([[0, 1], [0, 1]], [4, 4], "item 4 occurs twice"),
        ([[0, 1]], [-1], "item -1 is not a row"),
        ([[0, 1]], [2**31], "item 2147483648 is not a row"),
        ([[0, 1]], [4, 5], "there are 2 items for 1 rows"),
        ([[0, 3]], [4], "row 0, level 1 is 3, out of range 0 to 2"),
        ([[0, 1, 1]], [4], "codes have 3 levels but there are 2 sizes"),
        (np.zeros((0, 2), int), [], "contain no item"),
    ],
)
def test_items_that_cannot_be_added_are_refused(codes, items, message):
    built = trie.build(np.array([[0, 1], [1, 0]]), (2, 3))
    with pytest.raises(UserError, match=message):
        trie_edit.add(built, np.asarray(codes), np.asarray(items, int))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([0, 2], "item 2 is not in the trie; nothing was removed"),
        ([9], "item 9 is not in the trie"),
        ([-1], "item -1 is not a row"),
        ([1, 1], "item 1 occurs twice"),
        ([0, 1, 3], "removing all 3 items would leave an empty trie"),
    ],
)
def test_items_that_cannot_be_removed_are_refused(items, message):
    built = trie.build(np.array([[0, 1], [1, 0], [1, 2]]), (2, 3), np.array([0, 1, 3]))
    with pytest.raises(UserError, match=message):
        trie_edit.remove(built, np.array(items))


@pytest.mark.parametrize(
    ("codes", "sizes", "options", "message"),
    [
        ([[0, 2]], (2, 2), {}, "row 0, level 1 is 2, out of range 0 to 1"),
        ([[0, -1]], (2, 2), {}, "row 0, level 1 is -1"),
        ([[0, 1]], (2,), {}, "codes have 2 levels but there are 1 sizes"),
        ([[0, 1]], (2, 2**31), {}, "level sizes are"),
        ([[0, 1]], (0, 2), {}, "level sizes are"),
        (np.zeros((0, 2), int), (2, 2), {}, "contain no item"),
        ([[0, 1]], (2, 2), {"items": np.array([0, 1])}, "there are 2 items for 1 rows"),
        ([[0, 1]] * 2, (2, 2), {"items": np.array([3, 3])}, "item 3 occurs twice"),
        ([[0, 1]], (2, 2), {"items": np.array([-2])}, "item -2 is not a row"),
        ([[0, 1]] * 2, (2, 2), {"num_items": 1}, "item 1 is not in a catalogue of 1"),
    ],
)
def test_bad_tables_are_refused(codes, sizes, options, message):
    with pytest.raises(UserError, match=message):
        trie.build(np.asarray(codes), sizes, **options)


def test_find_refuses_another_number_of_levels():
    built = trie.build(np.array([[0, 1]]), (2, 2))
    with pytest.raises(UserError, match="codes have 3 levels, the trie has 2"):
        trie_edit.find(built, np.zeros((1, 3), int))


# What devices read.


@settings(max_examples=50)
@given(catalogues(), st.sampled_from((0, 200, 2**24)))
def test_tables_lead_to_the_same_children(catalogue, dense_bytes):
    codes, sizes, items = catalogue
    built = trie.build(codes, sizes, items)
    levels, nodes = trie.tables(built, dense_bytes), (1, *built.num_nodes)
    for level, (indptr, values, child) in enumerate(levels):
        wide, last = trie.slots(built)[level], built.num_nodes[level]
        assert built.widths[level] <= wide <= sizes[level]
        assert nodes[level] <= len(indptr) - 1 <= max(8, nodes[level] * 9 / 8)
        assert indptr.max() + wide <= len(values)
        assert (values[last:] == -1).all()
        np.testing.assert_array_equal(values[:last], built.codes[level])
        for node in range(len(indptr) - 1):
            children = np.arange(indptr[node], indptr[node + 1])
            whole = built.indptr[level][node : node + 2]
            same = np.arange(*whole) if node < nodes[level] else np.zeros(0)
            np.testing.assert_array_equal(children, same)
            if child is not None:
                expected = np.full(sizes[level], -1)
                expected[values[children]] = children
                np.testing.assert_array_equal(child[node], expected)
        if child is not None:
            assert child.shape == (len(indptr) - 1, sizes[level])
        assert (child is not None) == (
            4 * (len(indptr) - 1) * sizes[level] <= dense_bytes
        )


def test_tables_keep_their_shape_while_a_catalogue_grows_a_little():
    rng = np.random.default_rng(2)
    codes, sizes = rng.integers(0, 16, (2190, 4)), (16,) * 4

    def shapes(built):
        arrays = [a for level in trie.tables(built) for a in level if a is not None]
        arrays += [*trie.item_counts(built), trie.ancestors(built)]
        return [trie.slots(built), *(array.shape for array in arrays)]

    small = trie.build(codes[:2150], sizes)
    assert shapes(small) == shapes(trie.build(codes, sizes))


def test_capacity_rounds_up_by_an_eighth_at_most():
    for length in [*range(1, 600), 10**6, 10**7 + 1]:
        rounded = trie.capacity(length, 2**40)
        assert length <= rounded <= length + max(7, length / 8)
        assert trie.capacity(length, length) == length
    assert len({trie.capacity(length, 2**40) for length in range(1000, 10_000)}) < 30


@given(catalogues())
def test_leaf_table_and_ancestors_equal_a_walk(catalogue):
    codes, sizes, items = catalogue
    built = trie.build(codes, sizes, items)
    tree, depths = as_tree(built), prefixes_of(built)
    owners, above = trie.leaf_table(built), trie.ancestors(built)
    assert owners.shape[1] == max(map(len, (tree[leaf] for leaf in depths[-1])))
    assert len(owners) == len(above) > len(depths[-1])
    for leaf, prefix in enumerate(depths[-1]):
        assert [i for i in owners[leaf].tolist() if i >= 0] == tree[prefix]
        for depth in range(1, len(sizes) + 1):
            assert depths[depth][above[leaf, depth - 1]] == prefix[:depth]
    assert (owners[len(depths[-1]) :] == -1).all()
    assert (above[len(depths[-1]) :] == -1).all()


@given(catalogues(), st.integers(0, 2**32 - 1), st.sampled_from((0.0, 0.3, 1.0)))
def test_masks_equal_counting(catalogue, seed, share):
    codes, sizes, items = catalogue
    built = trie.build(codes, sizes, items)
    keep = np.random.default_rng(seed).random(built.num_items) < share
    counts, marks = trie.item_counts(built, keep), trie.alive(built, keep)
    lengths = [len(level.codes) for level in trie.tables(built)]
    for depth, prefixes in enumerate(prefixes_of(built)[1:], 1):
        kept = [tuple(row[:depth]) for row in codes[keep[items]].tolist()]
        found = collections.Counter(kept)
        expected = [found[prefix] for prefix in prefixes]
        assert counts[depth - 1][: len(prefixes)].tolist() == expected
        assert not counts[depth - 1][len(prefixes) :].any()
        assert (
            len(counts[depth - 1]) == lengths[depth - 1] - trie.slots(built)[depth - 1]
        )
        np.testing.assert_array_equal(marks[depth - 1], counts[depth - 1] > 0)
    everything = trie.item_counts(built, np.ones(built.num_items, bool))
    for left, right in zip(trie.item_counts(built), everything, strict=True):
        np.testing.assert_array_equal(left, right)


@given(catalogues(), st.integers(0, 2**32 - 1))
def test_a_masked_trie_is_the_trie_of_the_kept_items(catalogue, seed):
    codes, sizes, items = catalogue
    built = trie.build(codes, sizes, items)
    keep = np.random.default_rng(seed).random(built.num_items) < 0.5
    if not keep[items].any():
        return
    small = trie.build(codes[keep[items]], sizes, items[keep[items]])
    marks = trie.alive(built, keep)
    for depth, prefixes in enumerate(prefixes_of(built)[1:]):
        alive = [p for p, mark in zip(prefixes, marks[depth], strict=False) if mark]
        assert alive == prefixes_of(small)[depth + 1]


def test_a_seen_item_closes_a_node_only_with_the_last_item_below():
    """Counts and paths suffice for a filter: no walk, whatever collides."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 3, (40, 3))
    built = trie.build(codes, (3, 3, 3))
    paths = trie.ancestors(built)[trie.leaf_of(built)]
    counts = trie.item_counts(built)
    for size in (1, 10, 30, 40):
        seen = rng.choice(40, size, replace=False)
        keep = np.ones(40, bool)
        keep[seen] = False
        for depth, mark in enumerate(trie.alive(built, keep)):
            left = counts[depth].copy()
            np.subtract.at(left, paths[seen, depth], 1)
            np.testing.assert_array_equal(left > 0, mark)


def test_an_item_that_is_not_there_has_no_path():
    built = trie.build(np.array([[0, 1], [1, 0]]), (2, 2), np.array([0, 3]))
    paths = trie.ancestors(built)[trie.leaf_of(built)]
    assert paths.tolist() == [[0, 0], [-1, -1], [-1, -1], [1, 1]]
    assert trie.leaf_table(built)[trie.leaf_of(built)].tolist() == [
        [0],
        [-1],
        [-1],
        [3],
    ]


def test_a_table_of_collapsed_leaves_is_refused(monkeypatch):
    built = trie.build(np.array([[0, 1], [0, 1], [1, 0]]), (2, 2))
    monkeypatch.setattr(trie, "_MAX_TABLE_BYTES", 39)
    with pytest.raises(UserError, match="2 items share one code tuple.*repair the"):
        trie.leaf_table(built)
    monkeypatch.setattr(trie, "_MAX_TABLE_BYTES", 40)
    assert trie.leaf_table(built).nbytes == 40


def test_a_mask_of_another_catalogue_is_refused():
    built = trie.build(np.array([[0, 1], [1, 0]]), (2, 2))
    with pytest.raises(UserError, match="the mask has 3 items, the catalogue 2"):
        trie.alive(built, np.ones(3, bool))


# Files.


@settings(max_examples=25)
@given(catalogues())
def test_save_and_load_round_trip(tmp_path_factory, catalogue):
    codes, sizes, items = catalogue
    built = trie.build(codes, sizes, items, num_items=3 * len(items))
    path = tmp_path_factory.mktemp("trie") / "codes.npz"
    trie_file.save(built, path)
    assert_same(trie_file.load(path), built)
    assert os.listdir(path.parent) == ["codes.npz"]


def saved(path):
    codes = np.random.default_rng(4).integers(0, 4, (50, 3))
    built = trie.build(codes, (4, 4, 4))
    trie_file.save(built, path)
    return built


def test_no_truncated_file_is_read(tmp_path):
    path = tmp_path / "codes.npz"
    saved(path)
    content = path.read_bytes()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(
            UserError, match="codes.npz: is not a complete .npz file"
        ) as error:
            trie_file.load(path)
        assert "\n" not in str(error.value)


def test_a_changed_byte_gives_the_same_trie_or_an_error(tmp_path):
    path = tmp_path / "codes.npz"
    built = saved(path)
    content = bytearray(path.read_bytes())
    refused = 0
    for place in range(0, len(content), 7):
        changed = content.copy()
        changed[place] ^= 0x15
        path.write_bytes(changed)
        try:
            # Some bytes of a zip archive mean nothing, e.g. the time of writing.
            assert_same(trie_file.load(path), built)
        except UserError:
            refused += 1
    assert refused > len(content) / 7 / 2


class Bomb:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": np.zeros(3)}, "is not marked 'rfrec trie 1'"),
        ({"format": np.array("rfrec trie 9")}, "is not marked 'rfrec trie 1'"),
        ({"format": np.array(Bomb(), object)}, "is not a complete .npz file"),
    ],
)
def test_foreign_archives_are_refused(tmp_path, content, message):
    path = tmp_path / "other.npz"
    np.savez(path, **content)
    with pytest.raises(UserError, match=f"other.npz: {message}"):
        trie_file.load(path)


def test_files_that_are_no_archive_are_refused(tmp_path):
    path = tmp_path / "other.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match="is not a complete .npz file"):
        trie_file.load(path)
    path.write_text('{"0": ["<a_1>"]}')
    with pytest.raises(UserError, match="is not a complete .npz file"):
        trie_file.load(path)
    with pytest.raises(UserError, match="missing.npz: cannot be read: No such file"):
        trie_file.load(tmp_path / "missing.npz")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sizes", np.array([2, 0])),
        ("sizes", np.array([2, 2**31])),
        ("sizes", np.array([2.0, 3.0])),
        ("sizes", np.zeros(0, int)),
        ("num_items", np.array(3)),
        ("num_items", np.array([5])),
        ("children_0", np.array([3])),
        ("children_0", np.array([1, 1])),
        ("children_1", np.array([2, 0])),
        ("children_1", np.array([3, -1])),
        ("children_2", np.array([2, 2])),
        ("values_0", np.array([1, 0])),
        ("values_0", np.array([0, 2])),
        ("values_1", np.array([1, 3])),
        ("values_1", np.array([-1, 1])),
        ("values_2", np.array([3, 0, 4])),
        ("values_2", np.array([0, 4, 4])),
        ("values_2", np.array([[0, 3, 4]])),
        ("values_2", None),
    ],
)
def test_damaged_parts_are_named(tmp_path, name, value):
    path = tmp_path / "codes.npz"
    built = trie.build(np.array([[0, 1], [0, 1], [1, 0]]), (2, 3), np.array([0, 3, 4]))
    trie_file.save(built, path)
    with np.load(path) as archive:
        content = dict(archive)
    content[name] = value
    np.savez(path, **{k: v for k, v in content.items() if v is not None})
    with pytest.raises(UserError, match=r"codes.npz: \w+ is damaged; rebuild the trie"):
        trie_file.load(path)


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "codes.npz"
    built = saved(path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        with pytest.raises(UserError, match="cannot be written: No space left"):
            trie_file.save(trie.build(np.array([[0]]), (1,)), path)
    assert_same(trie_file.load(path), built)
    assert os.listdir(tmp_path) == ["codes.npz"]
    with pytest.raises(UserError, match="cannot be written: No such file"):
        trie_file.save(built, tmp_path / "no" / "codes.npz")


# What other masks permit.


def permitted_by_last_token(codes):
    """Counts sequences whose every pair of neighbours occurs in the catalogue.

    That is what a mask allows that looks only at the last token (a token names its
    level, so a pair does too).
    """
    ways = dict.fromkeys(set(codes[:, 0].tolist()), 1)
    for pair in itertools.pairwise(codes.T.tolist()):
        longer = collections.Counter()
        for code, following in set(zip(*pair, strict=True)):
            longer[following] += ways[code]
        ways = longer
    return sum(ways.values())


def permitted_by_position(codes):
    """Counts sequences whose codes each occur somewhere at their level."""
    product = 1
    for column in codes.T:
        product *= len(set(column.tolist()))
    return product


def permitted_by_trie(codes, sizes):
    """Counts the paths that the tables of a trie allow."""
    nodes = np.zeros(1, int)
    for level in trie.tables(trie.build(codes, sizes), dense_bytes=0):
        spans = zip(level.indptr[nodes], level.indptr[nodes + 1], strict=True)
        nodes = np.concatenate([np.arange(*span) for span in spans])
    return len(nodes)


def test_masks_of_the_references_permit_what_no_item_has():
    codes = np.array([[0, 0, 0], [1, 0, 1], [1, 1, 0], [2, 1, 2], [2, 1, 2]])
    lawful = {tuple(row) for row in codes.tolist()}
    pairs = [set(zip(a, b, strict=True)) for a, b in itertools.pairwise(codes.T)]
    every = list(itertools.product(range(3), range(2), range(3)))
    by_pairs = [s for s in every if s[:2] in pairs[0] and s[1:] in pairs[1]]
    assert permitted_by_trie(codes, (3, 2, 3)) == len(lawful) == 4
    assert permitted_by_last_token(codes) == len(by_pairs) == 8
    assert permitted_by_position(codes) == len(every) == 18


def test_masks_of_the_references_over_permit_a_made_up_catalogue():
    codes = np.random.default_rng(5).integers(0, 32, (1000, 4))
    distinct = len(np.unique(codes, axis=0))
    assert permitted_by_trie(codes, (32,) * 4) == distinct
    assert permitted_by_last_token(codes) > 100 * distinct
    assert permitted_by_position(codes) == 32**4 > 1000 * distinct


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("file", "distinct", "last_token"),
    [("lemb", 5988, 1_128_183), ("vitemb", 6250, 1_845_885)],
)
def test_masks_of_the_references_over_permit_published_codes(
    file, distinct, last_token
):
    root = Path(os.environ["RFREC_DATA"])
    name = f"Instruments.index_{file}.json"
    found = [*root.glob(name), *root.glob(f"*/{name}")]
    if not found:
        pytest.skip(f"needs {name} in RFREC_DATA")
    codes = table.read_index(found[0]).codes
    assert permitted_by_trie(codes, (256,) * 4) == distinct
    assert permitted_by_last_token(codes) == last_token
    assert permitted_by_position(codes) > 1000 * last_token
