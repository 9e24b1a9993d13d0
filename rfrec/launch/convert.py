# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Imports models of other programs as runs, and exports runs for other programs.

python -m rfrec.launch.convert --checkpoint=best_collision_model.pth \\
    --config=configs/rqvae.py:mql4grec --workdir=runs/theirs \\
    --config.data.path=FOLDER --config.data.features=text
python -m rfrec.launch.convert --import_t5=FOLDER \\
    --config=configs/t5.py:finetune --workdir=runs/theirs
python -m rfrec.launch.convert --export_t5=FOLDER --workdir=runs/ours

The first command imports an RQ-VAE of MQL4GRec and exports its codes. It reads tensors
only (`weights_only`), never pickled code. It needs `pip install 'rfrec[torch]'`.
The others exchange T5 models with Hugging Face transformers, without torch. The config
belongs to the new run; the shape of its model is replaced by that of the imported one.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from rfrec.config import UserError
from rfrec.launch import cli
from rfrec.pipelines import exchange

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Checkpoint of MQL4GRec (FILE.pth) to import."
)
_IMPORT = flags.DEFINE_string("import_t5", None, "Folder of a T5 to import.")
_EXPORT = flags.DEFINE_string("export_t5", None, "New folder for the T5 of a run.")
_BEST = flags.DEFINE_string(
    "best",
    None,
    "Checkpoint to export: ndcg@10, loss or last; by default the run's criterion.",
)
_BASE = flags.DEFINE_string(
    "base", None, "Folder of a T5 whose vocabulary the exported model gets."
)


def main(config: ConfigDict, workdir: Path) -> None:
    """Imports or exports the model that the flags name."""
    values = (_CHECKPOINT.value, _IMPORT.value, _EXPORT.value)
    named = [value for value in values if value is not None]
    if len(named) != 1:
        raise UserError(
            "exactly one of --checkpoint=FILE.pth, --import_t5=FOLDER and"
            " --export_t5=FOLDER is required"
        )
    path = Path(named[0]).expanduser()
    if _EXPORT.value is None and (_BEST.value or _BASE.value):
        raise UserError("--best and --base can only be combined with --export_t5")
    if _CHECKPOINT.value is not None:
        exchange.import_tokenizer(config, path, workdir)
    elif _IMPORT.value is not None:
        exchange.import_folder(config, path, workdir)
    else:
        base = Path(_BASE.value).expanduser() if _BASE.value else None
        exchange.export_run(workdir, path, checkpoint=_BEST.value, base=base)


if __name__ == "__main__":
    cli.config_main(main, "rqvae", variant="mql4grec")
