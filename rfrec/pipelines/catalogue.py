# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The run of a T5 in; whether it was trained on the codes of a catalogue out."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from rfrec.codes import catalogue
from rfrec.config import UserError
from rfrec.launch import codes as codes_main
from rfrec.pipelines import coded_histories, retriever
from rfrec.retrieval import corpus
from rfrec.retrieval.corpus import CodedData


class Bound(NamedTuple):
    """A T5 that reads a catalogue's codes.

    Attributes:
      version: what identifies it.
      sizes: codes per level for which it has tokens.
    """

    version: catalogue.T5
    sizes: tuple[int, ...]


def bind(
    run: Path,
    checkpoint: str,
    name: str,
    modality: str,
    codes: Int32[np.ndarray, "M Q"],
) -> Bound:
    """Checks that a T5 was trained on codes of a catalogue, an earlier version perhaps.

    Args:
      run: its folder.
      checkpoint: `last`, or the criterion whose best is wanted.
      name: of the catalogue's data set.
      modality: of the codes.
      codes: of the catalogue.

    Raises:
      UserError: it was trained on other codes, or has no tokens for some; names both.
    """
    model = retriever.read_model(run, checkpoint)
    used = model.options.modalities
    if modality not in used:
        raise UserError(
            f"config.t5={run} was trained on {' and '.join(used)} codes, the catalogue"
            f" has {modality} codes: name another run"
        )
    data = coded_histories.load(model.options.data, used, seed=model.options.seed)
    if not _is_known(run, model, data):
        raise UserError(
            f"config.t5={run} was trained on other histories or codes than there are"
            f" now in {getattr(model.options.data, modality)}: restore them"
        )
    number = 0
    if len(data.names) > 1:
        if name not in data.names:
            raise UserError(
                f"config.t5={run} was trained on {', '.join(data.names)}, the catalogue"
                f" is of {name}: name another run"
            )
        number = data.names.index(name)
    own = data.select(number)
    _check_same(run, own, modality, codes)
    sizes = model.vocabulary.sizes(modality)
    beyond = np.argwhere(codes >= np.asarray(sizes))
    if len(beyond):
        row, level = beyond[0].tolist()
        raise UserError(
            f"config.t5={run} has tokens for {modality} codes of sizes {sizes}, item"
            f" {row} of the catalogue has the code {codes[row, level]} at level"
            f" {level}: train a T5 on the catalogue, or make it anew with this one"
        )
    return Bound(retriever.version(run, model), sizes)


def _is_known(run: Path, model: retriever.Model, data: CodedData) -> bool:
    """Returns whether a model was trained on these data.

    Those of a catalogue may have had fewer rows then.
    """
    if model.data in ("", data.fingerprint):
        return True
    report = run / "report.json"
    if len(data.names) > 1 or not report.exists():
        return False
    rows = codes_main.read_report(report)["items"]
    then = {modality: codes[:rows] for modality, codes in data.codes.items()}
    return model.data == corpus.fingerprint(data.inter, then)


def _check_same(
    run: Path, own: CodedData, modality: str, codes: Int32[np.ndarray, "M Q"]
) -> None:
    """Refuses a model whose codes of an item are not the catalogue's."""
    trained = own.codes[modality]
    if own.inter.item_ids is not None:
        raise UserError(
            f"config.t5={run}: its histories name their items, a catalogue numbers"
            " them: number them by row"
        )
    known = np.flatnonzero(trained[:, 0] >= 0)
    rows, levels = codes.shape
    if known[-1] >= rows or trained.shape[1] != levels:
        raise UserError(
            f"config.t5={run} was trained on {trained.shape[1]} {modality} codes for"
            f" each of {known[-1] + 1} items, the catalogue has {levels} for each of"
            f" {rows}: it is of another tokenizer, name another run"
        )
    other = known[(trained[known] != codes[known]).any(axis=1)]
    if len(other):
        item = int(other[0])
        raise UserError(
            f"config.t5={run} was trained on the {modality} codes"
            f" {trained[item].tolist()} of item {item}, the catalogue has"
            f" {codes[item].tolist()} ({len(other)} items differ): they are of another"
            " tokenizer, name another run"
        )
