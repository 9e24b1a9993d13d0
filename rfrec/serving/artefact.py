# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The folder of an exported search: everything that is needed to answer requests.

  manifest.json         written last; lists every other file with its SHA-256
  search_<slots>.hlo    program of one length bucket, see `rfrec.serving.export`
  weights.safetensors   parameters by path
  task.npz              tables of the task (`batches.Tables`), without histories
  trie.npz              trie of the items that may be recommended (`codes.trie_file`)
  vocab.json            vocabulary of the model (`retrieval.vocab_files`)
  items.json            item id of each row; null if the rows are the ids

The manifest is a JSON object with the keys of `Manifest`, and `format`. No file is a
pickle. The folder is written under a temporary name and renamed when it is complete.
"""

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from rfrec import files, manifests
from rfrec.codes import trie_file
from rfrec.codes.catalogue import T5Record
from rfrec.codes.trie import Trie
from rfrec.config import UserError
from rfrec.retrieval import vocab_files
from rfrec.retrieval.batches import Tables
from rfrec.retrieval.vocab import Vocabulary
from rfrec.serving.capacity import Arrays, Capacity

MANIFEST = "manifest.json"
_FORMAT = "rfrec search 1"
_REMEDY = "export again with rfrec.launch.export"


class Bucket(NamedTuple):
    """The program of a length bucket, and the history slots that it accepts."""

    slots: int
    file: str


class File(NamedTuple):
    """Size in bytes and SHA-256 of a file."""

    bytes: int
    sha256: str


class Manifest(NamedTuple):
    """Description of an artefact.

    Attributes:
      jax: Version of JAX that exported it.
      platforms: Platforms that its programs run on.
      t5: Run, step and fingerprints of the model.
      task: Name of the task.
      row: Row of the task tables, which is the direction of the task.
      sources: Modalities of the history's codes.
      target: Modality of the codes that are searched.
      segments: Number of times that the encoder reads the history.
      max_history: Number of latest items that the model reads.
      beams: Beams of the search, and maximum length of a list.
      top_k: Length of a list if the request has no `k`.
      room: Capacity of the programs.
      buckets: Programs, ascending in slots.
      files: Every file but the manifest, by name.
    """

    jax: str
    platforms: tuple[str, ...]
    t5: T5Record
    task: str
    row: int
    sources: tuple[str, ...]
    target: str
    segments: int
    max_history: int
    beams: int
    top_k: int
    room: Capacity
    buckets: tuple[Bucket, ...] = ()
    files: dict[str, File] = {}

    @property
    def capacity(self) -> Capacity:
        """The capacity, which the file format calls `room`."""
        return self.room


class Parts(NamedTuple):
    """The contents of the files.

    Attributes:
      programs: Serialized programs by history slots, for `jax.export.deserialize`.
      weights: Parameters by path.
      tables: Tables of the task.
      trie: Trie of the items that may be recommended.
      vocabulary: Vocabulary of the model.
      item_ids: Item id of each row; None if the rows are the ids.
    """

    programs: dict[int, bytes]
    weights: Arrays
    tables: Tables
    trie: Trie
    vocabulary: Vocabulary
    item_ids: tuple[str, ...] | None


class Artefact(NamedTuple):
    """An artefact in memory."""

    folder: Path
    manifest: Manifest
    parts: Parts


def check_empty(folder: Path) -> None:
    """Refuses a path that exists, unless it is an empty folder.

    Raises:
      UserError: The folder is not empty; nothing is overwritten.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists: use another --workdir")


def write(folder: Path, parts: Parts, manifest: Manifest) -> Manifest:
    """Writes an artefact, completely or not at all.

    Args:
      folder: Folder to create.
      parts: Contents of the files.
      manifest: Manifest, to which buckets and files are added.

    Returns:
      The manifest as written.

    Raises:
      UserError: The folder is not empty, or cannot be written.
    """
    check_empty(folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        partial.mkdir(parents=True)
        buckets = [Bucket(s, f"search_{s}.hlo") for s in sorted(parts.programs)]
        for bucket in buckets:
            (partial / bucket.file).write_bytes(parts.programs[bucket.slots])
        weights = safetensors.numpy.save(parts.weights)
        (partial / "weights.safetensors").write_bytes(weights)
        tables: dict[str, Any] = parts.tables._asdict()
        np.savez(partial / "task.npz", allow_pickle=False, **tables)
        trie_file.save(parts.trie, partial / "trie.npz")
        vocab_files.write(parts.vocabulary, partial / "vocab.json")
        files.write_json(partial / "items.json", parts.item_ids)
        stored = {path.name: _describe(path) for path in sorted(partial.iterdir())}
        manifest = manifest._replace(buckets=tuple(buckets), files=stored)
        manifests.write(partial / MANIFEST, manifest, _FORMAT)
        os.replace(partial, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _describe(path: Path) -> File:
    return File(path.stat().st_size, files.sha256(path))


def read_manifest(folder: Path) -> Manifest:
    """Reads only the manifest.

    Raises:
      UserError: The manifest is missing, damaged or of another format.
    """
    return manifests.read(
        folder / MANIFEST,
        Manifest,
        _FORMAT,
        what="an artefact",
        maker="rfrec.launch.export",
        remedy=_REMEDY,
    )


def read(folder: Path) -> Artefact:
    """Reads an artefact and verifies the SHA-256 of every file.

    Raises:
      UserError: A file is missing, incomplete or not the exported one; names the file.
    """
    manifest = read_manifest(folder)
    for name, stored in manifest.files.items():
        _verify(folder / name, stored)
    try:
        weights = safetensors.numpy.load_file(folder / "weights.safetensors")
        with np.load(folder / "task.npz", allow_pickle=False) as file:
            tables = Tables(*(file[name] for name in Tables._fields))
        item_ids = json.loads((folder / "items.json").read_text(encoding="utf-8"))
        programs = {b.slots: (folder / b.file).read_bytes() for b in manifest.buckets}
    except (
        *(OSError, ValueError, KeyError),
        *(zipfile.BadZipFile, safetensors.SafetensorError),
    ) as error:
        raise UserError(f"{folder}: is damaged ({error}); {_REMEDY}") from error
    parts = Parts(
        programs=programs,
        weights=weights,
        tables=tables,
        trie=trie_file.load(folder / "trie.npz"),
        vocabulary=vocab_files.read(folder / "vocab.json"),
        item_ids=None if item_ids is None else tuple(item_ids),
    )
    return Artefact(folder, manifest, parts)


def _verify(path: Path, stored: File) -> None:
    try:
        present = _describe(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if present.bytes != stored.bytes:
        raise UserError(
            f"{path} has {present.bytes} bytes, but {MANIFEST} states {stored.bytes}:"
            f" it is incomplete or was replaced; {_REMEDY}"
        )
    if present.sha256 != stored.sha256:
        raise UserError(
            f"{path} (sha256 {present.sha256[:12]}) is not the file that {MANIFEST}"
            f" lists ({stored.sha256[:12]}): it was replaced; {_REMEDY}"
        )
