# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A data set in which certain items are new, to measure how cold items are ranked."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Bool
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.config import UserError
from rfrec.data import cold_items, folders
from rfrec.data.dataset import Request
from rfrec.data.interactions import Interactions, write_inter_json
from rfrec.pipelines import options as options_lib
from rfrec.pipelines import run_folder, saved_lists


@dataclasses.dataclass(frozen=True)
class Data:
    """A folder of data.

    Attributes:
      path: Folder with `NAME.inter.json`; None uses the environment variable
        RFREC_DATA.
      name: Data set within the folder; None if the folder contains one.
    """

    path: str | None = None
    name: str | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `rfrec.launch.withhold`.

    Attributes:
      seed: Seed of the random choice of items.
      data: The data set.
      share: Share of the used items that are withheld.
      withheld: File of the withheld items, one row number in each line, instead of a
        random choice.
    """

    seed: int = cfg.option(0, cfg.whole(0))
    data: Data = Data()
    share: float = cfg.option(0.1, cfg.Rule(lambda v: 0 < v < 1, "above 0 and below 1"))
    withheld: str | None = None


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes the data set without the withheld items.

    Args:
      config: Locked config of `configs/withhold.py`.
      workdir: New folder of the data set.

    Raises:
      UserError: The config or the data are wrong, or the folder is that of the data.
    """
    options_lib.check(config, Options)
    options = cfg.parse(Options, config)
    request = Request("folder", options.data.path, options.data.name)
    data = folders.open_source(request)
    if workdir.exists() and data.log.parent.samefile(workdir):
        raise UserError(f"--workdir={workdir} is the folder of the data; use another")
    inter = data.read_interactions()
    marks = choose(options, inter)
    left = cold_items.withhold(inter, marks)
    run_folder.open_workdir(workdir, config)
    for path in sorted(data.log.parent.glob(f"{data.name}.*")):
        if path != data.log and path.is_file():
            with files.replacing(workdir / path.name) as partial:
                shutil.copyfile(path, partial)
    lines = (f"{row}\n" for row in np.flatnonzero(marks))
    files.write_text(workdir / f"{data.name}.withheld.txt", "".join(lines))
    write_inter_json(left, workdir / data.log.name)
    report = {
        "main": "withhold",
        "name": data.name,
        "items": {"all": len(marks), "withheld": int(marks.sum())},
        "users": {"all": inter.num_users, "left": left.num_users},
        "interactions": {"all": len(inter.items), "left": len(left.items)},
        "cold_targets": int(marks[left.items[left.indptr[1:] - 1]].sum()),
        "config": cfg.as_json(config),
    }
    logging.info(
        "%d of %d items withheld; %d of %d interactions and %d of %d users are left;"
        " the last item of %d users is withheld",
        *(report["items"]["withheld"], report["items"]["all"]),
        *(report["interactions"]["left"], report["interactions"]["all"]),
        *(report["users"]["left"], report["users"]["all"], report["cold_targets"]),
    )
    run_folder.write_report(workdir, report)


def choose(options: Options, inter: Interactions) -> Bool[np.ndarray, " N"]:
    """Marks the items to withhold.

    Raises:
      UserError: The file of items cannot be read or names an unknown item.
    """
    if options.withheld is None:
        return cold_items.draw(inter, options.share, options.seed)
    names = {str(row): row for row in range(inter.num_items)}
    marks = np.zeros(inter.num_items, bool)
    marks[saved_lists.read_items(options.withheld, names, "config.withheld")] = True
    if not marks.any():
        raise UserError(
            f"config.withheld={options.withheld} names no item; name at least one"
        )
    return marks
