# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists what a trained T5 recommends, for all users of a data set or given histories.

python -m rfrec.launch.recommend --config=configs/recommend.py \
  --config.run=runs/instruments --workdir=runs/instruments_test
python -m rfrec.launch.recommend --config=configs/recommend.py \
  --config.run=runs/instruments --histories=histories.jsonl > answers.jsonl
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from rfrec.config import UserError
from rfrec.launch import cli
from rfrec.pipelines import recommend


def main(
    config: ConfigDict, workdir: Path | None, histories: str | None = None
) -> None:
    """Evaluates all users, or answers the histories of a file."""
    if histories is not None:
        recommend.answer(config, workdir, histories)
    elif workdir is not None:
        recommend.evaluate(config, workdir)
    else:
        raise UserError(
            "--workdir is required for lists and report; or set --histories=FILE"
        )


if __name__ == "__main__":
    flags.DEFINE_string(
        "histories",
        None,
        "File of histories to answer, JSON lines of users and items; - reads stdin.",
    )
    cli.config_main(
        lambda config, workdir: main(config, workdir, flags.FLAGS.histories),
        "recommend",
        workdir=False,
        page=True,
    )
