# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Prints a table of runs: mean over seeds and its confidence interval.

python -m rfrec.launch.summary --runs=FOLDER --out=summary.json

FOLDER/NAME/seed_N is the run of seed N, of a tokenizer or of a graph recommender; all
runs of one NAME make a row. With --against=NAME, rows of graph recommenders contain a
paired test against that row too.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from rfrec import files
from rfrec.config import UserError
from rfrec.launch import cli
from rfrec.pipelines import options
from rfrec.reports import seed_table
from rfrec.reports.seed_table import Options


def main(config: ConfigDict, workdir: Path | None) -> None:
    """Reads the reports and prints the table."""
    del workdir
    options.check(config, Options)
    folder, out = cli.folder_flag("runs"), cli.folder_flag("out")
    if folder is None:
        raise UserError("--runs is required: the folder that contains NAME/seed_N")
    against = flags.FLAGS["against"].value
    rows, kind = seed_table.build_rows(folder, config.confidence, against)
    print(seed_table.as_markdown(rows, kind))
    if out is not None:
        files.write_json(out, rows)


if __name__ == "__main__":
    flags.DEFINE_string("runs", None, "Folder that contains the folders NAME/seed_N.")
    flags.DEFINE_string("out", None, "JSON file for the table.")
    flags.DEFINE_string("against", None, "Baseline row of the paired tests.")
    cli.config_main(main, "summary", workdir=False)
