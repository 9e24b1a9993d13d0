# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Encodes the texts and pictures of items to a folder of data for the tokenizer.

python -m rfrec.launch.features --config=configs/features.py --workdir=runs/vectors \
  --config.table.path=items.tsv \
  --config.text.encoder=FOLDER --config.image.encoder=FOLDER

It needs torch, transformers and pillow: `pip install 'rfrec[encoders]'`. Encoders are
read from folders on disk; nothing is downloaded.
"""

import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Bool, Float32
from ml_collections import ConfigDict

from rfrec import files
from rfrec.config import UserError, as_json
from rfrec.data import features, tables
from rfrec.data.tables import Table
from rfrec.encoders import image as features_image
from rfrec.encoders import text as features_text
from rfrec.encoders.sentence import unit_length
from rfrec.encoders.text import Encoded
from rfrec.launch import cli
from rfrec.pipelines import features as features_settings
from rfrec.pipelines import run_folder

_CHUNK = 4096
_SOFTWARE = ("torch", "transformers", "tokenizers", "pillow")


def main(config: ConfigDict, workdir: Path) -> None:
    """Makes the vectors, or what is left of them."""
    features_settings.check(config)
    table = features_settings.read_table(config)
    name = features_settings.name(config)
    text = features_settings.text_plan(config, table)
    image = features_settings.image_plan(config, table)
    kinds = [kind for kind, plan in (("text", text), ("image", image)) if plan]
    listed = workdir / f"{name}.items.tsv"
    # The table may be that file itself.
    copied = [] if listed.resolve() == table.path.resolve() else [listed.name]
    refuse_foreign(workdir, [*copied, *(f"{name}.{kind}.npy" for kind in kinds)])
    kept = features_settings.lasting(config)
    if (workdir / "config.json").exists():
        run_folder.open_workdir(workdir, kept)
    encoded: dict[str, Encoded] = {}
    if text is not None:
        encoded["text"] = features_text.make(config, text, workdir)
    if image is not None:
        encoded["image"] = features_image.make(config, image, workdir)
    # Only now, so that what an encoder refuses leaves nothing behind but the cache.
    run_folder.open_workdir(workdir, kept)
    made = {
        kind: finish(config, table, each, workdir / f"{name}.{kind}")
        for kind, each in encoded.items()
    }
    if copied:
        tables.write_tsv(listed, table)
    report = {
        "main": "features",
        "name": name,
        "items": len(table.ids),
        "table": str(table.path),
        "features": made,
        "software": _versions(),
        "config": as_json(config),
    }
    files.write_json(workdir / "report.json", report)
    logging.info("report: %s", workdir / "report.json")


def refuse_foreign(workdir: Path, names: list[str]) -> None:
    """Leaves alone what no run of this main made.

    Raises:
      UserError: The folder holds such a file, and no run.
    """
    for name in names:
        if (workdir / name).exists() and not (workdir / "config.json").exists():
            raise UserError(
                f"{workdir / name} is there and was not made by a run in this folder:"
                " use another --workdir"
            )


def finish(
    config: ConfigDict, table: Table, encoded: Encoded, stem: Path
) -> dict[str, Any]:
    """Writes the files of one feature; returns what the report says of it.

    Args:
      config: Its type and mean of several vectors.
      table: Names the items.
      encoded: Where their vectors are.
      stem: Of the files, such as `FOLDER/NAME.text`.

    Raises:
      UserError: A vector does not fit into the type.
    """
    count, lost = len(table.ids), encoded.reasons
    missing = stem.with_name(f"{stem.name}_missing.txt")
    warnings = []
    if lost:
        warnings.append(
            f"{len(lost)} of {count} items have no {stem.suffix[1:]} vector: rows of"
            f" zeros, listed in {missing}"
        )
        logging.warning("%s", warnings[-1])
    write_missing(missing, table, lost)
    mask = np.ones(count, bool)
    mask[list(lost)] = False
    write_mask(stem.with_name(f"{stem.name}_mask.npy"), mask)
    path = stem.with_name(f"{stem.name}.npy")
    write_vectors(path, encoded, config.out.dtype)
    vectors = features.read_features(path)
    told = encoded.plan.folder
    logging.info(
        "%s: %d items, width %d, %d new, %d without",
        *(path, count, vectors.shape[1], encoded.new, len(lost)),
    )
    return {
        "encoder": {
            "folder": str(told.path),
            "model_type": told.model_type,
            "sha256": encoded.identity,
            **encoded.plan.settings(),
        },
        "width": vectors.shape[1],
        "sha256": features.fingerprint(vectors),
        "distinct": len({keys for keys in encoded.keys if keys}),
        "missing": len(lost),
        "warnings": warnings,
    }


def write_missing(path: Path, table: Table, reasons: dict[int, str]) -> None:
    """Writes `item, id, reason` of the items without a vector, tab separated."""
    rows = [("item", "id", "reason")]
    rows += [(str(row), table.ids[row], reason) for row, reason in reasons.items()]
    lines = ("\t".join(" ".join(cell.split()) for cell in row) for row in rows)
    with files.replacing(path) as partial:
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_mask(path: Path, mask: Bool[np.ndarray, " N"]) -> None:
    """Writes which items have a vector."""
    with files.replacing(path) as partial:
        np.save(partial, mask, allow_pickle=False)


def write_vectors(path: Path, encoded: Encoded, dtype: str) -> None:
    """Writes the vectors of all items, row = item, those without one as zeros.

    They go through a file of their own, so that they may exceed memory.

    Raises:
      UserError: A value is too large for the type, or there is no space for the file.
    """
    width = encoded.store.width
    assert width is not None, "written before anything was encoded"
    shape = (len(encoded.keys), width)
    try:
        with tempfile.TemporaryFile(dir=path.parent) as scratch:
            sums = np.memmap(scratch, np.float32, "w+", shape=shape)
            _average(encoded, sums)
            with files.replacing(path) as partial:
                out = np.lib.format.open_memmap(partial, "w+", np.dtype(dtype), shape)
                for start in range(0, len(out), _CHUNK):
                    rows = slice(start, start + _CHUNK)
                    with np.errstate(over="ignore"):
                        out[rows] = sums[rows]
                    if not np.isfinite(out[rows]).all():
                        raise UserError(
                            f"a vector exceeds {dtype}: set config.out.dtype to float32"
                        )
                out.flush()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def _average(encoded: Encoded, out: Float32[np.ndarray, "N D"]) -> None:
    """Puts the mean of each item's vectors into its row, which is zero.

    They are added in the order of the pieces, whatever shards they are in, so that a
    resumed run has the same last bits.
    """
    most = max(map(len, encoded.keys))
    for piece in range(most):
        keys = [own[piece] if piece < len(own) else None for own in encoded.keys]
        encoded.store.accumulate(keys, out)
    if most == 1:
        return
    counts = np.asarray([max(len(own), 1) for own in encoded.keys], np.float32)
    normalise = encoded.plan.settings()["normalise"]
    for start in range(0, len(out), _CHUNK):
        rows = slice(start, start + _CHUNK)
        mean = np.asarray(out[rows]) / counts[rows, None]
        out[rows] = unit_length(mean) if normalise else mean


def _versions() -> dict[str, str]:
    """Returns the versions of what is installed and decides the last bits."""
    found = {}
    for package in _SOFTWARE:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    # Else JAX, which does nothing here, would take the memory of the GPU from torch.
    jax.config.update("jax_platforms", "cpu")
    cli.config_main(main, "features")
