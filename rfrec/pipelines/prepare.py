# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Raw interactions and an item table become one prepared data set.

The log is read, cleaned, sorted and split; the result appears in `workdir` by one
rename, so that an interrupted command leaves nothing half written. The same command on
a complete data set does nothing.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Bool, Int64
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.config import UserError, as_json, differing_keys, option
from rfrec.data import cleaning, prepared, raw_logs
from rfrec.data.cleaning import Log
from rfrec.data.raw_logs import name, query, quote
from rfrec.pipelines import options

# Time of an interaction whose time is unknown, if such are kept.
NO_TIME = np.iinfo(np.int64).min
_BATCH_ROWS = 1_000_000
_MEANINGS = {
    "missing_id": "user or item id missing",
    "low_rating": "rating below clean.min_rating, or missing",
    "bad_time": "time missing, not a number or negative",
    "out_of_range": "time outside clean.start and clean.end",
    "repeats": "repeated item of a user",
    "k_core": "user or item below clean.user_core or clean.item_core",
    "short_users": "user with fewer than three interactions",
}


@dataclasses.dataclass(frozen=True)
class LogTable(raw_logs.Table):
    """The log of interactions: files, format and columns.

    Attributes:
      path: File or glob of the log; `.gz` and `.zst` are decompressed.
      format: `auto` decides by the suffix; `text` is CSV or TSV, `jsonl` has one JSON
        object a line, `python` one Python literal a line.
      delimiter: Delimiter of text files; None takes a comma for `.csv`, `::` for `.dat`
        and a tab otherwise.
      quoted: Whether cells of text files may be in double quotes; None means yes for
        `.csv` only.
      header: Names of the columns if text files have no header line; () if they have.
      encoding: Encoding of text files.
      user: Column of the user id.
      item: Column of the item id.
      time: Column of the time: seconds, milliseconds or microseconds since 1970, or an
        ISO 8601 date; None if the order of the file is the order in time.
      rating: Column of the rating; None if there is none.
      label: Column of the split, 0, 1 or 2; None if there is none.
    """

    user: str = "user_id"
    item: str = "item_id"
    time: str | None = "timestamp"
    rating: str | None = None
    label: str | None = None


