# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A cache of vectors by the SHA-256 of their inputs, in a folder of shards.

A shard `*.safetensors` is written atomically. It contains `keys` (uint8 [K, 32], the
SHA-256 of a text or image) and `vectors` (float32 [K, D]); its metadata list the inputs
that could not be read, and the reader. A folder belongs to one encoder with one
setting.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rfrec import files
from rfrec.config import UserError

KEY_BYTES = 32
# Increased when the same inputs and settings give other vectors than before.
_FORMAT = 1


@dataclass
class Store:
    """An open folder of shards, which only `add` changes.

    Attributes:
      folder: Folder of the shards.
      reader: Library that reads inputs, with its version. Failures of another version
        are ignored, because this one may be able to read the input.
      width: Width of the vectors; None while there is none.
      locations: Shard and row of each vector.
      failed: Reason why an input could not be read.
      shards: Files in the order of their numbers in `locations`.
    """

    folder: Path
    reader: str
    width: int | None = None
    locations: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    failed: dict[bytes, str] = field(default_factory=dict)
    shards: list[Path] = field(default_factory=list)

    def knows(self, key: bytes) -> bool:
        """Returns whether there is a vector, or a reason why there is none."""
        return key in self.locations or key in self.failed

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
        reasons = {key.hex(): reason for key, reason in failed.items()}
        arrays = {
            "keys": np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES),
            "vectors": np.ascontiguousarray(vectors),
        }
        notes = {"reader": self.reader, "failed": json.dumps(reasons)}
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
                shard, row = self.locations[key]
                rows.setdefault(shard, []).append((item, row))
        for shard, pairs in sorted(rows.items()):
            items, within = np.asarray(pairs).T
            out[items] += read_vectors(self.shards[shard])[within]

    def _note(
        self, path: Path, keys: list[bytes], width: int, failed: Mapping[bytes, str]
    ) -> None:
        if keys and self.width not in (None, width):
            raise UserError(
                f"{path}: contains vectors of width {width}, but other shards have"
                f" width {self.width}; remove {self.folder}"
            )
        self.width = width if keys else self.width
        number = len(self.shards)
        self.shards.append(path)
        for row, key in enumerate(keys):
            self.locations.setdefault(key, (number, row))
        self.failed.update(failed)


def cache_folder(root: Path, identity: str, settings: Mapping[str, Any]) -> Path:
    """Returns the folder of the vectors of one encoder with one setting.

    Args:
      root: Folder that several encoders may share.
      identity: SHA-256 of the encoder's files.
      settings: Settings on which the vectors depend; `kind` begins the folder's name.
    """
    described = {"format": _FORMAT, "encoder": identity, **settings}
    text = json.dumps(described, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:20]
    return root / f"{settings['kind']}-{name}"


def open_store(folder: Path, reader: str) -> Store:
    """Opens a folder of shards, and creates it if it does not exist.

    Args:
      folder: Folder of one encoder with one setting, see `cache_folder`.
      reader: Library that reads inputs, with its version.

    Raises:
      UserError: A shard is damaged, or the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created ({error.strerror})") from error
    store = Store(folder, reader)
    # A file that was being written when its process was killed starts with a dot.
    shards = [p for p in folder.glob("*.safetensors") if not p.name.startswith(".")]
    for path in sorted(shards):
        try:
            with safe_open(path, framework="np") as file:
                notes = file.metadata()
                keys = file.get_tensor("keys")
                count, width = file.get_slice("vectors").get_shape()
            reasons = json.loads(notes["failed"]) if notes["reader"] == reader else {}
            if keys.shape != (count, KEY_BYTES):
                raise ValueError(f"{len(keys)} keys for {count} vectors")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise _damaged(path, error) from error
        failed = {bytes.fromhex(key): reason for key, reason in reasons.items()}
        store._note(path, [key.tobytes() for key in keys], width, failed)
    return store


def read_vectors(shard: Path) -> Float32[np.ndarray, "K D"]:
    """Reads the vectors of one shard.

    Raises:
      UserError: The shard is damaged.
    """
    try:
        with safe_open(shard, framework="np") as file:
            return file.get_tensor("vectors")
    except (OSError, SafetensorError) as error:
        raise _damaged(shard, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: is damaged ({error}); remove it, and its vectors are encoded again"
    )
