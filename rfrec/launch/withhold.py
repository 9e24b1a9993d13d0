# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes a data set of which nothing can be learned about certain items.

python -m rfrec.launch.withhold --config=configs/withhold.py \
  --config.data.name=ml1m --workdir=runs/cold/data

It writes `NAME.inter.json`, copies the other files of the data set beside it, and lists
the withheld items in `NAME.withheld.txt`.
"""

import shutil
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Bool
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.config import UserError, as_json
from rfrec.data import cold_items, folders
from rfrec.data.dataset import Request
from rfrec.data.interactions import Interactions, write_inter_json
from rfrec.launch import cli
from rfrec.pipelines import run_folder, saved_lists

RULES: cfg.Rules = {
    "seed": cfg.whole(0),
    "share": cfg.Rule(lambda v: 0 < v < 1, "above 0 and below 1"),
}


def main(config: ConfigDict, workdir: Path) -> None:
    """Writes the data set."""
    cfg.check(config, RULES)
    data = folders.open_source(Request("folder", config.data.path, config.data.name))
    if workdir.exists() and data.log.parent.samefile(workdir):
        raise UserError(f"--workdir={workdir} is the folder of the data: use another")
    inter = data.read_interactions()
    marks = choose(config, inter)
    left = cold_items.withhold(inter, marks)
    run_folder.open_workdir(workdir, config)
    for path in sorted(data.log.parent.glob(f"{data.name}.*")):
        if path != data.log and path.is_file():
            with files.replacing(workdir / path.name) as partial:
                shutil.copyfile(path, partial)
    with files.replacing(workdir / f"{data.name}.withheld.txt") as partial:
        lines = (f"{row}\n" for row in np.flatnonzero(marks))
        partial.write_text("".join(lines), encoding="utf-8")
    write_inter_json(left, workdir / data.log.name)
    report = {
        "main": "withhold",
        "name": data.name,
        "items": {"all": len(marks), "withheld": int(marks.sum())},
        "users": {"all": inter.num_users, "left": left.num_users},
        "interactions": {"all": len(inter.items), "left": len(left.items)},
        "cold_targets": int(marks[left.items[left.indptr[1:] - 1]].sum()),
        "config": as_json(config),
    }
    files.write_json(workdir / "report.json", report)
    logging.info(
        "%d of %d items withheld: %d of %d interactions and %d of %d users are left;"
        " the last item of %d users is withheld",
        *(report["items"]["withheld"], report["items"]["all"]),
        *(report["interactions"]["left"], report["interactions"]["all"]),
        *(report["users"]["left"], report["users"]["all"], report["cold_targets"]),
    )


def choose(config: ConfigDict, inter: Interactions) -> Bool[np.ndarray, " N"]:
    """Marks the items to be withheld.

    Raises:
      UserError: The file of items cannot be read or names an unknown one.
    """
    if config.withheld is None:
        return cold_items.draw(inter, config.share, config.seed)
    names = {str(row): row for row in range(inter.num_items)}
    marks = np.zeros(inter.num_items, bool)
    marks[saved_lists.read_items(config.withheld, names, "config.withheld")] = True
    if not marks.any():
        raise UserError(
            f"config.withheld={config.withheld} names no item: name at least one"
        )
    return marks


if __name__ == "__main__":
    cli.config_main(main, "withhold")
