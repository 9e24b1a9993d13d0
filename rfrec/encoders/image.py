# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Vectors of item images, from an encoder on disk."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from rfrec.config import UserError
from rfrec.encoders import folder as folders
from rfrec.encoders import running, torch_image, torch_models
from rfrec.encoders.folder import Folder
from rfrec.encoders.running import Encoded, Loaded
from rfrec.encoders.store import Store, cache_folder, open_store


class ImagePlan(NamedTuple):
    """Images to encode.

    Attributes:
      folder: Checkpoint of the encoder.
      normalise: Whether vectors are scaled to length 1.
      dtype: Data type of the weights.
      files: Image file of each item; None for an item without image.
    """

    folder: Folder
    normalise: bool
    dtype: str
    files: list[Path | None]

    def settings(self) -> dict[str, Any]:
        """Returns what the vectors depend on, beside the encoder's files and images."""
        return {"kind": "image", "normalise": self.normalise, "dtype": self.dtype}


def encode(
    plan: ImagePlan,
    cache: Path,
    *,
    device: str,
    batch_size: int,
    seconds: float,
    workers: int,
) -> Encoded:
    """Encodes the images that have no vector in the cache yet.

    Args:
      plan: Images and encoder.
      cache: Folder of cached vectors, which several encoders may share.
      device: `cpu`, `cuda` or `auto`.
      batch_size: Number of images in a batch.
      seconds: Interval at which vectors are stored.
      workers: Number of threads that read and decode images.

    Raises:
      UserError: No image can be read, the encoder cannot be loaded, or a vector is not
        finite.
      Preempted: The process received SIGTERM; encoded images are stored.
    """
    torch_models.require("rfrec.launch.features")
    import PIL

    keys, reasons = read_keys(plan.files, workers)
    identity = folders.identity(plan.folder)
    folder = cache_folder(cache, identity, plan.settings())
    store = open_store(folder, reader=f"Pillow {PIL.__version__}")
    pending = {
        key: path
        for key, path in zip(keys, plan.files, strict=True)
        if key is not None and path is not None and not store.knows(key)
    }
    if pending:
        _encode(plan, store, pending, device, batch_size, seconds, workers)
    reasons |= {
        row: store.failed[key] for row, key in enumerate(keys) if key in store.failed
    }
    if len(reasons) == len(keys):
        row = next(row for row, file in enumerate(plan.files) if file is not None)
        raise UserError(
            f"{plan.files[row]}: {reasons[row]}; no other image can be read either"
        )
    own = [
        () if key is None or row in reasons else (key,) for row, key in enumerate(keys)
    ]
    new = sum(key in store.locations for key in pending)
    reasons = dict(sorted(reasons.items()))
    return Encoded(plan.folder, identity, plan.settings(), store, own, reasons, new)


def read_keys(
    files: Sequence[Path | None], workers: int
) -> tuple[list[bytes | None], dict[int, str]]:
    """Hashes image files.

    Args:
      files: Image file of each item; None for an item without image.
      workers: Number of threads.

    Returns:
      The SHA-256 of each item's file, or None, and the reasons for None by row.
    """
    reasons: dict[int, str] = {}
    keys: list[bytes | None] = []
    with ThreadPoolExecutor(workers) as pool:
        digests = pool.map(_digest, files)
        bar = tqdm(digests, total=len(files), unit="picture", desc="read", disable=None)
        for row, key in enumerate(bar):
            if isinstance(key, str):
                reasons[row] = key
            keys.append(key if isinstance(key, bytes) else None)
    return keys, reasons


def _digest(path: Path | None) -> bytes | str:
    """Returns the SHA-256 of a file, or the reason why it cannot be read."""
    if path is None:
        return "no picture named"
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError:
        return f"no file {path.name}"
    except OSError as error:
        return f"{path.name}: {error.strerror}"
    except ValueError:  # a name that no file can have
        return "no name of a file"


def _encode(
    plan: ImagePlan,
    store: Store,
    pending: dict[bytes, Path],
    device: str,
    batch_size: int,
    seconds: float,
    workers: int,
) -> None:
    encoder = torch_image.load(
        plan.folder,
        normalise=plan.normalise,
        dtype=plan.dtype,
        device=torch_models.pick_device(device),
    )

    def read(key: bytes):
        try:
            picture = pending[key].read_bytes()
        except OSError as error:
            raise UserError(
                f"{pending[key]}: can no longer be read ({error.strerror});"
                " run the same command again"
            ) from error
        if hashlib.sha256(picture).digest() != key:
            raise UserError(
                f"{pending[key]}: was changed during the run; run the same command"
                " again"
            )
        try:
            return torch_image.to_pixels(encoder, picture)
        except torch_image.Unreadable as error:
            return str(error)

    def load(batch: Sequence[bytes]) -> Loaded:
        images = dict(zip(batch, pool.map(read, batch), strict=True))
        failed = {k: reason for k, reason in images.items() if isinstance(reason, str)}
        good = [key for key in batch if key not in failed]
        return Loaded(good, [images[key] for key in good], failed)

    with ThreadPoolExecutor(workers) as pool:
        running.encode_all(
            store,
            list(pending),
            load,
            lambda pixels: torch_image.encode(encoder, pixels),
            batch_size=batch_size,
            seconds=seconds,
            what="image",
        )
