# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Figures of a run, written to the folder `plots` of the run.

For a tokenizer: losses and collisions, code usage and t-SNE, from `metrics.jsonl`,
`codes.json` (or `codes.NAME.json` for each of several data sets) and `latents.npz`. For
a graph recommender, see `graph_figures`.
"""

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.codes import table
from rfrec.config import UserError
from rfrec.pipelines import options
from rfrec.reports import figures, graph_figures
from rfrec.train import writer


@dataclasses.dataclass(frozen=True)
class Tsne:
    """Options of the t-SNE maps.

    Attributes:
      max_items: Largest number of items that are drawn; larger runs are sampled.
      perplexity: Approximate number of neighbours of a point.
      seed: Seed of the sample and of the layout.
    """

    max_items: int = cfg.option(3000, cfg.at_least(10))
    perplexity: float = cfg.option(30.0, cfg.above(0))
    seed: int = cfg.option(0, cfg.at_least(0))


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the figures of a run.

    Attributes:
      dpi: Resolution, in pixels per inch.
      tsne: Options of the t-SNE maps.
      steps: Numbers of sampling steps to compare, for a graph recommender with the
        rectified flow.
    """

    dpi: int = cfg.option(150, cfg.at_least(30))
    tsne: Tsne = Tsne()
    steps: tuple[int, ...] = cfg.option(
        (1, 2, 5, 10, 20, 50, 100), cfg.each(cfg.whole(1), least=1)
    )


# Fewest items for which t-SNE is useful.
_FEWEST_ITEMS = 10


class Latents(NamedTuple):
    """Vectors that a tokenizer run keeps for t-SNE.

    Attributes:
      items: Encoder outputs.
      codes: Codes of the items before repair.
      codebooks: Code vectors as they are subtracted, level by level.
    """

    items: Float[np.ndarray, "N D"]
    codes: Int[np.ndarray, "N Q"]
    codebooks: tuple[Float[np.ndarray, "K D"], ...]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl` and checks its rows.

    Returns:
      One dictionary for each row; none if the file is missing or empty. An incomplete
      last line is ignored.

    Raises:
      UserError: A line is damaged; names its number.
    """
    try:
        rows = writer.read_metrics(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not {"epoch", "split"} <= row.keys():
            raise UserError(
                f"{path}, line {number}: is no object with epoch and split; remove it"
            )
    return rows


def index_files(workdir: Path) -> list[Path]:
    """Returns the code files of a tokenizer run, one for each data set."""
    return [*workdir.glob("codes.json"), *sorted(workdir.glob("codes.*.json"))]


def read_latents(path: Path) -> Latents:
    """Reads `latents.npz` and checks that its arrays are consistent.

    Raises:
      UserError: The file is damaged, or an array does not fit; names it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged ({error}); remove it to skip t-SNE"
        ) from error

    items = _checked(path, arrays, "latents", (None, None), np.floating)
    codes = _checked(path, arrays, "codes", (len(items), None), np.integer)
    codebooks = []
    for level, column in enumerate(codes.T):
        name = f"codebook_{level}"
        book = _checked(path, arrays, name, (None, items.shape[1]), np.floating)
        if len(column) and not 0 <= column.min() <= column.max() < len(book):
            raise UserError(
                f"{path}: 'codes' are outside the {len(book)} rows of {name!r}"
            )
        codebooks.append(book)
    return Latents(items, codes, tuple(codebooks))


def _checked(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    name: str,
    shape: tuple[int | None, ...],
    kind: type,
) -> np.ndarray:
    """Returns an array of a file after checking its shape (None: any) and values."""
    if name not in arrays:
        raise UserError(f"{path} has no array {name!r}")
    value = arrays[name]
    fits = value.ndim == len(shape) and all(
        want in (None, have) for have, want in zip(value.shape, shape, strict=True)
    )
    if not fits or not np.issubdtype(value.dtype, kind):
        raise UserError(f"{path}: {name!r} is {value.dtype} of shape {value.shape}")
    if not np.isfinite(value).all():
        raise UserError(f"{path}: {name!r} contains NaN or infinite values")
    return value


def residuals(latents: Latents) -> list[Float[np.ndarray, "N D"]]:
    """Returns the input of each level: the item minus the codes of earlier levels."""
    entering, rest = [], latents.items
    for codes, book in zip(latents.codes.T, latents.codebooks, strict=True):
        entering.append(rest)
        rest = rest - book[codes]
    return entering


def sample(latents: Latents, most: int, seed: int) -> Latents:
    """Samples at most `most` items, in their order; keeps the codebooks."""
    count = len(latents.items)
    if count <= most:
        return latents
    rows = np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
    return latents._replace(items=latents.items[rows], codes=latents.codes[rows])


def _draw_tsne(path: Path, latents: Latents, config: ConfigDict) -> None:
    """Draws t-SNE maps of all levels, of a sample of items, as one figure."""
    drawn = sample(latents, config.tsne.max_items, config.tsne.seed)
    levels = []
    for level, points in enumerate(residuals(drawn)):
        logging.info("t-SNE of level %d: %d items", level + 1, len(points))
        items, codes = figures.embed_together(
            points,
            drawn.codebooks[level],
            perplexity=config.tsne.perplexity,
            seed=config.tsne.seed,
        )
        size = len(drawn.codebooks[level])
        # Of all items: a code without an item in the sample may still be used.
        counts = np.bincount(latents.codes[:, level], minlength=size)
        levels.append(figures.LevelMap(items, codes, drawn.codes[:, level], counts))
    figures.save(path, figures.draw_maps(levels, len(latents.items)), config.dpi)


def main(config: ConfigDict, workdir: Path) -> None:
    """Draws all figures for which the folder of a run has the data.

    Raises:
      UserError: A value of the config is not allowed, the folder has no data, or a file
        in it is damaged.
    """
    options.check(config, Options)
    figures.require_matplotlib()
    if not workdir.is_dir():
        raise UserError(f"{workdir} does not exist: --workdir is the folder of a run")
    rows = read_rows(workdir / "metrics.jsonl")
    if graph_figures.is_run(workdir):
        graph_figures.draw(config, workdir, rows)
    else:
        _draw_tokenizer(config, workdir, rows)


def _draw_tokenizer(config: ConfigDict, workdir: Path, rows: list[dict]) -> None:
    latents, indices = workdir / "latents.npz", index_files(workdir)
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
        logging.info("no figure of the codes: there is no codes.json yet")
    if not latents.exists():
        logging.info("t-SNE skipped: there is no latents.npz; large runs write none")
        return
    content = read_latents(latents)
    if len(content.items) < _FEWEST_ITEMS:
        logging.info("t-SNE skipped: fewer than %d items", _FEWEST_ITEMS)
        return
    _draw_tsne(out / "tsne.png", content, config)
