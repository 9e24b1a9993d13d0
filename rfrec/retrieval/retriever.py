# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Generative retrieval as a library: recommends items by generating their codes."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Bool, Float32, Int32

from rfrec import config as cfg
from rfrec import files
from rfrec.config import UserError
from rfrec.data import sequences
from rfrec.data.interactions import Interactions
from rfrec.evaluation import metrics, report
from rfrec.retrieval import (
    builders,
    corpus,
    search,
    tasks,
    training,
    vocab_files,
)
from rfrec.retrieval import options as options_lib
from rfrec.retrieval.corpus import CodedData, CodedSet
from rfrec.retrieval.lists import Answers
from rfrec.retrieval.options import Options
from rfrec.retrieval.queries import Queries
from rfrec.retrieval.search import Searcher
from rfrec.retrieval.vocab import Vocabulary
from rfrec.train import partition
from rfrec.train.checkpoint import Checkpoints, MemoryCheckpoints
from rfrec.typing import PyTree

# A small model, for a minute of training on 1,000 users with 20 items each.
DEFAULTS = Options(
    data=options_lib.History(max_history=10),
    task=options_lib.Task(prompt_tokens=0),
    model=options_lib.Model(
        d_model=64,
        d_ff=128,
        d_kv=16,
        num_heads=4,
        num_layers=2,
        num_decoder_layers=1,
        dropout=0.0,
    ),
    optim=options_lib.Optim(lr=3e-3),
    train=options_lib.Train(epochs=4, batch_size=128, eval_every=2, buckets=()),
    eval=options_lib.Eval(users=500),
)
# Lists of an evaluation: the reciprocal rank beyond this length counts as 0.
_EVAL_ITEMS = 20
_BATCH = 256
_MANIFEST, _VOCABULARY, _ARRAYS = "retriever.json", "vocab.json", "arrays.npz"
_FORMAT = 1
# Item rows of each user, oldest first.
Histories = Iterable[Sequence[int] | np.ndarray]


