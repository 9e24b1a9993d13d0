# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tasks of a retriever, and the `Tables` and `Examples` from which batches are built.

The tasks are those of MQL4GRec (Zhai et al. 2025, "Multimodal Quantitative Language for
Generative Recommendation"); `fgfusionseqrec` is our reading of its description.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from rfrec.config import UserError
from rfrec.data import sequences
from rfrec.data.interactions import Interactions
from rfrec.retrieval import vocab
from rfrec.retrieval.batches import Examples, Tables
from rfrec.retrieval.vocab import Vocabulary


class Direction(NamedTuple):
    """Modalities of the history, one segment each, and modality of the target."""

    sources: tuple[str, ...]
    target: str


@dataclasses.dataclass(frozen=True)
class Task:
    """A training task.

    Attributes:
      directions: If there are two, one is drawn per example and epoch.
      prompts: Number of distinct prompts: 0, 1 (for all directions) or one for each
        segment of each direction.
      pairs: Whether one item is translated, rather than a history continued.
    """

    directions: tuple[Direction, ...]
    prompts: int = 1
    pairs: bool = False


_TEXT_IMAGE = Direction(("text",), "image")
_IMAGE_TEXT = Direction(("image",), "text")
_BOTH = ("text", "image")

TASKS: Mapping[str, Task] = {
    "seqrec": Task((Direction(("text",), "text"),), prompts=0),
    "seqimage": Task((Direction(("image",), "image"),), prompts=0),
    "item2image": Task((_TEXT_IMAGE,), pairs=True),
    "image2item": Task((_IMAGE_TEXT,), pairs=True),
    "seqitem2image": Task((_TEXT_IMAGE,)),
    "seqimage2item": Task((_IMAGE_TEXT,)),
    "fusionseqrec": Task((_TEXT_IMAGE, _IMAGE_TEXT)),
    "fgfusionseqrec": Task(
        (Direction(_BOTH, "text"), Direction(_BOTH, "image")), prompts=4
    ),
}


class ListTask(NamedTuple):
    """A direction of a task that continues histories, and so makes ranked lists.

    Attributes:
      name: Name of the task.
      row: Row of the direction in the tables of this task alone.
      sources: Modalities of the history.
      target: Modality of the codes that are searched for.
    """

    name: str
    row: int
    sources: tuple[str, ...]
    target: str

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities whose codes are used."""
        return (*self.sources, self.target)


def list_task(name: str, modality: str = "") -> ListTask:
    """Returns the direction of a task whose target has a modality.

    Args:
      name: A key of `TASKS` that continues histories.
      modality: Modality of the target; empty for the first direction.

    Raises:
      KeyError: The task has no such direction.
    """
    for row, way in enumerate(TASKS[name].directions):
        if modality in ("", way.target):
            return ListTask(name, row, way.sources, way.target)
    raise KeyError(modality)


@dataclasses.dataclass(frozen=True)
class Form:
    """Form of a stream of tokens.

    Attributes:
      separator: Whether a separator token follows each item of the history.
      user: Whether the stream begins with the token of the hashed user.
      end: Whether an end token follows the codes of the target.
    """

    separator: bool = False
    user: bool = False
    end: bool = True


def prompt_sizes(names: Sequence[str], prompt_num: int = 4) -> dict[str, int]:
    """Returns the prompt tokens that each task needs, for `vocab.build`.

    Args:
      names: Tasks, in the order of the run.
      prompt_num: Tokens of one prompt.

    Raises:
      UserError: There is no such task, or it comes twice.
    """
    check_tasks(names)
    return {name: TASKS[name].prompts * prompt_num for name in names}


def check_tasks(names: Sequence[str]) -> None:
    """Refuses unknown, repeated or missing tasks.

    Raises:
      UserError: Naming the task.
    """
    if not names:
        raise UserError("no task is named; name at least one, such as seqrec")
    for name in names:
        if name not in TASKS:
            raise UserError(
                f"task {name!r} does not exist; use one of {', '.join(TASKS)}"
            )
        if list(names).count(name) > 1:
            raise UserError(f"task {name!r} occurs twice; use weights instead")


def modalities(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the modalities whose codes the tasks need, text first."""
    check_tasks(names)
    used = {
        modality
        for name in names
        for way in TASKS[name].directions
        for modality in (*way.sources, way.target)
    }
    return tuple(m for m in _BOTH if m in used)


def task_rows(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Returns the rows of the task tables that belong to each task."""
    rows, first = {}, 0
    for name in names:
        count = len(TASKS[name].directions)
        rows[name] = tuple(range(first, first + count))
        first += count
    return rows


def tables(
    vocabulary: Vocabulary,
    names: Sequence[str],
    codes: Mapping[str, Int[np.ndarray, "N _"]],
    inter: Interactions,
    *,
    form: Form | None = None,
    weights: Mapping[str, float] | None = None,
) -> Tables:
    """Builds the tables that examples refer to, as NumPy arrays.

    Args:
      vocabulary: Vocabulary with the codes, prompts and special tokens of the tasks.
      names: Tasks; their order gives the rows.
      codes: By modality, a row per item; -1 for an item without codes.
      inter: Histories of the examples.
      form: None for MQL4GRec's: no separator, no user, an end.
      weights: Weight of each task's loss; 1 by default.

    Raises:
      UserError: A code outside its level, codes or tokens that are missing, or a user
        token wanted for pairs of one item.
    """
    check_tasks(names)
    form = form or Form()
    used = modalities(names)
    if missing := [m for m in used if m not in codes]:
        raise UserError(f"tasks {', '.join(names)} need {missing[0]} codes")
    if form.separator and vocabulary.separator is None:
        raise UserError("the vocabulary has no separator; build it with one")
    known = weights or {}
    if strange := sorted(known.keys() - set(names)):
        raise UserError(f"weight of task {strange[0]!r}, which is not among the tasks")
    rows = [way for name in names for way in TASKS[name].directions]
    return Tables(
        items=_flat_items(inter),
        tokens=_token_table(vocabulary, {m: codes[m] for m in used}),
        levels=np.asarray([codes[m].shape[1] for m in used], np.int32),
        prompts=_prompt_table(vocabulary, names),
        segments=_segment_table(rows, used),
        target=np.asarray([used.index(way.target) for way in rows], np.int32),
        weight=np.asarray(
            [known.get(n, 1.0) for n in names for _ in TASKS[n].directions], np.float32
        ),
        separator=np.full(int(form.separator), vocabulary.separator or 0, np.int32),
        users=_user_table(vocabulary, names, inter, form),
        end=np.full(int(form.end), vocab.END, np.int32),
    )


def _flat_items(inter: Interactions) -> Int32[np.ndarray, "F"]:
    return np.concatenate([inter.items, np.arange(inter.num_items, dtype=np.int32)])


def _token_table(
    vocabulary: Vocabulary, codes: Mapping[str, Int[np.ndarray, "N _"]]
) -> Int32[np.ndarray, "M N Q"]:
    """Stacks the modalities, padded to the largest number of levels."""
    parts = [vocab.item_tokens(vocabulary, m, table) for m, table in codes.items()]
    most = max(part.shape[1] for part in parts)
    return np.stack([np.pad(p, ((0, 0), (0, most - p.shape[1]))) for p in parts])


def _prompt_table(
    vocabulary: Vocabulary, names: Sequence[str]
) -> Int32[np.ndarray, "T G P"]:
    """Returns the prompt of each segment: the task's only one, or its own."""
    segments = max(len(way.sources) for n in names for way in TASKS[n].directions)
    prompts: list[list[np.ndarray]] = []
    for name in names:
        task, tokens = TASKS[name], vocabulary.prompt(name)
        if task.prompts and (not tokens.size or tokens.size % task.prompts):
            raise UserError(
                f"the vocabulary has {tokens.size} prompt tokens of {name}, which needs"
                f" {task.prompts} prompts; grow it by prompt_sizes"
            )
        parts = np.split(tokens, task.prompts) if task.prompts else [tokens[:0]]
        own = iter(parts * (1 if task.prompts > 1 else len(task.directions)))
        prompts += [[next(own) for _ in way.sources] for way in task.directions]
    width = max(part.size for row in prompts for part in row)
    out = np.zeros((len(prompts), segments, width), np.int32)
    for row, parts in enumerate(prompts):
        for place, part in enumerate(parts):
            if part.size not in (0, width):
                raise UserError(
                    f"prompts of {part.size} and {width} tokens: use one prompt_num"
                )
            out[row, place, : part.size] = part
    return out


def _segment_table(
    rows: Sequence[Direction], used: Sequence[str]
) -> Int32[np.ndarray, "T G"]:
    width = max(len(way.sources) for way in rows)
    table = np.full((len(rows), width), -1, np.int32)
    for row, way in enumerate(rows):
        table[row, : len(way.sources)] = [used.index(m) for m in way.sources]
    return table


def _user_table(
    vocabulary: Vocabulary, names: Sequence[str], inter: Interactions, form: Form
) -> Int32[np.ndarray, "_"]:
    if not form.user:
        return np.zeros(0, np.int32)
    if pairs := [name for name in names if TASKS[name].pairs]:
        raise UserError(
            f"task {pairs[0]} has no user; remove it, or use no user tokens"
        )
    tokens = vocabulary.user_tokens(inter.user_ids)
    owned = np.repeat(tokens, np.diff(inter.indptr))
    return np.concatenate([owned, np.zeros(inter.num_items, np.int32)])


def training_examples(
    names: Sequence[str],
    inter: Interactions,
    *,
    held: int,
    seed: int,
    epoch: int,
    mode: int = 0,
    most: int = 20,
    items: Int[np.ndarray, "_"] | None = None,
) -> Examples:
    """Lists the examples of one epoch, task after task.

    Args:
      names: Tasks, as given to `tables`.
      inter: As given to `tables`.
      held: Number of held-out items at the end of each history, 2 for whole histories.
      seed: Seed of the run.
      epoch: Number of the epoch; directions of fusion tasks and windows of modes 2 to 4
        are drawn for each epoch.
      mode: `train_data_mode` of seqrec and seqimage, see
        `sequences.training_windows`; the other tasks use all prefixes, as in MQL4GRec.
      most: Maximum number of items of a history.
      items: Rows that tasks of single items translate; None for all.
    """
    check_tasks(names)
    rng = np.random.default_rng([seed, 4, epoch])
    rows, parts, whole = task_rows(names), [], None
    for name in names:
        if TASKS[name].pairs:
            windows = _pairs(inter, items)
        elif TASKS[name].prompts == 0 and mode:
            windows = sequences.training_windows(
                inter, held=held, mode=mode, most=most, rng=rng
            )
        else:
            whole = whole or sequences.training_windows(inter, held=held, most=most)
            windows = whole
        count = len(windows.start)
        drawn = rng.integers(len(rows[name]), size=count, dtype=np.int32)
        parts.append(Examples(rows[name][0] + drawn, *windows))
    return Examples(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _pairs(
    inter: Interactions, items: Int[np.ndarray, "_"] | None
) -> sequences.Windows:
    """Returns windows of single items, which follow the histories."""
    rows = np.arange(inter.num_items) if items is None else items
    return sequences.Windows(
        (len(inter.items) + rows).astype(np.int32),
        np.ones(len(rows), np.int32),
        rows.astype(np.int32),
    )


def window_examples(windows: sequences.Windows, row: int = 0) -> Examples:
    """Returns examples that all have row `row` of the task tables (evaluation)."""
    return Examples(np.full(len(windows.start), row, np.int32), *windows)
