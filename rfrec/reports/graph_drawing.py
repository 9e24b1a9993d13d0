# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a graph recommender: metrics, maps and rankings in, figures out.

The first is of every run; the others are of its rectified flow.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from rfrec.reports import figures
from rfrec.reports.figures import BLACK, BLUE, GREEN, ORANGE, RED


class Cloud(NamedTuple):
    """Embeddings of users or of items, generated ones beside their targets.

    Attributes:
      name: What they are of.
      target: t-SNE places of the targets.
      generated: t-SNE places of what was generated for the same rows.
      moments: Mean and standard deviation of each dimension, of target and generated:
        [2 2 D].
      count: Rows that the moments are of, of which the places may be a sample.
    """

    name: str
    target: Float[np.ndarray, "N 2"]
    generated: Float[np.ndarray, "N 2"]
    moments: Float[np.ndarray, "2 2 D"]
    count: int


class Quality(NamedTuple):
    """What sampling in some number of steps gives.

    Attributes:
      steps: Of the solver.
      metrics: Of the ranking, by name.
      error: RMS error of what is generated over the targets' deviation.
      rows: Whose error it is: `held-out rows`, which never trained the flow, or, where
        there are none, `all rows`.
    """

    steps: int
    metrics: dict[str, float]
    error: float
    rows: str


def draw_training(rows: Sequence[dict[str, Any]], metrics: Sequence[str]) -> Any:
    """Draws loss and ranking over epochs.

    Args:
      rows: With `epoch`, `split`, `loss` and the metrics.
      metrics: To be drawn, of validation.

    Returns:
      The figure.
    """
    figure, (losses, ranking) = figures.panels(2, width=6.0, height=4.2)
    _curves(losses, rows, "train", {"loss": ("loss", BLUE, "-")})
    _finish(losses, title="Loss", ylabel="loss, mean over steps")
    looks = zip(metrics, (BLUE, ORANGE, GREEN, RED), strict=False)
    named = {name: (name, colour, "-") for name, colour in looks}
    _curves(ranking, rows, "eval", named)
    _finish(ranking, title="Validation", ylabel="mean over users")
    return figure


def draw_flow(rows: Sequence[dict[str, Any]]) -> Any:
    """Draws the flow's losses, and what is generated against its target, over epochs.

    Args:
      rows: Of training with `rf_loss` and `cl_loss`; of evaluation with
        `rf_error`, `rf_error_heldout` where rows were held out, and
        `rf_{target,generated}_{mean,std}_{users,items}`.

    Returns:
      The figure.
    """
    figure, axes = figures.panels(4, width=6.0, height=4.2, most=2)
    losses, error, means, deviations = axes
    named = {"rf_loss": ("flow", BLUE, "-"), "cl_loss": ("contrast", ORANGE, "--")}
    _curves(losses, rows, "train", named)
    _finish(losses, title="Losses of the flow", ylabel="loss, mean over steps")
    sides = (("users", BLUE), ("items", GREEN))
    named = {
        "rf_error": ("all rows", BLACK, "-"),
        "rf_error_heldout": ("held-out rows", RED, "--"),
    }
    _curves(error, rows, "eval", named)
    _finish(error, title="Error of what is generated", ylabel="share of the deviation")
    for axis, moment, title in (
        (means, "mean", "Mean over all entries"),
        (deviations, "std", "Standard deviation"),
    ):
        named = {
            f"rf_{kind}_{moment}_{side}": (f"{kind}, {side}", colour, style)
            for side, colour in sides
            for kind, style in (("target", "-"), ("generated", "--"))
        }
        _curves(axis, rows, "eval", named)
        _finish(axis, title=title, ylabel="of the embeddings")
    return figure


def _curves(axis, rows, split: str, named: dict[str, tuple[str, str, str]]) -> None:
    """Draws metrics of a split over epochs; by name their label, colour and style."""
    values = []
    for name, (label, colour, style) in named.items():
        x, y = figures.series(rows, split, name)
        if y:
            marker = "" if len(y) > 1 else "o"
            axis.plot(x, y, style, color=colour, marker=marker, ms=4, label=label)
        values += y
    if values and min(values) > 0 and max(values) > figures.LOG_RANGE * min(values):
        axis.set_yscale("log")


