# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tables of items and columns of delimited text.

Three kinds of files are read here:

- `read`: A table of raw items, TSV or JSON lines, as columns of cells; row = item. TSV
  is UTF-8 with a header and no quoting, and separates the labels in a cell by `|`. JSON
  lines hold one object a line, whose values are texts, numbers, null or lists of these.
- `read_item_table`: `NAME.items.tsv` of a data set; its first column numbers the rows.
- `read_columns`: Columns of one type of a large file, as a NumPy array.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from rfrec import files
from rfrec.config import UserError

TSV = (".tsv", ".txt")
JSON_LINES = (".jsonl", ".ndjson", ".json")

# A text, or the elements of a list.
Cell = str | tuple[str, ...]


class Table(NamedTuple):
    """Items as they were found.

    Attributes:
      path: The file.
      ids: Name of each item; its row number where no column names it.
      columns: Cells by column, empty text where an item has none.
    """

    path: Path
    ids: tuple[str, ...]
    columns: dict[str, tuple[Cell, ...]]

    def column(self, name: str, key: str) -> tuple[Cell, ...]:
        """Returns the cells of a column.

        Args:
          name: Name of the column.
          key: Key of the config, for the error message.

        Raises:
          UserError: There is no such column.
        """
        if name not in self.columns:
            raise UserError(
                f"{self.path}: no column {name!r}, which {key} asks for; it has:"
                f" {', '.join(self.columns)}"
            )
        return self.columns[name]


class ItemTable(NamedTuple):
    """Content of `NAME.items.tsv`: titles (None without such a column), labels.

    Attributes:
      path: The file.
      num_items: Number of rows.
      titles: Column `title`.
      labels: Columns whose cells are lists separated by `|`.
    """

    path: Path
    num_items: int
    titles: tuple[str, ...] | None
    labels: dict[str, tuple[tuple[str, ...], ...]]


def read(path: str | Path, *, id_column: str | None = None) -> Table:
    """Reads all items.

    Args:
      path: `.tsv` or `.txt`: a table; `.jsonl`, `.ndjson` or `.json`: JSON lines.
      id_column: Column that names the items; None names them by their row. Names that
        are the numbers of the rows must be in their order.

    Returns:
      The table.

    Raises:
      UserError: The file is missing, not UTF-8, empty, of another kind, has a damaged
        line, or the names of its items are missing, repeated or out of order; names
        the line.
    """
    path = Path(path)
    if path.suffix not in (*TSV, *JSON_LINES):
        raise UserError(
            f"{path}: the format of a table is recognised by the suffix, one of"
            f" {', '.join((*TSV, *JSON_LINES))}; rename or convert it"
        )
    lines = _lines(path)
    if path.suffix in TSV:
        columns = _read_tsv(path, lines)
    else:
        columns = _read_json_lines(path, lines)
    count = len(next(iter(columns.values()), ()))
    if not count:
        raise UserError(f"{path}: holds no items")
    ids = tuple(map(str, range(count)))
    table = Table(path, ids, columns)
    if id_column is None:
        return table
    cells = table.column(id_column, "config.table.id")
    first = 2 if path.suffix in TSV else 1
    return table._replace(ids=_names(path, id_column, cells, first))


def read_item_table(path: Path) -> ItemTable:
    """Reads a tab-separated table without quoting; the first column is the row.

    Args:
      path: UTF-8 file with a header line.

    Returns:
      Titles and label lists.

    Raises:
      UserError: No header, a line of another length, or rows out of order.
    """
    header, rows = _tsv_rows(path, _lines(path))
    for row, fields in enumerate(rows):
        if fields[0] != str(row):
            raise UserError(
                f"{path}: line {row + 2} starts with {fields[0]!r}, expected {row};"
                f" column {header[0]!r} must number the rows from 0"
            )
    columns = dict(zip(header, zip(*rows, strict=True), strict=False))
    return ItemTable(
        path=path,
        num_items=len(rows),
        titles=columns.get("title"),
        labels={
            column: tuple(_labels(cell) for cell in cells)
            for column, cells in columns.items()
            if column != "title" and any("|" in cell for cell in cells)
        },
    )


def _labels(cell: str) -> tuple[str, ...]:
    """Splits a list of labels; an empty cell has none."""
    return tuple(cell.split("|")) if cell else ()


def read_columns(
    path: Path, columns: Sequence[int], kind: type, *, delimiter: str, header: bool
) -> Shaped[np.ndarray, "E C"]:
    """Reads some columns of a file of equal-typed, unquoted fields.

    NumPy parses in C, so that a row never becomes Python objects.

    Args:
      path: UTF-8 text, a row on each line, no comments.
      columns: Positions to keep, from 0.
      kind: `int` (int64), `float` (float64) or `str`.
      delimiter: One character; a double one counts as an empty field between.
      header: Whether the first line holds names.

    Returns:
      One column for each of `columns`.

    Raises:
      UserError: The file is missing, has no rows, or a line lacks a field or holds
        one of another type.
    """
    dtype = {int: np.int64, float: np.float64, str: np.str_}[kind]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")
            table = np.loadtxt(
                path,
                dtype,
                comments=None,
                delimiter=delimiter,
                skiprows=int(header),
                usecols=tuple(columns),
                ndmin=2,
                encoding="utf-8",
            )
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check data.path and names") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError) as error:
        raise _bad_line(path, columns, kind, delimiter, header, error) from error
    if not table.size:
        raise UserError(f"{path}: holds no rows; the file may be truncated")
    return table


