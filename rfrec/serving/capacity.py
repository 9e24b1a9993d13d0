# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The catalogue of an exported search, as arrays of fixed lengths.

A compiled program accepts arrays of the lengths it was compiled for. `Capacity` states
these lengths. They exceed what the exported catalogue needs, so that a grown catalogue
can replace it without another export.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Shaped

from rfrec.codes import trie
from rfrec.codes.trie import Trie
from rfrec.config import UserError
from rfrec.retrieval import batches, constraint

# Levels whose dense table of children would be larger use row pointers, as in
# `trie.tables`.
_DENSE_BYTES = 2**24

Arrays = dict[str, Shaped[np.ndarray, "..."]]


class Capacity(NamedTuple):
    """Lengths of the arrays that a program was compiled for.

    Attributes:
      items: Rows of the catalogue.
      sizes: Number of codes of each level, Q entries.
      nodes: Number of trie nodes of the depths 0 to Q.
      widths: Number of children to look at below a node, for the depths 0 to Q-1.
      group: Number of items that share one code tuple.
    """

    items: int
    sizes: tuple[int, ...]
    nodes: tuple[int, ...]
    widths: tuple[int, ...]
    group: int

    @property
    def dense(self) -> tuple[bool, ...]:
        """Whether each level has a dense table of children."""
        pairs = zip(self.nodes, self.sizes, strict=False)
        return tuple(4 * nodes * size <= _DENSE_BYTES for nodes, size in pairs)


def plan_capacity(index: Trie, share: float) -> Capacity:
    """Returns lengths that fit a trie plus a share of additional items.

    Args:
      index: Trie of the items.
      share: Additional items, as a share of the present number.
    """

    def enlarge(count: int, most: int) -> int:
        return trie.capacity(math.ceil(count * (1 + share)), most)

    sizes = index.sizes
    most = [math.prod(sizes[: depth + 1]) for depth in range(len(sizes))]
    return Capacity(
        items=enlarge(index.num_items, 2**31 - 2),
        sizes=sizes,
        nodes=(1, *map(enlarge, index.num_nodes, most)),
        widths=tuple(map(enlarge, index.widths, sizes)),
        group=int(np.diff(index.leaf_indptr).max()),
    )


def check_fits(capacity: Capacity, index: Trie, origin: str) -> None:
    """Refuses a trie that exceeds the capacity of a program.

    Args:
      capacity: Capacity of the program.
      index: Trie of the items.
      origin: Name of the catalogue for the error.

    Raises:
      UserError: The trie does not fit; the message states which number is too large.
    """
    if index.sizes != capacity.sizes:
        raise UserError(
            f"{origin}: its codes have the sizes {index.sizes}, those of the artefact"
            f" have {capacity.sizes}: use a catalogue of the same tokenizer"
        )
    group = int(np.diff(index.leaf_indptr).max())
    needed = {
        "rows": (index.num_items, capacity.items),
        "items of one code tuple": (group, capacity.group),
    }
    for depth, width in enumerate(index.widths):
        nodes = index.num_nodes[depth], capacity.nodes[depth + 1]
        needed[f"different prefixes of {depth + 1} codes"] = nodes
        needed[f"codes after a prefix of {depth}"] = width, capacity.widths[depth]
    for what, (count, most) in needed.items():
        if count > most:
            raise UserError(
                f"{origin}: {count} {what}, but the artefact has capacity for {most}:"
                " export again with a larger config.room"
            )


def lay_out(
    capacity: Capacity,
    index: Trie,
    code_tokens: Sequence[Int32[np.ndarray, "_"]],
    tables: batches.Tables,
) -> Arrays:
    """Returns the arrays that a program reads beside the weights.

    Args:
      capacity: Capacity of the program, which the trie fits (see `check_fits`).
      index: Trie of the items that may be recommended.
      code_tokens: Token of each code, one array for each level.
      tables: Tables of the task; their flat items are not used.

    Returns:
      Arrays by name: the levels of the trie, the items of its leaves, the filter that
      allows all items, and the task's tables. `unpack` restores their structure.
    """
    arrays: Arrays = {}
    levels = zip(trie.tables(index, _DENSE_BYTES), capacity.dense, strict=True)
    for level, (table, dense) in enumerate(levels):
        nodes, below = capacity.nodes[level : level + 2]
        arrays[f"indptr_{level}"] = _extend(table.indptr, nodes + 1, table.indptr[-1])
        codes = table.codes[: len(index.codes[level])]
        arrays[f"codes_{level}"] = _extend(codes, below + capacity.widths[level], -1)
        if dense:
            assert table.child is not None
            arrays[f"child_{level}"] = _extend(table.child, nodes, -1)
        arrays[f"tokens_{level}"] = np.asarray(code_tokens[level], np.int32)
    items = trie.leaf_table(index)[: index.num_nodes[-1]]
    padding = ((0, 0), (0, capacity.group - items.shape[1]))
    items = np.pad(items, padding, constant_values=-1)
    arrays["leaf_items"] = _extend(items, capacity.nodes[-1] + 1, -1)
    for name, value in tables._asdict().items():
        arrays[f"task_{name}"] = np.asarray(value)
    arrays["task_items"] = np.zeros(1, np.int32)
    arrays["task_users"] = arrays["task_users"][:1]
    tokens = arrays["task_tokens"]
    padding = ((0, 0), (0, capacity.items - tokens.shape[1]), (0, 0))
    arrays["task_tokens"] = np.pad(tokens, padding)
    return arrays | lay_out_filter(capacity, index)


def lay_out_filter(
    capacity: Capacity, index: Trie, keep: Bool[np.ndarray, " N"] | None = None
) -> Arrays:
    """Returns the arrays of `lay_out` that state which items may be recommended.

    Args:
      capacity: Capacity of the program.
      index: Trie of the items.
      keep: Whether an item may be recommended; None allows all.
    """
    seen = np.full((1, 1), -1, np.int32)
    allowed = constraint.make_filter(index, keep=keep, seen=seen)
    arrays = {
        "keep": _extend(allowed.keep[:-1], capacity.items + 1, False),
        "paths": _extend(allowed.paths, capacity.items, -1),
    }
    for depth, counts in enumerate(allowed.counts):
        arrays[f"counts_{depth}"] = _extend(counts, capacity.nodes[depth + 1], 0)
    return arrays


def _extend(values, length: int, fill) -> Shaped[np.ndarray, "..."]:
    """Appends rows of `fill` up to a length."""
    result = np.full((length, *values.shape[1:]), fill, values.dtype)
    result[: len(values)] = values
    return result


def unpack(arrays, levels: int) -> constraint.SearchSpace:
    """Restores the structure of the arrays of `lay_out`; used inside the program."""
    depths = range(levels)
    index = constraint.Index(
        tables=tuple(
            trie.Table(
                *(arrays[f"indptr_{i}"], arrays[f"codes_{i}"], arrays.get(f"child_{i}"))
            )
            for i in depths
        ),
        tokens=tuple(arrays[f"tokens_{i}"] for i in depths),
        items=arrays["leaf_items"],
    )
    counts = tuple(arrays[f"counts_{i}"] for i in depths)
    names = batches.Tables._fields
    return constraint.SearchSpace(
        tables=batches.Tables(*(arrays[f"task_{name}"] for name in names)),
        index=index,
        allowed=constraint.Filter(arrays["keep"], counts, arrays["paths"], None),
    )
