# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Raw tables of any size, read by DuckDB: CSV, TSV, JSON lines and Parquet.

A `Table` names files and how they are written; `open_table` turns it into a SQL
expression of which only the named columns are read. All columns arrive as text, so that
ids of 64 bits, with leading zeros or with odd characters stay as they are.
"""

import ast
import csv
import dataclasses
import glob
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rfrec.config import UserError, option, whole

if TYPE_CHECKING:
    import duckdb

_DELIMITERS = {".csv": ",", ".dat": "::"}
_PACKED = (".gz", ".zst")
# Longest line of a table in bytes; merged descriptions of a book can take megabytes.
_LONGEST_LINE = 16 * 2**20


@dataclasses.dataclass(frozen=True)
class Table:
    """Files of one table, and how they are written.

    Attributes:
      path: File or glob; `.gz` and `.zst` are decompressed. A leading `~` is the home.
      format: `auto` decides by the suffix; `text` is CSV or TSV, `jsonl` has one JSON
        object a line, `python` one Python literal a line (metadata of Amazon 2014).
      delimiter: Delimiter of text files; None takes a comma for `.csv`, `::` for `.dat`
        and a tab otherwise.
      quoted: Whether cells of text files may be in double quotes; None means yes for
        `.csv` only.
      header: Names of the columns if text files have no header line; () if they have.
      encoding: Encoding of text files.
    """

    path: str | None = None
    format: Literal["auto", "text", "jsonl", "parquet", "python"] = "auto"
    delimiter: str | None = None
    quoted: bool | None = None
    header: tuple[str, ...] = ()
    encoding: Literal["utf-8", "latin-1", "utf-16"] = "utf-8"


@dataclasses.dataclass(frozen=True)
class Engine:
    """Resources of DuckDB.

    Attributes:
      memory: Memory limit; larger intermediate results go to the disk.
      threads: Number of threads; 0 takes all cores.
    """

    memory: str = "6GB"
    threads: int = option(0, whole(0))


@dataclasses.dataclass(frozen=True)
class OpenTable:
    """A table that can be queried.

    Attributes:
      sql: Table expression for a FROM clause; its columns are text.
      files: Files of the table, in the order in which they are read.
      columns: Columns of the files, without RecBole's types.
      warnings: What the user should know.
    """

    sql: str
    files: tuple[Path, ...]
    columns: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def connect(database: Path, engine: Engine) -> "duckdb.DuckDBPyConnection":
    """Opens a DuckDB database in a file, with a limit of memory.

    Args:
      database: File to create; intermediate results are stored beside it.
      engine: Memory and threads.

    Raises:
      UserError: DuckDB is not installed, or a setting is not understood.
    """
    try:
        import duckdb
    except ImportError as error:
        raise UserError(
            "DuckDB is required to read raw logs: pip install 'rfrec[prepare]'"
        ) from error
    connection = duckdb.connect(str(database))
    try:
        connection.execute(f"SET memory_limit = {quote(engine.memory)}")
    except duckdb.Error as error:
        raise UserError(
            f"config.engine.memory={engine.memory!r}: {first_line(error)}"
        ) from error
    if engine.threads:
        connection.execute(f"SET threads = {engine.threads}")
    connection.execute(f"SET temp_directory = {quote(str(database) + '.tmp')}")
    connection.execute("SET enable_progress_bar = false")
    return connection


def quote(text: str) -> str:
    """Returns a SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def name(text: str) -> str:
    """Returns a SQL identifier."""
    return '"' + text.replace('"', '""') + '"'


