# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Folders of Hugging Face checkpoints: what they hold, and a hash of it. No torch."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from rfrec.config import UserError

_SETTINGS = (".json", ".txt", ".model")
_WEIGHTS = (".safetensors", ".bin")


class Folder(NamedTuple):
    """A checkpoint on disk.

    Attributes:
      path: The folder.
      model_type: As its `config.json` says.
      modules: Folders of the further steps that `modules.json` lists, with their
        kind, such as ("Pooling", "1_Pooling"); None without that file.
    """

    path: Path
    model_type: str
    modules: tuple[tuple[str, Path], ...] | None


def open_folder(path: Path, known: Collection[str], key: str) -> Folder:
    """Looks what a folder holds.

    Args:
      path: The folder.
      known: Model types that can be read.
      key: Of the config, named in errors.

    Raises:
      UserError: There is no such folder, it lacks a config or weights, or its model is
        of another type.
    """
    if not path.is_dir():
        raise UserError(
            f"{key}={path}: no such folder; put a Hugging Face checkpoint there"
            " (config.json, model.safetensors, tokenizer or preprocessor files);"
            " nothing is downloaded"
        )
    if not (path / "config.json").is_file():
        raise UserError(
            f"{path}: holds no config.json; {key} needs the folder of a Hugging Face"
            " checkpoint, the one with config.json and model.safetensors"
        )
    config = read_json(path / "config.json")
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type not in known:
        raise UserError(
            f"{path}/config.json: model_type is {model_type!r}, which {key} cannot"
            f" use; known: {', '.join(sorted(known))}"
        )
    if not any(file.suffix in _WEIGHTS for file in path.iterdir()):
        raise UserError(
            f"{path}: holds no weights; put model.safetensors of the checkpoint there"
        )
    return Folder(path, str(model_type), _modules(path))


def identity(folder: Folder) -> str:
    """Hashes what a folder's vectors follow from: weights, tokenizer, configs.

    Args:
      folder: To hash; documents and other formats of the weights are left out.

    Returns:
      Hexadecimal sha256, the same wherever the folder stands.
    """
    chosen = _files(folder)
    total = sum(file.stat().st_size for file in chosen)
    digest = hashlib.sha256()
    with tqdm(
        total=total,
        unit="B",
        unit_scale=True,
        desc=f"hash of {folder.path.name}",
        disable=None,
    ) as bar:
        for file in chosen:
            own = hashlib.sha256()
            with file.open("rb") as opened:
                while block := opened.read(1 << 22):
                    own.update(block)
                    bar.update(len(block))
            name = file.relative_to(folder.path).as_posix()
            digest.update(f"{name} {own.hexdigest()}\n".encode())
    return digest.hexdigest()


def read_json(path: Path) -> Any:
    """Reads one of a checkpoint's settings.

    Raises:
      UserError: The file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); copy the checkpoint again"
        ) from error


def _modules(path: Path) -> tuple[tuple[str, Path], ...] | None:
    file = path / "modules.json"
    if not file.is_file():
        return None
    listed = read_json(file)
    try:
        return tuple(
            (module["type"].rpartition(".")[2], path / module["path"])
            for module in listed
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file}: expected a list of modules with type and path; copy the"
            " checkpoint again"
        ) from error


def _files(folder: Folder) -> list[Path]:
    """Lists the files that a vector depends on, sorted."""
    steps = [path for _, path in folder.modules or () if path.is_dir()]
    found: set[Path] = set()
    for place in {folder.path, *steps}:
        here = [file for file in place.iterdir() if file.is_file()]
        weights = [file for file in here if file.suffix == ".safetensors"]
        # As transformers does: without safetensors, the older format.
        weights = weights or [file for file in here if file.suffix == ".bin"]
        found |= {file for file in here if file.suffix in _SETTINGS} | set(weights)
    return sorted(found)