def write_tsv(path: Path, table: Table) -> None:
    """Writes items as `NAME.items.tsv`, whose first column is the row number.

    White space in a text becomes one space, a bar in it a slash.

    Args:
      path: File to make or replace.
      table: If its first column does not number the rows, a column before it does.
    """
    numbers = tuple(map(str, range(len(table.ids))))
    columns = dict(table.columns)
    if next(iter(columns.values())) != numbers:
        name = "row"
        while name in columns:
            name = f"{name}_"
        columns = {name: numbers, **columns}
    header = [" ".join(name.split()) for name in columns]
    rows = zip(*(map(_plain, column) for column in columns.values()), strict=True)
    with files.replacing(path) as partial:
        lines = ("\t".join(cells) + "\n" for cells in (header, *rows))
        partial.write_text("".join(lines), encoding="utf-8", newline="\n")


def _plain(cell: Cell) -> str:
    texts = (cell,) if isinstance(cell, str) else cell
    return "|".join(" ".join(text.split()).replace("|", "/") for text in texts)


def _lines(path: Path) -> list[str]:
    """Returns the lines without their ends; only a newline ends one."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; correct config.table.path") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}: line {line} is not UTF-8; convert the file"
        ) from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def _tsv_rows(path: Path, lines: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Splits lines into the header and rows of as many fields."""
    if not lines:
        raise UserError(f"{path}: is empty; the first line must name the columns")
    header = lines[0].split("\t")
    rows = [line.split("\t") for line in lines[1:]]
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise UserError(
                f"{path}: line {number} has {len(row)} fields, the header has"
                f" {len(header)}; the file may be truncated, or a text may contain a"
                " tab or a line break"
            )
    return header, rows


def _read_tsv(path: Path, lines: Sequence[str]) -> dict[str, tuple[Cell, ...]]:
    header, rows = _tsv_rows(path, lines)
    repeated = {name for name in header if header.count(name) > 1}
    if repeated:
        raise UserError(f"{path}: column {min(repeated)!r} occurs twice; rename one")
    cells = zip(*rows, strict=True) if rows else ([] for _ in header)
    return {
        name: tuple(tuple(c.split("|")) if "|" in c else c for c in column)
        for name, column in zip(header, cells, strict=True)
    }


def _read_json_lines(path: Path, lines: Sequence[str]) -> dict[str, tuple[Cell, ...]]:
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}: line {number} is not JSON ({error.msg} at character"
                f" {error.pos + 1}); each line holds one object"
            ) from error
        except RecursionError as error:
            raise UserError(f"{path}: line {number} is nested too deeply") from error
        if not isinstance(row, dict):
            raise UserError(
                f"{path}: line {number} holds no object; expected"
                ' {"title": ..., ...} with the columns of one item'
            )
        rows.append({key: _cell(path, number, key, row[key]) for key in row})
    names = dict.fromkeys(name for row in rows for name in row)
    if rows and not names:
        raise UserError(f"{path}: no item has a column")
    return {name: tuple(row.get(name, "") for row in rows) for name in names}


def _cell(path: Path, number: int, key: str, value: Any) -> Cell:
    if isinstance(value, list):
        return tuple(_flat(path, number, key, value))
    return next(_flat(path, number, key, [value]), "")


def _flat(path: Path, number: int, key: str, values: list) -> Iterator[str]:
    """Yields the texts of a list, whatever lists they are in."""
    for value in values:
        if isinstance(value, list):
            yield from _flat(path, number, key, value)
        elif isinstance(value, str):
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise UserError(
                    f"{path}: line {number}: {key!r} holds half of a surrogate pair;"
                    " write the file again as UTF-8"
                )
            yield value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            # NaN is how tables without null write it.
            yield from () if value != value else (str(value),)
        elif value is not None:
            raise UserError(
                f"{path}: line {number}: {key!r} is {type(value).__name__}, expected"
                " a text, a number, null or a list of these"
            )


def _names(
    path: Path, column: str, cells: tuple[Cell, ...], first: int
) -> tuple[str, ...]:
    """Returns the names of the items; `first` is the line of item 0."""
    lines: dict[str, int] = {}
    for line, cell in enumerate(cells, first):
        if not isinstance(cell, str) or not cell:
            raise UserError(
                f"{path}: line {line}: {column!r} is no name; each item needs one"
            )
        if cell in lines:
            raise UserError(
                f"{path}: line {line}: item {cell!r} is there already, on line"
                f" {lines[cell]}; {column!r} must name each item once"
            )
        lines[cell] = line
    numbers = tuple(map(str, range(len(cells))))
    # Vectors of other items are the one mistake that no later check can see.
    if tuple(lines) != numbers and lines.keys() == set(numbers):
        row = next(i for i, name in enumerate(lines) if name != numbers[i])
        name = tuple(lines)[row]
        raise UserError(
            f"{path}: line {row + first} is item {name!r}, expected {row}: {column!r}"
            " numbers the rows, sort the file by it"
        )
    return tuple(lines)


def _bad_line(
    path: Path,
    columns: Sequence[int],
    kind: Callable,
    delimiter: str,
    header: bool,
    error: Exception,
) -> UserError:
    """Finds the first line that cannot be read; slow, for the error path only."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            fields = line.rstrip("\r\n").split(delimiter)
            if (header and number == 1) or fields == [""]:
                continue
            if len(fields) <= max(columns):
                return UserError(
                    f"{path}: line {number} has too few fields ({line.strip()!r});"
                    " the file may be truncated, copy it again"
                )
            for column in columns:
                try:
                    kind(fields[column])
                except ValueError:
                    return UserError(
                        f"{path}: line {number}: {fields[column]!r} is not"
                        f" {'an integer' if kind is int else 'a number'}"
                    )
    return UserError(f"{path}: cannot be read ({error})")
