# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A versioned catalogue: codes of all items, their trie, and their provenance.

A catalogue is a folder:

  catalogue.json      the manifest; files that it does not name are not used
  codes.000002.npz    `codes` [M Q], row = item, and `removed`, ascending rows
  trie.000002.npz     trie of the items that are not removed (`rfrec.codes.trie_file`)

The number is the version. A new version is written beside the old one, and replacing
`catalogue.json` switches to it in one step. The files of the previous version are kept
for processes that are still reading them; older files are deleted.

Item i is always row i. A removed item keeps its row and its codes, because histories
may still contain it, but has no leaf in the trie. New items are appended as further
rows. No two rows that were added by growth have equal codes.

The manifest is a JSON object that starts with `format`; the classes below document its
other keys. SHA-256 sums are hexadecimal:

  {"format": "rfrec catalogue 1", "version": 2, "name": "Toys", "modality": "text",
   "items": 1200, "removed": 3, "sizes": [256, 256, 256, 256],
   "encoder": {"name": null, "features": ["text"], "widths": [384],
               "factors": [19.6], "sha256": "..."},
   "tokenizer": {"run": "runs/toys", "step": 4000, "sha256": "..."},
   "codes": {"file": "codes.000002.npz", "sha256": "..."},
   "trie": {"file": "trie.000002.npz", "sha256": "..."},
   "t5": {"run": "runs/t5", "step": 900, "vocabulary": "...", "weights": "..."}}

`EncoderRecord`, `TokenizerRecord` and `T5Record` are provenance records: sums and
descriptions of the models that a catalogue depends on. They are defined here because
they are part of the file format; they are compared, and this module knows nothing else
about the models.
"""

import hashlib
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


class EncoderRecord(NamedTuple):
    """Provenance of the item vectors.

    Attributes:
      name: Name of the encoder, chosen by the user; None if none was set.
      features: Names of the features, concatenated in this order.
      widths: Width of each feature.
      factors: Scale of each feature.
      sha256: Sum of the vectors of all rows, see `rfrec.data.new_rows.fingerprints`.
    """

    name: str | None
    features: tuple[str, ...]
    widths: tuple[int, ...]
    factors: tuple[float, ...]
    sha256: str


class TokenizerRecord(NamedTuple):
    """Provenance of the codes.

    Attributes:
      run: Run folder of the tokenizer, as the user passed it.
      step: Step of the checkpoint; 0 for a tokenizer that is not trained.
      sha256: `fingerprint` of the arrays that turn vectors into codes.
    """

    run: str
    step: int
    sha256: str


class T5Record(NamedTuple):
    """The T5 that reads and generates these codes.

    Attributes:
      run: Run folder of the T5, as the user passed it.
      step: Step of the checkpoint.
      vocabulary: SHA-256 of the vocabulary.
      weights: `fingerprint` of the parameters.
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
    """Content of one version of a catalogue.

    Attributes:
      version: Version number, from 1.
      name: Name of the data set.
      modality: Modality of the codes, `text` or `image`.
      items: Number of rows, including removed ones.
      removed: Number of removed rows.
      sizes: Number of codes per level, of the T5's vocabulary if there is a T5, of the
        tokenizer otherwise.
      encoder: Provenance of the vectors.
      tokenizer: Provenance of the codes.
      codes: File of the codes.
      trie: File of the trie of the items that are not removed.
      t5: T5 that the catalogue is bound to; None if there is none yet.
    """

    version: int
    name: str
    modality: str
    items: int
    removed: int
    sizes: tuple[int, ...]
    encoder: EncoderRecord
    tokenizer: TokenizerRecord
    codes: Stored
    trie: Stored
    t5: T5Record | None


class Catalogue(NamedTuple):
    """One version of a catalogue, in memory.

    Attributes:
      manifest: Manifest of the version.
      codes: Codes of all items, including removed ones.
      removed: Removed rows, ascending.
      trie: Trie of the items that are not removed.
    """

    manifest: Manifest
    codes: Int32[np.ndarray, "M Q"]
    removed: Int32[np.ndarray, "_"]
    trie: Trie


