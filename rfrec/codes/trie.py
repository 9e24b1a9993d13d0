# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Index of a code table: the codes that may follow a prefix, and the items of a tuple.

`build` makes a `Trie` of NumPy arrays; `tables`, `leaf_table` and the functions after
them lay it out for a search on a device. `trie_edit` searches and changes a trie,
`trie_file` reads and writes it.

Nodes of one depth are numbered in the lexicographic order of their prefixes. The
children of a node, the leaves below it and the items of those leaves are therefore
contiguous, and a level is an array of codes with row pointers (compressed sparse rows,
as in STATIC, 2026, but with codes counted from 0 at each level).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, Integer

from rfrec.codes import table
from rfrec.config import UserError

_MAX_INT32 = np.iinfo(np.int32).max
_MAX_TABLE_BYTES = 2**32


@dataclasses.dataclass(frozen=True, eq=False)
class Trie:
    """All prefixes of a code table, and the items of each full tuple.

    Depth 0 is the root; nodes of depth Q are the leaves. Every inner node has a child
    and every leaf an item.

    Attributes:
      sizes: Number of codes per level, Q entries.
      indptr: Row pointers of the depths 0 to Q-1: the children of node n of depth l are
        the nodes `indptr[l][n]` to `indptr[l][n + 1] - 1` of depth l + 1.
      codes: Codes of the levels 0 to Q-1: `codes[l][m]` leads to node m of depth l + 1;
        ascending among the children of one node.
      leaf_indptr: Row pointers of the leaves: leaf m has the items
        `leaf_items[leaf_indptr[m]:leaf_indptr[m + 1]]`.
      leaf_items: Item rows, ascending within a leaf.
      num_items: Number of rows of the catalogue; an item without a leaf was removed or
        never added.
    """

    sizes: tuple[int, ...]
    indptr: tuple[Int32[np.ndarray, "_"], ...]
    codes: tuple[Int32[np.ndarray, "_"], ...]
    leaf_indptr: Int32[np.ndarray, "_"]
    leaf_items: Int32[np.ndarray, "_"]
    num_items: int

    @property
    def num_nodes(self) -> tuple[int, ...]:
        """Number of nodes of the depths 1 to Q; the last entry counts the leaves."""
        return tuple(len(codes) for codes in self.codes)

    @functools.cached_property
    def widths(self) -> tuple[int, ...]:
        """Largest number of children of a node of the depths 0 to Q-1."""
        return tuple(int(np.diff(indptr).max()) for indptr in self.indptr)

    @property
    def pointers(self) -> tuple[Int32[np.ndarray, "_"], ...]:
        """`indptr`, then `leaf_indptr`: items are treated as one more level."""
        return (*self.indptr, self.leaf_indptr)

    @property
    def values(self) -> tuple[Int32[np.ndarray, "_"], ...]:
        """`codes`, then `leaf_items`."""
        return (*self.codes, self.leaf_items)


def from_levels(
    sizes: Sequence[int],
    pointers: Sequence[Int32[np.ndarray, "_"]],
    values: Sequence[Int32[np.ndarray, "_"]],
    num_items: int,
) -> Trie:
    """Returns the trie with these `Trie.pointers` and `Trie.values`.

    Args:
      sizes: Number of codes per level.
      pointers: Row pointers of the depths 0 to Q.
      values: Codes of the levels 0 to Q-1, then items (not checked here).
      num_items: Number of rows of the catalogue.
    """
    return Trie(
        sizes=tuple(sizes),
        indptr=tuple(pointers[:-1]),
        codes=tuple(values[:-1]),
        leaf_indptr=pointers[-1],
        leaf_items=values[-1],
        num_items=num_items,
    )


