# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists of a run and a table of its items in; examples with titles and pictures out."""

import base64
import dataclasses
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from rfrec.config import UserError
from rfrec.data import pairs, sources, tables
from rfrec.pipelines import coded_histories

# Items of a history that are shown, the latest.
_RECENT = 6


class Entry(NamedTuple):
    """An item as it is shown.

    Attributes:
      name: Number or name of the item.
      title: Empty where there is none.
      picture: A data URI; empty where there is none.
      score: Of the list, as text.
      hit: Whether the user took it, which the list could not know.
    """

    name: str
    title: str = ""
    picture: str = ""
    score: str = ""
    hit: bool = False


class Example(NamedTuple):
    """A user, what is listed for it, and what is known.

    Attributes:
      user: Its name.
      before: Earlier items, the latest last.
      wanted: Items that were held out, the first few of them.
      held: Number of items that were held out.
      listed: Best first.
    """

    user: str
    before: tuple[Entry, ...]
    wanted: tuple[Entry, ...]
    held: int
    listed: tuple[Entry, ...]


class Past(NamedTuple):
    """What is known of users, by name: earlier and held-out items, as lists name them.

    Attributes:
      before: Latest last; empty if their order means nothing.
      wanted: Held out.
    """

    before: dict[str, list[str]]
    wanted: dict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Shelf:
    """Titles and pictures of the items.

    Attributes:
      rows: Row of each name; the number of a row is always a name.
      titles: By row.
      files: Pictures by row; None where there is none.
      pixels: Longer side of a picture.
    """

    rows: dict[str, int]
    titles: Sequence[str]
    files: Callable[[int], Path | None]
    pixels: int

    def entry(self, name: str, **more: Any) -> Entry:
        """Returns an item as it is shown."""
        row = self.rows.get(name)
        if row is None:
            return Entry(name, **more)
        title = self.titles[row] if row < len(self.titles) else ""
        path = self.files(row)
        picture = thumbnail(path, self.pixels) if path and path.is_file() else ""
        return Entry(name, title, picture, **more)


def thumbnail(path: Path, pixels: int) -> str:
    """Returns a picture as a small JPEG in a data URI.

    Args:
      path: Of the picture.
      pixels: Most of its longer side.

    Raises:
      UserError: It is no picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            small = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} is no picture ({error}): replace or remove it"
        ) from error
    small.thumbnail((pixels, pixels))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return data_uri(buffer.getvalue(), "image/jpeg")


def data_uri(content: bytes, kind: str) -> str:
    """Returns bytes as a URI that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def find_table(data: ConfigDict) -> Path | None:
    """Returns the table of items beside a run's data; None if there is not one."""
    if data.source not in ("folder", "mmrec"):
        return None
    folder = data.get("path") or os.environ.get("RFREC_DATA")
    if not folder:
        return None
    root, names = Path(folder).expanduser(), list(data.get("names") or ())
    names += [data.name] if data.get("name") else []
    if len(names) > 1:
        return None
    pattern = f"{names[0]}.items.tsv" if names else "*.items.tsv"
    found = sorted({*root.glob(pattern), *root.glob(f"*/{pattern}")})
    return found[0] if len(found) == 1 else None


def open_shelf(
    config: ConfigDict, data: ConfigDict, count: int
) -> tuple[Shelf, list[str]]:
    """Finds titles and pictures of the items, and tells what there is not.

    Args:
      config: Section `examples` of configs/html.py.
      data: Section `data` of the run.
      count: Items of the run.

    Raises:
      UserError: The table is damaged, is of another number of items or lacks a column
        that the config names.
    """
    path = Path(config.table).expanduser() if config.table else find_table(data)
    if path is None:
        told = "No titles: there is no one NAME.items.tsv beside the data."
        return Shelf({}, (), lambda row: None, config.pixels), [told]
    table = tables.read(path)
    # Titles of other items are worse than none.
    if len(table.ids) != count:
        raise UserError(
            f"{path} has {len(table.ids)} items, the run {count}: name the run's table"
            " as config.examples.table"
        )
    notes, titles = [], [""] * len(table.ids)
    if config.title in table.columns:
        titles = list(map(_as_text, table.columns[config.title]))
    else:
        notes.append(f"No titles: {path.name} has no column {config.title!r}.")
    first = next(iter(table.columns.values()))
    names = {cell: row for row, cell in enumerate(first) if isinstance(cell, str)}
    rows = names | {str(row): row for row in range(len(table.ids))}
    files = _pictures(config, table)
    if files is None:
        notes.append("No pictures: neither a column nor a folder of them is named.")
    shelf = Shelf(rows, titles, files or (lambda row: None), config.pixels)
    return shelf, notes


