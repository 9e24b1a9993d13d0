# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Examples on the page of a run: ranked lists of users, with titles and images."""

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

# Number of latest items of a history that are shown.
_RECENT = 6


class Entry(NamedTuple):
    """Item on the page.

    Attributes:
      name: Number or name of the item.
      title: Title; empty if unknown.
      image: Image as a data URI; empty if there is none.
      score: Score in the list, as text.
      hit: Whether the item was held out for this user.
    """

    name: str
    title: str = ""
    image: str = ""
    score: str = ""
    hit: bool = False


class Example(NamedTuple):
    """User with history, held-out items and ranked list.

    Attributes:
      user: Name of the user.
      history: Latest items of the history, oldest first.
      heldout: First few held-out items.
      count: Number of held-out items.
      ranked: Ranked items, best first.
    """

    user: str
    history: tuple[Entry, ...]
    heldout: tuple[Entry, ...]
    count: int
    ranked: tuple[Entry, ...]


class Interactions(NamedTuple):
    """Names of the items of each user, by the name of the user.

    Attributes:
      history: Latest items, oldest first; empty if the data have no order.
      heldout: Held-out items.
    """

    history: dict[str, list[str]]
    heldout: dict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Items:
    """Titles and images of the items.

    Attributes:
      rows: Row of each item by name; the number of a row is always a name.
      titles: Title of each row.
      files: Function that returns the image file of a row, None if there is none.
      pixels: Longer side of an image, in pixels.
    """

    rows: dict[str, int]
    titles: Sequence[str]
    files: Callable[[int], Path | None]
    pixels: int

    def entry(self, name: str, **more: Any) -> Entry:
        """Returns an item as the page shows it."""
        row = self.rows.get(name)
        if row is None:
            return Entry(name, **more)
        title = self.titles[row] if row < len(self.titles) else ""
        path = self.files(row)
        image = thumbnail(path, self.pixels) if path and path.is_file() else ""
        return Entry(name, title, image, **more)


def thumbnail(path: Path, pixels: int) -> str:
    """Returns an image as a small JPEG in a data URI.

    Args:
      path: Image file.
      pixels: Largest longer side, in pixels.

    Raises:
      UserError: The file is not an image.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            small = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} is not an image ({error}): replace or remove it"
        ) from error
    small.thumbnail((pixels, pixels))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return data_uri(buffer.getvalue(), "image/jpeg")


def data_uri(content: bytes, kind: str) -> str:
    """Returns bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def find_table(data: ConfigDict) -> Path | None:
    """Returns the item table next to the data; None if there is not exactly one."""
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
    paths = sorted({*root.glob(pattern), *root.glob(f"*/{pattern}")})
    return paths[0] if len(paths) == 1 else None


def open_items(
    config: ConfigDict, data: ConfigDict, count: int
) -> tuple[Items, list[str]]:
    """Returns titles and images of the items, and notes about what is missing.

    Args:
      config: Section `examples` of configs/html.py.
      data: Section `data` of the run.
      count: Number of items of the run.

    Raises:
      UserError: The table is damaged, has another number of items or lacks a column
        that the config names.
    """
    path = Path(config.table).expanduser() if config.table else find_table(data)
    if path is None:
        note = "No titles: there is no single NAME.items.tsv next to the data."
        return Items({}, (), lambda row: None, config.pixels), [note]
    table = tables.read(path)
    # Titles of a different item set would be wrong.
    if len(table.ids) != count:
        raise UserError(
            f"{path} has {len(table.ids)} items, the run {count}: set"
            " config.examples.table to the table of the run"
        )
    notes, titles = [], [""] * len(table.ids)
    if config.title in table.columns:
        titles = list(map(_as_text, table.columns[config.title]))
    else:
        notes.append(f"No titles: {path.name} has no column {config.title!r}.")
    first = next(iter(table.columns.values()))
    names = {cell: row for row, cell in enumerate(first) if isinstance(cell, str)}
    rows = names | {str(row): row for row in range(len(table.ids))}
    files = _images(config, table)
    if files is None:
        notes.append("No images: set config.examples.image or config.examples.folder.")
    files = files or (lambda row: None)
    return Items(rows, titles, files, config.pixels), notes


def _images(
    config: ConfigDict, table: tables.Table
) -> Callable[[int], Path | None] | None:
    folder = Path(config.folder).expanduser() if config.folder else table.path.parent
    if not folder.is_dir():
        raise UserError(f"config.examples.folder={folder} is not a folder")
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


def read_interactions(main: str, run: ConfigDict, which: str) -> Interactions:
    """Reads histories and held-out items of the users from the data of a run.

    Args:
      main: Command of the run.
      run: Config of the run, or of the run whose model it used.
      which: Held-out part of the lists, `test` or `valid`.

    Raises:
      UserError: The data are missing.
    """
    data = run.data
    common = {
        "source": data.source,
        "path": data.path,
        "num_items": data.num_items,
        "num_users": data.num_users,
    }
    if main == "gume":
        split = pairs.load(
            **common,
            name=data.name,
            split=data.split,
            shares=tuple(data.shares),
            seed=data.seed,
        ).split
        test = split.test
        heldout = {
            user: _names(test.items[test.indptr[u] : test.indptr[u + 1]], split)
            for u, user in enumerate(split.user_ids)
        }
        return Interactions({}, heldout)
    if main == "recommend" and data.source == "synthetic":
        inter = coded_histories.synthetic(
            data.num_users, data.num_items, run.seed
        ).inter
    else:
        names = tuple(data.get("names") or ())
        name = names[0] if len(names) == 1 else data.get("name")
        inter = sources.load_interactions(**common, name=name, seed=run.seed)
    end = -1 if which == "test" else -2
    history, heldout = {}, {}
    for u, user in enumerate(inter.user_ids):
        items = _names(inter.history(u), inter)
        history[user], heldout[user] = items[:end][-_RECENT:], items[end:][:1]
    return Interactions(history, heldout)


def _names(numbers: np.ndarray, data: Any) -> list[str]:
    names = data.item_ids
    return [str(i) if names is None else names[i] for i in numbers.tolist()]


def examples(
    path: Path, items: Items, inter: Interactions, config: ConfigDict
) -> tuple[Example, ...]:
    """Returns the lists of users sampled at random.

    Args:
      path: File `predictions.jsonl` of a run.
      items: Titles and images of the items.
      inter: Histories and held-out items of the users.
      config: Section `examples` of configs/html.py.

    Raises:
      UserError: A line is damaged; names its number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): run the command again"
        ) from error
    rng = np.random.default_rng(config.seed)
    drawn = rng.permutation(len(lines))[: config.users]
    return tuple(
        _example(path, number, lines[number], items, inter, config.top_k)
        for number in sorted(drawn.tolist())
    )


def _example(
    path: Path, number: int, line: str, items: Items, inter: Interactions, most: int
) -> Example:
    try:
        row = json.loads(line)
        user, names = row["user"], [str(item) for item in row["items"][:most]]
        scores = [f"{score:.3f}" for score in row["scores"][:most]]
        shown = list(zip(names, scores, strict=True))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}, line {number + 1}: is not a list of a user"
            f" ({type(error).__name__}: {error}); run the command again"
        ) from error
    heldout = inter.heldout.get(user, [])
    return Example(
        str(user),
        tuple(items.entry(name) for name in inter.history.get(user, [])),
        tuple(items.entry(name) for name in heldout[:_RECENT]),
        len(heldout),
        tuple(items.entry(n, score=score, hit=n in heldout) for n, score in shown),
    )