class GenerativeRetriever:
    """Recommends the next items of a history by generating their codes with a T5.

    The codes of the items, for example from `rfrec.ItemTokenizer`, are the words of a
    language. A T5 reads the codes of a history and generates those of the next item. A
    beam search that follows only codes of existing items (a trie) ranks the items
    (Rajput et al. 2023, "Recommender Systems with Generative Retrieval"; Zhai et al.
    2025, "Multimodal Quantitative Language for Generative Recommendation").

    Attributes:
      options: All options, see `rfrec.retrieval.options.Options`.
      codes: Codes of the items by modality, [N, Q].
      data: Histories and codes of `fit`; None before.
      vocabulary: Vocabulary of the model; None before `fit`.
      params: Parameters of the model, on the host; None before `fit`.
    """

    def __init__(
        self,
        codes: np.ndarray | Mapping[str, np.ndarray],
        *,
        seed: int = 0,
        **options: Any,
    ):
        """Stores codes and options.

        Args:
          codes: Codes of the items [N, Q], a row per item, one code per level; -1 in a
            whole row for an item without codes, which is never recommended. Codes of
            two modalities are given by name: `{"text": codes, "image": codes}`; they
            are trained as the tasks `seqrec` and `seqimage`. The first task makes the
            lists, or that of `eval={"task": "seqimage"}`.
          seed: Seed of initialisation, order and dropout.
          **options: Options by the names of their fields in
            `rfrec.retrieval.options.Options`, for example `d_model`, `num_layers`,
            `epochs`, `batch_size`, `lr`, `max_history` and `beams`. A name that occurs
            in several sections is set as `eval={"batch_size": 64}`; `batch_size` alone
            is that of the training.

        Raises:
          UserError: The codes are no codes, or an option is unknown, not allowed or
            cannot be combined with another.
        """
        self.codes = _check_codes(codes)
        names = {"text": "seqrec", "image": "seqimage"}
        default_tasks = tuple(names[modality] for modality in self.codes)
        base = dataclasses.replace(
            DEFAULTS, task=dataclasses.replace(DEFAULTS.task, names=default_tasks)
        )
        batch_size = options.pop("batch_size", base.train.batch_size)
        base = cfg.override(base, train={"batch_size": batch_size})
        self.options = cfg.override(base, seed=seed, **options)
        options_lib.check(self.options)
        for modality in tasks.modalities(self.options.task.names):
            if modality not in self.codes:
                raise UserError(
                    f"names={self.options.task.names} need {modality} codes; pass them"
                    f" as codes={{{modality!r}: ...}}"
                )
        self._set_fitted(None, None, None)

    @classmethod
    def from_fitted(
        cls, options: Options, data: CodedData, vocabulary: Vocabulary, params: PyTree
    ) -> "GenerativeRetriever":
        """Returns a retriever with a trained model.

        Args:
          options: Options of the model.
          data: One data set: histories, and the codes of the items to recommend.
          vocabulary: Vocabulary of the model.
          params: Parameters of the model.
        """
        retriever = cls.__new__(cls)
        retriever.codes, retriever.options = dict(data.codes), options
        retriever._set_fitted(data, vocabulary, params)
        return retriever

    def _set_fitted(
        self, data: CodedData | None, vocabulary: Vocabulary | None, params: PyTree
    ) -> None:
        self.data, self.vocabulary, self.params = data, vocabulary, params
        self._searchers: dict[Any, Searcher] = {}

    @property
    def num_items(self) -> int:
        """Number of items."""
        return len(next(iter(self.codes.values())))

    def __repr__(self) -> str:
        codes = ", ".join(
            f"{modality} codes of {table.shape[1]} levels"
            for modality, table in self.codes.items()
        )
        model, state = self.options.model, "not fitted"
        if self.data is not None:
            count = sum(map(np.size, jax.tree.leaves(self.params)))
            state = f"fitted on {self.data.inter.num_users} users, {count:,} parameters"
        return (
            f"GenerativeRetriever({self.num_items} items, {codes}, d_model="
            f"{model.d_model}, {model.num_layers}+{model.num_decoder_layers} layers,"
            f" {state})"
        )

    def fit(
        self,
        histories: Histories,
        workdir: str | os.PathLike[str] | None = None,
    ) -> "GenerativeRetriever":
        """Trains the model and keeps the best checkpoint.

        The last item of each history is held out for the test and the one before for
        validation; `options.train.criterion` on the latter chooses the checkpoint.

        Args:
          histories: Item rows of each user, oldest first, at least 3.
          workdir: Folder for metrics and checkpoints. A run that was interrupted
            resumes there, with the same result as without the interruption. None
            stores nothing.

        Returns:
          The retriever itself.

        Raises:
          UserError: A history is too short or names an unknown item, or the folder
            belongs to other histories, codes or options.
        """
        data = self._build_data(histories)
        vocabulary = builders.build_vocabulary(self.options, data)
        trainer = builders.build_trainer(self.options, data, vocabulary)
        run = training.Run(trainer)
        folder = None if workdir is None else Path(workdir).expanduser()
        notes = {"data": data.fingerprint, "options": _as_json(self.options)}
        with contextlib.ExitStack() as stack:
            criteria = {
                "lowest": options_lib.LOWEST,
                "highest": options_lib.HIGHEST,
            }
            if folder is None:
                checkpoints = MemoryCheckpoints(**criteria)
            else:
                checkpoints = stack.enter_context(Checkpoints(folder, **criteria))
            what = "histories, codes or options"
            run.fit(checkpoints, workdir=folder, notes=notes, what=what)
            step = checkpoints.best(self.options.train.criterion)
            assert step is not None, "a finished run has a checkpoint"
            state = checkpoints.restore(step, trainer.init()).state
        self._set_fitted(data, vocabulary, state.params)
        return self

    def recommend(
        self,
        histories: Histories,
        k: int = 10,
        filter_seen: bool = False,
        allow: Iterable[int] | None = None,
        deny: Iterable[int] | None = None,
    ) -> tuple[Int32[np.ndarray, "U k"], Float32[np.ndarray, "U k"]]:
        """Recommends items for any histories, of known or of new users.

        Args:
          histories: Item rows of each user, oldest first, at least 1; the latest
            `max_history` are used.
          k: Number of items.
          filter_seen: Whether the items of a history are left out.
          allow: Rows of the only items that may be recommended; None for all.
          deny: Rows of items that are never recommended.

        Returns:
          Items, best first, and their scores: the mean log-probability of the codes and
          the end token. Item -1 where fewer than k items are left.

        Raises:
          UserError: The retriever is not fitted, a history is empty or names an
            unknown item, or no item is left.
        """
        data, vocabulary = self._fitted()
        if k < 1:
            raise UserError(f"k={k}: must be at least 1")
        inter = self._pack(histories)
        most = self.options.data.max_history
        windows = sequences.latest_windows(inter, most=most)
        queries = builders.build_queries(self.options, vocabulary, inter, windows)
        searcher = self._searcher(k, filter_seen, self._keep(allow, deny))
        answers = _answer(searcher, queries)
        return answers.items, answers.scores

    def evaluate(self, which: str = "test") -> dict[str, float]:
        """Evaluates the ranking of the held-out items of `fit`.

        Args:
          which: `test` for the last item of each history, `valid` for the one before;
            the items before it are the history.

        Returns:
          Means over all users of `hr@1`, `hr@5`, `hr@10`, `ndcg@5`, `ndcg@10` and the
          reciprocal rank `mrr`, of lists of 20 items.

        Raises:
          UserError: The retriever is not fitted, or there is no such item.
        """
        data, vocabulary = self._fitted()
        most = self.options.data.max_history
        windows = sequences.heldout_windows(data.inter, which, most=most)
        queries = builders.build_queries(self.options, vocabulary, data.inter, windows)
        answers = _answer(self._searcher(_EVAL_ITEMS, False, None), queries)
        return report.means(metrics.match(answers.items, windows.target))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes options, codes, histories and model to a folder, without pickle.

        Raises:
          UserError: The retriever is not fitted, or the folder cannot be written.
        """
        data, vocabulary = self._fitted()
        path = Path(folder).expanduser()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be created ({error.strerror})") from error
        arrays = {f"codes/{m}": table for m, table in data.codes.items()}
        arrays |= {f"removed/{m}": marks for m, marks in data.removed.items()}
        arrays |= {"indptr": data.inter.indptr, "items": data.inter.items}
        for keys, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            name = jax.tree_util.keystr(keys, simple=True, separator="/")
            arrays[f"params/{name}"] = np.asarray(leaf)
        with files.replacing(path / _ARRAYS) as partial:
            np.savez(partial, allow_pickle=False, **arrays)
        vocab_files.write(vocabulary, path / _VOCABULARY)
        manifest = {
            "format": _FORMAT,
            "options": json.loads(_as_json(self.options)),
            "user_ids": data.inter.user_ids,
            "item_ids": data.inter.item_ids,
        }
        files.write_json(path / _MANIFEST, manifest)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "GenerativeRetriever":
        """Reads what `save` wrote.

        Raises:
          UserError: A file is missing or damaged.
        """
        path = Path(folder).expanduser()
        remedy = "name a folder that GenerativeRetriever.save wrote"
        manifest = files.read_json(path / _MANIFEST, remedy)
        if manifest.get("format") != _FORMAT:
            raise UserError(f"{path / _MANIFEST} has an unknown format; {remedy}")
        options = cfg.override(Options(), **manifest["options"])
        vocabulary = vocab_files.read(path / _VOCABULARY)
        try:
            with np.load(path / _ARRAYS, allow_pickle=False) as file:
                arrays = dict(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{path / _ARRAYS} cannot be read ({error})") from error
        arch = builders.build_architecture(options, vocabulary)
        template = builders.build_template(options, arch).params
        params = jax.tree_util.tree_map_with_path(
            lambda keys, _: arrays[
                "params/" + jax.tree_util.keystr(keys, simple=True, separator="/")
            ],
            template,
        )
        codes = {
            name.removeprefix("codes/"): table
            for name, table in arrays.items()
            if name.startswith("codes/")
        }
        item_ids = manifest["item_ids"]
        inter = Interactions(
            arrays["indptr"],
            arrays["items"],
            len(next(iter(codes.values()))),
            tuple(manifest["user_ids"]),
            None if item_ids is None else tuple(item_ids),
        )
        removed = {modality: arrays[f"removed/{modality}"] for modality in codes}
        data = corpus.stack([CodedSet("items", inter, codes, removed)])
        return cls.from_fitted(options, data, vocabulary, params)

    def export(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Writes the artefact that `rfrec.Recommender` and `rfrec.launch.serve` read.

        Args:
          folder: New folder.
          **options: Keywords of `rfrec.serving.export.export_retriever`.

        Raises:
          UserError: The retriever is not fitted, or the folder is not empty.
        """
        # The one import of a higher tier: `export` is a method of the public class, and
        # serving knows how an artefact is built. See docs/decisions.md.
        from rfrec.serving import export

        self._fitted()
        export.export_retriever(self, Path(folder).expanduser(), **options)

    def _fitted(self) -> tuple[CodedData, Vocabulary]:
        if self.data is None or self.vocabulary is None:
            raise UserError("this GenerativeRetriever is not fitted; call fit first")
        return self.data, self.vocabulary

    def _build_data(self, histories: Histories) -> CodedData:
        """Checks the histories of `fit` and combines them with the codes."""
        inter = self._pack(histories)
        short = np.flatnonzero(np.diff(inter.indptr) < 3)
        if short.size:
            user = int(short[0])
            raise UserError(
                f"history {user} has {len(inter.history(user))} items, fit needs at"
                f" least 3 ({short.size} such histories); leave them out"
            )
        used = tasks.modalities(self.options.task.names)
        codes = {modality: self.codes[modality] for modality in used}
        part = CodedSet("items", inter, codes, corpus.none_removed(codes))
        for line in filter(None, (corpus.describe_conflicts(part, m) for m in codes)):
            logging.warning("%s: they are always recommended together", line)
        return corpus.stack([part])

    def _pack(self, histories: Histories) -> Interactions:
        """Checks histories and packs them.

        Raises:
          UserError: Names the history and the item.
        """
        rows = [np.asarray(history).tolist() for history in histories]
        inter = sequences.from_histories(rows, self.num_items)
        uncoded = np.any([table[:, 0] < 0 for table in self.codes.values()], axis=0)
        wrong = np.flatnonzero(uncoded[inter.items])
        if wrong.size:
            user = int(np.searchsorted(inter.indptr, wrong[0], side="right")) - 1
            raise UserError(
                f"histories: user '{user}': item {inter.items[wrong[0]]} has no codes"
            )
        return inter

    def _keep(
        self, allow: Iterable[int] | None, deny: Iterable[int] | None
    ) -> Bool[np.ndarray, " N"] | None:
        """Returns which items may be recommended; None for all."""
        if allow is None and deny is None:
            return None
        keep = np.full(self.num_items, allow is None)
        for name, items, value in (("allow", allow, True), ("deny", deny, False)):
            rows = np.asarray([] if items is None else list(items), np.int64)
            wrong = rows[(rows < 0) | (rows >= self.num_items)]
            if wrong.size:
                raise UserError(
                    f"{name}: item {wrong[0]} is not in the catalogue (rows 0 to"
                    f" {self.num_items - 1})"
                )
            keep[rows] = value
        if not keep.any():
            raise UserError("allow and deny leave no item")
        return keep

    def _searcher(
        self, k: int, filter_seen: bool, keep: Bool[np.ndarray, " N"] | None
    ) -> Searcher:
        """Returns the search for lists of k items; the latest are kept compiled."""
        key = (k, filter_seen, None if keep is None else keep.tobytes())
        if key not in self._searchers:
            data, vocabulary = self._fitted()
            task = tasks.list_task(self.options.watched)
            source = builders.build_source(
                self.options, self.params, vocabulary, data, task
            )
            settings = search.Settings(
                num_beams=max(self.options.eval.beams, k),
                top_k=k,
                batch_size=_BATCH,
                buckets=self.options.train.buckets,
                longest=self.options.data.max_history * len(task.sources),
                keep=keep,
                filter_seen=filter_seen,
            )
            while len(self._searchers) >= 4:
                del self._searchers[next(iter(self._searchers))]
            engine = partition.make_engine("jit")
            self._searchers[key] = Searcher(source, settings, engine)
        return self._searchers[key]