def build(
    codes: Int[np.ndarray, "N Q"],
    sizes: Sequence[int],
    items: Int[np.ndarray, "_"] | None = None,
    num_items: int | None = None,
) -> Trie:
    """Indexes a code table.

    Packed integers are sorted (see `sort_prefixes`), then each level takes one pass.

    Args:
      codes: Codes 0 to `sizes[l]` - 1 at level l; rows may be equal.
      sizes: Number of codes per level, each at most 2^31 - 1.
      items: Item of each row, all different; None means 0 to N-1.
      num_items: Number of rows of the catalogue; None means the largest item plus one.

    Returns:
      The trie.

    Raises:
      UserError: The table is empty, a code is out of range, or items are repeated,
        negative or at least `num_items`.
    """
    sizes = tuple(sizes)
    if not all(0 < size <= _MAX_INT32 for size in sizes):
        raise UserError(f"level sizes are {sizes}; each must be 1 to {_MAX_INT32}")
    table.check_codes(codes, sizes)
    if items is not None:
        check_items(items, len(codes))
        order = np.argsort(items)
        codes, items = codes[order], items[order]
    last = len(codes) - 1 if items is None else int(items[-1])
    num_items = last + 1 if num_items is None else num_items
    if last >= num_items:
        raise UserError(f"item {last} is not in a catalogue of {num_items} items")
    pointers, values, order = sort_prefixes(codes, sizes)
    rows = order if items is None else items[order]
    return from_levels(sizes, pointers, [*values, rows.astype(np.int32)], num_items)


def check_items(items: Int[np.ndarray, "_"], rows: int) -> None:
    """Checks that there is one item for each row, none negative or repeated.

    Raises:
      UserError: An item is missing, negative or repeated.
    """
    if len(items) != rows:
        raise UserError(f"there are {len(items)} items for {rows} rows of codes")
    if len(items) and not 0 <= items.min() <= items.max() < _MAX_INT32:
        bad = items.min() if items.min() < 0 else items.max()
        raise UserError(f"item {bad} is not a row of a catalogue")
    ordered = np.sort(items)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated):
        raise UserError(
            f"item {repeated[0]} occurs twice; each item has one code tuple"
        )


def leaf_bounds(trie: Trie, ends: Int[np.ndarray, "_"]) -> list[Int[np.ndarray, "_"]]:
    """Propagates row pointers of the leaves up to every depth.

    Args:
      ends: Row pointers of the leaves, such as 0 to `leaves`, or `leaf_indptr`.

    Returns:
      Row pointers of the depths 0 to Q: the entries below node n are `[n]` to
      `[n + 1] - 1`.
    """
    bounds = [ends]
    for indptr in reversed(trie.indptr):
        bounds.append(bounds[-1][indptr])
    return bounds[::-1]


def leaf_of(trie: Trie) -> Int32[np.ndarray, "N"]:
    """Returns the leaf of every item of the catalogue, -1 for items without a leaf."""
    leaves = np.full(trie.num_items, -1, np.int32)
    group = np.diff(trie.leaf_indptr)
    leaves[trie.leaf_items] = np.repeat(np.arange(len(group), dtype=np.int32), group)
    return leaves


class Table(NamedTuple):
    """One level of a trie for a device; a JAX pytree.

    Arrays are longer than the level (see `capacity`), so that a program compiled for
    one catalogue also serves a slightly larger one. Padding nodes have no children.

    Attributes:
      indptr: Row pointers of the nodes of depth l.
      codes: Code that leads to each node of depth l + 1, padded with -1; `slots`
        entries from any row pointer on are within the array.
      child: Node of depth l + 1 for each node of depth l and each code, -1 where there
        is none; None if that table would be too large.
    """

    indptr: Int32[np.ndarray, "_"]
    codes: Int32[np.ndarray, "_"]
    child: Int32[np.ndarray, "_ _"] | None