def first_line(error: Exception) -> str:
    """Returns what a DuckDB error states, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines[:3] if not line.startswith(("Original", "Possible"))]
    text = " ".join(kept) or type(error).__name__
    return text.removeprefix("Invalid Input Error: ")[:300]


def open_table(
    connection: "duckdb.DuckDBPyConnection",
    table: Table,
    wanted: Sequence[str],
    *,
    key: str,
    scratch: Path,
) -> OpenTable:
    """Opens a table of which some columns are read.

    Args:
      connection: Open database.
      table: Files and format.
      wanted: Columns that are needed; others are ignored, also nested ones.
      key: Config key of the table, for error messages.
      scratch: Folder for converted files.

    Raises:
      UserError: There is no such file, its format is unknown, it is damaged, or it
        lacks a wanted column; names the file and the columns that there are.
    """
    files = find_files(table, key)
    kind = _format(table, files[0], key)
    if kind == "python":
        files, kind = tuple(_convert(file, scratch) for file in files), "jsonl"
    if kind == "text":
        return _open_text(connection, table, files, wanted, key)
    if kind == "jsonl":
        return _open_json(connection, files, wanted, key)
    return _open_parquet(connection, files, wanted, key)


def find_files(table: Table, key: str) -> tuple[Path, ...]:
    """Returns the files of a table, in order of their names.

    Raises:
      UserError: No path is set, or no file matches.
    """
    if not table.path:
        raise UserError(f"config.{key}.path is required: a file or a glob")
    pattern = str(Path(table.path).expanduser())
    files = sorted(Path(file) for file in glob.glob(pattern) if Path(file).is_file())
    if not files and Path(pattern).is_file():
        files = [Path(pattern)]
    if not files:
        raise UserError(f"config.{key}.path={table.path}: no such file")
    return tuple(files)


def _format(table: Table, file: Path, key: str) -> str:
    if table.format != "auto":
        return table.format
    suffix = _suffix(file)
    if suffix in (".jsonl", ".json", ".ndjson"):
        return "jsonl"
    if suffix in (".parquet", ".pq"):
        return "parquet"
    if suffix in (".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".item", ".user"):
        return "text"
    raise UserError(
        f"{file}: unknown format {suffix!r}: set config.{key}.format to text, jsonl or"
        " parquet"
    )


def _suffix(file: Path) -> str:
    path = file.with_suffix("") if file.suffix in _PACKED else file
    return path.suffix.lower()


def _list(files: Sequence[Path]) -> str:
    return "[" + ", ".join(quote(str(file)) for file in files) + "]"


def _match(
    columns: Sequence[str], wanted: Sequence[str], files: Sequence[Path], key: str
) -> dict[str, str]:
    """Returns the column of the file for each wanted name.

    RecBole writes `user_id:token`; both `user_id` and the whole text are accepted.
    """
    plain = {column.split(":")[0]: column for column in reversed(columns)}
    plain |= {column: column for column in columns}
    for column in wanted:
        if column not in plain:
            raise UserError(
                f"{files[0]}: has no column {column!r}; it has"
                f" {', '.join(repr(c.split(':')[0]) for c in columns[:20])}: set the"
                f" column names in config.{key}"
            )
    return {column: plain[column] for column in wanted}


def _open_text(connection, table: Table, files, wanted, key: str) -> OpenTable:
    suffix = _suffix(files[0])
    delimiter = table.delimiter or _DELIMITERS.get(suffix, "\t")
    quoted = table.quoted if table.quoted is not None else suffix == ".csv"
    cell = '"' if quoted else ""
    columns = table.header or _read_header(connection, files[0], table, delimiter, cell)
    sql = _csv(files, table, delimiter, cell, columns, header=not table.header)
    matched = _match(columns, wanted, files, key)
    picked = ", ".join(f"{name(c)} AS {name(w)}" for w, c in matched.items())
    sql = f"(SELECT {picked} FROM {sql})"
    warnings = []
    if not quoted:
        warnings = _warn_of_quotes(connection, sql, wanted, files[0], key)
    plain = tuple(column.split(":")[0] for column in columns)
    return OpenTable(sql, files, plain, tuple(warnings))


def _csv(files, table: Table, delimiter, cell, columns, *, header: bool) -> str:
    """Returns the table expression of text files whose format is fully known."""
    struct = ", ".join(f"{quote(column)}: 'VARCHAR'" for column in columns)
    return (
        f"read_csv({_list(files)}, auto_detect = false, delim = {quote(delimiter)},"
        f" quote = {quote(cell)}, escape = {quote(cell)}, header = {header},"
        f" columns = {{{struct}}}, max_line_size = {_LONGEST_LINE},"
        f" encoding = {quote(table.encoding)})"
    )


def _read_header(
    connection, file: Path, table: Table, delimiter: str, cell: str
) -> list[str]:
    """Returns the column names in the first line of a text file."""
    sql = _csv([file], table, "\x1f", "", ["line"], header=False)
    rows = query(connection, f"SELECT line FROM {sql} LIMIT 1", (file,))
    if not rows or not rows[0][0]:
        raise UserError(f"{file}: is empty; expected a header line")
    if cell:
        return next(csv.reader([rows[0][0]], delimiter=delimiter))
    return rows[0][0].split(delimiter)


def _warn_of_quotes(connection, sql, wanted, file: Path, key: str) -> list[str]:
    """Returns a warning if the cells of unquoted text look quoted."""
    quotes = " OR ".join(f"regexp_matches({name(w)}, '^\".*\"$')" for w in wanted)
    query_ = f"SELECT count(*) FROM (SELECT * FROM {sql} LIMIT 10000) WHERE {quotes}"
    count = query(connection, query_, (file,))[0][0] if wanted else 0
    if not count:
        return []
    return [
        f"{file}: {count} of the first 10000 rows have cells in double quotes, which"
        f" are kept as part of the text: set config.{key}.quoted=True to remove them"
    ]


def query(connection, sql: str, files: Sequence[Path]) -> list[tuple]:
    """Runs a query over files; what is wrong with them becomes one line.

    Raises:
      UserError: A file cannot be read; names it, with the line where DuckDB knows it.
    """
    import duckdb

    try:
        return connection.execute(sql).fetchall()
    except duckdb.OutOfMemoryException as error:
        raise UserError(
            f"the memory limit is too low: raise config.engine.memory"
            f" ({first_line(error)})"
        ) from error
    except duckdb.Error as error:
        raise UserError(f"{files[0]}: {first_line(error)}") from error


def _open_json(connection, files, wanted, key: str) -> OpenTable:
    common = f"format = 'newline_delimited', maximum_object_size = {_LONGEST_LINE}"
    objects = f"read_json_objects({_list(files[:1])}, {common})"
    sample = f"SELECT json_keys(json) FROM {objects} LIMIT 10000"
    rows = query(connection, sample, files)
    columns = tuple(dict.fromkeys(key for row in rows for key in row[0] or ()))
    if not columns:
        raise UserError(f"{files[0]}: contains no JSON object with keys")
    _match(columns, wanted, files, key)
    struct = ", ".join(f"{quote(column)}: 'JSON'" for column in wanted)
    sql = f"read_json({_list(files)}, {common}, columns = {{{struct}}})"
    picked = ", ".join(f"{_as_text(column)} AS {name(column)}" for column in wanted)
    return OpenTable(f"(SELECT {picked} FROM {sql})", files, columns)


def _as_text(column: str) -> str:
    """Returns SQL that turns a JSON value into text; lists are joined by a bar."""
    x = name(column)
    return (
        f"CASE json_type({x}) WHEN 'NULL' THEN NULL"
        f" WHEN 'ARRAY' THEN array_to_string(CASE json_type({x}, '$[0]')"
        f" WHEN 'ARRAY' THEN flatten(json_transform({x}, '[[\"VARCHAR\"]]'))"
        f" ELSE json_transform({x}, '[\"VARCHAR\"]') END, '|')"
        f" WHEN 'OBJECT' THEN {x}::VARCHAR ELSE {x}->>'$' END"
    )


def _open_parquet(connection, files, wanted, key: str) -> OpenTable:
    sql = f"read_parquet({_list(files)}, union_by_name = true)"
    rows = query(connection, f"DESCRIBE SELECT * FROM {sql}", files)
    described = {row[0]: row[1] for row in rows}
    matched = _match(list(described), wanted, files, key)
    picked = []
    for wish, column in matched.items():
        text = f"CAST({name(column)} AS VARCHAR)"
        if described[column].endswith("[]"):
            text = f"array_to_string({name(column)}, '|')"
        picked.append(f"{text} AS {name(wish)}")
    return OpenTable(
        f"(SELECT {', '.join(picked)} FROM {sql})", files, tuple(described)
    )


def _convert(file: Path, scratch: Path) -> Path:
    """Turns lines of Python literals into JSON lines.

    The metadata of Amazon 2014 is written like this. No engine reads it, and it is
    small compared to the log.
    """
    target = scratch / f"{file.name}.jsonl.gz"
    unpack = gzip.open if file.suffix == ".gz" else open
    with (
        unpack(file, "rt", encoding="utf-8") as lines,
        gzip.open(target, "wt", encoding="utf-8", compresslevel=1) as out,
    ):
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = ast.literal_eval(line.strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                raise UserError(
                    f"{file}, line {number}: is not a Python literal"
                    f" ({str(error)[:80]})"
                ) from error
            out.write(json.dumps(value) + "\n")
    return target
