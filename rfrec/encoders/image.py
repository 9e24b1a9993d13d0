# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures of items in; keys of their vectors, and why some have none, out."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ml_collections import ConfigDict
from tqdm import tqdm

from rfrec.config import UserError
from rfrec.encoders import folder as folders
from rfrec.encoders import running, torch_image, torch_models
from rfrec.encoders.running import Loaded
from rfrec.encoders.store import Store, open_store
from rfrec.encoders.text import Encoded
from rfrec.pipelines import features
from rfrec.pipelines.features import ImagePlan


def make(config: ConfigDict, plan: ImagePlan, workdir: Path) -> Encoded:
    """Encodes the pictures that have no vector yet.

    Raises:
      UserError: No picture can be read, the encoder cannot be loaded, or a vector is
        not finite.
      Preempted: SIGTERM came; what was encoded is stored.
    """
    torch_models.require("rfrec.launch.features")
    import PIL

    keys, reasons = read_keys(plan.files, config.image.workers)
    identity = folders.identity(plan.folder)
    place = features.store_folder(config, workdir, identity, plan.settings())
    store = open_store(place, reader=f"Pillow {PIL.__version__}")
    pending = {
        key: path
        for key, path in zip(keys, plan.files, strict=True)
        if key is not None and path is not None and not store.knows(key)
    }
    if pending:
        _encode(config, plan, store, pending)
    reasons |= {
        row: store.failed[key] for row, key in enumerate(keys) if key in store.failed
    }
    if len(reasons) == len(keys):
        row = next(row for row, file in enumerate(plan.files) if file is not None)
        raise UserError(f"{plan.files[row]}: {reasons[row]}; no other can be read")
    own = [
        () if key is None or row in reasons else (key,) for row, key in enumerate(keys)
    ]
    new = sum(key in store.places for key in pending)
    return Encoded(plan, identity, store, own, dict(sorted(reasons.items())), new)


def read_keys(
    files: Sequence[Path | None], workers: int
) -> tuple[list[bytes | None], dict[int, str]]:
    """Hashes pictures.

    Args:
      files: Of the items; None for an item without one.
      workers: Threads.

    Returns:
      A key for each item that has a file, and by row why the others have none.
    """
    reasons: dict[int, str] = {}
    keys: list[bytes | None] = []
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(_digest, files)
        bar = tqdm(found, total=len(files), unit="picture", desc="read", disable=None)
        for row, key in enumerate(bar):
            if isinstance(key, str):
                reasons[row] = key
            keys.append(key if isinstance(key, bytes) else None)
    return keys, reasons


def _digest(path: Path | None) -> bytes | str:
    """Returns the hash of a file, or why there is none."""
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
    config: ConfigDict, plan: ImagePlan, store: Store, pending: dict[bytes, Path]
) -> None:
    encoder = torch_image.load(
        plan.folder,
        normalise=plan.normalise,
        dtype=plan.dtype,
        device=torch_models.pick_device(config.device),
    )

    def read(key: bytes):
        try:
            picture = pending[key].read_bytes()
        except OSError as error:
            raise UserError(
                f"{pending[key]}: cannot be read any more ({error.strerror});"
                " run the same command again"
            ) from error
        if hashlib.sha256(picture).digest() != key:
            raise UserError(
                f"{pending[key]}: was changed meanwhile; run the same command again"
            )
        try:
            return torch_image.to_pixels(encoder, picture)
        except torch_image.Unreadable as error:
            return str(error)

    def load(batch: Sequence[bytes]) -> Loaded:
        found = dict(zip(batch, pool.map(read, batch), strict=True))
        failed = {k: reason for k, reason in found.items() if isinstance(reason, str)}
        good = [key for key in batch if key not in failed]
        return Loaded(good, [found[key] for key in good], failed)

    with ThreadPoolExecutor(config.image.workers) as pool:
        running.encode_all(
            store,
            list(pending),
            load,
            lambda pixels: torch_image.encode(encoder, pixels),
            batch_size=config.image.batch_size,
            seconds=config.cache.seconds,
            what="image",
        )
