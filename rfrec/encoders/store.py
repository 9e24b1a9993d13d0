# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Vectors by the hash of what they are of, kept in a folder of shards.

A shard `*.safetensors` is there whole or not at all. It holds `keys` (uint8 [K, 32],
sha256 of a text or picture) and `vectors` (float32 [K, D]); its metadata name what
could not be read, and by which reader. A folder belongs to one encoder with one
setting.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rfrec import files
from rfrec.config import UserError

KEY_BYTES = 32


@dataclass
class Store:
    """An open folder; `add` alone changes it.

    Attributes:
      folder: Of the shards.
      reader: What reads inputs, with its version; failures of another are forgotten,
        for it may read what this one could not.
      width: Of the vectors; None while there is none.
      places: Shard and row of each vector.
      failed: Why an input could not be read.
      shards: Files in the order of their numbers in `places`.
    """

    folder: Path
    reader: str
    width: int | None = None
    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    failed: dict[bytes, str] = field(default_factory=dict)
    shards: list[Path] = field(default_factory=list)

    def knows(self, key: bytes) -> bool:
        """Whether there is a vector, or a reason why there is none."""
        return key in self.places or key in self.failed

    def add(
        self,
        keys: Sequence[bytes],
        vectors: Float32[np.ndarray, "K D"],
        failed: Mapping[bytes, str],
    ) -> None:
        """Stores vectors and failures in a new shard.

        Raises:
          UserError: The folder cannot be written.
        """
        name = hashlib.sha256(b"".join([*keys, *failed])).hexdigest()[:20]
        path = self.folder / f"{name}.safetensors"
        told = {key.hex(): reason for key, reason in failed.items()}
        arrays = {
            "keys": np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES),
            "vectors": np.ascontiguousarray(vectors),
        }
        notes = {"reader": self.reader, "failed": json.dumps(told)}
        with files.replacing(path) as partial:
            partial.write_bytes(save(arrays, metadata=notes))
        self._note(path, list(keys), vectors.shape[1], failed)

    def accumulate(
        self, keys: Sequence[bytes | None], out: Float32[np.ndarray, "N D"]
    ) -> None:
        """Adds the vector of each key to its row; None adds nothing."""
        rows: dict[int, list[tuple[int, int]]] = {}
        for item, key in enumerate(keys):
            if key is not None:
                shard, row = self.places[key]
                rows.setdefault(shard, []).append((item, row))
        for shard, pairs in sorted(rows.items()):
            items, within = np.asarray(pairs).T
            out[items] += read_vectors(self.shards[shard])[within]

    def _note(
        self, path: Path, keys: list[bytes], width: int, failed: Mapping[bytes, str]
    ) -> None:
        if keys and self.width not in (None, width):
            raise UserError(
                f"{path}: holds vectors of width {width}, others beside it"
                f" {self.width}; remove {self.folder}"
            )
        self.width = width if keys else self.width
        number = len(self.shards)
        self.shards.append(path)
        for row, key in enumerate(keys):
            self.places.setdefault(key, (number, row))
        self.failed.update(failed)


def open_store(folder: Path, reader: str) -> Store:
    """Reads what a folder knows; makes the folder if there is none.

    Args:
      folder: Of one encoder with one setting.
      reader: See `Store`.

    Raises:
      UserError: A shard is damaged, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror})") from error
    store = Store(folder, reader)
    # A file that was being written when its process was killed starts with a dot.
    shards = [p for p in folder.glob("*.safetensors") if not p.name.startswith(".")]
    for path in sorted(shards):
        try:
            with safe_open(path, framework="np") as file:
                notes = file.metadata()
                keys = file.get_tensor("keys")
                count, width = file.get_slice("vectors").get_shape()
            told = json.loads(notes["failed"]) if notes["reader"] == reader else {}
            if keys.shape != (count, KEY_BYTES):
                raise ValueError(f"{len(keys)} keys for {count} vectors")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise _damaged(path, error) from error
        failed = {bytes.fromhex(key): reason for key, reason in told.items()}
        store._note(path, [key.tobytes() for key in keys], width, failed)
    return store


def read_vectors(shard: Path) -> Float32[np.ndarray, "K D"]:
    """Reads the vectors of one shard.

    Raises:
      UserError: It is damaged.
    """
    try:
        with safe_open(shard, framework="np") as file:
            return file.get_tensor("vectors")
    except (OSError, SafetensorError) as error:
        raise _damaged(shard, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: is damaged ({error}); remove it, it is made again")
