# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The data of a tokenizer's run, perhaps grown, in; the vectors of new items out.

The rows that are known are held against what the tokenizer was trained on, or against
what the catalogue was made of, so that row i stays item i.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32
from ml_collections import ConfigDict

from rfrec.codes.catalogue import Encoder, Manifest
from rfrec.config import UserError
from rfrec.data import join, new_rows, sources
from rfrec.data.dataset import Request
from rfrec.data.features import check_features
from rfrec.pipelines import tokenizer

# Sources whose vectors are files to which rows can be appended. Others make the vectors
# of all items together: with one more, all would be others. So do graph recommenders,
# whose vectors are the feature named here.
_FILES, _OF_GRAPH = ("folder", "mmrec"), "rf"


class Vectors(NamedTuple):
    """Vectors of a catalogue's items.

    Attributes:
      known: rows that are not new.
      values: of the new rows, as the tokenizer reads them.
      encoder: what they come from.
      warnings: to be shown.
    """

    known: int
    values: Float32[np.ndarray, "n D"]
    encoder: Encoder
    warnings: tuple[str, ...]


def read(
    config: ConfigDict,
    run_config: ConfigDict,
    report: dict[str, Any],
    name: str,
    before: Manifest | None,
) -> Vectors:
    """Reads the data set that grows.

    Args:
      config: of `rfrec.launch.grow`.
      run_config: of the tokenizer's run.
      report: of the tokenizer's run.
      name: of the data set.
      before: of the catalogue; None makes it.

    Raises:
      UserError: known rows have changed, new ones are not finite or of another width.
    """
    run, data = config.run, run_config.data
    if before is not None and config.encoder not in (None, before.encoder.name):
        raise UserError(
            f"config.encoder={config.encoder!r}, but the catalogue has vectors of"
            f" {before.encoder.name!r}: give those, or another --workdir"
        )
    told = config.encoder or (before.encoder.name if before else None)
    if data.source not in _FILES or _OF_GRAPH in data.features:
        if config.data.path is not None:
            made = _OF_GRAPH if _OF_GRAPH in data.features else data.source
            raise UserError(
                f"config.data.path: {run} was trained on vectors of {made!r}, which are"
                " made of all items together, so that none can be added: train a"
                " tokenizer on files alone, data.source=folder"
            )
        return _made_together(run_config, report, run, name, told)
    if before and config.data.path is None:
        encoder = before.encoder._replace(name=told)
        return _none(before.items, encoder)
    known = before.items if before else report["codes"]["data_sets"][name]["items"]
    found = sources.open_data_set(
        Request(data.source, config.data.path or data.path, name)
    )
    chosen = tuple(before.encoder.features if before else data.features)
    features = new_rows.open_features(found, chosen, known)
    if config.data.path is None:
        features = new_rows.first_rows(features, known)
    widths = tuple(f.values.shape[1] for f in features)
    wanted = sum(before.encoder.widths) if before else report.get("width", sum(widths))
    if sum(widths) != wanted or (before and widths != before.encoder.widths):
        raise UserError(
            f"{' + '.join(f.origin for f in features)}: vectors are"
            f" {'+'.join(map(str, widths))} wide, the tokenizer of {run} reads"
            f" {wanted}: encode new items by the encoder of the old ones"
        )
    if before:
        factors = before.encoder.factors
        first, whole = new_rows.fingerprints(features, known)
        if first != before.encoder.sha256:
            raise UserError(
                f"{features[0].origin}: its first {known} rows are not those that the"
                f" catalogue was made of (sha256 {first[:12]} instead of"
                f" {before.encoder.sha256[:12]}): restore them, new rows come behind"
            )
    else:
        factors = _trained_factors(run_config, report, name, features, run)
        whole = new_rows.fingerprints(features, known)[1]
    values, warnings = new_rows.join_new_rows(features, known, factors)
    encoder = Encoder(told, tuple(f.name for f in features), widths, factors, whole)
    return Vectors(known, values, encoder, tuple(warnings))


def _made_together(
    run_config: ConfigDict,
    report: dict[str, Any],
    run: str,
    name: str,
    told: str | None,
) -> Vectors:
    """Reads vectors that cannot grow: there are no new rows."""
    items = tokenizer.load_items(run_config)
    origin = " + ".join(block.name for block in items.blocks)
    _check_known(items.fingerprint, report, origin, run)
    known = report["codes"]["data_sets"][name]["items"]
    widths = tuple(block.width for block in items.blocks)
    names = tuple(block.name for block in items.blocks)
    encoder = Encoder(told, names, widths, (), items.fingerprint)
    return _none(known, encoder)


def _none(known: int, encoder: Encoder) -> Vectors:
    """Returns no new vectors."""
    values = np.zeros((0, sum(encoder.widths)), np.float32)
    return Vectors(known, values, encoder, ())


def _trained_factors(
    run_config: ConfigDict,
    report: dict[str, Any],
    name: str,
    features: list[join.Feature],
    run: str,
) -> tuple[float, ...]:
    """Returns the scale of features, checking that the tokenizer has seen them.

    The rows that it was trained on are read and scaled as they were then.
    """
    data, parts, factors = run_config.data, [], ()
    for other, told in report["codes"]["data_sets"].items():
        opened = features
        if other != name:
            found = sources.open_data_set(Request(data.source, data.path, other))
            opened = found.read_features(tuple(data.features))
        cut = new_rows.first_rows(opened, told["items"])
        checked = [check_features(f.values, f.origin) for f in cut]
        if other == name:
            pairs = zip(cut, checked, strict=True)
            factors = tuple(float(join.factor(f, r, data.scale)) for f, r in pairs)
        parts.append(join.join_checked(cut, checked, name=other, scale=data.scale))
    origin = " + ".join(f.origin for f in features)
    _check_known(join.stack(parts).fingerprint, report, origin, run)
    return factors


def _check_known(found: str, report: dict[str, Any], origin: str, run: str) -> None:
    wanted = report["data"]["sha256"]
    if found != wanted:
        raise UserError(
            f"{origin}: the first {report['items']} vectors (sha256 {found[:12]}) are"
            f" not those that {run} was trained on ({wanted[:12]}): restore them, new"
            " rows come behind"
        )
