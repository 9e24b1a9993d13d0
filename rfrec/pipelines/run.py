# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs commands in this process, and loads the models of finished runs.

Both are public as `rfrec.run` and `rfrec.load_run`. Unlike the command line they parse
no flags, raise exceptions instead of exiting, and write no page `report.html`.
"""

import importlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.config import UserError
from rfrec.pipelines import run_folder
from rfrec.rf import settings as rf_settings

# Command -> function of the locked config and the run folder. They are imported when
# they are used: a command does not wait for the dependencies of the others.
PIPELINES: Mapping[str, str] = {
    "codes": "rfrec.pipelines.tokenizer:export",
    "export": "rfrec.pipelines.export:export_run",
    "features": "rfrec.pipelines.features:run",
    "fuse": "rfrec.pipelines.hybrid:run",
    "grow": "rfrec.pipelines.catalogue:run",
    "gume": "rfrec.pipelines.graph:run",
    "prepare": "rfrec.pipelines.prepare:prepare",
    "recommend": "rfrec.pipelines.recommend:evaluate",
    "rqvae": "rfrec.pipelines.tokenizer:run",
    "sasrec": "rfrec.pipelines.sasrec:run",
    "t5": "rfrec.pipelines.retriever:run",
    "withhold": "rfrec.pipelines.cold_data:run",
}
# Command -> function of a run folder that returns the trained model.
LOADERS: Mapping[str, str] = {
    "rqvae": "rfrec.pipelines.tokenizer:open_tokenizer",
    "t5": "rfrec.pipelines.systems:open_retriever",
}


def run(
    name: str,
    /,
    *,
    workdir: str | os.PathLike[str] | None = None,
    variant: str = "",
    **overrides: Any,
) -> dict[str, Any]:
    """Runs a command in this process and returns its report.

    A run that was interrupted is resumed by the same call.

        rfrec.run("rqvae", variant="smoke", workdir="runs/a", train={"epochs": 2})

    Args:
      name: Name of the command, such as `rqvae`; its config is `configs/NAME.py`.
      workdir: Folder for everything that the run writes. None uses a temporary folder,
        which is deleted: only the report remains.
      variant: Variant of the config, such as `smoke`.
      **overrides: Values by key of the config. Sections are nested mappings, or parts
        of a dotted key: `**{"codebook.sizes": (64, 64)}`.

    Returns:
      The content of `report.json`, empty if the command writes none.

    Raises:
      UserError: The command, the variant or a key does not exist, or a value is not
        allowed; the message lists the valid names.
      Preempted: The process received SIGTERM, and the run has stored its state.
    """
    pipeline = _resolve(name, PIPELINES, "command")
    config = make_config(name, variant, overrides)
    if workdir is not None:
        return _run_in(Path(workdir).expanduser(), pipeline, config)
    with tempfile.TemporaryDirectory() as folder:
        return _run_in(Path(folder) / name, pipeline, config)


def load_run(folder: str | os.PathLike[str]) -> Any:
    """Returns the trained model of a finished run.

    Args:
      folder: Run folder, the `--workdir` of the command.

    Returns:
      The public class of the system: `ItemTokenizer` (rqvae), `GenerativeRetriever`
      (t5) or `GraphRecommender` (gume).

    Raises:
      UserError: The folder contains no finished run, or one without a model.
    """
    path = Path(folder).expanduser()
    remedy = "name the folder of a finished run"
    report = files.read_json(path / run_folder.REPORT, remedy)
    name = run_folder.at(path / run_folder.REPORT, report, "main", kind=str)
    return _resolve(name, LOADERS, "model of command")(path)


def make_config(name: str, variant: str, overrides: Mapping[str, Any]) -> ConfigDict:
    """Returns the locked config of a command.

    Args:
      name: Name of the command.
      variant: Variant of the config.
      overrides: Values by dotted key or in nested mappings.

    Raises:
      UserError: The variant or a key does not exist, or a value has a wrong type.
    """
    config = _load(cfg.config_file(name)).get_config(variant)
    for key, value in _flatten(overrides):
        _set(config, key, value)
    cfg.check(config, rf_settings.RULES)
    return config.lock()


def _run_in(
    workdir: Path, pipeline: Callable[[ConfigDict, Path], None], config: ConfigDict
) -> dict[str, Any]:
    pipeline(config, workdir)
    path = workdir / run_folder.REPORT
    return files.read_json(path, "use another workdir") if path.exists() else {}


def _resolve(name: str, table: Mapping[str, str], what: str) -> Callable:
    if name not in table:
        raise UserError(cfg.unknown(what, name, table))
    module, _, function = table[name].partition(":")
    return getattr(importlib.import_module(module), function)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_rfrec_config_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _set(config: ConfigDict, key: str, value: Any) -> None:
    """Sets the value of a dotted key; a wrong key or type is refused."""
    *sections, name = key.split(".")
    section = config
    for part in (*sections, name):
        if not isinstance(section, ConfigDict) or part not in section:
            known = section if isinstance(section, ConfigDict) else ()
            raise UserError(cfg.unknown("config key", key, known))
        parent, section = section, section[part]
    if isinstance(section, ConfigDict):
        raise UserError(f"config.{key} is a section; pass a mapping of its keys")
    if value is None and not cfg.is_optional(config, key):
        raise UserError(f"config.{key}=None: a value is required for this key")
    if isinstance(value, np.generic):
        value = value.item()
    try:
        parent[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
    except (TypeError, ValueError) as error:
        kind = parent.get_type(name).__name__
        raise UserError(f"config.{key}={value!r}: must be of type {kind}") from error
