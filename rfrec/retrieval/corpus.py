# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a T5 learns from and is judged by; arrays on the host."""

import dataclasses

import numpy as np
from jaxtyping import Int

from rfrec.codes.trie import Trie
from rfrec.data.interactions import Interactions
from rfrec.retrieval import tasks
from rfrec.retrieval.batches import Examples, Tables
from rfrec.retrieval.vocab import Vocabulary


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
    """The items of one data set, and users whose next item is searched among them.

    Attributes:
      name: Of the data set.
      trie: Of the codes that the task asks for; its items are rows of all data sets.
      examples: One for each user.
    """

    name: str
    trie: Trie
    examples: Examples


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """What is learned, and what is held out.

    Attributes:
      inter: Whole histories; the last two items of each user are not trained on.
      names: Tasks.
      vocabulary: Of the tables.
      tables: From `tasks.tables`.
      buckets: Lengths of history that programs are compiled for, ascending.
      most: Items of history that are kept.
      mode: MQL4GRec's `train_data_mode`.
      items: Rows that tasks of single items translate; None for all.
      validation: Examples whose loss is watched.
      modality: Of the targets of `validation` and `catalogues`.
      catalogues: Where the search is watched.
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
        """Lists what an epoch trains on; every epoch has as many examples."""
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
