# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a tokenizer and exports unique codes.

python -m rfrec.launch.rqvae --config=configs/rqvae.py --workdir=runs/ml100k
"""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rfrec import files
from rfrec.config import as_json
from rfrec.data.features import ItemVectors
from rfrec.launch import cli
from rfrec.pipelines import codes_export, run_folder, tokenizer
from rfrec.tokenizer import rqvae, training
from rfrec.train import running
from rfrec.train.checkpoint import Checkpoints
from rfrec.train.state import TrainState

CRITERIA = ("collision_rate", "loss")


def main(config: ConfigDict, workdir: Path) -> None:
    """Runs a config to the end, from where it stands in `workdir`."""
    tokenizer.check(config)
    items = tokenizer.load_items(config)
    for warning in items.warnings:
        logging.warning("%s", warning)
    rkmeans = config.model.method == "rkmeans"
    # Before the folder is made, so that a refused config leaves nothing behind.
    trainer = None if rkmeans else tokenizer.trainer(config, items)
    run_folder.open_workdir(workdir, config)
    logging.info(
        "%d items of width %d on %d %s device(s)",
        *items.values.shape,
        jax.device_count(),
        jax.default_backend(),
    )
    started = time.monotonic()
    if trainer is None:
        tokenized = residual_kmeans(config, items)
        report = {"seconds": time.monotonic() - started}
    else:
        tokenized, report = train(trainer, items, workdir, config.codes.checkpoint)
    if jax.process_index() == 0:
        finish(config, items, tokenized, workdir, report)


def residual_kmeans(config: ConfigDict, items: ItemVectors) -> codes_export.Tokenized:
    """Tokenizes without training."""
    return codes_export.residual_kmeans(
        items.values,
        tuple(config.codebook.sizes),
        seed=config.seed,
        iterations=config.codebook.kmeans_iterations,
    )


def train(
    trainer: training.Trainer, items: ItemVectors, workdir: Path, chosen: str
) -> tuple[codes_export.Tokenized, dict[str, Any]]:
    """Trains, or goes on, and tokenizes all items with the chosen checkpoint."""
    run = training.Run(trainer)
    checkpoints = Checkpoints(workdir, lowest=CRITERIA)
    template = trainer.init()
    try:
        progress = running.train(
            template,
            run.program(),
            trainer.schedule,
            engine=trainer.engine,
            checkpoints=checkpoints,
            workdir=workdir,
            notes={"items": items.fingerprint},
            what="item vectors",
        )
        tokenized, models = compare(run, checkpoints, chosen, template)
    finally:
        checkpoints.close()
    return tokenized, {"seconds": progress.seconds, "models": models}


def compare(
    run: training.Run, checkpoints: Checkpoints, chosen: str, template: TrainState
) -> tuple[codes_export.Tokenized, dict[str, Any]]:
    """Evaluates the last model and the best by each criterion, side by side.

    Args:
      run: Evaluates.
      checkpoints: Of the run.
      chosen: The criterion, or `last`, whose model tokenizes the items.
      template: Any host state of this model.

    Returns:
      All items tokenized by the chosen one, and the numbers of all.
    """
    trainer = run.trainer
    steps = {"last": checkpoints.latest()}
    steps |= {name: checkpoints.best(name) for name in CRITERIA}
    models, tokenized = {}, None
    for name, step in steps.items():
        assert step is not None, "compared before anything was stored"
        host = checkpoints.restore(step, template).state
        result = run.evaluate(
            trainer.engine.replicate(host), np.arange(len(trainer.items.values))
        )
        sizes = trainer.arch.quantization.sizes
        values = training.metrics(result, trainer.items, sizes)
        models[name] = {"step": step, **values}
        logging.info(
            "%-14s step %6d  distinct %d  conflict items %d  energy left %.4f",
            name,
            step,
            values["distinct"],
            values["conflict_items"],
            values["energy_left"],
        )
        if name == chosen:
            tokenized = codes_export.Tokenized(
                codes=result.codes,
                latents=result.latents,
                codebooks=code_vectors(host, trainer.arch),
                energy_left=values["energy_left"],
            )
    assert tokenized is not None
    return tokenized, models


def code_vectors(state, arch: rqvae.Architecture) -> tuple[np.ndarray, ...]:
    """Returns the code vectors in use, one array a level."""
    variables = {"params": state.params, **state.model_state}
    vectors = np.asarray(rqvae.RQVAE(arch).apply(variables, method="code_vectors"))
    sizes = arch.quantization.sizes
    return tuple(v[:k] for v, k in zip(vectors, sizes, strict=True))


def write_codes(
    config: ConfigDict,
    items: ItemVectors,
    tokenized: codes_export.Tokenized,
    workdir: Path,
) -> dict[str, Any]:
    """Repairs and exports the codes; returns what the report says of them."""
    exported = codes_export.export_codes(
        workdir,
        items,
        tokenized,
        method=config.codes.repair,
        modality=config.codes.modality,
    )
    return {"energy_left": tokenized.energy_left, **exported}


def finish(
    config: ConfigDict,
    items: ItemVectors,
    tokenized: codes_export.Tokenized,
    workdir: Path,
    report: dict[str, Any],
) -> None:
    """Exports codes and writes the report."""
    device = jax.devices()[0]
    report = {
        "main": "rqvae",
        "items": len(items.values),
        "width": items.values.shape[1],
        "data": {"names": [n for n, _ in items.segments], "sha256": items.fingerprint},
        "seed": config.seed,
        "device": f"{device.device_kind} x {jax.device_count()}",
        **report,
        **write_codes(config, items, tokenized, workdir),
        "config": as_json(config),
    }
    files.write_json(workdir / "report.json", report)
    logging.info("report: %s", workdir / "report.json")


if __name__ == "__main__":
    cli.config_main(main, "rqvae", page=True, flow=True)
