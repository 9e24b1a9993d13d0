# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the vectors of new items from a data set that has grown.

Known rows are compared with those that the tokenizer was trained on, or that the
catalogue was built from, so that row i remains item i.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from rfrec.codes.catalogue import EncoderRecord, Manifest
from rfrec.config import UserError
from rfrec.data import join, new_rows, sources
from rfrec.data.dataset import Request
from rfrec.data.features import check_features
from rfrec.pipelines import collaborative, tokenizer
from rfrec.pipelines.tokenizer import FinishedRun

# Sources whose vectors are files to which rows can be appended. The vectors of other
# sources, and of graph recommenders, are computed from all items together.
_FILES = ("folder", "mmrec")


class Vectors(NamedTuple):
    """Vectors of new items.

    Attributes:
      known: Number of rows that are not new.
      values: Vectors of the new rows, scaled as for the tokenizer.
      encoder: Identifies where the vectors come from.
      warnings: Warnings for the user.
    """

    known: int
    values: Float32[np.ndarray, "n D"]
    encoder: EncoderRecord
    warnings: tuple[str, ...]


class Growth(NamedTuple):
    """A data set, the tokenizer's run and the catalogue so far.

    Attributes:
      path: Folder of the grown data set; None adds no item.
      encoder: Name of the encoder that made the vectors, or None.
      run: Folder of the tokenizer's run, for errors.
      finished: Options and report of that run.
      name: Name of the data set.
      before: Manifest of the catalogue; None if it is built now.
    """

    path: str | None
    encoder: str | None
    run: str
    finished: FinishedRun
    name: str
    before: Manifest | None

    @property
    def encoder_name(self) -> str | None:
        """Name of the encoder; the catalogue's if none is configured."""
        return self.encoder or (self.before.encoder.name if self.before else None)

    @property
    def known(self) -> int:
        """Number of rows that are not new."""
        if self.before:
            return self.before.items
        return self.finished.report["codes"]["data_sets"][self.name]["items"]

    def without_new(self, encoder: EncoderRecord) -> Vectors:
        """Returns no new vectors."""
        values = np.zeros((0, sum(encoder.widths)), np.float32)
        return Vectors(self.known, values, encoder, ())

    def open(self, name: str, path: str | None):
        """Opens a data set of the tokenizer's source."""
        data = self.finished.options.data
        return sources.open_data_set(Request(data.source, path or data.path, name))


def read(growth: Growth) -> Vectors:
    """Reads the vectors of new items.

    Raises:
      UserError: Known rows have changed, new ones are not finite or of another width,
        or the source cannot grow.
    """
    before, data = growth.before, growth.finished.options.data
    if before is not None and growth.encoder not in (None, before.encoder.name):
        raise UserError(
            f"config.encoder={growth.encoder!r}, but the catalogue has vectors of"
            f" {before.encoder.name!r}; use those, or another --workdir"
        )
    of_graph = collaborative.NAME in data.features
    if data.source not in _FILES or of_graph:
        if growth.path is not None:
            origin = collaborative.NAME if of_graph else data.source
            raise UserError(
                f"config.data.path: {growth.run} was trained on vectors of {origin!r},"
                " which are computed from all items together, so none can be added;"
                " train a tokenizer on files, data.source=folder"
            )
        return _read_computed(growth)
    if before and growth.path is None:
        return growth.without_new(before.encoder._replace(name=growth.encoder_name))
    return _read_files(growth)


def _read_computed(growth: Growth) -> Vectors:
    """Reads vectors that are computed together, of which none is new."""
    options, rf, _ = growth.finished
    items = tokenizer.load_items(options, rf)
    names = tuple(block.name for block in items.blocks)
    _check_known(items.fingerprint, " + ".join(names), growth)
    widths = tuple(block.width for block in items.blocks)
    encoder = EncoderRecord(growth.encoder_name, names, widths, (), items.fingerprint)
    return growth.without_new(encoder)


def _read_files(growth: Growth) -> Vectors:
    """Reads known and new rows of feature files."""
    before, known = growth.before, growth.known
    trained = growth.finished.options.data.features
    chosen = before.encoder.features if before else trained
    opened = growth.open(growth.name, growth.path)
    features = new_rows.open_features(opened, tuple(chosen), known)
    if growth.path is None:
        features = new_rows.first_rows(features, known)
    widths = tuple(f.values.shape[1] for f in features)
    _check_widths(widths, " + ".join(f.origin for f in features), growth)
    first, whole = new_rows.fingerprints(features, known)
    if before is None:
        factors = _trained_factors(features, growth)
    elif first != before.encoder.sha256:
        raise UserError(
            f"{features[0].origin}: its first {known} rows are not those that the"
            f" catalogue was built from (sha256 {first[:12]} instead of"
            f" {before.encoder.sha256[:12]}); restore them, and append new rows"
        )
    else:
        factors = before.encoder.factors
    values, warnings = new_rows.join_new_rows(features, known, factors)
    names = tuple(f.name for f in features)
    encoder = EncoderRecord(growth.encoder_name, names, widths, factors, whole)
    return Vectors(known, values, encoder, tuple(warnings))


def _check_widths(widths: tuple[int, ...], origin: str, growth: Growth) -> None:
    before, report = growth.before, growth.finished.report
    wanted = sum(before.encoder.widths) if before else report.get("width", sum(widths))
    if sum(widths) != wanted or (before and widths != before.encoder.widths):
        raise UserError(
            f"{origin}: vectors are {'+'.join(map(str, widths))} wide, the tokenizer of"
            f" {growth.run} reads {wanted}; encode new items by the encoder of the old"
            " ones"
        )


def _trained_factors(features: list[join.Feature], growth: Growth) -> tuple[float, ...]:
    """Returns the scale of each feature, which must be those of the training.

    The rows of the training are read and scaled as they were then.
    """
    options, _, report = growth.finished
    parts, factors = [], ()
    for name, entry in report["codes"]["data_sets"].items():
        own = features
        if name != growth.name:
            own = growth.open(name, None).read_features(options.data.features)
        rows = new_rows.first_rows(own, entry["items"])
        checked = [check_features(f.values, f.origin) for f in rows]
        scale: Any = options.data.scale
        if name == growth.name:
            pairs = zip(rows, checked, strict=True)
            factors = tuple(float(join.factor(f, r, scale)) for f, r in pairs)
        parts.append(join.join_checked(rows, checked, name=name, scale=scale))
    origin = " + ".join(f.origin for f in features)
    _check_known(join.stack(parts).fingerprint, origin, growth)
    return factors


def _check_known(fingerprint: str, origin: str, growth: Growth) -> None:
    report = growth.finished.report
    wanted = report["data"]["sha256"]
    if fingerprint != wanted:
        raise UserError(
            f"{origin}: the first {report['items']} vectors (sha256"
            f" {fingerprint[:12]}) are not those that {growth.run} was trained on"
            f" ({wanted[:12]}); restore them, and append new rows"
        )