def fingerprint(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> str:
    """Returns the SHA-256 of names, types, shapes and bytes of arrays.

    The order of the arrays has no influence.
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def exists(folder: str | os.PathLike[str]) -> bool:
    """Returns whether a folder contains a catalogue."""
    return (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Reads the manifest of a catalogue, without checking the other files.

    Raises:
      UserError: The manifest is missing, damaged or has another format.
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
    """Reads a catalogue and checks its files against the manifest.

    Raises:
      UserError: A file is missing, damaged, or not the one of the manifest.
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
        raise UserError(f"{path}: is damaged ({error}); restore the file") from error
    index = trie_file.load(folder / manifest.trie.file)
    alive = np.ones(len(codes), bool)
    alive[removed] = False
    # `store` ensures this; a bug must not lead to recommending the wrong items.
    assert codes.shape == (manifest.items, len(manifest.sizes))
    assert (index.sizes, index.num_items) == (manifest.sizes, manifest.items)
    assert np.array_equal(np.sort(index.leaf_items), np.flatnonzero(alive))
    return Catalogue(manifest, codes, removed, index)


def _check_stored(folder: Path, manifest: Manifest, what: str) -> None:
    """Checks that a file is the one that the manifest was written with."""
    stored: Stored = getattr(manifest, what)
    digest = _sum_of(folder / stored.file)
    if digest != stored.sha256:
        raise UserError(
            f"{folder / stored.file} (sha256 {digest[:12]}) is not the {what} file of"
            f" {folder / MANIFEST}, version {manifest.version}"
            f" ({stored.sha256[:12]}); it was truncated or replaced, restore the folder"
        )


def _sum_of(path: Path) -> str:
    try:
        return files.sha256(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def check_tokenizer(
    folder: str | os.PathLike[str], manifest: Manifest, tokenizer: TokenizerRecord
) -> None:
    """Checks that a tokenizer is the one of the catalogue.

    Raises:
      UserError: It is another tokenizer; the message gives both.
    """
    known = manifest.tokenizer
    if tokenizer.sha256 != known.sha256:
        raise UserError(
            f"{folder} has the codes of the tokenizer {known.run}, step {known.step}"
            f" (sha256 {known.sha256[:12]}), but {tokenizer.run}, step"
            f" {tokenizer.step}, is another ({tokenizer.sha256[:12]}); use the former,"
            " or another --workdir"
        )


def check_t5(
    folder: str | os.PathLike[str], manifest: Manifest, model: T5Record
) -> None:
    """Checks that a T5 is the one that the catalogue is bound to.

    Args:
      folder: Folder of the catalogue, for messages.
      manifest: Manifest of the catalogue.
      model: T5 that is to use the catalogue.

    Raises:
      UserError: The catalogue is bound to another T5 or to none; the message gives
        both.
    """
    known = manifest.t5
    remedy = (
        f"bind it with rfrec.launch.grow --workdir={folder} --config.t5={model.run}"
    )
    if known is None:
        raise UserError(
            f"{folder} is not bound to a T5 yet, so {model.run} cannot use it; {remedy}"
        )
    for what, ours, theirs in (
        ("vocabulary", model.vocabulary, known.vocabulary),
        ("weights", model.weights, known.weights),
    ):
        if ours != theirs:
            raise UserError(
                f"{folder}, version {manifest.version}, is bound to the T5 {known.run},"
                f" step {known.step} ({what} {theirs[:12]}), but {model.run}, step"
                f" {model.step}, has the {what} {ours[:12]}; use the former, or"
                f" {remedy}"
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
    encoder: EncoderRecord,
    tokenizer: TokenizerRecord,
    t5: T5Record | None,
) -> Manifest:
    """Writes a version.

    If the process is killed, the folder contains this version or the previous one.

    Args:
      folder: Existing folder of the catalogue; only one process may write to it.
      codes: Codes of all rows.
      removed: Removed rows, ascending.
      index: Trie of the other rows; its sizes are those of the catalogue.
      version: Version of the catalogue in the folder plus 1, or 1 if there is none.
      name: Name of the data set.
      modality: See `Manifest`.
      encoder: See `Manifest`.
      tokenizer: See `Manifest`.
      t5: See `Manifest`.

    Raises:
      UserError: Codes and sizes do not match, or a file cannot be written.
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
    files.write_json(folder / MANIFEST, {"format": _FORMAT} | _plain(manifest))
    _remove_old(folder, version)
    return manifest


def _plain(value: Any) -> Any:
    """Converts named tuples to dictionaries."""
    if hasattr(value, "_asdict"):
        return {k: _plain(v) for k, v in value._asdict().items()}
    return value


def _remove_old(folder: Path, version: int) -> None:
    """Deletes all but the last two versions, and incomplete files."""
    kept = {f"{v:06d}" for v in (version - 1, version)}
    for what in ("codes", "trie"):
        for path in folder.glob(f"{what}.??????.npz"):
            if path.name.split(".")[1] not in kept:
                path.unlink(missing_ok=True)
        for path in folder.glob(f".{what}.??????.*.tmp.npz"):
            path.unlink(missing_ok=True)
    for path in folder.glob(".catalogue.*.tmp.json"):
        path.unlink(missing_ok=True)
