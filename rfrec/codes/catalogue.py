# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A versioned catalogue: codes of all items, their trie, and what they belong to.

A catalogue is a folder:

  catalogue.json      the manifest, below; what it does not name is not part of it
  codes.000002.npz    `codes` [M Q], row = item, and `removed`, ascending rows
  trie.000002.npz     trie of the items that are not removed (`rfrec.codes.trie_file`)

The number is the version. A new version is written beside the old one; the catalogue
changes in the one step in which `catalogue.json` is replaced. The files of the version
before are kept for whoever is reading them, older ones go.

Item i is row i for good: a removed item keeps its row and its codes, which histories
still name, but not its leaf in the trie; new items are further rows. No two rows that
growth made share their codes.

The manifest is a JSON object, `format` first; the classes below say what its other
keys hold. SHA-256 sums are hexadecimal:

  {"format": "rfrec catalogue 1", "version": 2, "name": "Toys", "modality": "text",
   "items": 1200, "removed": 3, "sizes": [256, 256, 256, 256],
   "encoder": {"name": null, "features": ["text"], "widths": [384],
               "factors": [19.6], "sha256": "..."},
   "tokenizer": {"run": "runs/toys", "step": 4000, "sha256": "..."},
   "codes": {"file": "codes.000002.npz", "sha256": "..."},
   "trie": {"file": "trie.000002.npz", "sha256": "..."},
   "t5": {"run": "runs/t5", "step": 900, "vocabulary": "...", "weights": "..."}}
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Shaped

from rfrec import files, manifests
from rfrec.codes import table, trie_file
from rfrec.codes.trie import Trie
from rfrec.config import UserError

MANIFEST = "catalogue.json"
_FORMAT = "rfrec catalogue 1"


class Encoder(NamedTuple):
    """What made the item vectors.

    Attributes:
      name: of the encoder, as the user calls it; None if it was never told.
      features: names of the features, side by side in this order.
      widths: of each feature.
      factors: what each feature is multiplied with.
      sha256: of the vectors of all rows, as `rfrec.data.new_rows` reads them.
    """

    name: str | None
    features: tuple[str, ...]
    widths: tuple[int, ...]
    factors: tuple[float, ...]
    sha256: str


class Tokenizer(NamedTuple):
    """The tokenizer whose codes these are.

    Attributes:
      run: its folder, as it was given.
      step: of the checkpoint; 0 for a tokenizer that is not trained.
      sha256: `fingerprint` of what turns vectors into codes.
    """

    run: str
    step: int
    sha256: str


class T5(NamedTuple):
    """The model that reads and names these codes.

    Attributes:
      run: its folder, as it was given.
      step: of the checkpoint.
      vocabulary: SHA-256 of its vocabulary.
      weights: `fingerprint` of its parameters.
    """

    run: str
    step: int
    vocabulary: str
    weights: str


class Stored(NamedTuple):
    """A file of the catalogue's folder and its SHA-256."""

    file: str
    sha256: str


class Manifest(NamedTuple):
    """What belongs together in one version of a catalogue.

    Attributes:
      version: counts from 1.
      name: of the data set.
      modality: of the codes, `text` or `image`.
      items: rows, removed ones included.
      removed: number of removed rows.
      sizes: codes per level: of the T5's vocabulary if there is one, else of the
        tokenizer.
      encoder: of the vectors.
      tokenizer: of the codes.
      codes: the table.
      trie: of the items that are not removed.
      t5: the model that the catalogue is for; None until one is named.
    """

    version: int
    name: str
    modality: str
    items: int
    removed: int
    sizes: tuple[int, ...]
    encoder: Encoder
    tokenizer: Tokenizer
    codes: Stored
    trie: Stored
    t5: T5 | None


class Catalogue(NamedTuple):
    """One version, read whole.

    Attributes:
      manifest: of the version.
      codes: row = item, removed ones too.
      removed: rows, ascending.
      trie: of the others.
    """

    manifest: Manifest
    codes: Int32[np.ndarray, "M Q"]
    removed: Int32[np.ndarray, "_"]
    trie: Trie


