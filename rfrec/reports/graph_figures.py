# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws the run of a graph recommender, and what its rectified flow generates.

In: a run's folder of `rfrec.launch.gume`. Out: `curves.png`, and of a run with the flow
`flow.png`, `tsne.png` and `steps.png`, which the best checkpoint makes anew.
"""

import copy
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.graph import training
from rfrec.pipelines import finished_graph, graph, graph_report
from rfrec.reports import figures, graph_drawing, tsne
from rfrec.reports.graph_drawing import Cloud, Quality
from rfrec.rf import settings as rf_settings

_METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
_OF_STEPS = ("recall@20", "ndcg@20")


class Restored:
    """A finished run with the flow, at its best checkpoint."""

    def __init__(self, workdir: Path, cache: Path):
        """Loads data and parameters.

        Args:
          workdir: Of the run.
          cache: Folder for graphs, if the run's config names none.

        Raises:
          UserError: The data is not there, or the checkpoint is damaged.
        """

        def keep_graphs(config: ConfigDict) -> None:
            config.graph.cache = config.graph.cache or str(cache)

        self.run = finished_graph.open_run(workdir, keep_graphs)
        self.config, self.data, self.trainer, self.state = self.run
        self.flow = rf_settings.from_section(self.config.rf)

    @property
    def ratio(self) -> float:
        """The ratio of mixing that validation chose; if that is 0, the least other."""
        chosen = training.Run(self.trainer).choose(self.state).arguments
        ratio = chosen.get("ratio", self.flow.inference_mix_ratio)
        others = [r for r in self.flow.inference_choices if r > 0]
        return ratio if ratio > 0 else min(others, default=0.0)

    def clouds(self, most: int, *, perplexity: float, seed: int) -> list[Cloud]:
        """Returns users and items, generated beside their targets, in the plane."""
        made, target = self.run.generated_and_behaviour()
        return [
            lay_out(name, wanted, generated, most, perplexity, seed)
            for name, wanted, generated in zip(
                ("users", "items"), target, made, strict=True
            )
        ]

    def quality(self, steps: int, ratio: float) -> Quality:
        """Returns ranking and error with so many steps of sampling.

        Args:
          steps: Of the solver.
          ratio: Of mixing.
        """
        config = copy.deepcopy(self.config)
        config.rf.sampling_steps = steps
        # Done once, when the run was opened.
        config.rf.reflow = "none"
        model, _ = graph.make_model(config, self.data)
        run = training.Run(dataclasses.replace(self.trainer, model=model))
        encoded = run.encode(self.state, {"ratio": ratio})
        found = run.validate(run.rank(encoded))
        numbers = {name: float(value) for name, value in encoded.numbers.items()}
        error, rows = numbers["rf_error"], "all rows"
        if "rf_error_heldout" in numbers:
            error, rows = numbers["rf_error_heldout"], "held-out rows"
        return Quality(steps, {name: found[name] for name in _OF_STEPS}, error, rows)


def lay_out(
    name: str,
    target: Float[np.ndarray, "N D"],
    generated: Float[np.ndarray, "N D"],
    most: int,
    perplexity: float,
    seed: int,
) -> Cloud:
    """Embeds a sample of rows in the plane by t-SNE, targets and generated at once.

    Args:
      name: Of the rows.
      target: What they should be.
      generated: The same rows.
      most: Rows of the sample.
      perplexity: About how many neighbours a point has.
      seed: Of sample and layout.
    """
    count = len(target)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(count, min(most, count), replace=False))
    places = tsne.embed_together(
        target[rows], generated[rows], perplexity=perplexity, seed=seed
    )
    moments = np.array([[x.mean(axis=0), x.std(axis=0)] for x in (target, generated)])
    return Cloud(name, *places, moments, count)


def is_run(workdir: Path) -> bool:
    """Whether a folder is that of a graph recommender."""
    path = workdir / "config.json"
    return path.exists() and "graph" in cfg.read_config(path)


def draw(config: ConfigDict, workdir: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draws all pictures for which a run's folder has the data.

    Args:
      config: Of the pictures.
      workdir: Of the run.
      rows: Of its `metrics.jsonl`.

    Raises:
      UserError: The run has not come to an end of an epoch, or lacks its data.
    """
    if graph_report.was_ranked_again(workdir):
        raise UserError(
            f"{workdir} was not trained, --again made it of another run, which its"
            " report.json names: draw that one"
        )
    if not rows:
        raise UserError(f"{workdir} has no metrics yet: draw it after an epoch")
    out = figures.make_folder(workdir)
    figure = graph_drawing.draw_training(rows, _METRICS)
    figures.save(out / "curves.png", figure, config.dpi)
    if not cfg.read_config(workdir / "config.json").rf.use_rf:
        logging.info("no pictures of the flow: the run's config.rf.use_rf is False")
        return
    figures.save(out / "flow.png", graph_drawing.draw_flow(rows), config.dpi)
    if not (workdir / "checkpoints").is_dir():
        logging.info("no t-SNE and no steps of sampling: there is no checkpoint yet")
        return
    with tempfile.TemporaryDirectory() as folder:
        _draw_generated(config, Restored(workdir, Path(folder)), out)


def _draw_generated(config: ConfigDict, run: Restored, out: Path) -> None:
    logging.info("t-SNE of users and items")
    clouds = run.clouds(
        config.tsne.max_items, perplexity=config.tsne.perplexity, seed=config.tsne.seed
    )
    figures.save(out / "tsne.png", graph_drawing.draw_clouds(clouds), config.dpi)
    steps, ratio, found = sorted(set(config.steps)), run.ratio, []
    for number in steps:
        found.append(run.quality(number, ratio))
        told = "  ".join(f"{k} {v:.4f}" for k, v in found[-1].metrics.items())
        logging.info("%d steps: %s  error %.3f", number, told, found[-1].error)
    without = run.quality(steps[0], 0.0).metrics
    figure = graph_drawing.draw_steps(found, without, ratio)
    figures.save(out / "steps.png", figure, config.dpi)