@dataclasses.dataclass(frozen=True)
class ItemTable(raw_logs.Table):
    """The table of items: files, format and columns.

    Attributes:
      path: File or glob of the table; None if there is none.
      format: As for the log.
      delimiter: As for the log.
      quoted: As for the log.
      header: As for the log.
      encoding: As for the log.
      id: Column of the item id.
      columns: Metadata columns to keep, as text; others are not read. Lists are joined
        by a bar.
      rows: How items are numbered: in order of `appearance` in the log, or by `id`, for
        ids that are row numbers of feature files.
      unused: What to do with items of the table that nobody used: `drop`, or `keep`
        them at the end, to be recommended as new items.
    """

    id: str = "item_id"
    columns: tuple[str, ...] = ()
    rows: Literal["appearance", "id"] = "appearance"
    unused: Literal["drop", "keep"] = "drop"


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Options of `rfrec.launch.prepare`.

    Attributes:
      seed: Seed of the order of ties.
      log: Log of interactions.
      table: Table of items.
      clean: Which interactions are kept.
      ties: Order of interactions of a user at the same time: as in the `file`, or
        `random`.
      split: How interactions are divided.
      engine: Resources of the engine.
    """

    seed: int = option(0, cfg.whole(0))
    log: LogTable = LogTable()
    table: ItemTable = ItemTable()
    clean: cleaning.Cleaning = cleaning.Cleaning()
    ties: Literal["file", "random"] = "file"
    split: cleaning.Split = cleaning.Split()
    engine: raw_logs.Engine = raw_logs.Engine()


class _Read(NamedTuple):
    """What was read of the log.

    Attributes:
      log: Sorted log, with users and items numbered by first appearance.
      num_users: Number of distinct users.
      num_items: Number of distinct items.
      dropped: Number of interactions left out, by reason.
      rows: Number of rows of the files.
    """

    log: Log
    num_users: int
    num_items: int
    dropped: dict[str, int]
    rows: int


def prepare(config: ConfigDict, workdir: Path) -> None:
    """Prepares a data set, or does nothing if the same one is there.

    Args:
      config: Config of `configs/prepare.py`.
      workdir: Folder of the data set.

    Raises:
      UserError: The config, the files or the folder are wrong.
    """
    options.check(config, Prepare)
    settings = cfg.parse(Prepare, config)
    _check_columns(settings)
    sources = _sources(settings)
    if _is_complete(workdir, config, sources):
        logging.info("%s is complete: nothing to do", workdir)
        return
    partial = workdir.with_name(f".{workdir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / "scratch").mkdir(parents=True)
        manifest = _write(settings, partial)
        shutil.rmtree(partial / "scratch")
        manifest |= {"sources": sources, "settings": as_json(config)}
        files.write_json(partial / prepared.MANIFEST, manifest)
        partial.rename(workdir)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for line in manifest["warnings"]:
        logging.warning("%s", line)
    for line in summarize(manifest):
        logging.info("%s", line)
    logging.info("prepared: %s", workdir)


def summarize(manifest: dict[str, Any]) -> list[str]:
    """Returns what a data set contains and what was left out, line by line."""
    counts = manifest["counts"]
    lines = [
        "{users} users, {items} items, {interactions} interactions".format(**counts)
    ]
    lines += [
        f"left out {count}: {_MEANINGS[reason]}"
        for reason, count in manifest["dropped"].items()
        if count
    ]
    lines.append("train {train}, validation {valid}, test {test}".format(**counts))
    return lines


def _check_columns(settings: Prepare) -> None:
    cfg.refuse_together(
        {
            "split.kind=label and log.label=None": settings.split.kind == "label"
            and settings.log.label is None,
            "split.kind=time and log.time=None": settings.split.kind == "time"
            and settings.log.time is None,
            "clean.min_rating and log.rating=None": settings.clean.min_rating
            is not None
            and settings.log.rating is None,
        }
    )


def _sources(settings: Prepare) -> list[dict[str, Any]]:
    """Returns name, size and SHA-256 of the files that are read."""
    paths = list(raw_logs.find_files(settings.log, "log"))
    if settings.table.path:
        paths += raw_logs.find_files(settings.table, "table")
    return [
        {"file": file.name, "bytes": file.stat().st_size, "sha256": files.sha256(file)}
        for file in paths
    ]


def _is_complete(workdir: Path, config: ConfigDict, sources) -> bool:
    """Returns whether the folder contains this very data set.

    Raises:
      UserError: It contains something else.
    """
    if not workdir.exists() or (workdir.is_dir() and not any(workdir.iterdir())):
        return False
    if not prepared.is_prepared(workdir):
        raise UserError(
            f"{workdir} exists and is not a prepared data set: use another --workdir"
        )
    manifest = prepared.Prepared(workdir).manifest
    keys = differing_keys(manifest["settings"], as_json(config))
    # A file that moved is the same file if its content is.
    keys = [key for key in keys if not key.endswith(".path") and key != "engine"]
    keys = [key for key in keys if not key.startswith("engine.")]
    if keys:
        raise UserError(
            f"{workdir} was prepared with another {', '.join(keys)}: use another"
            " --workdir"
        )
    if manifest["sources"] != sources:
        raise UserError(
            f"{workdir} was prepared from other files than there are now: use another"
            " --workdir"
        )
    return True


def _write(settings: Prepare, folder: Path) -> dict[str, Any]:
    """Writes arrays and tables; returns the manifest."""
    connection = raw_logs.connect(folder / "scratch" / "log.duckdb", settings.engine)
    try:
        warnings = _load_log(connection, settings, folder / "scratch")
        read = _read_sorted(connection, settings)
        kept, dropped = clean_log(read.log, settings.clean)
        if not kept.any():
            raise UserError("no interaction is left: relax config.clean")
        log = read.log.take(kept)
        warnings += _load_items(connection, settings, folder / "scratch")
        users = _number(np.bincount(log.users, minlength=read.num_users) > 0)
        items = _number_items(connection, settings, log, read.num_items)
        order = _id_order(connection)
        tie = cleaning.ties(log, order) if settings.log.time else None
        warnings += _warn_of_ties(tie, settings)
        log = log._replace(users=users[log.users], items=items[log.items])
        labels, points = cleaning.split_log(
            log, int(users.max()) + 1, settings.split, has_times=bool(settings.log.time)
        )
        _write_arrays(folder, log, labels, int(users.max()) + 1, settings)
        _write_users(connection, folder, users)
        num_items, with_metadata = _write_items(connection, folder, items, settings)
        counts = {
            "users": int(users.max()) + 1,
            "items": num_items,
            "interactions": len(log.items),
            **{
                split: int((labels == label).sum())
                for label, split in enumerate(("train", "valid", "test"))
            },
            "items_with_metadata": with_metadata,
            "rows": read.rows,
        }
        return {
            "format": prepared.FORMAT,
            "counts": counts,
            "dropped": {**read.dropped, **dropped},
            "has_times": bool(settings.log.time),
            "item_columns": list(settings.table.columns) if settings.table.path else [],
            "split": {"kind": settings.split.kind, **points},
            "ties": tie,
            "warnings": warnings,
        }
    finally:
        connection.close()


def _load_log(connection, settings: Prepare, scratch: Path) -> list[str]:
    """Reads the files of the log into the table `raw`; returns warnings."""
    log = settings.log
    wanted = [c for c in (log.user, log.item, log.time, log.rating, log.label) if c]
    table = raw_logs.open_table(
        connection, log, list(dict.fromkeys(wanted)), key="log", scratch=scratch
    )

    def number(column: str | None, kind: str) -> str:
        return f"TRY_CAST({name(column)} AS {kind})" if column else f"NULL::{kind}"

    stamp = "NULL::BIGINT"
    if log.time:
        moment = f"epoch_ms(TRY_CAST({name(log.time)} AS TIMESTAMP))"
        stamp = f"CASE WHEN {number(log.time, 'DOUBLE')} IS NULL THEN {moment} END"
    sql = (
        "CREATE TABLE raw AS SELECT row_number() OVER () AS position,"
        f" nullif(trim({name(log.user)}), '') AS user_id,"
        f" nullif(trim({name(log.item)}), '') AS item_id,"
        f" {number(log.time, 'DOUBLE')} AS number, {stamp} AS stamp,"
        f" {number(log.rating, 'DOUBLE')} AS rating,"
        f" coalesce({number(log.label, 'UTINYINT')}, 255) AS label FROM {table.sql}"
    )
    query(connection, sql, table.files)
    return list(table.warnings)


def _reasons(connection, settings: Prepare, rows: int) -> str:
    """Returns SQL for why a row of `raw` is left out; NULL keeps it."""
    clean, log = settings.clean, settings.log
    cases = ["WHEN user_id IS NULL OR item_id IS NULL THEN 'missing_id'"]
    if clean.min_rating is not None:
        cases.append(
            f"WHEN rating IS NULL OR rating < {clean.min_rating} THEN 'low_rating'"
        )
    if log.time:
        bad = "time IS NULL OR time < 0"
        if clean.bad_times == "drop":
            cases.append(f"WHEN {bad} THEN 'bad_time'")
        elif clean.bad_times == "fail":
            count, first = query(
                connection, f"SELECT count(*), min(position) FROM timed WHERE {bad}", ()
            )[0]
            if count:
                raise UserError(
                    f"row {first} of the log has no valid time, as have {count} of"
                    f" {rows} rows: set config.clean.bad_times to drop or first"
                )
        for bound, text, sign in (
            ("start", clean.start, "<"),
            ("end", clean.end, ">="),
        ):
            if text is not None:
                limit = cleaning.parse_time(text, f"clean.{bound}")
                cases.append(f"WHEN time {sign} {limit} THEN 'out_of_range'")
    return f"CASE {' '.join(cases)} END"


def _read_sorted(connection, settings: Prepare) -> _Read:
    """Numbers users and items, and reads the log sorted by user, time and ties."""
    rows, largest = query(connection, "SELECT count(*), max(number) FROM raw", ())[0]
    factor = {"s": 1000, "ms": 1, "us": 1e-3}[cleaning.unit_of(largest or 0)]
    connection.execute(
        "CREATE VIEW timed AS SELECT *,"
        f" coalesce(CAST(floor(number * {factor}) AS BIGINT), stamp) AS time FROM raw"
    )
    reason = _reasons(connection, settings, rows)
    connection.execute(f"CREATE VIEW judged AS SELECT *, {reason} AS reason FROM timed")
    counted = "SELECT reason, count(*) FROM judged GROUP BY reason ORDER BY reason"
    dropped = {r: int(n) for r, n in query(connection, counted, ()) if r}
    sizes = []
    for kind in ("user", "item"):
        connection.execute(
            f"CREATE TABLE {kind}s AS SELECT row_number() OVER (ORDER BY first) - 1 AS"
            f" row, {kind}_id AS id FROM (SELECT {kind}_id, min(position) AS first FROM"
            f" judged WHERE reason IS NULL GROUP BY {kind}_id)"
        )
        sizes.append(query(connection, f"SELECT count(*) FROM {kind}s", ())[0][0])
    sql = (
        "SELECT users.row::INTEGER AS u, items.row::INTEGER AS i,"
        f" coalesce(time, {NO_TIME}) AS t, label AS l FROM judged"
        " JOIN users ON user_id = users.id JOIN items ON item_id = items.id"
        " WHERE reason IS NULL ORDER BY u, t, position"
    )
    count = rows - sum(dropped.values())
    log = _fetch(connection, sql, count)
    if settings.ties == "random":
        order = np.random.default_rng([settings.seed, 3]).random(count)
        log = log.take(np.lexsort((order, log.times, log.users)))
    return _Read(log, sizes[0], sizes[1], dropped, rows)


def _fetch(connection, sql: str, count: int) -> Log:
    """Reads a query of four numbers a row into arrays."""
    kinds = (np.int32, np.int32, np.int64, np.uint8)
    log = Log(*(np.empty(count, kind) for kind in kinds))
    start = 0
    reader = connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
    for batch in reader:
        for column, values in zip(log, batch.columns, strict=True):
            column[start : start + len(batch)] = values.to_numpy(zero_copy_only=False)
        start += len(batch)
    return log


def clean_log(
    log: Log, clean: cleaning.Cleaning
) -> tuple[Bool[np.ndarray, " E"], dict[str, int]]:
    """Returns which interactions of a sorted log stay, and how many do not, by reason.

    Args:
      log: Sorted log.
      clean: Repeats, k-core and short users, applied in this order.
    """
    kept, dropped = np.ones(len(log.users), bool), {}

    def drop(reason: str, stays: Bool[np.ndarray, " _"]) -> None:
        dropped[reason] = int((~stays).sum())
        kept[np.flatnonzero(kept)[~stays]] = False

    if clean.repeats != "keep":
        last = clean.repeats == "last"
        drop("repeats", cleaning.first_of_pairs(log.users, log.items, last=last))
    if max(clean.user_core, clean.item_core) > 1:
        users, items = log.users[kept], log.items[kept]
        stays, _ = cleaning.k_core(users, items, clean.user_core, clean.item_core)
        drop("k_core", stays)
    if clean.short_users == "drop" and kept.any():
        users = log.users[kept]
        drop("short_users", (np.bincount(users) >= 3)[users])
    return kept, dropped


def _number(used: Bool[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Numbers what is used from 0, in order; -1 for the rest."""
    return np.where(used, np.cumsum(used) - 1, -1)


