# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run of the encoders: a table of items becomes a folder of vectors."""

import dataclasses
import importlib.metadata
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError, as_json
from rfrec.data import features, tables, texts
from rfrec.data.tables import Table
from rfrec.encoders import folder as folders
from rfrec.encoders import (
    image,
    sentence,
    text,
    torch_image,
    torch_models,
    torch_text,
    writing,
)
from rfrec.encoders.running import Encoded
from rfrec.pipelines import options as options_lib
from rfrec.pipelines import run_folder

_SOFTWARE = ("torch", "transformers", "tokenizers", "pillow")
_DTYPE = cfg.one_of(*torch_models.DTYPES)
# Options that change where and how fast a run encodes, but not the vectors.
_TRANSIENT = (
    *("device", "cache", "text.batch_size", "image.batch_size"),
    "image.workers",
)


@dataclasses.dataclass(frozen=True)
class Items:
    """Table of the items.

    Attributes:
      path: Table, `.tsv`, or `.jsonl` with one object a line.
      name: NAME of the files that are written; None uses the name of the table up to
        its first dot.
      id: Column with the names of the items; None names them by their row.
    """

    path: str | None = None
    name: str | None = None
    id: str | None = None


@dataclasses.dataclass(frozen=True)
class Text:
    """Encoder of texts.

    Attributes:
      encoder: Folder of a Hugging Face checkpoint; None writes no text vectors.
      pieces: Parts of the text in order, each with one column in braces. Parts with an
        empty column are left out.
      join: `text` encodes the pieces as one text; `mean` encodes each piece and
        averages the vectors.
      pooling: How token states become one vector; `auto` uses what the checkpoint says,
        `mean` if it says nothing.
      normalise: Whether vectors are scaled to length 1; None uses what the checkpoint
        says.
      max_tokens: Maximum number of tokens of a text; None uses the checkpoint's.
      dtype: Data type of the weights.
      batch_size: Number of texts in a batch.
    """

    encoder: str | None = None
    pieces: tuple[str, ...] = cfg.option(
        (
            "{title}.",
            "Brand: {brand}.",
            "Categories: {categories}.",
            "{description}",
        ),
        cfg.Rule(
            lambda v: len(v) > 0 and all(isinstance(form, str) for form in v),
            "a tuple of one or more texts",
        ),
    )
    join: Literal["text", "mean"] = "text"
    pooling: str = cfg.option("auto", cfg.one_of("auto", *sentence.POOLINGS))
    normalise: bool | None = None
    max_tokens: int | None = cfg.option(None, cfg.whole(1))
    dtype: str = cfg.option("float32", _DTYPE)
    batch_size: int = cfg.option(32, cfg.whole(1))


@dataclasses.dataclass(frozen=True)
class Image:
    """Encoder of images.

    Attributes:
      encoder: Folder of a Hugging Face checkpoint; None writes no image vectors.
      column: Column with the image file; the first one of a list is used.
      folder: Folder of the image files; None uses the folder of the table.
      normalise: Whether vectors are scaled to length 1.
      dtype: Data type of the weights.
      batch_size: Number of images in a batch.
      workers: Number of threads that read and decode images.
    """

    encoder: str | None = None
    column: str = cfg.option("image", cfg.Rule(bool, "the name of a column"))
    folder: str | None = None
    normalise: bool = False
    dtype: str = cfg.option("float32", _DTYPE)
    batch_size: int = cfg.option(32, cfg.whole(1))
    workers: int = cfg.option(4, cfg.whole(1))


@dataclasses.dataclass(frozen=True)
class Out:
    """Arrays that are written.

    Attributes:
      dtype: Data type of the arrays.
    """

    dtype: Literal["float32", "float16"] = "float32"


