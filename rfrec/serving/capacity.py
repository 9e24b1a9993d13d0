# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A catalogue in, the arrays that an exported search reads out; NumPy, no model.

The arrays of a program have fixed lengths. `Room` says how long they are, longer than
the catalogue needs, so that a catalogue that has grown takes the place of the one that
was exported, without another program.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Shaped

from rfrec.codes import trie
from rfrec.codes.trie import Trie
from rfrec.config import UserError
from rfrec.retrieval import batches, constraint

# As `trie.tables` has it: larger tables of children are not laid out.
_DENSE_BYTES = 2**24

Arrays = dict[str, Shaped[np.ndarray, "..."]]


class Room(NamedTuple):
    """Lengths that a program was compiled for.

    Attributes:
      items: Rows of the catalogue.
      sizes: Codes of each level, Q entries.
      nodes: Nodes of the depths 0 to Q.
      widths: Children to look at below a node of each depth 0 to Q-1.
      group: Items of one code tuple.
    """

    items: int
    sizes: tuple[int, ...]
    nodes: tuple[int, ...]
    widths: tuple[int, ...]
    group: int

    @property
    def dense(self) -> tuple[bool, ...]:
        """Whether a level has a table of children instead of row pointers."""
        pairs = zip(self.nodes, self.sizes, strict=False)
        return tuple(4 * nodes * size <= _DENSE_BYTES for nodes, size in pairs)


def make_room(index: Trie, share: float) -> Room:
    """Measures a trie, and leaves room for so many more items.

    Args:
      index: Of the items.
      share: Further items, as a share of those there are.
    """

    def wider(count: int, most: int) -> int:
        return trie.capacity(math.ceil(count * (1 + share)), most)

    sizes = index.sizes
    most = [math.prod(sizes[: depth + 1]) for depth in range(len(sizes))]
    return Room(
        items=wider(index.num_items, 2**31 - 2),
        sizes=sizes,
        nodes=(1, *map(wider, index.num_nodes, most)),
        widths=tuple(map(wider, index.widths, sizes)),
        group=int(np.diff(index.leaf_indptr).max()),
    )


def check_fits(room: Room, index: Trie, origin: str) -> None:
    """Refuses a trie that a program has no room for.

    Args:
      room: Of the program.
      index: Of the items.
      origin: Of the trie, named in the error.

    Raises:
      UserError: Names what does not fit.
    """
    if index.sizes != room.sizes:
        raise UserError(
            f"{origin}: its codes have the sizes {index.sizes}, the artefact"
            f" {room.sizes}: give the catalogue of this model's tokenizer"
        )
    found = {
        "rows": (index.num_items, room.items),
        "items of one code tuple": (int(np.diff(index.leaf_indptr).max()), room.group),
    }
    for depth, wide in enumerate(index.widths):
        nodes = index.num_nodes[depth], room.nodes[depth + 1]
        found[f"different beginnings of {depth + 1} codes"] = nodes
        found[f"codes that follow {depth} others"] = wide, room.widths[depth]
    for what, (count, most) in found.items():
        if count > most:
            raise UserError(
                f"{origin}: {count} {what}, the artefact has room for {most}: export"
                " again, with more config.room"
            )


def lay_out(
    room: Room,
    index: Trie,
    code_tokens: Sequence[Int32[np.ndarray, "_"]],
    tables: batches.Tables,
) -> Arrays:
    """Lays a catalogue out for the program; it fits, see `check_fits`.

    Args:
      room: Of the program.
      index: Of the items that may be recommended.
      code_tokens: Token of each code, one array a level.
      tables: Of the task; their flat items are not used.

    Returns:
      By name: the levels of the trie, the items of its leaves, the mask of
      `constraint.Filter` and the task's tables.
    """
    laid: Arrays = {}
    levels = zip(trie.tables(index, _DENSE_BYTES), room.dense, strict=True)
    for level, (table, dense) in enumerate(levels):
        nodes, below = room.nodes[level : level + 2]
        last = table.indptr[-1]
        laid[f"indptr_{level}"] = _longer(table.indptr, nodes + 1, last)
        length = below + room.widths[level]
        codes = table.codes[: len(index.codes[level])]
        laid[f"codes_{level}"] = _longer(codes, length, -1)
        if dense:
            assert table.child is not None
            laid[f"child_{level}"] = _longer(table.child, nodes, -1)
        laid[f"tokens_{level}"] = np.asarray(code_tokens[level], np.int32)
    made = constraint.make_filter(index, seen=np.full((1, 1), -1, np.int32))
    for depth, counts in enumerate(made.counts):
        laid[f"counts_{depth}"] = _longer(counts, room.nodes[depth + 1], 0)
    laid["keep"] = _longer(made.keep[:-1], room.items + 1, False)
    laid["paths"] = _longer(made.paths, room.items, -1)
    items = trie.leaf_table(index)[: index.num_nodes[-1]]
    wide = np.full((len(items), room.group), -1, np.int32)
    wide[:, : items.shape[1]] = items
    laid["leaf_items"] = _longer(wide, room.nodes[-1] + 1, -1)
    for name, value in tables._asdict().items():
        laid[f"task_{name}"] = np.asarray(value)
    laid["task_items"] = np.zeros(1, np.int32)
    laid["task_users"] = laid["task_users"][:1]
    tokens = laid["task_tokens"]
    missing = ((0, 0), (0, room.items - tokens.shape[1]), (0, 0))
    laid["task_tokens"] = np.pad(tokens, missing)
    return laid


def _longer(values, length: int, fill) -> Shaped[np.ndarray, "..."]:
    """Fills rows up to a length."""
    result = np.full((length, *values.shape[1:]), fill, values.dtype)
    result[: len(values)] = values
    return result


def index_of(laid, sizes: Sequence[int]) -> constraint.Index:
    """Names the parts that a search reads: the inverse of `lay_out`, in the program."""
    levels = range(len(sizes))
    return constraint.Index(
        tables=tuple(
            trie.Table(laid[f"indptr_{i}"], laid[f"codes_{i}"], laid.get(f"child_{i}"))
            for i in levels
        ),
        tokens=tuple(laid[f"tokens_{i}"] for i in levels),
        items=laid["leaf_items"],
    )


def filter_of(laid, sizes: Sequence[int], seen) -> constraint.Filter:
    """Names the parts of the filter, in the program."""
    counts = tuple(laid[f"counts_{i}"] for i in range(len(sizes)))
    return constraint.Filter(laid["keep"], counts, laid["paths"], seen)


def tables_of(laid) -> batches.Tables:
    """Names the task's tables, in the program."""
    return batches.Tables(*(laid[f"task_{name}"] for name in batches.Tables._fields))
