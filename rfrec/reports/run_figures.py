# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws a run: of a tokenizer losses and collisions, use of the codes, t-SNE.

In: a run's folder with `metrics.jsonl`, `codes.json` (or `codes.NAME.json` for each of
several data sets) and `latents.npz`. Out: `plots/{curves,levels,codes,tsne}.png` there.
That of a graph recommender is drawn by `plots_gume`.

python -m rfrec.launch.plots --workdir=runs/ml100k
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from rfrec import config as config_lib
from rfrec.codes import table
from rfrec.config import UserError
from rfrec.reports import figures, graph_figures, tsne
from rfrec.train import writer

_RULES: config_lib.Rules = {
    "dpi": config_lib.at_least(30),
    "tsne.max_items": config_lib.at_least(10),
    "tsne.perplexity": config_lib.above(0),
    "tsne.seed": config_lib.at_least(0),
    "steps": config_lib.each(config_lib.whole(1), least=1),
}
# t-SNE of a handful of points shows nothing.
_FEWEST_ITEMS = 10


class Latents(NamedTuple):
    """What a run keeps for t-SNE.

    Attributes:
      items: encoder outputs.
      codes: of the items, before repair.
      codebooks: code vectors as they are subtracted, level by level.
    """

    items: Float[np.ndarray, "N D"]
    codes: Int[np.ndarray, "N Q"]
    codebooks: tuple[Float[np.ndarray, "K D"], ...]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl` and checks that its rows can be drawn.

    Returns:
      One dictionary a row; none if the file is missing or empty. A last line that was
      cut off is left out.

    Raises:
      UserError: A line is damaged; names it.
    """
    try:
        rows = writer.read_metrics(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not {"epoch", "split"} <= row.keys():
            raise UserError(
                f"{path}, line {number} is no object with epoch and split: remove it"
            )
    return rows


def read_latents(path: Path) -> Latents:
    """Reads `latents.npz` and checks that its arrays fit each other.

    Raises:
      UserError: Names the array at fault.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged ({error}): remove it, and its t-SNE is skipped"
        ) from error

    items = _checked(path, arrays, "latents", (None, None), np.floating)
    codes = _checked(path, arrays, "codes", (len(items), None), np.integer)
    codebooks = []
    for level, column in enumerate(codes.T):
        name = f"codebook_{level}"
        book = _checked(path, arrays, name, (None, items.shape[1]), np.floating)
        if len(column) and not 0 <= column.min() <= column.max() < len(book):
            raise UserError(f"{path}: 'codes' leave the {len(book)} rows of {name!r}")
        codebooks.append(book)
    return Latents(items, codes, tuple(codebooks))


def _checked(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    name: str,
    shape: tuple[int | None, ...],
    kind: type,
) -> np.ndarray:
    """Returns an array of a file if its shape (None: any) and values are right."""
    if name not in arrays:
        raise UserError(f"{path} has no array {name!r}")
    value = arrays[name]
    fits = value.ndim == len(shape) and all(
        want in (None, have) for have, want in zip(value.shape, shape, strict=True)
    )
    if not fits or not np.issubdtype(value.dtype, kind):
        raise UserError(f"{path}: {name!r} is {value.dtype} of shape {value.shape}")
    if not np.isfinite(value).all():
        raise UserError(f"{path}: {name!r} holds NaN or infinite values")
    return value


def residuals(latents: Latents) -> list[Float[np.ndarray, "N D"]]:
    """Returns what enters each level: the item minus the codes of the levels before."""
    entering, rest = [], latents.items
    for codes, book in zip(latents.codes.T, latents.codebooks, strict=True):
        entering.append(rest)
        rest = rest - book[codes]
    return entering


def sample(latents: Latents, most: int, seed: int) -> Latents:
    """Draws at most so many items, in their order; the codebooks stay whole."""
    count = len(latents.items)
    if count <= most:
        return latents
    rows = np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
    return latents._replace(items=latents.items[rows], codes=latents.codes[rows])


def _draw_tsne(path: Path, latents: Latents, config: ConfigDict) -> None:
    """Embeds every level of a sample and draws all of them in one picture."""
    drawn = sample(latents, config.tsne.max_items, config.tsne.seed)
    levels = []
    for level, points in enumerate(residuals(drawn)):
        logging.info("t-SNE of level %d: %d items", level + 1, len(points))
        items, codes = tsne.embed_together(
            points,
            drawn.codebooks[level],
            perplexity=config.tsne.perplexity,
            seed=config.tsne.seed,
        )
        size = len(drawn.codebooks[level])
        # Over all items: a code that the sample misses is still in use.
        counts = np.bincount(latents.codes[:, level], minlength=size)
        levels.append(figures.LevelMap(items, codes, drawn.codes[:, level], counts))
    figures.save(path, figures.draw_maps(levels, len(latents.items)), config.dpi)


def main(config: ConfigDict, workdir: Path) -> None:
    """Draws all pictures for which the run's folder has the data."""
    config_lib.check(config, _RULES)
    figures.require_matplotlib()
    if not workdir.is_dir():
        raise UserError(f"{workdir} does not exist: --workdir is the folder of a run")
    rows = read_rows(workdir / "metrics.jsonl")
    if graph_figures.is_run(workdir):
        graph_figures.draw(config, workdir, rows)
        return
    latents = workdir / "latents.npz"
    # A shared quantizer of several data sets writes codes.NAME.json for each.
    indices = [*workdir.glob("codes.json"), *sorted(workdir.glob("codes.*.json"))]
    if not rows and not indices and not latents.exists():
        raise UserError(
            f"{workdir} has no metrics.jsonl, codes.json or latents.npz yet"
        )
    out = figures.make_folder(workdir)

    if rows:
        figures.save(out / "curves.png", figures.draw_curves(rows), config.dpi)
    else:
        logging.info("no curves: metrics.jsonl has no rows")
    evaluated = [row for row in rows if row.get("levels")]
    if evaluated:
        figures.save(out / "levels.png", figures.draw_levels(evaluated), config.dpi)
    sizes = [level["size"] for level in evaluated[-1]["levels"]] if evaluated else []
    for path in indices:
        codes = table.read_index(path).codes
        figure = figures.draw_usage(codes, sizes, path.name)
        figures.save(out / f"{path.stem}.png", figure, config.dpi)
    if not indices:
        logging.info("no picture of the codes: codes.json is not written yet")
    if not latents.exists():
        logging.info(
            "t-SNE skipped: no latents.npz, which a run keeps unless it is large"
        )
        return
    content = read_latents(latents)
    if len(content.items) < _FEWEST_ITEMS:
        logging.info("t-SNE skipped: fewer than %d items", _FEWEST_ITEMS)
        return
    _draw_tsne(out / "tsne.png", content, config)