def _finish(axis, *, title: str, ylabel: str) -> None:
    axis.set(title=title, xlabel="epoch", ylabel=ylabel)
    axis.grid(alpha=0.3)
    axis.xaxis.get_major_locator().set_params(integer=True)
    if axis.lines:
        axis.legend(frameon=False)


def draw_clouds(clouds: Sequence[Cloud]) -> Any:
    """Draws targets and generated embeddings by t-SNE, and their moments below.

    Args:
      clouds: Of users and of items.

    Returns:
      The figure.
    """
    figure, axes = figures.panels(
        2 * len(clouds), width=5.6, height=4.8, most=len(clouds)
    )
    maps, moments = axes[: len(clouds)], axes[len(clouds) :]
    for cloud, axis, below in zip(clouds, maps, moments, strict=True):
        axis.scatter(*cloud.target.T, s=7, color=BLUE, lw=0, label="target")
        axis.scatter(
            *cloud.generated.T, s=14, marker="x", color=RED, lw=0.8, label="generated"
        )
        shown = len(cloud.target)
        part = f"{shown:,} of {cloud.count:,}" if shown < cloud.count else f"{shown:,}"
        axis.set_title(f"{part} {cloud.name} by t-SNE (axes have no unit)", fontsize=10)
        axis.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
        axis.set_aspect("equal", adjustable="datalim")
        axis.legend(frameon=True, fontsize=8, loc="upper right")
        _draw_moments(below, cloud)
    return figure


def _draw_moments(axis, cloud: Cloud) -> None:
    """Draws mean and deviation of each dimension, by the mean of the targets."""
    order = np.argsort(cloud.moments[0, 0])
    place = np.arange(len(order))
    for (mean, deviation), label, colour, shift in zip(
        cloud.moments, ("target", "generated"), (BLUE, RED), (-0.2, 0.2), strict=True
    ):
        look = {"fmt": "o", "ms": 2.5, "lw": 0.9, "color": colour, "label": label}
        axis.errorbar(place + shift, mean[order], yerr=deviation[order], **look)
    axis.set_title("Mean and standard deviation of each dimension", fontsize=10)
    axis.set(
        xlabel="dimension, by the target's mean", ylabel=f"embeddings of {cloud.name}"
    )
    axis.legend(frameon=True, fontsize=8)
    axis.grid(alpha=0.3)


def draw_steps(
    found: Sequence[Quality], without: dict[str, float], ratio: float
) -> Any:
    """Draws ranking and error over the steps of sampling.

    Args:
      found: By rising number of steps.
      without: Metrics of the ranking with nothing mixed in.
      ratio: In which what is generated is mixed in.

    Returns:
      The figure.
    """
    figure, (ranking, error) = figures.panels(2, width=6.0, height=4.2)
    steps = [quality.steps for quality in found]
    for name, colour in zip(without, (BLUE, ORANGE, GREEN, RED), strict=False):
        values = [quality.metrics[name] for quality in found]
        ranking.plot(steps, values, "o-", color=colour, ms=4, label=name)
        ranking.axhline(
            without[name],
            color=colour,
            ls=":",
            lw=1.2,
            label=f"{name}, nothing mixed in",
        )
    title = f"Validation, ratio of mixing {ratio:g}"
    ranking.set(title=title, ylabel="mean over users")
    errors = [quality.error for quality in found]
    error.plot(steps, errors, "o-", color=BLACK, ms=4, label=found[0].rows)
    error.axhline(1.0, color=RED, ls=":", lw=1.2, label="the mean of the targets")
    error.set(title="Error over steps of sampling", ylabel="share of the deviation")
    for axis in (ranking, error):
        axis.set(xscale="log", xlabel="steps of the solver")
        axis.set_xticks(steps, [str(number) for number in steps])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=9)
    return figure