def _pictures(
    config: ConfigDict, table: tables.Table
) -> Callable[[int], Path | None] | None:
    folder = Path(config.folder).expanduser() if config.folder else table.path.parent
    if not folder.is_dir():
        raise UserError(f"config.examples.folder={folder} is no folder")
    if config.image:
        cells = table.column(config.image, "config.examples.image")
        firsts = [cell if isinstance(cell, str) else cell[0] for cell in cells]
        return lambda row: folder / firsts[row] if firsts[row] else None
    if not config.folder:
        return None
    stems = {path.stem: path for path in sorted(folder.iterdir())}
    return lambda row: stems.get(str(row))


def _as_text(cell: tables.Cell) -> str:
    return cell if isinstance(cell, str) else ", ".join(cell)


def past(main: str, run: ConfigDict, which: str) -> Past:
    """Returns what users took before and after, as the run's data tell.

    Args:
      main: That made the run.
      run: Its config, or that of the run whose model it used.
      which: `test` or `valid`.

    Raises:
      UserError: The data are not there.
    """
    data = run.data
    common = {
        "source": data.source,
        "path": data.path,
        "num_items": data.num_items,
        "num_users": data.num_users,
    }
    if main == "gume":
        found = pairs.load(
            **common,
            name=data.name,
            split=data.split,
            shares=tuple(data.shares),
            seed=data.seed,
        ).split
        held = found.test
        wanted = {
            user: _named(held.items[held.indptr[u] : held.indptr[u + 1]], found)
            for u, user in enumerate(found.user_ids)
        }
        return Past({}, wanted)
    if main == "recommend" and data.source == "synthetic":
        made = coded_histories.synthetic(data.num_users, data.num_items, run.seed)
        inter = made.inter
    else:
        names = tuple(data.get("names") or ())
        name = names[0] if len(names) == 1 else data.get("name")
        inter = sources.load_interactions(**common, name=name, seed=run.seed)
    end = -1 if which == "test" else -2
    before, wanted = {}, {}
    for u, user in enumerate(inter.user_ids):
        history = _named(inter.history(u), inter)
        before[user], wanted[user] = history[:end][-_RECENT:], history[end:][:1]
    return Past(before, wanted)


def _named(numbers: np.ndarray, known: Any) -> list[str]:
    names = known.item_ids
    return [str(i) if names is None else names[i] for i in numbers.tolist()]


def examples(
    path: Path, shelf: Shelf, known: Past, config: ConfigDict
) -> tuple[Example, ...]:
    """Returns lists of users drawn at random.

    Args:
      path: Of `predictions.jsonl`.
      shelf: Of the items.
      known: Of the users.
      config: Section `examples` of configs/html.py.

    Raises:
      UserError: A line is damaged; names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): write it again") from error
    rng = np.random.default_rng(config.seed)
    drawn = rng.permutation(len(lines))[: config.users]
    return tuple(
        _example(path, number, lines[number], shelf, known, config.top_k)
        for number in sorted(drawn.tolist())
    )


def _example(
    path: Path, number: int, line: str, shelf: Shelf, known: Past, most: int
) -> Example:
    try:
        row = json.loads(line)
        user, names = row["user"], [str(item) for item in row["items"][:most]]
        scores = [f"{score:.3f}" for score in row["scores"][:most]]
        shown = list(zip(names, scores, strict=True))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}, line {number + 1} is no list of a user"
            f" ({type(error).__name__}: {error}): write the predictions again"
        ) from error
    wanted = known.wanted.get(user, [])
    return Example(
        str(user),
        tuple(shelf.entry(name) for name in known.before.get(user, [])),
        tuple(shelf.entry(name) for name in wanted[:_RECENT]),
        len(wanted),
        tuple(shelf.entry(n, score=score, hit=n in wanted) for n, score in shown),
    )