@dataclasses.dataclass(frozen=True)
class Cache:
    """Cache of vectors.

    Attributes:
      path: Folder of the vectors encoded so far, which runs may share; None uses
        `cache` in the run folder.
      seconds: Interval at which vectors are stored: the most work that is lost if the
        process is killed.
    """

    path: str | None = None
    seconds: float = cfg.option(30.0, cfg.at_least(0))


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `rfrec.launch.features`.

    Attributes:
      table: Table of the items.
      text: Encoder of texts.
      image: Encoder of images.
      out: Arrays that are written.
      device: Device of the encoders; `auto` uses a GPU if there is one.
      cache: Cache of vectors.
    """

    table: Items = Items()
    text: Text = Text()
    image: Image = Image()
    out: Out = Out()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cache: Cache = Cache()


def check(config: ConfigDict) -> Options:
    """Returns the options of a config.

    Raises:
      UserError: A value is not allowed, or a required one is missing; names the keys.
    """
    options_lib.check(config, Options)
    options = cfg.parse(Options, config)
    if options.table.path is None:
        raise UserError(
            "config.table.path is required: the table of the items, as in"
            " --config.table.path=FILE.tsv or FILE.jsonl"
        )
    if options.text.encoder is None and options.image.encoder is None:
        raise UserError(
            "config.text.encoder or config.image.encoder is required: the folder of a"
            " Hugging Face checkpoint"
        )
    return options


def run(config: ConfigDict, workdir: Path) -> None:
    """Encodes the items, reusing vectors of earlier calls, and writes the arrays.

    Raises:
      UserError: An option, the table or an encoder is not usable, or the folder
        contains files of something else.
      Preempted: The process received SIGTERM; encoded vectors are stored.
    """
    options = check(config)
    table = tables.read(
        Path(str(options.table.path)).expanduser(), id_column=options.table.id
    )
    name = set_name(options.table)
    plans = plan_texts(options.text, table), plan_images(options.image, table)
    kinds = [k for k, plan in zip(("text", "image"), plans, strict=True) if plan]
    listed = workdir / f"{name}.items.tsv"
    # The table may be that file itself.
    copied = [] if listed.resolve() == table.path.resolve() else [listed.name]
    refuse_foreign(workdir, [*copied, *(f"{name}.{kind}.npy" for kind in kinds)])
    lasting = lasting_config(config)
    if (workdir / "config.json").exists():
        run_folder.open_workdir(workdir, lasting)
    encoded = encode(options, *plans, workdir)
    # Opened this late, so that a refused encoder leaves only the cache behind.
    run_folder.open_workdir(workdir, lasting)
    written = {
        kind: write_feature(vectors, table, workdir / f"{name}.{kind}", options.out)
        for kind, vectors in encoded.items()
    }
    if copied:
        tables.write_tsv(listed, table)
    report = {
        "main": "features",
        "name": name,
        "items": len(table.ids),
        "table": str(table.path),
        "features": written,
        "software": _versions(),
        "config": as_json(config),
    }
    run_folder.write_report(workdir, report)


def set_name(items: Items) -> str:
    """Returns NAME of the files that are written.

    Raises:
      UserError: It cannot be part of a file's name.
    """
    name = items.name or Path(str(items.path)).name.split(".")[0]
    if not name or any(letter in name for letter in "/\\.") or name.isspace():
        raise UserError(
            f"config.table.name={name!r}: cannot be NAME of NAME.text.npy; use a name"
            " without dots and slashes"
        )
    return name


def plan_texts(options: Text, table: Table) -> text.TextPlan | None:
    """Composes the texts and reads the encoder's settings; None without an encoder.

    Raises:
      UserError: A column is missing, no item has a text, or the folder contains no
        usable checkpoint.
    """
    if options.encoder is None:
        return None
    path, key = Path(options.encoder).expanduser(), "config.text.encoder"
    folder = folders.open_folder(path, torch_text.MODEL_TYPES, key)
    recipe = sentence.read_recipe(folder)
    if options.pooling != "auto":
        recipe = recipe._replace(pooling=options.pooling)
    if options.normalise is not None:
        recipe = recipe._replace(normalise=options.normalise)
    composed = texts.compose(table, texts.parse(options.pieces))
    if not any(composed):
        raise UserError(
            f"{table.path}: no item has a text in the columns of config.text.pieces"
        )
    if options.join == "text":
        composed = [(" ".join(pieces),) if pieces else () for pieces in composed]
    return text.TextPlan(folder, recipe, options.max_tokens, options.dtype, composed)


def plan_images(options: Image, table: Table) -> image.ImagePlan | None:
    """Returns the image file of each item; None without an encoder.

    Raises:
      UserError: The column or the folder of images is missing, the folder contains
        none of them, or the encoder's folder contains no usable checkpoint.
    """
    if options.encoder is None:
        return None
    path, key = Path(options.encoder).expanduser(), "config.image.encoder"
    folder = folders.open_folder(path, torch_image.MODEL_TYPES, key)
    root = Path(options.folder).expanduser() if options.folder else table.path.parent
    if not root.is_dir():
        raise UserError(f"config.image.folder={root}: no such folder")
    cells = table.column(options.column, "config.image.column")
    firsts = [cell if isinstance(cell, str) else next(iter(cell), "") for cell in cells]
    files = [root / first if first.strip() else None for first in firsts]
    if not any(os.path.isfile(file) for file in files if file is not None):
        count = sum(file is not None for file in files)
        raise UserError(
            f"{root}: contains none of the {count} images that column"
            f" {options.column!r} of {table.path} lists; set config.image.folder or"
            " config.image.column"
        )
    return image.ImagePlan(folder, options.normalise, options.dtype, files)


def encode(
    options: Options,
    texts: text.TextPlan | None,
    images: image.ImagePlan | None,
    workdir: Path,
) -> dict[str, Encoded]:
    """Returns the vectors of each feature, `text` and `image`."""
    root, device = options.cache.path, options.device
    cache = Path(root).expanduser() if root else workdir / "cache"
    seconds, encoded = options.cache.seconds, {}
    if texts is not None:
        size = options.text.batch_size
        encoded["text"] = text.encode(
            texts, cache, device=device, batch_size=size, seconds=seconds
        )
    if images is not None:
        encoded["image"] = image.encode(
            images,
            cache,
            device=device,
            batch_size=options.image.batch_size,
            seconds=seconds,
            workers=options.image.workers,
        )
    return encoded


def lasting_config(config: ConfigDict) -> ConfigDict:
    """Returns the config without the options that may change between calls."""
    lasting = config.copy_and_resolve_references()
    with lasting.unlocked():
        for key in _TRANSIENT:
            section, _, name = key.rpartition(".")
            del (cfg.value_at(lasting, section) if section else lasting)[name]
    return lasting


def refuse_foreign(workdir: Path, names: list[str]) -> None:
    """Refuses to replace files that no run wrote.

    Raises:
      UserError: The folder contains such a file, and no run.
    """
    for name in names:
        if (workdir / name).exists() and not (workdir / "config.json").exists():
            raise UserError(
                f"{workdir / name} exists and was not written by a run in this folder;"
                " use another --workdir"
            )


def write_feature(
    encoded: Encoded, table: Table, stem: Path, out: Out
) -> dict[str, Any]:
    """Writes the files of one feature and returns its part of the report.

    Args:
      encoded: Vectors of the items.
      table: Table with the names of the items.
      stem: Beginning of the files' names, such as `FOLDER/NAME.text`.
      out: Options of the arrays.

    Raises:
      UserError: A value is too large for the data type.
    """
    count, reasons = len(table.ids), encoded.reasons
    missing = stem.with_name(f"{stem.name}_missing.txt")
    warnings = []
    if reasons:
        warnings.append(
            f"{len(reasons)} of {count} items have no {stem.suffix[1:]} vector; their"
            f" rows are zeros, and {missing} lists them"
        )
        logging.warning("%s", warnings[-1])
    writing.write_missing(missing, table.ids, reasons)
    mask = np.ones(count, bool)
    mask[list(reasons)] = False
    writing.write_mask(stem.with_name(f"{stem.name}_mask.npy"), mask)
    path = stem.with_name(f"{stem.name}.npy")
    writing.write_vectors(path, encoded, out.dtype)
    vectors = features.read_features(path)
    logging.info(
        "%s: %d items, width %d, %d encoded, %d without a vector",
        *(path, count, vectors.shape[1], encoded.new, len(reasons)),
    )
    return {
        "encoder": {
            "folder": str(encoded.folder.path),
            "model_type": encoded.folder.model_type,
            "sha256": encoded.identity,
            **encoded.settings,
        },
        "width": vectors.shape[1],
        "sha256": features.fingerprint(vectors),
        "distinct": len({keys for keys in encoded.keys if keys}),
        "missing": len(reasons),
        "warnings": warnings,
    }


def _versions() -> dict[str, str]:
    """Returns the versions of the installed packages that decide the last bits."""
    versions = {}
    for package in _SOFTWARE:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
