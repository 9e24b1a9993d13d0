# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exports the codes of a trained tokenizer again, with another repair or checkpoint.

python -m rfrec.launch.codes --workdir=runs/ml100k --config.repair=suffix
"""

import json
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.config import UserError
from rfrec.launch import cli, rqvae
from rfrec.pipelines import tokenizer
from rfrec.tokenizer import training
from rfrec.train.checkpoint import Checkpoints

RULES: cfg.Rules = {
    **{
        name: tokenizer.RULES[f"codes.{name}"]
        for name in ("checkpoint", "repair", "modality")
    },
}


def main(config: ConfigDict, workdir: Path) -> None:
    """Tokenizes the items of a finished run, repairs and writes their codes."""
    cfg.check(config, RULES)
    run_config = cfg.read_config(workdir / "config.json")
    for name in ("checkpoint", "repair", "modality"):
        if config[name] is not None:
            run_config.codes[name] = config[name]
    report = read_report(workdir / "report.json")
    items = tokenizer.load_items(run_config)
    if report["data"]["sha256"] != items.fingerprint:
        raise UserError(
            f"the item vectors are not those {workdir} was trained on: restore them"
        )
    if run_config.model.method == "rkmeans":
        tokenized = rqvae.residual_kmeans(run_config, items)
    else:
        trainer = tokenizer.trainer(run_config, items)
        checkpoints = Checkpoints(workdir, lowest=rqvae.CRITERIA)
        try:
            chosen = run_config.codes.checkpoint
            tokenized, _ = rqvae.compare(
                training.Run(trainer), checkpoints, chosen, trainer.init()
            )
        finally:
            checkpoints.close()
    exported = rqvae.write_codes(run_config, items, tokenized, workdir)
    files.write_json(workdir / "report.json", report | exported)
    logging.info("report: %s", workdir / "report.json")


def read_report(path: Path) -> dict:
    """Reads the report of a finished run of `rfrec.launch.rqvae`.

    Raises:
      UserError: There is none.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: finish the run of rfrec.launch.rqvae")
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    cli.config_main(main, "codes")
