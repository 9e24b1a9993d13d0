# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: `config.json`, `report.json` and the best checkpoint."""

from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from rfrec import files
from rfrec.config import UserError, as_json, differing_keys, read_config
from rfrec.train.checkpoint import Checkpoints, Restored
from rfrec.typing import PyTree

REPORT = "report.json"


def open_workdir(workdir: Path, config: ConfigDict) -> None:
    """Creates the folder of a run, or checks that it belongs to the same config.

    Args:
      workdir: Folder of the run.
      config: Config of the run, which is stored as `config.json`.

    Raises:
      UserError: The folder belongs to a run with another config; the differing keys are
        named. Or the folder cannot be created.
    """
    path = workdir / "config.json"
    values = as_json(config)
    if path.exists():
        stored = as_json(read_config(path))
        keys = differing_keys(stored, values)
        if keys:
            raise UserError(
                f"{workdir} contains a run with another config, which differs in"
                f" {', '.join(keys)}: use the same values or another --workdir"
            )
        return
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir={workdir}: {error.strerror}") from error
        files.write_json(path, values)


def report_head(main: str, config: ConfigDict) -> dict[str, Any]:
    """Returns what every report states: command, seed, device and config.

    Args:
      main: Name of the command.
      config: Config of the run.
    """
    device = jax.devices()[0]
    return {
        "main": main,
        "seed": config.seed,
        "device": f"{device.device_kind} x {jax.device_count()}",
        "config": as_json(config),
    }


def write_report(workdir: Path, report: dict[str, Any]) -> None:
    """Writes `report.json` in the folder of a run."""
    files.write_json(workdir / REPORT, report)
    logging.info("report: %s", workdir / REPORT)


def at(path: Path, content: Any, *keys: str | int, kind: type) -> Any:
    """Returns the value at nested keys of a JSON file; an int is accepted as a float.

    Args:
      path: The file, for the error message.
      content: Content of the file.
      keys: Keys from the outermost to the innermost.
      kind: Expected type of the value.

    Raises:
      UserError: The value is missing or has another type.
    """
    value, where = content, ".".join(map(str, keys))
    try:
        for key in keys:
            value = value[key]
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path} is damaged: {where} is missing") from error
    kinds = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise UserError(
            f"{path} is damaged: {where} is {value!r}, not a {kind.__name__}"
        )
    return value


def restore_best(
    workdir: Path,
    criterion: str,
    template: PyTree,
    *,
    lowest: tuple[str, ...] = (),
    highest: tuple[str, ...] = (),
) -> Restored:
    """Restores the best checkpoint of a finished run, which is only read.

    Args:
      workdir: Folder of the run.
      criterion: One of `lowest` and `highest`, or `last` for the latest checkpoint.
      template: State with the arrays' shapes and types.
      lowest: Criteria of the run of which the lowest value is best.
      highest: Criteria of the run of which the highest value is best.

    Raises:
      UserError: There is no checkpoint yet, it is damaged, or it has other arrays.
    """
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir} contains no checkpoint yet: train it first")
    with Checkpoints(
        workdir, lowest=lowest, highest=highest, read_only=True
    ) as checkpoints:
        best = criterion in checkpoints.criteria
        step = checkpoints.best(criterion) if best else checkpoints.latest()
        if step is None:
            raise UserError(f"{workdir} contains no checkpoint yet: train it first")
        return checkpoints.restore(step, template)