def fingerprint(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> str:
    """Hashes names, types, shapes and bytes of arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def exists(folder: str | os.PathLike[str]) -> bool:
    """Returns whether a folder holds a catalogue."""
    return (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Reads the manifest of a catalogue; no other file is looked at.

    Raises:
      UserError: it is missing, damaged or of another version of the format.
    """
    return manifests.read(
        Path(folder) / MANIFEST,
        Manifest,
        _FORMAT,
        what="a catalogue",
        maker="rfrec.launch.grow",
        remedy="restore the file",
    )


def load(folder: str | os.PathLike[str]) -> Catalogue:
    """Reads a catalogue and checks that its files belong together.

    Raises:
      UserError: a file is missing, damaged, or not that of the manifest.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for what in ("codes", "trie"):
        _check_stored(folder, manifest, what)
    path = folder / manifest.codes.file
    try:
        with np.load(path, allow_pickle=False) as file:
            codes, removed = (file[k].astype(np.int32) for k in ("codes", "removed"))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: is damaged ({error}): restore the file") from error
    index = trie_file.load(folder / manifest.trie.file)
    alive = np.ones(len(codes), bool)
    alive[removed] = False
    # True of whatever `store` wrote; a defect must not name wrong items.
    assert codes.shape == (manifest.items, len(manifest.sizes))
    assert (index.sizes, index.num_items) == (manifest.sizes, manifest.items)
    assert np.array_equal(np.sort(index.leaf_items), np.flatnonzero(alive))
    return Catalogue(manifest, codes, removed, index)


def _check_stored(folder: Path, manifest: Manifest, what: str) -> None:
    """Refuses a file that is not the one that the manifest was written with."""
    stored: Stored = getattr(manifest, what)
    found = _sum_of(folder / stored.file)
    if found != stored.sha256:
        raise UserError(
            f"{folder / stored.file} (sha256 {found[:12]}) is not the {what} file of"
            f" {folder / MANIFEST}, version {manifest.version}"
            f" ({stored.sha256[:12]}): it was cut off or replaced, restore the folder"
        )


def _sum_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def check_tokenizer(
    folder: str | os.PathLike[str], manifest: Manifest, found: Tokenizer
) -> None:
    """Refuses the tokenizer of other codes.

    Raises:
      UserError: names both.
    """
    known = manifest.tokenizer
    if found.sha256 != known.sha256:
        raise UserError(
            f"{folder} has the codes of the tokenizer {known.run}, step {known.step}"
            f" (sha256 {known.sha256[:12]}), but {found.run}, step {found.step}, is"
            f" another ({found.sha256[:12]}): give that one, or another --workdir"
        )


def check_t5(folder: str | os.PathLike[str], manifest: Manifest, found: T5) -> None:
    """Refuses a T5 that the catalogue is not for.

    Args:
      folder: of the catalogue.
      manifest: of the catalogue.
      found: the model that is to use it.

    Raises:
      UserError: names both sides.
    """
    known = manifest.t5
    remedy = f"bind it by rfrec.launch.grow --workdir={folder} --config.t5={found.run}"
    if known is None:
        raise UserError(
            f"{folder} is for no T5 yet, {found.run} is to use it: {remedy}"
        )
    for what, ours, theirs in (
        ("vocabulary", found.vocabulary, known.vocabulary),
        ("weights", found.weights, known.weights),
    ):
        if ours != theirs:
            raise UserError(
                f"{folder}, version {manifest.version}, is for the T5 {known.run}, step"
                f" {known.step} ({what} {theirs[:12]}), but {found.run}, step"
                f" {found.step}, has the {what} {ours[:12]}: use that one, or {remedy}"
            )


def store(
    folder: str | os.PathLike[str],
    codes: Int32[np.ndarray, "M Q"],
    removed: Int32[np.ndarray, "_"],
    index: Trie,
    *,
    version: int,
    name: str,
    modality: str,
    encoder: Encoder,
    tokenizer: Tokenizer,
    t5: T5 | None,
) -> Manifest:
    """Writes a version; a kill at any moment leaves this one or the one before.

    Args:
      folder: of the catalogue, there already; one process writes at a time.
      codes: of all rows.
      removed: rows, ascending.
      index: trie of the others; its sizes are the catalogue's.
      version: one more than that of the catalogue in the folder, 1 if there is none.
      name: as in `Manifest`, and so the rest.

    Raises:
      UserError: codes and sizes do not fit, or a file cannot be written.
    """
    folder = Path(folder)
    table.check_codes(codes, index.sizes)
    paths = {what: folder / f"{what}.{version:06d}.npz" for what in ("codes", "trie")}
    with files.replacing(paths["codes"]) as partial:
        small = codes.astype(np.min_scalar_type(int(codes.max())))
        np.savez(partial, allow_pickle=False, codes=small, removed=removed)
    trie_file.save(index, paths["trie"])
    stored = {what: Stored(path.name, _sum_of(path)) for what, path in paths.items()}
    manifest = Manifest(
        version=version,
        name=name,
        modality=modality,
        items=len(codes),
        removed=len(removed),
        sizes=index.sizes,
        encoder=encoder,
        tokenizer=tokenizer,
        t5=t5,
        **stored,
    )
    with files.replacing(folder / MANIFEST) as partial:
        content = {"format": _FORMAT} | _plain(manifest)
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _tidy(folder, version)
    return manifest


def _plain(value: Any) -> Any:
    """Turns named tuples into dictionaries."""
    if hasattr(value, "_asdict"):
        return {k: _plain(v) for k, v in value._asdict().items()}
    return value


def _tidy(folder: Path, version: int) -> None:
    """Removes versions before the last two, and what a kill left half written."""
    kept = {f"{v:06d}" for v in (version - 1, version)}
    for what in ("codes", "trie"):
        for path in folder.glob(f"{what}.??????.npz"):
            if path.name.split(".")[1] not in kept:
                path.unlink(missing_ok=True)
        for path in folder.glob(f".{what}.??????.*.tmp.npz"):
            path.unlink(missing_ok=True)
    for path in folder.glob(".catalogue.*.tmp.json"):
        path.unlink(missing_ok=True)
