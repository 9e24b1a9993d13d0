# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Features side by side, data sets one below the other: `ItemVectors` out."""

import dataclasses
from collections.abc import Sequence
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from rfrec.config import UserError
from rfrec.data.features import (
    CHUNK_ROWS,
    Block,
    FeatureReport,
    ItemVectors,
    as_float32,
    check_features,
    fingerprint,
)

SCALES = ("none", "mean_square")


class Feature(NamedTuple):
    """One feature of one data set, as read.

    Attributes:
      name: Block name, such as `text`.
      values: Row = item; float16, float32 or float64, possibly memory-mapped.
      kind: `multi_hot` blocks hold zeros and ones and are never scaled.
      origin: File or description named in errors and warnings.
    """

    name: str
    values: Float[np.ndarray, "N D"]
    kind: Literal["dense", "multi_hot"]
    origin: str


def join(
    features: Sequence[Feature],
    *,
    name: str,
    scale: str = "none",
    ids: tuple[str, ...] | None = None,
    titles: tuple[str, ...] | None = None,
) -> ItemVectors:
    """Checks the features of one data set and puts them side by side.

    A single float16 or float32 feature with scale `none` stays what it is, a memory
    map too; everything else becomes one array in memory, float16 if all features
    are and nothing is scaled, float32 otherwise. Items without a vector are kept
    as rows of zeros and counted in the warnings.

    Args:
      features: At least one, of equally many rows.
      name: Name of the data set.
      scale: `none`, or `mean_square`: each dense feature is divided by its root mean
        square over all its items and columns, so that its mean square becomes 1.
      ids: As in `ItemVectors`.
      titles: As in `ItemVectors`.

    Returns:
      One segment, one block for each feature.

    Raises:
      UserError: Numbers of rows differ, values are not finite, a feature is all
        zero but to be scaled, or the scale is unknown.
    """
    if scale not in SCALES:
        raise UserError(f"data.scale is {scale!r}, expected one of {', '.join(SCALES)}")
    check_rows(features)
    reports = [check_features(f.values, f.origin) for f in features]
    return join_checked(
        features, reports, name=name, scale=scale, ids=ids, titles=titles
    )


def join_checked(
    features: Sequence[Feature],
    reports: Sequence[FeatureReport],
    *,
    name: str,
    scale: str,
    ids: tuple[str, ...] | None = None,
    titles: tuple[str, ...] | None = None,
) -> ItemVectors:
    """Does `join` with features of equally many rows whose reports are there."""
    values = _side_by_side(features, reports, scale)
    return ItemVectors(
        values=values,
        blocks=tuple(Block(f.name, f.values.shape[1], f.kind) for f in features),
        ids=ids,
        titles=titles,
        segments=((name, len(values)),),
        fingerprint=fingerprint(values),
        warnings=_warnings(features, reports, values),
    )


def beside(items: ItemVectors, feature: Feature, *, scale: str) -> ItemVectors:
    """Puts a further feature of the items at the right of those they have.

    Args:
      items: Vectors of one data set.
      feature: A row for each item.
      scale: Scaling of the feature, see `join`.

    Returns:
      The same items; `values` are in memory.

    Raises:
      UserError: As of `join`.
    """
    old = Feature(
        "items", items.values, "dense", " + ".join(b.name for b in items.blocks)
    )
    check_rows((old, feature))
    report = check_features(feature.values, feature.origin)
    scaled = as_float32(feature.values) * factor(feature, report, scale)
    values = np.concatenate([as_float32(items.values), scaled], axis=1)
    block = Block(feature.name, feature.values.shape[1], feature.kind)
    return dataclasses.replace(
        items,
        values=values,
        blocks=(*items.blocks, block),
        fingerprint=fingerprint(values),
        warnings=(*items.warnings, *report.warnings(feature.origin)),
    )


def check_rows(features: Sequence[Feature]) -> None:
    """Refuses features of one data set that have unequally many rows.

    Raises:
      UserError: Names two of them.
    """
    for other in features[1:]:
        first = features[0]
        if len(other.values) != len(first.values):
            raise UserError(
                f"{first.origin} has {len(first.values)} rows but {other.origin} has"
                f" {len(other.values)}; features of one data set need a row for each"
                " item"
            )


