# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Figures of a graph recommender and of the embeddings its flow generates.

`draw` reads the folder of a run of `rfrec.launch.gume` and writes `curves.png`; of a
run with the flow also `flow.png`, `tsne.png` and `steps.png`, for which the best
checkpoint generates embeddings.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.graph import training
from rfrec.pipelines import finished_graph, graph_report
from rfrec.reports import figures
from rfrec.reports.figures import BLACK, BLUE, GREEN, ORANGE, RED

_METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
_STEP_METRICS = ("recall@20", "ndcg@20")


class Cloud(NamedTuple):
    """Target and generated embeddings of users or of items.

    Attributes:
      name: `users` or `items`.
      target: Positions of the targets by t-SNE.
      generated: Positions of the generated embeddings of the same rows.
      moments: Mean and standard deviation of each dimension, of targets and generated
        embeddings: [2, 2, D].
      count: Number of rows of the moments; the positions may be of a sample of them.
    """

    name: str
    target: Float[np.ndarray, "N 2"]
    generated: Float[np.ndarray, "N 2"]
    moments: Float[np.ndarray, "2 2 D"]
    count: int


class Quality(NamedTuple):
    """Quality of sampling with a number of solver steps.

    Attributes:
      steps: Solver steps.
      metrics: Ranking metrics by name.
      error: RMS error of the generated embeddings, divided by the standard deviation
        of the targets.
      rows: Rows of the error: `held-out rows`, which the flow was not trained on, or
        `all rows` if none were held out.
    """

    steps: int
    metrics: dict[str, float]
    error: float
    rows: str


def draw_training(rows: Sequence[dict[str, Any]], metrics: Sequence[str]) -> Any:
    """Draws loss and ranking over epochs.

    Args:
      rows: Rows with `epoch`, `split`, `loss` and the metrics.
      metrics: Validation metrics to draw.

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
    """Draws losses of the flow, and statistics of generated embeddings, over epochs.

    Args:
      rows: Training rows with `rf_loss` and `cl_loss`; evaluation rows with
        `rf_error`, `rf_error_heldout` where rows were held out, and
        `rf_{target,generated}_{mean,std}_{users,items}`.

    Returns:
      The figure.
    """
    figure, axes = figures.panels(4, width=6.0, height=4.2, most=2)
    losses, error, means, deviations = axes
    named = {"rf_loss": ("flow", BLUE, "-"), "cl_loss": ("contrastive", ORANGE, "--")}
    _curves(losses, rows, "train", named)
    _finish(losses, title="Losses of the flow", ylabel="loss, mean over steps")
    sides = (("users", BLUE), ("items", GREEN))
    named = {
        "rf_error": ("all rows", BLACK, "-"),
        "rf_error_heldout": ("held-out rows", RED, "--"),
    }
    _curves(error, rows, "eval", named)
    _finish(
        error,
        title="Error of generated embeddings",
        ylabel="RMS error / std. deviation",
    )
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
        _finish(axis, title=title, ylabel="value in the embeddings")
    return figure


def _curves(axis, rows, split: str, named: dict[str, tuple[str, str, str]]) -> None:
    """Draws metrics of a split; `named` has label, colour and style of each."""
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
    """Draws t-SNE maps of target and generated embeddings, and their moments below.

    Args:
      clouds: Embeddings of users and of items.

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
    """Draws the moments of each dimension, sorted by the mean of the targets."""
    order = np.argsort(cloud.moments[0, 0])
    place = np.arange(len(order))
    for (mean, deviation), label, colour, shift in zip(
        cloud.moments, ("target", "generated"), (BLUE, RED), (-0.2, 0.2), strict=True
    ):
        look = {"fmt": "o", "ms": 2.5, "lw": 0.9, "color": colour, "label": label}
        axis.errorbar(place + shift, mean[order], yerr=deviation[order], **look)
    axis.set_title("Mean and standard deviation of each dimension", fontsize=10)
    axis.set(
        xlabel="dimension, sorted by the mean of the targets",
        ylabel=f"embeddings of {cloud.name}",
    )
    axis.legend(frameon=True, fontsize=8)
    axis.grid(alpha=0.3)


def draw_steps(
    qualities: Sequence[Quality], without: dict[str, float], ratio: float
) -> Any:
    """Draws ranking metrics and error over the number of sampling steps.

    Args:
      qualities: Results, by ascending number of steps.
      without: Ranking metrics without generated embeddings.
      ratio: Mixing ratio of the generated embeddings.

    Returns:
      The figure.
    """
    figure, (ranking, error) = figures.panels(2, width=6.0, height=4.2)
    steps = [quality.steps for quality in qualities]
    for name, colour in zip(without, (BLUE, ORANGE, GREEN, RED), strict=False):
        values = [quality.metrics[name] for quality in qualities]
        ranking.plot(steps, values, "o-", color=colour, ms=4, label=name)
        ranking.axhline(
            without[name],
            color=colour,
            ls=":",
            lw=1.2,
            label=f"{name}, without the flow",
        )
    title = f"Validation, mixing ratio {ratio:g}"
    ranking.set(title=title, ylabel="mean over users")
    errors = [quality.error for quality in qualities]
    error.plot(steps, errors, "o-", color=BLACK, ms=4, label=qualities[0].rows)
    error.axhline(1.0, color=RED, ls=":", lw=1.2, label="predicting the mean")
    error.set(
        title="Error of generated embeddings", ylabel="RMS error / std. deviation"
    )
    for axis in (ranking, error):
        axis.set(xscale="log", xlabel="solver steps")
        axis.set_xticks(steps, [str(number) for number in steps])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=9)
    return figure