def _load_items(connection, settings: Prepare, scratch: Path) -> list[str]:
    """Reads the item table into `metadata`; returns warnings."""
    table = settings.table
    if not table.path:
        connection.execute("CREATE TABLE metadata (position BIGINT, id VARCHAR)")
        return []
    wanted = list(dict.fromkeys([table.id, *table.columns]))
    opened = raw_logs.open_table(
        connection, table, wanted, key="table", scratch=scratch
    )
    columns = "".join(f", {name(c)} AS {name('c_' + c)}" for c in table.columns)
    query(
        connection,
        "CREATE TABLE every_row AS SELECT row_number() OVER () AS position,"
        f" nullif(trim({name(table.id)}), '') AS id{columns} FROM {opened.sql}",
        opened.files,
    )
    connection.execute(
        "CREATE TABLE metadata AS SELECT * FROM every_row WHERE id IS NOT NULL AND"
        " position IN (SELECT min(position) FROM every_row GROUP BY id)"
    )
    total, kept = query(
        connection,
        "SELECT (SELECT count(*) FROM every_row), (SELECT count(*) FROM metadata)",
        (),
    )[0]
    warnings = list(opened.warnings)
    if kept < total:
        warnings.append(
            f"{opened.files[0]}: {total - kept} of {total} rows repeat an item or lack"
            " its id; the first row of each item is kept"
        )
    return warnings