def _check_codes(
    codes: np.ndarray | Mapping[str, np.ndarray],
) -> dict[str, Int32[np.ndarray, "N _"]]:
    """Returns codes by modality.

    Raises:
      UserError: They are no codes of the same items.
    """
    by_modality = dict(codes) if isinstance(codes, Mapping) else {"text": codes}
    if not by_modality or not set(by_modality) <= set(corpus.MODALITIES):
        raise UserError(
            f"codes of {', '.join(map(repr, by_modality)) or 'no modality'}: use 'text'"
            " and 'image'"
        )
    checked = {}
    for modality in filter(by_modality.__contains__, corpus.MODALITIES):
        table = np.asarray(by_modality[modality])
        if table.ndim != 2 or not table.size or table.dtype.kind not in "iu":
            raise UserError(
                f"codes: expected an array [items, levels] of integers, found shape"
                f" {table.shape} of {table.dtype}"
            )
        absent = (table == -1).all(axis=1)
        wrong = np.flatnonzero((table < 0).any(axis=1) & ~absent)
        if wrong.size or absent.all():
            row = int(wrong[0]) if wrong.size else 0
            raise UserError(
                f"codes: row {row} is {table[row].tolist()}; codes are at least 0, or"
                " all -1 for an item without codes"
            )
        checked[modality] = table.astype(np.int32)
    if len({len(table) for table in checked.values()}) > 1:
        sizes = ", ".join(f"{m} {len(table)}" for m, table in checked.items())
        raise UserError(f"codes have different numbers of items: {sizes}")
    return checked


def _answer(searcher: Searcher, queries: Queries) -> Answers:
    """Answers all queries, in their order."""
    rows, parts, count = [], [], len(queries.begin)
    if count < _BATCH:
        # Numbers of users are rounded up to powers of two, which share programs.
        queries = queries.take(np.arange(1 << (count - 1).bit_length()) % count)
    for batch, answers in searcher.answers(queries, searcher.plan(queries)):
        rows.append(batch.rows[batch.counted])
        parts.append(answers)
    order = np.argsort(np.concatenate(rows))[:count]
    columns = zip(*parts, strict=True)
    return Answers(*(np.concatenate(column)[order] for column in columns))


def _as_json(options: Options) -> str:
    return json.dumps(dataclasses.asdict(options), sort_keys=True)
