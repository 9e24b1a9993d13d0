# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A config of `configs/features.py` in; the table and plans of what to encode out."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.data import tables, texts
from rfrec.data.tables import Table
from rfrec.encoders import folder as folders
from rfrec.encoders import sentence, torch_image, torch_models, torch_text
from rfrec.encoders.folder import Folder
from rfrec.encoders.sentence import Recipe

# Raised when vectors made before are no longer those that would be made.
_FORMAT = 1

RULES: cfg.Rules = {
    "text.pieces": cfg.Rule(
        lambda v: len(v) > 0 and all(isinstance(form, str) for form in v),
        "a tuple of one or more texts",
    ),
    "text.join": cfg.one_of("text", "mean"),
    "text.pooling": cfg.one_of("auto", *sentence.POOLINGS),
    "text.normalise": cfg.boolean(),
    "text.max_tokens": cfg.whole(1),
    "text.dtype": cfg.one_of(*torch_models.DTYPES),
    "text.batch_size": cfg.whole(1),
    "image.column": cfg.Rule(lambda v: bool(v), "the name of a column"),
    "image.normalise": cfg.boolean(),
    "image.dtype": cfg.one_of(*torch_models.DTYPES),
    "image.batch_size": cfg.whole(1),
    "image.workers": cfg.whole(1),
    "out.dtype": cfg.one_of("float32", "float16"),
    "device": cfg.one_of("auto", "cpu", "cuda"),
    "cache.seconds": cfg.at_least(0),
}
# Where and how fast vectors are made is no part of what they are.
_PASSING = (
    *("device", "cache", "text.batch_size", "image.batch_size"),
    "image.workers",
)


class TextPlan(NamedTuple):
    """Texts to encode.

    Attributes:
      folder: Of the encoder.
      recipe: From token states to a vector.
      max_tokens: Longest input; None takes the encoder's.
      dtype: Of its weights.
      texts: Of each item; their vectors are averaged; none for an item without text.
    """

    folder: Folder
    recipe: Recipe
    max_tokens: int | None
    dtype: str
    texts: list[tuple[str, ...]]

    def settings(self) -> dict[str, Any]:
        """What vectors follow from, beside the encoder's files and the text."""
        return {
            "kind": "text",
            "pooling": self.recipe.pooling,
            "normalise": self.recipe.normalise,
            "max_tokens": self.max_tokens,
            "dtype": self.dtype,
        }


class ImagePlan(NamedTuple):
    """Pictures to encode.

    Attributes:
      folder: Of the encoder.
      normalise: Whether vectors are brought to length 1.
      dtype: Of its weights.
      files: Of each item; None for an item without a picture.
    """

    folder: Folder
    normalise: bool
    dtype: str
    files: list[Path | None]

    def settings(self) -> dict[str, Any]:
        """What vectors follow from, beside the encoder's files and the picture."""
        return {"kind": "image", "normalise": self.normalise, "dtype": self.dtype}


def check(config: ConfigDict) -> None:
    """Checks each value, and that there is something to do.

    Raises:
      UserError: Names the keys.
    """
    cfg.check(config, RULES)
    if config.table.path is None:
        raise UserError(
            "config.table.path is needed: the table of the items, given as"
            " --config.table.path=FILE.tsv or FILE.jsonl"
        )
    if config.text.encoder is None and config.image.encoder is None:
        raise UserError(
            "config.text.encoder or config.image.encoder is needed: the folder of a"
            " Hugging Face checkpoint"
        )


def read_table(config: ConfigDict) -> Table:
    """Reads the items."""
    path = Path(config.table.path).expanduser()
    return tables.read(path, id_column=config.table.id)


def name(config: ConfigDict) -> str:
    """Returns NAME of the files that are made.

    Raises:
      UserError: It cannot be part of a file's name.
    """
    chosen = config.table.name or Path(config.table.path).name.split(".")[0]
    if not chosen or any(letter in chosen for letter in "/\\.") or chosen.isspace():
        raise UserError(
            f"config.table.name={chosen!r}: cannot be NAME of NAME.text.npy; give one"
            " without dots and slashes"
        )
    return chosen


def text_plan(config: ConfigDict, table: Table) -> TextPlan | None:
    """Fills the template and reads the encoder's settings; None if none is named.

    Raises:
      UserError: A column is missing, no item has a text, or the folder is unfit.
    """
    options = config.text
    if options.encoder is None:
        return None
    folder = folders.open_folder(
        Path(options.encoder).expanduser(),
        torch_text.MODEL_TYPES,
        "config.text.encoder",
    )
    recipe = sentence.read_recipe(folder)
    if options.pooling != "auto":
        recipe = recipe._replace(pooling=options.pooling)
    if options.normalise is not None:
        recipe = recipe._replace(normalise=options.normalise)
    found = texts.compose(table, texts.parse(options.pieces))
    if not any(found):
        raise UserError(
            f"{table.path}: no item has a text in the columns of config.text.pieces"
        )
    if options.join == "text":
        found = [(" ".join(pieces),) if pieces else () for pieces in found]
    return TextPlan(folder, recipe, options.max_tokens, options.dtype, found)


def image_plan(config: ConfigDict, table: Table) -> ImagePlan | None:
    """Names the picture of each item; None if no encoder is named.

    Raises:
      UserError: The column or the folder of pictures is missing, the folder holds none
        of them, or the encoder's folder is unfit.
    """
    options = config.image
    if options.encoder is None:
        return None
    folder = folders.open_folder(
        Path(options.encoder).expanduser(),
        torch_image.MODEL_TYPES,
        "config.image.encoder",
    )
    root = Path(options.folder).expanduser() if options.folder else table.path.parent
    if not root.is_dir():
        raise UserError(f"config.image.folder={root}: no such folder")
    cells = table.column(options.column, "config.image.column")
    firsts = [cell if isinstance(cell, str) else next(iter(cell), "") for cell in cells]
    files = [root / first if first.strip() else None for first in firsts]
    if not any(os.path.isfile(file) for file in files if file is not None):
        named = sum(file is not None for file in files)
        raise UserError(
            f"{root}: holds none of the {named} pictures that column"
            f" {options.column!r} of {table.path} names; set config.image.folder or"
            " config.image.column"
        )
    return ImagePlan(folder, options.normalise, options.dtype, files)


def lasting(config: ConfigDict) -> ConfigDict:
    """Returns the config without what may change from one call to the next."""
    kept = config.copy_and_resolve_references()
    with kept.unlocked():
        for key in _PASSING:
            section, _, last = key.rpartition(".")
            del (cfg.value_at(kept, section) if section else kept)[last]
    return kept


def store_folder(
    config: ConfigDict, workdir: Path, identity: str, settings: dict[str, Any]
) -> Path:
    """Returns the folder of the vectors of one encoder with one setting."""
    told = {"format": _FORMAT, "encoder": identity, **settings}
    name = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:20]
    chosen = config.cache.path
    root = Path(chosen).expanduser() if chosen else workdir / "cache"
    return root / f"{settings['kind']}-{name}"
