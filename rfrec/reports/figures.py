# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run: rows of metrics, codes and maps in, matplotlib figures out.

matplotlib is imported where a figure is made, and without its global state. Colours are
those of Okabe and Ito, which people with colour-blindness tell apart; what matters is
also told by line style or marker.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rfrec import files
from rfrec.config import UserError

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
# Black stands in for their yellow, which is lost on white.
PINK, SKY, BLACK = "#CC79A7", "#56B4E9", "#222222"
_COLOURS = (BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LOSSES = ("loss", "reconstruction", "quantization")
# Wider than this, a curve is read on a logarithmic axis.
LOG_RANGE = 20.0
_LABELLED_CODES = 24


class LevelMap(NamedTuple):
    """A level in the plane.

    Attributes:
      items: places of the residuals that enter the level.
      codes: places of the code vectors.
      chosen: code of each item.
      counts: items of the whole run that have each code.
    """

    items: Float[np.ndarray, "N 2"]
    codes: Float[np.ndarray, "K 2"]
    chosen: Int[np.ndarray, " N"]
    counts: Int[np.ndarray, " K"]


def require_matplotlib() -> None:
    """Checks that pictures can be drawn.

    Raises:
      UserError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError("plots need matplotlib: pip install 'rfrec[plots]'") from error


def panels(count: int, *, width: float, height: float, most: int = 3):
    """Makes a figure with `count` axes, at most so many in a row; sizes in inches."""
    from matplotlib.figure import Figure

    columns = min(count, most)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.set_axis_off()
    for axis in axes[:count]:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes[:count]


def make_folder(workdir: Path) -> Path:
    """Returns the folder of a run's pictures, made if it is missing.

    Raises:
      UserError: It cannot be made.
    """
    out = workdir / "plots"
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made: {error.strerror}") from error
    return out


def save(path: Path, figure: Any, dpi: int) -> None:
    """Writes a figure as PNG, whole or not at all."""
    with files.replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=dpi)


def series(
    rows: Sequence[dict[str, Any]], split: str, name: str
) -> tuple[list[float], list[float]]:
    """Returns the epochs and values of one metric in one split."""
    points = [
        (row["epoch"], row[name])
        for row in rows
        if row["split"] == split and isinstance(row.get(name), int | float)
    ]
    return [x for x, _ in points], [y for _, y in points]


def draw_curves(rows: Sequence[dict[str, Any]]) -> Any:
    """Draws losses and the collision rate over epochs.

    Args:
      rows: with `epoch`, `split` and any of the losses and `collision_rate` (0..1).

    Returns:
      The figure.
    """
    figure, (losses, collisions) = panels(2, width=6.0, height=4.2)
    splits = sorted({row["split"] for row in rows}, key=lambda s: (s != "train", s))
    values = []
    for split in splits:
        values += _draw_losses(losses, rows, split)
        x, y = series(rows, split, "collision_rate")
        if y:
            collisions.plot(x, [100 * v for v in y], "o-", color=RED, ms=4)
            _tell_last(collisions, x[-1], 100 * y[-1], f"{100 * y[-1]:.2f} %")
    if values and min(values) > 0 and max(values) > LOG_RANGE * min(values):
        losses.set_yscale("log")
    losses.set(title="Losses", xlabel="epoch", ylabel="loss, mean over items")
    if values:
        losses.legend(frameon=False)
    collisions.set(
        title="Collisions before repair",
        xlabel="epoch",
        ylabel="conflict items, % of all items",
    )
    collisions.margins(y=0.15)
    collisions.set_ylim(bottom=0)
    for axis in (losses, collisions):
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _draw_losses(axis, rows: Sequence[dict[str, Any]], split: str) -> list[float]:
    """Draws the losses of one split; returns the values drawn."""
    values = []
    style = "-" if split == "train" else "--"
    for name, colour in zip(_LOSSES, (BLUE, GREEN, ORANGE), strict=True):
        x, y = series(rows, split, name)
        if y:
            # A single point makes no line.
            marker = "" if split == "train" and len(y) > 1 else "o"
            label = f"{name}, {split}"
            axis.plot(x, y, style, color=colour, marker=marker, ms=4, label=label)
        values += y
    return values


def _tell_last(axis, x: float, y: float, text: str) -> None:
    """Writes a value above the last point of a curve."""
    axis.annotate(
        text, (x, y), xytext=(0, 7), textcoords="offset points", ha="right", fontsize=9
    )


def draw_levels(rows: Sequence[dict[str, Any]]) -> Any:
    """Draws, for each level, used codes and perplexity over epochs.

    Args:
      rows: evaluations; `levels` has `size`, `used` and `perplexity` for each level.

    Returns:
      The figure.
    """
    figure, (used, perplexity) = panels(2, width=6.0, height=4.2)
    epochs = [row["epoch"] for row in rows]
    for level, last in enumerate(rows[-1]["levels"]):
        look = {
            "color": _COLOURS[level % len(_COLOURS)],
            "marker": _MARKERS[level % len(_MARKERS)],
            "ms": 4,
            # Levels often run on top of each other: the lower ones show behind.
            "lw": 1.2 + 2.4 * (1 - (level + 1) / len(rows[-1]["levels"])),
            "label": f"level {level + 1} ({last['size']} codes)",
        }
        values = [row["levels"][level] for row in rows]
        used.plot(epochs, [100 * v["used"] / v["size"] for v in values], **look)
        # Levels of different size meet on one axis as a share of the best.
        perplexity.plot(
            epochs, [100 * v["perplexity"] / v["size"] for v in values], **look
        )
    used.set(title="Codes in use", ylabel="used codes, % of the codebook")
    perplexity.set(title="Evenness of use", ylabel="perplexity, % of the codebook size")
    for axis in (used, perplexity):
        axis.set(xlabel="epoch", ylim=(0, 104))
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False)
    return figure


def draw_usage(codes: Int[np.ndarray, "N Q"], sizes: Sequence[int], source: str) -> Any:
    """Draws how many items have each code, a panel for each level.

    Args:
      codes: of all items.
      sizes: of the codebooks; a level without a size ends at its largest code.
      source: name of the file, for the title.

    Returns:
      The figure.
    """
    figure, axes = panels(codes.shape[1], width=4.6, height=3.4)
    for level, (axis, column) in enumerate(zip(axes, codes.T, strict=True)):
        size = int(column.max()) + 1
        if level < len(sizes):
            size = max(size, sizes[level])
        counts = np.bincount(column, minlength=size)
        share = counts[counts > 0] / len(column)
        perplexity = math.exp(-(share * np.log(share)).sum())
        axis.bar(np.arange(size), counts, width=1.0, color=SKY, linewidth=0)
        even = len(column) / size
        axis.axhline(even, color=RED, linestyle="--", linewidth=1.4)
        axis.set(
            title=f"Level {level + 1}: {(counts > 0).sum()} of {size} codes used,"
            f"\nperplexity {perplexity:.1f}",
            xlabel=f"code (dashed: even use, {even:.3g} items)",
            ylabel="items",
            xlim=(-0.5, size - 0.5),
        )
    figure.suptitle(f"Codes of {len(codes):,} items ({source})")
    return figure


def contrasting_colours(
    places: Float[np.ndarray, "K 2"], order: Sequence[int]
) -> list[str]:
    """Gives places colours as on a political map: neighbours differ.

    There are more codes than colours that can be told apart. Each code takes, in the
    given order, the colour whose nearest bearer is farthest away.

    Returns:
      One colour for each place.
    """
    given: dict[int, int] = {}
    for place in order:
        distance = np.full(len(_COLOURS), np.inf)
        for other, colour in given.items():
            apart = float(np.linalg.norm(places[place] - places[other]))
            distance[colour] = min(distance[colour], apart)
        given[place] = int(distance.argmax())
    return [_COLOURS[given[place]] for place in range(len(places))]


def draw_maps(levels: Sequence[LevelMap], num_items: int) -> Any:
    """Draws items by first code, then residuals and codebook of each level.

    Args:
      levels: the maps; that of level 1 is of the items themselves.
      num_items: of the run, of which the maps may show a sample.

    Returns:
      The figure.
    """
    figure, axes = panels(len(levels) + 1, width=5.2, height=5.2, most=2)
    _draw_items(axes[0], levels[0])
    for level, (axis, placed) in enumerate(zip(axes[1:], levels, strict=True)):
        _draw_codebook(axis, placed, level)
    for axis in axes:
        axis.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
        axis.set_aspect("equal", adjustable="datalim")
    shown = len(levels[0].items)
    drawn = f"{shown:,} of {num_items:,}" if shown < num_items else f"{shown:,}"
    figure.suptitle(f"t-SNE of {drawn} items and the codebooks (axes have no unit)")
    return figure


def _draw_items(axis, placed: LevelMap) -> None:
    from matplotlib import patheffects

    counts = np.bincount(placed.chosen, minlength=len(placed.codes))
    order = np.argsort(-counts, kind="stable").tolist()
    centres = np.zeros_like(placed.codes)
    np.add.at(centres, placed.chosen, placed.items)
    centres = np.where(
        counts[:, None] > 0, centres / np.maximum(counts, 1)[:, None], placed.codes
    )
    colours = contrasting_colours(centres, order)
    axis.scatter(*placed.items.T, s=6, c=[colours[c] for c in placed.chosen], lw=0)
    halo = [patheffects.withStroke(linewidth=2, foreground="white")]
    at = {"ha": "center", "va": "center", "fontsize": 8, "path_effects": halo}
    for code in order[:_LABELLED_CODES]:
        if counts[code]:
            axis.text(*centres[code], str(code), **at)
    labelled = min(_LABELLED_CODES, int((counts > 0).sum()))
    axis.set_title(
        f"Items by level-1 code: neighbouring codes differ\nin colour; numbers are"
        f" the {labelled} most frequent codes",
        fontsize=10,
    )


def _draw_codebook(axis, placed: LevelMap, level: int) -> None:
    used = placed.counts > 0
    entering = "items" if level == 0 else f"residuals after level {level}"
    axis.scatter(*placed.items.T, s=5, color=SKY, alpha=0.6, lw=0, label=entering)
    axis.scatter(
        *placed.codes[used].T,
        s=34,
        marker="X",
        color=RED,
        edgecolor="black",
        linewidth=0.5,
        label=f"used codes ({used.sum()})",
    )
    if not used.all():
        axis.scatter(
            *placed.codes[~used].T,
            s=26,
            marker="o",
            facecolor="none",
            edgecolor="black",
            linewidth=0.9,
            label=f"unused codes ({(~used).sum()})",
        )
    axis.set_title(f"Level {level + 1}: what enters it, and its codebook", fontsize=10)
    axis.legend(frameon=True, fontsize=8, loc="upper right", markerscale=1.2)