def capacity(length: int, most: int) -> int:
    """Rounds a length up by at most 7 or an eighth, to at most `most`."""
    step = 1 << max(length.bit_length() - 4, 3)
    return min(-(-length // step) * step, most)


def slots(trie: Trie) -> tuple[int, ...]:
    """Returns the children to read per level: `widths`, rounded up by `capacity`."""
    return tuple(map(capacity, trie.widths, trie.sizes))


def _capacities(trie: Trie) -> tuple[int, ...]:
    """Returns the lengths of arrays over the nodes of the depths 0 to Q."""
    most = [math.prod(trie.sizes[:depth]) for depth in range(len(trie.sizes) + 1)]
    return tuple(map(capacity, (1, *trie.num_nodes), most))


def tables(trie: Trie, dense_bytes: int = 2**24) -> tuple[Table, ...]:
    """Lays out every level for a device.

    Args:
      dense_bytes: Largest size of the dense table `child` of one level, in bytes.

    Returns:
      One table of NumPy arrays per level.
    """
    levels, lengths = [], _capacities(trie)
    for level, (size, wide) in enumerate(zip(trie.sizes, slots(trie), strict=True)):
        pointers, codes = trie.indptr[level], trie.codes[level]
        indptr = np.full(lengths[level] + 1, pointers[-1], np.int32)
        indptr[: len(pointers)] = pointers
        child = None
        if 4 * lengths[level] * size <= dense_bytes:
            child = np.full((lengths[level], size), -1, np.int32)
            parents = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
            child[parents, codes] = np.arange(len(codes))
        padded = _padded(codes, lengths[level + 1] + wide)
        levels.append(Table(indptr, padded, child))
    return tuple(levels)


def _padded(values: Int32[np.ndarray, "_"], length: int) -> Int32[np.ndarray, "_"]:
    padded = np.full(length, -1, np.int32)
    padded[: len(values)] = values
    return padded


def leaf_table(trie: Trie) -> Int32[np.ndarray, "leaves G"]:
    """Lists the items of every leaf.

    Returns:
      Items of each leaf, ascending, padded with -1 to the size G of the largest group.
      The padding rows after the leaves (`capacity` and one more) are -1, so that index
      -1, an invalid leaf, has no item.

    Raises:
      UserError: One leaf has so many items that the table would exceed 4 GiB.
    """
    group = np.diff(trie.leaf_indptr)
    shape = (_capacities(trie)[-1] + 1, int(group.max()))
    if 4 * math.prod(shape) > _MAX_TABLE_BYTES:
        raise UserError(
            f"{shape[1]} items share one code tuple, so a table of the items of all"
            f" {len(group)} tuples is too large; repair the codes"
        )
    items = np.full(shape, -1, np.int32)
    leaf = np.repeat(np.arange(len(group)), group)
    items[leaf, np.arange(len(leaf)) - trie.leaf_indptr[leaf]] = trie.leaf_items
    return items


def ancestors(trie: Trie) -> Int32[np.ndarray, "leaves Q"]:
    """Lists the nodes on the path to every leaf.

    Returns:
      Node of depth d + 1 above each leaf in column d. Padding rows after the leaves,
      including the last one, are -1, so `ancestors(trie)[leaf_of(trie)]` lists the
      paths of all items, -1 for those without a leaf.
    """
    leaves = trie.num_nodes[-1]
    paths = np.full((_capacities(trie)[-1] + 1, len(trie.sizes)), -1, np.int32)
    bounds = leaf_bounds(trie, np.arange(leaves + 1, dtype=np.int32))
    for level, below in enumerate(bounds[1:]):
        nodes = np.arange(len(below) - 1, dtype=np.int32)
        paths[:leaves, level] = np.repeat(nodes, np.diff(below))
    return paths


def item_counts(
    trie: Trie, keep: Bool[np.ndarray, "_"] | None = None
) -> tuple[Int32[np.ndarray, "_"], ...]:
    """Counts the items below every node, for filters that need no new trie.

    A search may follow a node while its count exceeds the number of counted items below
    it that the filter removes for a user.

    Args:
      keep: Items to count, one mark for each row of the catalogue; None counts all.

    Returns:
      Counts for the depths 1 to Q, as long as the arrays of `tables`, padded with 0.

    Raises:
      UserError: The length of `keep` is not the size of the catalogue.
    """
    ends = trie.leaf_indptr
    if keep is not None:
        if len(keep) != trie.num_items:
            raise UserError(
                f"the mask has {len(keep)} items, the catalogue {trie.num_items}; mark"
                " each item once"
            )
        ends = exclusive_sum(keep[trie.leaf_items])[ends]
    counts = []
    for below, length in zip(
        leaf_bounds(trie, ends)[1:], _capacities(trie)[1:], strict=True
    ):
        count = np.zeros(length, np.int32)
        np.subtract(below[1:], below[:-1], out=count[: len(below) - 1])
        counts.append(count)
    return tuple(counts)


def alive(trie: Trie, keep: Bool[np.ndarray, "_"]) -> tuple[Bool[np.ndarray, "_"], ...]:
    """Marks the nodes above kept items: a masked trie for allow and deny lists.

    Args:
      keep: One mark for each row of the catalogue.

    Returns:
      Marks for the depths 1 to Q, as long as the arrays of `tables`, padded with false.

    Raises:
      UserError: The length of `keep` is not the size of the catalogue.
    """
    return tuple(count > 0 for count in item_counts(trie, keep))


class Prefixes(NamedTuple):
    """Distinct prefixes of a sorted table, and the order of its rows.

    Attributes:
      pointers: Row pointers of the depths 0 to Q: where the children of each prefix of
        d codes begin among the prefixes of d + 1 codes (for d = Q: among the rows).
      values: Last code of each prefix, for each level.
      order: Rows in lexicographic order of their codes, then by row number.
    """

    pointers: list[Int32[np.ndarray, "_"]]
    values: list[Int32[np.ndarray, "_"]]
    order: Int64[np.ndarray, "N"]


def sort_prefixes(codes: Int[np.ndarray, "N Q"], sizes: tuple[int, ...]) -> Prefixes:
    """Sorts code tuples and finds their prefixes.

    The bits of as many levels as fit are packed into one word beside the row number,
    and words are sorted from the last to the first. This is a radix sort whose digits
    are words: 4 levels of 256 codes take one pass at 10^7 rows and 8 levels take two.
    Sorting plain integers is several times faster than `argsort`, and the row numbers
    make it stable.

    Args:
      codes: Codes 0 to `sizes[l]` - 1 at level l (not checked here), at least one row.
      sizes: Number of codes per level, each below 2^31.
    """
    groups = _word_levels(sizes, len(codes))
    words, order = _sorted_words([_pack(codes, sizes, group) for group in groups])
    return Prefixes(*_levels(words, sizes, groups), order)


def _bits(size: int) -> int:
    return (size - 1).bit_length()


def _word_levels(sizes: tuple[int, ...], rows: int) -> list[range]:
    """Groups levels so that their codes and a row number fit into 63 bits."""
    free = 63 - _bits(rows)
    stops, used = [0], 0
    for level, size in enumerate(sizes):
        if used + _bits(size) > free:
            stops.append(level)
            used = 0
        used += _bits(size)
    return [range(*pair) for pair in itertools.pairwise([*stops, len(sizes)])]


def _pack(
    codes: Int[np.ndarray, "N Q"], sizes: tuple[int, ...], levels: range
) -> Int64[np.ndarray, "N"]:
    """Concatenates the bits of some levels, the first level in the highest bits."""
    word = codes[:, levels[0]].astype(np.int64)
    for level in levels[1:]:
        word <<= _bits(sizes[level])
        word |= codes[:, level]
    return word


def _sorted_words(
    words: list[Int64[np.ndarray, "N"]],
) -> tuple[list[Int64[np.ndarray, "N"]], Int64[np.ndarray, "N"]]:
    """Returns words sorted by the first, then the next, and the row of each.

    The words are overwritten, because a new array would cost as much as the sort.
    """
    rows = np.arange(len(words[0]))
    bits = _bits(len(rows))
    done, order = [], rows
    for word in reversed(words):
        keys = word if order is rows else word[order]
        keys <<= bits
        keys |= rows
        keys.sort()
        place = keys & ((1 << bits) - 1)
        keys >>= bits
        done = [keys, *(later[place] for later in done)]
        order = place if order is rows else order[place]
    return done, order


def _levels(
    words: list[Int64[np.ndarray, "N"]], sizes: tuple[int, ...], groups: list[range]
) -> tuple[list[Int32[np.ndarray, "_"]], list[Int32[np.ndarray, "_"]]]:
    """Returns row pointers of the depths 0 to Q, and the codes of each level."""
    rows = len(words[0])
    opens = np.zeros(rows, bool)
    opens[0] = True
    pointers, values = [], []
    for word, levels in zip(words, groups, strict=True):
        differs = word[1:] ^ word[:-1]
        shift = sum(_bits(sizes[level]) for level in levels)
        for level in levels:
            shift -= _bits(sizes[level])
            parents = opens.copy()
            opens[1:] |= differs >= (1 << shift)
            codes = word[opens]
            codes >>= shift
            codes &= (1 << _bits(sizes[level])) - 1
            pointers.append(_row_pointers(np.flatnonzero(parents[opens]), len(codes)))
            values.append(codes.astype(np.int32))
    return [*pointers, _row_pointers(np.flatnonzero(opens), rows)], values


def _row_pointers(starts: Int[np.ndarray, "_"], stop: int) -> Int32[np.ndarray, "_"]:
    """Returns row pointers, given the start of every row and the end of the last."""
    pointers = np.empty(len(starts) + 1, np.int32)
    pointers[:-1], pointers[-1] = starts, stop
    return pointers


def exclusive_sum(
    counts: Integer[np.ndarray, "n"] | Bool[np.ndarray, "n"],
) -> Int32[np.ndarray, "_"]:
    """Returns the sum of all entries before each: row pointers, given row lengths."""
    sums = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, dtype=np.int32, out=sums[1:])
    return sums
