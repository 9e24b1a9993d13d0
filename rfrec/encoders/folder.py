# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Folders of Hugging Face checkpoints and their hash; torch is not needed."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from rfrec import files
from rfrec.config import UserError

_SETTINGS = (".json", ".txt", ".model")
_WEIGHTS = (".safetensors", ".bin")
_REMEDY = "copy the checkpoint again"


class Folder(NamedTuple):
    """A checkpoint on disk.

    Attributes:
      path: The folder.
      model_type: Model type in its `config.json`.
      modules: Kind and folder of each further step that `modules.json` lists, such as
        ("Pooling", "1_Pooling"); None without that file.
    """

    path: Path
    model_type: str
    modules: tuple[tuple[str, Path], ...] | None


def open_folder(path: Path, known: Collection[str], key: str) -> Folder:
    """Checks that a folder contains a checkpoint of a known model type.

    Args:
      path: Folder of the checkpoint.
      known: Model types that can be read.
      key: Config key of the folder, for error messages.

    Raises:
      UserError: The folder does not exist, has no config or weights, or contains a
        model of another type.
    """
    if not path.is_dir():
        raise UserError(
            f"{key}={path}: no such folder; put a Hugging Face checkpoint there"
            " (config.json, model.safetensors, tokenizer or preprocessor files);"
            " nothing is downloaded"
        )
    if not (path / "config.json").is_file():
        raise UserError(
            f"{path}: contains no config.json; {key} needs the folder of a Hugging Face"
            " checkpoint, the one with config.json and model.safetensors"
        )
    model_type = read_json(path / "config.json").get("model_type")
    if model_type not in known:
        raise UserError(
            f"{path}/config.json: model_type is {model_type!r}, which {key} cannot"
            f" use; known: {', '.join(sorted(known))}"
        )
    if not any(file.suffix in _WEIGHTS for file in path.iterdir()):
        raise UserError(
            f"{path}: contains no weights; put the checkpoint's model.safetensors there"
        )
    return Folder(path, str(model_type), _modules(path))


def identity(folder: Folder) -> str:
    """Returns the SHA-256 of all files on which vectors depend, as hexadecimal digits.

    These are weights, tokenizer and configs, without documents and other formats of the
    weights. It does not depend on the location of the folder.

    Args:
      folder: Folder of the checkpoint.
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


def read_json(path: Path) -> dict[str, Any]:
    """Reads one of a checkpoint's settings files.

    Raises:
      UserError: The file cannot be read or does not contain a JSON object.
    """
    return files.read_json(path, _REMEDY)


def _modules(path: Path) -> tuple[tuple[str, Path], ...] | None:
    file = path / "modules.json"
    if not file.is_file():
        return None
    try:
        return tuple(
            (module["type"].rpartition(".")[2], path / module["path"])
            for module in json.loads(files.read_text(file, _REMEDY))
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file}: expected a list of modules with type and path; {_REMEDY}"
        ) from error


def _files(folder: Folder) -> list[Path]:
    """Returns the files on which vectors depend, sorted."""
    steps = [path for _, path in folder.modules or () if path.is_dir()]
    chosen: set[Path] = set()
    for directory in {folder.path, *steps}:
        here = [file for file in directory.iterdir() if file.is_file()]
        weights = [file for file in here if file.suffix == ".safetensors"]
        # Like transformers: the older format is used only without safetensors.
        weights = weights or [file for file in here if file.suffix == ".bin"]
        chosen |= {file for file in here if file.suffix in _SETTINGS} | set(weights)
    return sorted(chosen)