class Restored:
    """Finished run with the flow, restored from its best checkpoint."""

    def __init__(self, workdir: Path, cache: Path):
        """Loads data and parameters.

        Args:
          workdir: Folder of the run.
          cache: Folder for graphs, if the config of the run has none.

        Raises:
          UserError: The data are missing, or the checkpoint is damaged.
        """

        def keep_graphs(config: ConfigDict) -> None:
            config.graph.cache = config.graph.cache or str(cache)

        self.run = finished_graph.open_run(workdir, keep_graphs)
        setup, self.data, self.trainer, self.state = self.run
        self.config, self.flow = setup.config, setup.flow

    @property
    def ratio(self) -> float:
        """Mixing ratio that validation chose; if that is 0, the smallest other one."""
        chosen = training.Run(self.trainer).choose(self.state).arguments
        ratio = chosen.get("ratio", self.flow.inference_mix_ratio)
        others = [r for r in self.flow.inference_choices if r > 0]
        return ratio if ratio > 0 else min(others, default=0.0)

    def clouds(self, most: int, *, perplexity: float, seed: int) -> list[Cloud]:
        """Returns t-SNE maps of target and generated embeddings of users and items."""
        generated, target = self.run.generated_and_behaviour()
        return [
            map_cloud(name, *sides, most, perplexity, seed)
            for name, *sides in zip(("users", "items"), target, generated, strict=True)
        ]

    def quality(self, steps: int, ratio: float) -> Quality:
        """Returns ranking metrics and error for a number of sampling steps.

        Args:
          steps: Solver steps.
          ratio: Mixing ratio.
        """
        # Reflow was applied when the run was restored.
        settings = dataclasses.replace(self.flow, sampling_steps=steps, reflow="none")
        model = dataclasses.replace(self.trainer.model, settings=settings)
        run = training.Run(dataclasses.replace(self.trainer, model=model))
        encoded = run.encode(self.state, {"ratio": ratio})
        metrics = run.validate(run.rank(encoded))
        numbers = {name: float(value) for name, value in encoded.numbers.items()}
        error, rows = numbers["rf_error"], "all rows"
        if "rf_error_heldout" in numbers:
            error, rows = numbers["rf_error_heldout"], "held-out rows"
        return Quality(
            steps, {name: metrics[name] for name in _STEP_METRICS}, error, rows
        )


def map_cloud(
    name: str,
    target: Float[np.ndarray, "N D"],
    generated: Float[np.ndarray, "N D"],
    most: int,
    perplexity: float,
    seed: int,
) -> Cloud:
    """Maps target and generated embeddings of a sample of rows by t-SNE.

    Args:
      name: `users` or `items`.
      target: Target embeddings.
      generated: Generated embeddings of the same rows.
      most: Largest number of rows in the sample.
      perplexity: Approximate number of neighbours of a point.
      seed: Seed of the sample and of the layout.
    """
    count = len(target)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(count, min(most, count), replace=False))
    positions = figures.embed_together(
        target[rows], generated[rows], perplexity=perplexity, seed=seed
    )
    moments = np.array([[x.mean(axis=0), x.std(axis=0)] for x in (target, generated)])
    return Cloud(name, *positions, moments, count)


def is_run(workdir: Path) -> bool:
    """Whether a folder contains a run of a graph recommender."""
    path = workdir / "config.json"
    return path.exists() and "graph" in cfg.read_config(path)


def draw(config: ConfigDict, workdir: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draws all figures for which the folder of a run has the data.

    Args:
      config: Config of the figures.
      workdir: Folder of the run.
      rows: Rows of its `metrics.jsonl`.

    Raises:
      UserError: The run has not completed an epoch, or its data are missing.
    """
    if graph_report.was_evaluated_again(workdir):
        raise UserError(
            f"{workdir} was ranked with --again and has no training of its own: draw"
            " the run that its report.json names"
        )
    if not rows:
        raise UserError(f"{workdir} has no metrics yet: draw it after the first epoch")
    out = figures.make_folder(workdir)
    figure = draw_training(rows, _METRICS)
    figures.save(out / "curves.png", figure, config.dpi)
    if not cfg.read_config(workdir / "config.json").rf.use_rf:
        logging.info("no figures of the flow: config.rf.use_rf is False in this run")
        return
    figures.save(out / "flow.png", draw_flow(rows), config.dpi)
    if not (workdir / "checkpoints").is_dir():
        logging.info("no figures of generated embeddings: there is no checkpoint yet")
        return
    with tempfile.TemporaryDirectory() as folder:
        _draw_generated(config, Restored(workdir, Path(folder)), out)


def _draw_generated(config: ConfigDict, run: Restored, out: Path) -> None:
    logging.info("t-SNE of users and items")
    clouds = run.clouds(
        config.tsne.max_items, perplexity=config.tsne.perplexity, seed=config.tsne.seed
    )
    figures.save(out / "tsne.png", draw_clouds(clouds), config.dpi)
    steps, ratio, qualities = sorted(set(config.steps)), run.ratio, []
    for number in steps:
        quality = run.quality(number, ratio)
        qualities.append(quality)
        metrics = "  ".join(f"{k} {v:.4f}" for k, v in quality.metrics.items())
        logging.info("%d steps: %s  error %.3f", number, metrics, quality.error)
    without = run.quality(steps[0], 0.0).metrics
    figure = draw_steps(qualities, without, ratio)
    figures.save(out / "steps.png", figure, config.dpi)
