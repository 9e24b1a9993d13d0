# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the speed and memory of the parts of rfrec, alone or next to PyTorch.

python -m rfrec.launch.bench --only=rqvae,sinkhorn,kmeans,repair --out=FILE --torch
python -m rfrec.launch.bench --only=beam,t5,trie --out=FILE --torch
python -m rfrec.launch.bench --only=gume,spmm,knn,flow --out=FILE --torch

PyTorch's side of the tokenizer and of the graphs is plain code written by definition;
that of retrieval is Hugging Face's T5. Each row is measured in a process of its own.
"""

import importlib.util
import os
from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.benchmarks import cases, data
from rfrec.benchmarks.options import Options, check_sizes
from rfrec.config import UserError
from rfrec.launch import cli
from rfrec.pipelines import options


def main(config: ConfigDict, workdir: Path | None) -> None:
    """Measures the selected cases, prints a table and writes the rows."""
    del workdir
    options.check(config, Options)
    sizes = cfg.parse(Options, config)
    check_sizes(sizes)
    values = flags.FLAGS
    selected = cases.select(cases.build(sizes), values.only)
    out = Path(values.out).expanduser() if values.out else None
    if out is not None and not out.parent.is_dir():
        raise UserError(f"--out={out}: the folder {out.parent} does not exist")
    if values.torch and importlib.util.find_spec("torch") is None:
        raise UserError("--torch needs PyTorch: pip install 'rfrec[torch]'")
    _warn_if_busy()
    if any(case.name.startswith(("beam/", "t5/")) for case in selected):
        source = "Instruments in RFREC_DATA" if data.has_instruments() else "synthetic"
        logging.info("histories: %s", source)
    rows = []
    for case in selected:
        logging.info("%s: measuring", case.name)
        rows.append(cases.measure_apart(case, values.torch))
        logging.info("%s", "  ".join(cases.cells(rows[-1])))
        # Written after each row, so that an interruption loses one row only.
        if out is not None:
            files.write_json(out, [row._asdict() for row in rows])
    print(cases.table(rows))


def _warn_if_busy() -> None:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    # PyTorch suffers most, because its threads wait for each other in every operation.
    if load > cores / 2:
        logging.warning(
            "the machine is busy (load %.1f on %d cores): the ratios are unreliable",
            load,
            cores,
        )


if __name__ == "__main__":
    flags.DEFINE_list("only", list(cases.GROUPS), "Names of rows, or how they begin.")
    flags.DEFINE_string("out", None, "JSON file for the rows.")
    flags.DEFINE_bool("torch", False, "Time PyTorch in turns with rfrec.")
    cli.config_main(main, "bench", workdir=False)