def stack(parts: Sequence[ItemVectors]) -> ItemVectors:
    """Puts data sets one below the other, for one shared quantizer.

    Args:
      parts: At least one; blocks must agree in name, order, width and kind.

    Returns:
      The rows in order, in memory unless there is one part. `ids` number the rows
      unless a part names its items; titles are kept only if all parts have them.

    Raises:
      UserError: Blocks differ, or two items have the same id.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    for other in parts[1:]:
        _same_blocks(first, other)
    dtype = np.result_type(*(part.values.dtype for part in parts))
    values = np.concatenate([np.asarray(p.values, dtype) for p in parts])
    titles = tuple(chain.from_iterable(part.titles or () for part in parts))
    return ItemVectors(
        values=values,
        blocks=first.blocks,
        ids=_joint_ids(parts),
        titles=titles if len(titles) == len(values) else None,
        segments=tuple(chain.from_iterable(part.segments for part in parts)),
        fingerprint=fingerprint(values),
        warnings=tuple(chain.from_iterable(part.warnings for part in parts)),
    )


def _side_by_side(
    features: Sequence[Feature], reports: Sequence[FeatureReport], scale: str
) -> Float[np.ndarray, "N D"]:
    """Concatenates and scales; copies chunk by chunk, and only if it must."""
    native = [f.values.dtype.newbyteorder("=") for f in features]
    dense = any(f.kind == "dense" for f in features)
    if scale == "none" or not dense:
        if len(features) == 1 and features[0].values.dtype in (np.float16, np.float32):
            return features[0].values
        half = all(dtype == np.float16 for dtype in native)
    else:
        half = False
    width = sum(f.values.shape[1] for f in features)
    joined = np.empty(
        (len(features[0].values), width), np.float16 if half else np.float32
    )
    stop = 0
    for feature, report in zip(features, reports, strict=True):
        start, stop = stop, stop + feature.values.shape[1]
        times = factor(feature, report, scale)
        for row in range(0, len(joined), CHUNK_ROWS):
            rows = slice(row, row + CHUNK_ROWS)
            joined[rows, start:stop] = as_float32(feature.values[rows]) * times
    return joined


def factor(feature: Feature, report: FeatureReport, scale: str) -> np.float32:
    """Returns what a feature is multiplied with.

    Args:
      feature: Feature of one data set.
      report: What `check_features` reports on all its items.
      scale: As of `join`.

    Raises:
      UserError: It is all zero but to be scaled.
    """
    if scale == "none" or feature.kind == "multi_hot":
        return np.float32(1)
    if report.mean_square == 0:
        raise UserError(
            f"{feature.origin}: all values are zero, which cannot be scaled to mean"
            " square 1; leave the feature out or set data.scale to none"
        )
    return np.float32(report.mean_square**-0.5)


def _warnings(
    features: Sequence[Feature],
    reports: Sequence[FeatureReport],
    values: Float[np.ndarray, "N D"],
) -> tuple[str, ...]:
    """Words what is worth knowing of each dense feature and of all together."""
    lines = []
    for feature, report in zip(features, reports, strict=True):
        # Equal label sets are normal; the joined vectors are what must differ.
        alone = len(features) == 1
        if feature.kind == "dense" or alone:
            kept = report if alone else report._replace(duplicate_rows=0)
            lines += kept.warnings(feature.origin)
    if len(features) > 1:
        both = " + ".join(f.name for f in features)
        joined = check_features(values, both)
        lines += joined._replace(constant_columns=np.zeros(0, int)).warnings(both)
    return tuple(lines)


def _same_blocks(first: ItemVectors, other: ItemVectors) -> None:
    """Refuses data sets whose columns mean different things."""
    names = first.segments[0][0], other.segments[0][0]
    for a, b in zip(first.blocks, other.blocks, strict=False):
        if a.name == b.name and a.width != b.width:
            raise UserError(
                f"feature {a.name!r} is {a.width} wide in {names[0]!r} but {b.width}"
                f" wide in {names[1]!r}; a shared quantizer needs equal widths"
            )
    if first.blocks != other.blocks:
        widths = [[(b.name, b.width) for b in part.blocks] for part in (first, other)]
        raise UserError(
            f"features {widths[0]} of {names[0]!r} differ from {widths[1]} of"
            f" {names[1]!r}; a shared quantizer needs the same features"
        )


def _joint_ids(parts: Sequence[ItemVectors]) -> tuple[str, ...] | None:
    """Appends the ids of the parts; rows of a part without ids are numbered."""
    if all(part.ids is None for part in parts):
        return None
    ids, seen = [], set()
    for part in parts:
        for name in part.ids or map(str, range(len(part.values))):
            if name in seen:
                raise UserError(
                    f"item id {name!r} of {part.segments[0][0]!r} occurs in another"
                    " data set too; rename the items before stacking"
                )
            seen.add(name)
            ids.append(name)
    return tuple(ids)
