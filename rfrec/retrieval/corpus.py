# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Histories with the codes of their items, and the examples of a T5."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32

from rfrec.codes import table, trie
from rfrec.codes.trie import Trie
from rfrec.config import UserError
from rfrec.data import sequences
from rfrec.data.interactions import Interactions
from rfrec.retrieval import tasks
from rfrec.retrieval.batches import Examples, Tables
from rfrec.retrieval.vocab import Vocabulary

MODALITIES = ("text", "image")


class CodedSet(NamedTuple):
    """One data set.

    Attributes:
      name: Name of the data set.
      inter: Whole histories.
      codes: Codes by modality, a row per item; -1 for an item without codes, which is
        in no history.
      removed: By modality, marks items that histories may contain but that are never
        recommended.
    """

    name: str
    inter: Interactions
    codes: dict[str, Int32[np.ndarray, "N Q"]]
    removed: dict[str, Bool[np.ndarray, " N"]]


class CodedData(NamedTuple):
    """Data sets that are trained on together.

    Attributes:
      names: Names of the data sets.
      num_items: Number of items of each data set.
      num_users: Number of users of each data set.
      inter: Histories of all; items of a set follow those of the sets before.
      codes: Codes of all items, by modality.
      removed: Removed items, by modality, as in `CodedSet`.
      fingerprint: SHA-256 of histories and codes.
      warnings: One line for each property that the user should know.
    """

    names: tuple[str, ...]
    num_items: tuple[int, ...]
    num_users: tuple[int, ...]
    inter: Interactions
    codes: dict[str, Int32[np.ndarray, "N Q"]]
    removed: dict[str, Bool[np.ndarray, " N"]]
    fingerprint: str
    warnings: tuple[str, ...]

    def rows(self, number: int) -> slice:
        """Returns the items of a data set."""
        first = sum(self.num_items[:number])
        return slice(first, first + self.num_items[number])

    def users(self, number: int) -> slice:
        """Returns the users of a data set."""
        first = sum(self.num_users[:number])
        return slice(first, first + self.num_users[number])

    def select(self, number: int) -> "CodedData":
        """Returns one data set alone, whose items are numbered from 0.

        Users keep the names that they have among all data sets, because user tokens are
        hashes of the names.
        """
        if len(self.names) == 1:
            return self
        name, rows, users = self.names[number], self.rows(number), self.users(number)
        inter = self.inter
        indptr = inter.indptr[users.start : users.stop + 1]
        assert inter.item_ids is not None, "stacked data sets name their items"
        names = tuple(i.removeprefix(f"{name}/") for i in inter.item_ids[rows])
        numbered = names == tuple(map(str, range(len(names))))
        return self._replace(
            names=(name,),
            num_items=(self.num_items[number],),
            num_users=(self.num_users[number],),
            inter=dataclasses.replace(
                inter,
                indptr=indptr - indptr[0],
                items=inter.items[indptr[0] : indptr[-1]] - np.int32(rows.start),
                num_items=self.num_items[number],
                user_ids=inter.user_ids[users],
                item_ids=None if numbered else names,
            ),
            codes={m: codes[rows] for m, codes in self.codes.items()},
            removed={m: removed[rows] for m, removed in self.removed.items()},
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
    """Items of one data set, and the users whose next item is searched among them.

    Attributes:
      name: Name of the data set.
      trie: Trie of the target codes; its items are rows of all data sets.
      examples: One example for each user.
    """

    name: str
    trie: Trie
    examples: Examples


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Training examples and held-out examples.

    Attributes:
      inter: Whole histories; the last two items of each user are held out.
      names: Tasks.
      vocabulary: Vocabulary of the tables.
      tables: Tables from `tasks.tables`.
      buckets: Lengths of history that programs are compiled for, ascending.
      most: Maximum number of items of a history.
      mode: MQL4GRec's `train_data_mode`.
      items: Rows that tasks of single items translate; None for all.
      validation: Examples whose loss is evaluated.
      modality: Modality of the targets of `validation` and `catalogues`.
      catalogues: Data sets whose search is evaluated.
    """

    inter: Interactions
    names: tuple[str, ...]
    vocabulary: Vocabulary
    tables: Tables
    buckets: tuple[int, ...]
    most: int
    mode: int
    items: Int[np.ndarray, " I"] | None
    validation: Examples
    modality: str
    catalogues: tuple[Catalogue, ...]

    def examples(self, *, seed: int, epoch: int) -> Examples:
        """Returns the examples of an epoch; every epoch has the same number."""
        return tasks.training_examples(
            self.names,
            self.inter,
            held=2,
            seed=seed,
            epoch=epoch,
            mode=self.mode,
            most=self.most,
            items=self.items,
        )


def stack(parts: Sequence[CodedSet], warnings: Sequence[str] = ()) -> CodedData:
    """Joins data sets of the same modalities.

    Raises:
      UserError: Their codes have different numbers of levels.
    """
    inter = parts[0].inter
    if len(parts) > 1:
        inter = sequences.stack_interactions({p.name: p.inter for p in parts})
    codes = {}
    for modality in parts[0].codes:
        tables = [part.codes[modality] for part in parts]
        levels = {table.shape[1] for table in tables}
        if len(levels) > 1:
            raise UserError(
                f"config.data.names: their {modality} codes have {min(levels)} and"
                f" {max(levels)} levels; use data sets of one tokenizer"
            )
        codes[modality] = np.concatenate(tables)
    return CodedData(
        names=tuple(part.name for part in parts),
        num_items=tuple(part.inter.num_items for part in parts),
        num_users=tuple(part.inter.num_users for part in parts),
        inter=inter,
        codes=codes,
        removed={m: np.concatenate([p.removed[m] for p in parts]) for m in codes},
        fingerprint=fingerprint(inter, codes),
        warnings=tuple(warnings),
    )


def fingerprint(
    inter: Interactions, codes: Mapping[str, Int32[np.ndarray, "N Q"]]
) -> str:
    """Returns the SHA-256 of histories and codes."""
    digest = hashlib.sha256()
    for array in (inter.indptr, inter.items, *codes.values()):
        digest.update(np.ascontiguousarray(array, "<i8").tobytes())
    return digest.hexdigest()


def none_removed(
    codes: Mapping[str, Int32[np.ndarray, "N Q"]],
) -> dict[str, Bool[np.ndarray, " N"]]:
    """Returns marks of no removed item, by modality."""
    return {modality: np.zeros(len(rows), bool) for modality, rows in codes.items()}


def describe_conflicts(part: CodedSet, modality: str) -> str | None:
    """Returns one line about items that share all their codes, None if none do."""
    codes = part.codes[modality]
    codes = codes[codes[:, 0] >= 0]
    sizes = tuple((codes.max(axis=0) + 1).tolist())
    count = table.statistics(codes, sizes).conflict_items
    if not count:
        return None
    return f"{part.name}: {modality} codes are not unique, {count} conflict items"


def index_items(
    data: CodedData, number: int, modality: str, sizes: tuple[int, ...]
) -> Trie:
    """Builds the trie of the items of one data set that may be recommended.

    These have codes and are not removed. Its items are rows of all data sets.

    Args:
      data: All data sets.
      number: Number of the data set.
      modality: Modality of the codes.
      sizes: Number of codes of each level.
    """
    rows = data.rows(number)
    codes = data.codes[modality][rows]
    known = np.flatnonzero((codes[:, 0] >= 0) & ~data.removed[modality][rows])
    return trie.build(
        codes[known], sizes, items=known + rows.start, num_items=data.inter.num_items
    )
