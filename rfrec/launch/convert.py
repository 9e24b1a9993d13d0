# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns models of others into runs of rfrec, and runs into models for others.

python -m rfrec.launch.convert --checkpoint=best_collision_model.pth \\
    --config=configs/rqvae.py:mql4grec --workdir=runs/theirs \\
    --config.data.path=FOLDER --config.data.features=text
python -m rfrec.launch.convert --import_t5=FOLDER \\
    --config=configs/t5.py:finetune --workdir=runs/theirs
python -m rfrec.launch.convert --export_t5=FOLDER --workdir=runs/ours

The first makes a run of a MQL4GRec RQ-VAE and exports its codes. Only tensors are read
(`weights_only`), never pickled code; it needs torch: `pip install 'rfrec[torch]'`. The
others exchange T5 models with Hugging Face transformers, without torch. The config is
that of the run that is made; the shape of its model is taken from what is read.
"""

import argparse
from pathlib import Path

import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from rfrec.config import UserError
from rfrec.launch import cli, rqvae
from rfrec.pipelines import exchange, run_folder, tokenizer
from rfrec.tokenizer import mql4grec, training
from rfrec.train import loop
from rfrec.train.checkpoint import Checkpoints

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "MQL4GRec's FILE.pth.")
_IMPORT = flags.DEFINE_string("import_t5", None, "Folder of a T5 to make a run of.")
_EXPORT = flags.DEFINE_string("export_t5", None, "New folder for the T5 of a run.")
_BEST = flags.DEFINE_string(
    "best", None, "Model to export: ndcg@10, loss or last; default: the run's choice."
)
_BASE = flags.DEFINE_string(
    "base", None, "Folder of a T5 in whose vocabulary a model is exported."
)


def main(config: ConfigDict, workdir: Path) -> None:
    """Does what the flags ask for."""
    flags_given = (_CHECKPOINT.value, _IMPORT.value, _EXPORT.value)
    given = [value for value in flags_given if value is not None]
    if len(given) != 1:
        raise UserError(
            "one of --checkpoint=FILE.pth, --import_t5=FOLDER and --export_t5=FOLDER is"
            " needed"
        )
    path = Path(given[0]).expanduser()
    if _EXPORT.value is None and (_BEST.value or _BASE.value):
        raise UserError("--best and --base go with --export_t5: leave them out")
    if _CHECKPOINT.value is not None:
        import_rqvae(config, path, workdir)
    elif _IMPORT.value is not None:
        exchange.import_folder(config, path, workdir)
    else:
        base = Path(_BASE.value).expanduser() if _BASE.value else None
        exchange.export_run(workdir, path, checkpoint=_BEST.value, base=base)


def import_rqvae(config: ConfigDict, path: Path, workdir: Path) -> None:
    """Reads a checkpoint, stores it as a run's only step, tokenizes the items."""
    exchange.refuse_run(workdir)
    weights = mql4grec.read_state_dict(read_pth(path))
    run_config = adapt(config, weights)
    tokenizer.check(run_config)
    items = tokenizer.load_items(run_config)
    if items.values.shape[1] != weights.input_width:
        raise UserError(
            f"{path} reads vectors of width {weights.input_width}, the"
            f" items have {items.values.shape[1]}: choose other data.features"
        )
    run_folder.open_workdir(workdir, run_config)
    trainer = tokenizer.trainer(run_config, items)
    checkpoints = Checkpoints(workdir, lowest=rqvae.CRITERIA)
    try:
        store(trainer, weights, checkpoints, items.fingerprint)
        chosen = run_config.codes.checkpoint
        tokenized, models = rqvae.compare(
            training.Run(trainer), checkpoints, chosen, trainer.init()
        )
    finally:
        checkpoints.close()
    report = {"seconds": 0.0, "models": models}
    rqvae.finish(run_config, items, tokenized, workdir, report)


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a checkpoint's `state_dict`.

    Raises:
      UserError: torch is missing, or the file is not such a checkpoint.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError("convert needs torch: pip install 'rfrec[torch]'") from error
    if not path.exists():
        raise UserError(f"{path} does not exist: correct --checkpoint")
    try:
        # MQL4GRec stores its command line beside the weights; a Namespace is harmless.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        arrays = content["state_dict"]
        return {name: tensor.float().numpy() for name, tensor in arrays.items()}
    except Exception as error:  # a damaged file can make torch raise anything
        reason = str(error).strip().splitlines()[0][:160]
        raise UserError(f"{path} is no MQL4GRec checkpoint ({reason})") from error


def adapt(run_config: ConfigDict, weights: mql4grec.Weights) -> ConfigDict:
    """Returns the run's config with the checkpoint's shape."""
    config = run_config.copy_and_resolve_references()
    with config.unlocked():
        config.model.hidden = weights.hidden
        config.model.latent_width = weights.latent_width
        config.model.batch_norm = bool(weights.batch_stats)
        config.codebook.sizes = weights.sizes
        if len(config.codebook.sk_epsilons) != len(weights.sizes):
            config.codebook.sk_epsilons = (0.0,)
    return config


def store(
    trainer: training.Trainer,
    weights: mql4grec.Weights,
    checkpoints: Checkpoints,
    fingerprint: str,
) -> None:
    """Stores the weights as the last step of the run."""
    state = trainer.init()
    model_state = dict(state.model_state)
    if weights.batch_stats:
        model_state["batch_stats"] = weights.batch_stats
    step = trainer.schedule.total_steps
    state = state.replace(
        step=np.int32(step), params=weights.params, model_state=model_state
    )
    notes = {"items": fingerprint} | vars(loop.Progress(step=step))
    checkpoints.save(step, state, notes=notes, metrics=None)
    checkpoints.wait()
    logging.info("stored %s", checkpoints.latest())


if __name__ == "__main__":
    cli.config_main(main, "rqvae", variant="mql4grec")
