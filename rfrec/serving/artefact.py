# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""An exported search: one folder with all that answering needs, versioned as a whole.

  manifest.json         below; written last, names every other file with its SHA-256
  search_<slots>.hlo    program of one length bucket (`rfrec.serving.search_program`)
  weights.safetensors   parameters by path
  task.npz              the task's tables (`batches.Tables`), without histories
  trie.npz              of the items that may be recommended (`codes.trie_file`)
  vocab.json            of the model (`retrieval.vocab_files`)
  items.json            names of the items, row by row; null where rows are the names

The manifest is a JSON object whose keys are those of `Manifest`, beside `format`.
Nothing is pickled. The folder is made beside its place and moved there whole.
"""

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from rfrec import manifests
from rfrec.codes import trie_file
from rfrec.codes.catalogue import T5
from rfrec.codes.trie import Trie
from rfrec.config import UserError
from rfrec.retrieval import vocab_files
from rfrec.retrieval.batches import Tables
from rfrec.retrieval.vocab import Vocabulary
from rfrec.serving.capacity import Arrays, Room

MANIFEST = "manifest.json"
_FORMAT = "rfrec search 1"
_REMEDY = "export again by rfrec.launch.export"


class Bucket(NamedTuple):
    """A program, and the most slots of history that it takes."""

    slots: int
    file: str


class File(NamedTuple):
    """Length in bytes and SHA-256 of a file."""

    bytes: int
    sha256: str


class Manifest(NamedTuple):
    """What an artefact is made of.

    Attributes:
      jax: Version that exported it.
      platforms: That its programs run on.
      t5: Run, step, and fingerprints of vocabulary and weights.
      task: Name of the task.
      row: Of its tables: its direction.
      sources: Modalities of the history.
      target: Modality of the codes.
      segments: Times that the encoder reads a history.
      max_history: Most items that the model is told, the latest ones.
      beams: Of the search, and the longest list.
      top_k: Length of a list where none is asked for.
      room: Lengths of the arrays.
      buckets: Ascending.
      files: By name, all but the manifest.
    """

    jax: str
    platforms: tuple[str, ...]
    t5: T5
    task: str
    row: int
    sources: tuple[str, ...]
    target: str
    segments: int
    max_history: int
    beams: int
    top_k: int
    room: Room
    buckets: tuple[Bucket, ...] = ()
    files: dict[str, File] = {}


class Parts(NamedTuple):
    """What is in the files.

    Attributes:
      programs: What `jax.export.deserialize` reads, by slots.
      weights: By path.
      tables: Of the task.
      trie: Of the items.
      vocabulary: Of the model.
      item_ids: Names of the rows; None where they are numbers.
    """

    programs: dict[int, bytes]
    weights: Arrays
    tables: Tables
    trie: Trie
    vocabulary: Vocabulary
    item_ids: tuple[str, ...] | None


class Artefact(NamedTuple):
    """An artefact read whole."""

    folder: Path
    manifest: Manifest
    parts: Parts


def check_free(folder: Path) -> None:
    """Refuses a folder in which there is something.

    Raises:
      UserError: There is; nothing is overwritten.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already: use another --workdir")


def write(folder: Path, parts: Parts, manifest: Manifest) -> Manifest:
    """Writes an artefact; a kill at any moment leaves nothing in its place.

    Args:
      folder: To make.
      parts: To write.
      manifest: Without what tells of files.

    Returns:
      The manifest as it was written.

    Raises:
      UserError: The folder is not empty, or cannot be written.
    """
    check_free(folder)
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
        _write_json(partial / "items.json", parts.item_ids)
        files = {path.name: _file(path) for path in sorted(partial.iterdir())}
        made = manifest._replace(buckets=tuple(buckets), files=files)
        _write_json(partial / MANIFEST, {"format": _FORMAT} | _plain(made))
        os.replace(partial, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return made


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Turns named tuples into dictionaries."""
    if hasattr(value, "_asdict"):
        return {name: _plain(inner) for name, inner in value._asdict().items()}
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _file(path: Path) -> File:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(path.stat().st_size, digest)


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest alone.

    Raises:
      UserError: It is missing, damaged or of another format.
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
    """Reads an artefact, and checks that all its files are those it was made of.

    Raises:
      UserError: A file is missing, cut off or another one; names it.
    """
    manifest = read_manifest(folder)
    for name, stored in manifest.files.items():
        _check(folder / name, stored)
    try:
        weights = safetensors.numpy.load_file(folder / "weights.safetensors")
        with np.load(folder / "task.npz", allow_pickle=False) as file:
            tables = Tables(*(file[name] for name in Tables._fields))
        names = json.loads((folder / "items.json").read_text(encoding="utf-8"))
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
        item_ids=None if names is None else tuple(names),
    )
    return Artefact(folder, manifest, parts)


def _check(path: Path, stored: File) -> None:
    try:
        found = _file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if found.bytes != stored.bytes:
        raise UserError(
            f"{path} has {found.bytes} bytes, {MANIFEST} says {stored.bytes}: it was"
            f" cut off or replaced; {_REMEDY}"
        )
    if found.sha256 != stored.sha256:
        raise UserError(
            f"{path} (sha256 {found.sha256[:12]}) is not the file of {MANIFEST}"
            f" ({stored.sha256[:12]}): it was replaced; {_REMEDY}"
        )
