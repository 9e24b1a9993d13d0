# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tables of codes: row = item, column = level.

The module computes statistics of code tables, and reads and writes the JSON index of
MQL4GRec (`{"0": ["<a_1>", "<b_2>"]}`).
"""

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32, Int64

from rfrec import files
from rfrec.config import UserError

_TOKEN = re.compile(r"<([a-z]+|[A-Z]+)_(0|[1-9][0-9]{0,9})>")
_MAX_CODE = np.iinfo(np.int32).max
_MAX_KEY = np.iinfo(np.int64).max


@dataclasses.dataclass(frozen=True)
class LevelStatistics:
    """Usage of one codebook.

    Attributes:
      size: Number of codes in the codebook.
      used: Number of codes that at least one item has.
      perplexity: Exponential of the entropy, from 1 (one code) to `size` (all codes
        equally frequent).
      entropy: Entropy of the code frequencies, -sum p ln p, in nats.
    """

    size: int
    used: int
    perplexity: float
    entropy: float


@dataclasses.dataclass(frozen=True)
class CodeStatistics:
    """Collisions and usage of a table of codes.

    Attributes:
      items: Number of rows.
      distinct: Number of distinct code tuples.
      conflict_items: `items` minus `distinct`.
      collision_rate: `conflict_items` divided by `items`.
      largest_group: Largest number of items that share one tuple.
      levels: Usage of each level, first level first.
    """

    items: int
    distinct: int
    conflict_items: int
    collision_rate: float
    largest_group: int
    levels: tuple[LevelStatistics, ...]

    def as_dict(self) -> dict[str, Any]:
        """Converts to plain Python values, ready for `json.dumps`."""
        fields = dataclasses.asdict(self)
        return fields | {"levels": list(fields["levels"])}


class CodeIndex(NamedTuple):
    """An index file: item `item_ids[i]` has the tuple `codes[i]`."""

    codes: Int32[np.ndarray, "N Q"]
    item_ids: tuple[str, ...]
    modality: str


def check_codes(codes: Int[np.ndarray, "N Q"], sizes: Sequence[int]) -> None:
    """Checks that a table is not empty and that all codes are in range.

    Raises:
      UserError: The table is empty or a code is out of range; the message gives the row
        and the level.
    """
    items, levels = codes.shape
    if levels != len(sizes):
        raise UserError(
            f"codes have {levels} levels but there are {len(sizes)} sizes; both must be"
            " of one tokenizer"
        )
    if not items or not levels:
        raise UserError(f"codes of shape {codes.shape} contain no item")
    bad = np.argwhere((codes < 0) | (codes >= np.asarray(sizes)))
    if len(bad):
        row, level = bad[0].tolist()
        raise UserError(
            f"codes: row {row}, level {level} is {codes[row, level]}, out of range 0 to"
            f" {sizes[level] - 1}"
        )


def tuple_keys(
    codes: Int[np.ndarray, "N Q"], sizes: Sequence[int]
) -> Int64[np.ndarray, "N"]:
    """Returns integer keys that compare as the code tuples do.

    The key is the mixed-radix number of the tuple. Where that would overflow 63 bits,
    the prefixes so far are first replaced by their ranks, of which there are at most N.

    Args:
      codes: Codes 0 to `sizes[l]` - 1 at level l (not checked here).
      sizes: Number of codes per level.

    Returns:
      Keys; only their order and equality have a meaning.
    """
    keys, span = np.zeros(len(codes), np.int64), 1
    for level, size in enumerate(sizes):
        if span * size > _MAX_KEY:
            ranked, keys = np.unique(keys, return_inverse=True)
            span = len(ranked)
        keys = keys * size + codes[:, level]
        span *= size
    return keys


def colliding_prefixes(
    codes: Int[np.ndarray, "N Q"], kept: int
) -> list[Int64[np.ndarray, "_"]]:
    """Groups the items of each prefix under which two items share all codes.

    Args:
      codes: Codes of any sizes.
      kept: Length of the prefix, 0 to Q.

    Returns:
      Rows in ascending order, one array for each prefix with a collision; prefixes in
      lexicographic order.
    """
    order = np.lexsort(codes.T[::-1])
    ranked = codes[order]
    repeats = np.zeros(len(codes), bool)
    repeats[1:] = (ranked[1:] == ranked[:-1]).all(1)
    opens = np.ones(len(codes), bool)
    opens[1:] = (ranked[1:, :kept] != ranked[:-1, :kept]).any(1)
    starts = np.flatnonzero(opens)
    stops = np.append(starts[1:], len(codes))
    colliding = np.logical_or.reduceat(repeats, starts)
    return [
        np.sort(order[start:stop])
        for start, stop in zip(starts[colliding], stops[colliding], strict=True)
    ]


def statistics(codes: Int[np.ndarray, "N Q"], sizes: tuple[int, ...]) -> CodeStatistics:
    """Counts collisions and the usage of every level.

    Args:
      codes: Codes 0 to `sizes[l]` - 1 at level l.
      sizes: Number of codes per level.

    Returns:
      The statistics; entropies are in nats.

    Raises:
      UserError: The table is empty or a code is out of range.
    """
    check_codes(codes, sizes)
    groups = np.unique(tuple_keys(codes, sizes), return_counts=True)[1]
    items, distinct = len(codes), len(groups)
    return CodeStatistics(
        items=items,
        distinct=distinct,
        conflict_items=items - distinct,
        collision_rate=(items - distinct) / items,
        largest_group=int(groups.max()),
        levels=tuple(
            _level_statistics(codes[:, level], size) for level, size in enumerate(sizes)
        ),
    )


def _level_statistics(column: Int[np.ndarray, "N"], size: int) -> LevelStatistics:
    counts = np.bincount(column)
    share = counts[counts > 0] / len(column)
    entropy = max(0.0, float(-(share * np.log(share)).sum()))
    return LevelStatistics(size, len(share), float(np.exp(entropy)), entropy)


def level_prefix(level: int) -> str:
    """Returns the letters of a level, as of spreadsheet columns: a to z, aa, ab, ..."""
    letters, number = "", level + 1
    while number:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord("a") + digit) + letters
    return letters


def write_index(
    path: str | os.PathLike[str],
    codes: Int[np.ndarray, "N Q"],
    *,
    modality: str = "text",
    item_ids: Sequence[str] | None = None,
) -> None:
    """Writes codes as MQL4GRec's JSON index, atomically.

    Args:
      path: File to create or replace.
      codes: Codes, at least 0.
      modality: `text` (lower-case letters) or `image` (upper-case letters).
      item_ids: A distinct id for each row; None means "0" to "N-1".

    Raises:
      UserError: A code is negative, ids are missing or repeated, or the file cannot be
        written.
    """
    path = Path(path)
    if modality not in ("text", "image"):
        raise UserError(f"{path}: modality is {modality!r}; use text or image")
    ids = [str(i) for i in (range(len(codes)) if item_ids is None else item_ids)]
    check_codes(codes, (_MAX_CODE,) * codes.shape[1])
    if len(ids) != len(codes) or len(set(ids)) != len(ids):
        raise UserError(
            f"{path}: there are {len(ids)} item ids ({len(set(ids))} distinct) for"
            f" {len(codes)} rows of codes; each row needs a distinct id"
        )
    columns = []
    for level in range(codes.shape[1]):
        name = level_prefix(level)
        name = name if modality == "text" else name.upper()
        columns.append([f"<{name}_{code}>" for code in codes[:, level].tolist()])
    text = json.dumps(
        dict(zip(ids, zip(*columns, strict=True), strict=True)), separators=(",", ":")
    )
    files.write_text(path, text)


def read_index(path: str | os.PathLike[str]) -> CodeIndex:
    """Reads MQL4GRec's JSON index and checks every entry.

    Args:
      path: File with `{item: ["<a_1>", "<b_2>", ...]}`, any number of levels, one
        modality.

    Returns:
      Codes, ids and `text` or `image`. If the ids are exactly 0 to N-1, row i is item
      i; otherwise rows have the order of the file.

    Raises:
      UserError: The file is missing or damaged; the message gives the item.
    """
    path = Path(path)
    table = _load_object(path)
    if not table:
        raise UserError(f"{path}: contains no item; it may be truncated")
    tokens: dict[tuple[int, str], tuple[int, str]] = {}
    rows, modality, levels = [], "", 0
    for item, entry in table.items():
        where = f"{path}: item {item!r}"
        pairs = _parse_entry(entry, tokens, where)
        modality, levels = modality or pairs[0][1], levels or len(pairs)
        if len(pairs) != levels:
            raise UserError(
                f"{where} has {len(pairs)} levels, the items before it have {levels};"
                " all items need codes of one tokenizer"
            )
        for token, (_, kind) in zip(entry, pairs, strict=True):
            if kind != modality:
                raise UserError(
                    f"{where} has the {kind} code {token!r} in a file of {modality}"
                    " codes; keep one modality per file"
                )
        rows.append([code for code, _ in pairs])
    return _in_item_order(np.asarray(rows, np.int32), tuple(table), modality)


def _parse_entry(
    entry: Any, tokens: dict[tuple[int, str], tuple[int, str]], where: str
) -> list[tuple[int, str]]:
    """Splits the tokens of one item; `tokens` caches codes and modalities."""
    if not isinstance(entry, list) or not entry:
        raise UserError(f'{where} is not a list of codes such as ["<a_1>"]')
    pairs = []
    for level, token in enumerate(entry):
        if not isinstance(token, str):
            raise UserError(f"{where} has {token!r}, which is not a code")
        pair = tokens.get((level, token))
        if pair is None:
            pair = tokens[level, token] = _parse_token(level, token, where)
        pairs.append(pair)
    return pairs


def _load_object(path: Path) -> dict[str, Any]:
    """Loads a JSON object without repeated keys."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content:
                raise UserError(f"{path}: item {key!r} occurs twice")
            content[key] = value
        return content

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f'{path}: is not an object {{item: ["<a_1>", ...]}}')
    return content


def _parse_token(level: int, token: str, where: str) -> tuple[int, str]:
    """Splits a token into code and modality, and checks its level."""
    match = _TOKEN.fullmatch(token)
    if match is None or int(match[2]) >= _MAX_CODE:
        raise UserError(
            f"{where} has {token!r}, which is not a code such as '<a_1>' (letters of"
            " one case, an integer >= 0)"
        )
    prefix = level_prefix(level)
    if match[1].lower() != prefix:
        raise UserError(
            f"{where} has {token!r} at level {level}, whose prefix is {prefix!r}"
        )
    return int(match[2]), "text" if match[1].islower() else "image"


def _in_item_order(
    codes: Int32[np.ndarray, "N Q"], item_ids: tuple[str, ...], modality: str
) -> CodeIndex:
    """Sorts rows by item if the ids are exactly 0 to N-1."""
    rows = {str(i): i for i in range(len(item_ids))}
    if not all(item in rows for item in item_ids):
        return CodeIndex(codes, item_ids, modality)
    ordered = np.empty_like(codes)
    ordered[[rows[item] for item in item_ids]] = codes
    return CodeIndex(ordered, tuple(rows), modality)
