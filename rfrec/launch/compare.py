# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares rfrec with its references: recorded outputs, and published results.

python -m rfrec.launch.compare --golden=third_party/golden
python -m rfrec.launch.compare --run=runs/ml100k

--golden prints one row for each check against the recorded outputs of the PyTorch
references, and exits with 1 if a check fails or a file cannot be read. --run prints the
code statistics of a tokenizer run next to the published ones.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from rfrec.config import UserError
from rfrec.launch import cli
from rfrec.parity import checks
from rfrec.pipelines import options
from rfrec.reports import published


def main(config: ConfigDict, workdir: Path | None) -> None:
    """Runs the comparisons that the flags select."""
    del workdir
    options.check(config, published.Options)
    golden, run = cli.folder_flag("golden"), cli.folder_flag("run")
    if golden is None and run is None:
        raise UserError("--golden=FOLDER or --run=FOLDER is required")
    passed = golden is None or checks.check_folder(golden)
    if run is not None:
        print(published.compare_run(run, Path(config.reference_numbers)))
    if not passed:
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_string("golden", None, "Folder of recorded .npz files to check.")
    flags.DEFINE_string("run", None, "Folder of a tokenizer run to compare.")
    cli.config_main(main, "compare", workdir=False)