def _number_items(
    connection, settings: Prepare, log: Log, num_items: int
) -> Int64[np.ndarray, " N"]:
    """Returns the final row of each item of the log, -1 for those left out."""
    used = np.bincount(log.items, minlength=num_items) > 0
    if settings.table.rows == "appearance":
        return _number(used)
    sql = "SELECT row, TRY_CAST(id AS BIGINT) FROM items ORDER BY row"
    ids = np.array(
        [r[1] if r[1] is not None else -1 for r in query(connection, sql, ())]
    )
    if (ids[used] < 0).any() or ids[used].max() >= 10 * used.sum() + 1000:
        raise UserError(
            "config.table.rows=id requires ids that are row numbers: from 0, and not"
            f" far above the number of items ({used.sum()}); set it to appearance"
        )
    return np.where(used, ids, -1)


def _id_order(connection) -> Int64[np.ndarray, " N"]:
    """Returns the rank of each item of the log by its id, numbers by value."""
    sql = "SELECT row FROM items ORDER BY TRY_CAST(id AS HUGEINT) NULLS LAST, id"
    rows = connection.execute(sql).fetchnumpy()["row"]
    order = np.empty(len(rows), np.int64)
    order[rows] = np.arange(len(rows))
    return order


def _warn_of_ties(tie: dict[str, float] | None, settings: Prepare) -> list[str]:
    if tie is None or tie["share"] < 0.01 or settings.ties == "random":
        return []
    if tie["ascending"] < 0.95:
        return []
    return [
        f"{tie['share']:.0%} of the neighbours in histories have the same time, and"
        f" {tie['ascending']:.0%} of these are in order of item ids, which a sequence"
        " model can learn: consider config.ties=random"
    ]


