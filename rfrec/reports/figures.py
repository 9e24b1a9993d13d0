# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Figures of a tokenizer run, the t-SNE map, and helpers for all figures.

matplotlib is imported where a figure is drawn, and its global state is not used. The
colours are those of Okabe and Ito, which are distinct for colour-blind readers; line
styles or markers repeat what the colours show.
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
# Black replaces their yellow, which is hard to see on white.
PINK, SKY, BLACK = "#CC79A7", "#56B4E9", "#222222"
_COLOURS = (BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LOSSES = ("loss", "reconstruction", "quantization")
# Ratio of largest to smallest value above which an axis is logarithmic.
LOG_RANGE = 20.0
_LABELLED_CODES = 24


class LevelMap(NamedTuple):
    """Two-dimensional map of a quantizer level.

    Attributes:
      items: Positions of the residuals that enter the level.
      codes: Positions of the code vectors.
      chosen: Code of each item.
      counts: Number of items of the whole run with each code.
    """

    items: Float[np.ndarray, "N 2"]
    codes: Float[np.ndarray, "K 2"]
    chosen: Int[np.ndarray, " N"]
    counts: Int[np.ndarray, " K"]


def require_matplotlib() -> None:
    """Checks that figures can be drawn.

    Raises:
      UserError: The package matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            "figures need matplotlib: pip install 'rfrec[plots]'"
        ) from error


def panels(count: int, *, width: float, height: float, most: int = 3):
    """Returns a figure with `count` axes, at most `most` a row; sizes in inches."""
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
    """Returns the folder of a run's figures, which is created if it is missing.

    Raises:
      UserError: The folder cannot be created.
    """
    out = workdir / "plots"
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be created: {error.strerror}") from error
    return out


def save(path: Path, figure: Any, dpi: int) -> None:
    """Writes a figure as a PNG file, atomically."""
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
      rows: Rows with `epoch`, `split` and any of the losses and `collision_rate`
        (0 to 1).

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
            _annotate_last(collisions, x[-1], 100 * y[-1], f"{100 * y[-1]:.2f} %")
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
            # A single point does not make a line.
            marker = "" if split == "train" and len(y) > 1 else "o"
            label = f"{name}, {split}"
            axis.plot(x, y, style, color=colour, marker=marker, ms=4, label=label)
        values += y
    return values


def _annotate_last(axis, x: float, y: float, text: str) -> None:
    """Writes a value above the last point of a curve."""
    axis.annotate(
        text, (x, y), xytext=(0, 7), textcoords="offset points", ha="right", fontsize=9
    )


def draw_levels(rows: Sequence[dict[str, Any]]) -> Any:
    """Draws, for each level, used codes and perplexity over epochs.

    Args:
      rows: Evaluation rows; `levels` has `size`, `used` and `perplexity` of each level.

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
            # Curves of levels often coincide: wider ones stay visible behind.
            "lw": 1.2 + 2.4 * (1 - (level + 1) / len(rows[-1]["levels"])),
            "label": f"level {level + 1} ({last['size']} codes)",
        }
        values = [row["levels"][level] for row in rows]
        used.plot(epochs, [100 * v["used"] / v["size"] for v in values], **look)
        # As a share of the best, levels of different size fit on one axis.
        perplexity.plot(
            epochs, [100 * v["perplexity"] / v["size"] for v in values], **look
        )
    used.set(title="Codes in use", ylabel="used codes, % of the codebook")
    perplexity.set(
        title="Perplexity of codes", ylabel="perplexity, % of the codebook size"
    )
    for axis in (used, perplexity):
        axis.set(xlabel="epoch", ylim=(0, 104))
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False)
    return figure


def draw_usage(codes: Int[np.ndarray, "N Q"], sizes: Sequence[int], source: str) -> Any:
    """Draws how many items have each code, a panel for each level.

    Args:
      codes: Codes of all items.
      sizes: Sizes of the codebooks; a level without a size ends at its largest code.
      source: Name of the file, for the title.

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
            xlabel=f"code (dashed: uniform use, {even:.3g} items)",
            ylabel="items",
            xlim=(-0.5, size - 0.5),
        )
    figure.suptitle(f"Codes of {len(codes):,} items ({source})")
    return figure


def contrasting_colours(
    points: Float[np.ndarray, "K 2"], order: Sequence[int]
) -> list[str]:
    """Assigns colours so that neighbouring points differ, as on a political map.

    There are more codes than distinguishable colours. In the given order, each point
    takes the colour whose nearest point is farthest away.

    Returns:
      One colour for each point.
    """
    assigned: dict[int, int] = {}
    for point in order:
        distance = np.full(len(_COLOURS), np.inf)
        for other, colour in assigned.items():
            apart = float(np.linalg.norm(points[point] - points[other]))
            distance[colour] = min(distance[colour], apart)
        assigned[point] = int(distance.argmax())
    return [_COLOURS[assigned[point]] for point in range(len(points))]


def draw_maps(levels: Sequence[LevelMap], num_items: int) -> Any:
    """Draws items by first code, then residuals and codebook of each level.

    Args:
      levels: Maps of the levels; that of level 1 shows the items themselves.
      num_items: Number of items of the run, of which the maps may show a sample.

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
    axis.set_title(f"Level {level + 1}: input vectors and codebook", fontsize=10)
    axis.legend(frameon=True, fontsize=8, loc="upper right", markerscale=1.2)


def embed_together(
    points: Float[np.ndarray, "N D"],
    others: Float[np.ndarray, "K D"],
    *,
    perplexity: float,
    seed: int,
) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "K 2"]]:
    """Maps two sets of vectors to one plane by t-SNE.

    t-SNE cannot map new points, so both sets are embedded together.

    Args:
      points: First set: residuals that enter a level, or targets.
      others: Second set: code vectors of that level, or generated vectors.
      perplexity: Approximate number of neighbours of a point; lowered for few points.
      seed: Seed of the layout.

    Returns:
      Positions of both sets.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    stacked = np.concatenate([points, others]).astype(np.float32)
    tsne = TSNE(
        perplexity=min(perplexity, (len(stacked) - 1) / 3),
        # A random start can leave clusters that the data do not have.
        init="pca" if stacked.shape[1] > 1 else "random",
        random_state=seed,
    )
    # One thread is 3 to 7 times faster than several on busy cores.
    with threadpool_limits(1):
        positions = tsne.fit_transform(stacked)
    return positions[: len(points)], positions[len(points) :]
