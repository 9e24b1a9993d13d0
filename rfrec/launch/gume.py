# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains GUME, with or without the rectified flow, or a baseline, and evaluates it.

python -m rfrec.launch.gume --config=configs/gume.py:ml100k --workdir=runs/ml100k
python -m rfrec.launch.gume --config=configs/gume.py:ml100k --workdir=runs/ml100k_rf \
  --config.rf.use_rf=true --seeds=5 --against=runs/ml100k
python -m rfrec.launch.gume --config=configs/gume.py:ml100k --workdir=runs/ml100k_10 \
  --config.rf.use_rf=true --config.rf.sampling_steps=10 --seeds=5 --again=runs/ml100k_rf
"""

from absl import flags

from rfrec.launch import cli
from rfrec.pipelines.graph import run as main


def _define_flags() -> None:
    flags.DEFINE_integer(
        "seeds", 1, "Number of runs, each with its own seed and folder."
    )
    flags.DEFINE_string(
        "against", None, "Folder of finished runs to compare with, user by user."
    )
    flags.DEFINE_string(
        "again", None, "Folder of finished runs to evaluate with other sampling."
    )


if __name__ == "__main__":
    _define_flags()
    cli.config_main(
        lambda config, workdir: main(
            config,
            workdir,
            flags.FLAGS.seeds,
            cli.folder_flag("against"),
            cli.folder_flag("again"),
        ),
        "gume",
        page=True,
        flow=True,
    )