def _write_arrays(folder: Path, log: Log, labels, num_users: int, settings) -> None:
    indptr = cleaning.bounds(log.users, num_users)
    arrays = {"indptr": indptr, "items": log.items.astype(np.int32), "split": labels}
    if settings.log.time:
        arrays["times"] = log.times
    for array_name, values in arrays.items():
        np.save(folder / f"{array_name}.npy", values, allow_pickle=False)


def _register(connection, rows: Int64[np.ndarray, " N"], table: str) -> None:
    """Makes a SQL table of old and new row numbers."""
    import pyarrow

    old = np.flatnonzero(rows >= 0)
    connection.register(table, pyarrow.table({"old": old, "new": rows[old]}))


def _write_users(connection, folder: Path, users) -> None:
    _register(connection, users, "user_rows")
    connection.execute(
        "COPY (SELECT new AS row, id FROM user_rows JOIN users ON users.row = old"
        f" ORDER BY new) TO {quote(str(folder / 'users.parquet'))} (FORMAT parquet)"
    )


def _write_items(connection, folder: Path, items, settings: Prepare) -> tuple[int, int]:
    """Writes `items.parquet`; returns the counts of items and of known ones."""
    _register(connection, items, "item_rows")
    connection.execute(
        "CREATE TABLE numbered AS SELECT new AS row, id FROM item_rows JOIN items ON"
        " items.row = old"
    )
    count = int(items.max()) + 1
    if settings.table.rows == "id":
        connection.execute(
            "INSERT INTO numbered SELECT range, range::VARCHAR FROM"
            f" range({count}) WHERE range NOT IN (SELECT row FROM numbered)"
        )
    if settings.table.unused == "keep":
        connection.execute(
            f"INSERT INTO numbered SELECT {count} - 1 + row_number() OVER (ORDER BY"
            " position), id FROM metadata WHERE id NOT IN (SELECT id FROM numbered)"
        )
    columns = "".join(
        f", {name('c_' + c)} AS {name(c)}"
        for c in (settings.table.columns if settings.table.path else ())
    )
    connection.execute(
        "COPY (SELECT numbered.row, numbered.id, metadata.id IS NOT NULL AS"
        f" has_metadata{columns} FROM numbered LEFT JOIN metadata ON metadata.id ="
        f" numbered.id ORDER BY numbered.row) TO"
        f" {quote(str(folder / 'items.parquet'))} (FORMAT parquet)"
    )
    sql = (
        "SELECT count(*), count(metadata.id) FROM numbered LEFT JOIN metadata ON"
        " metadata.id = numbered.id"
    )
    total, known = query(connection, sql, ())[0]
    return int(total), int(known)
