# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Vectors of item texts, from an encoder on disk."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from rfrec.encoders import folder as folders
from rfrec.encoders import running, torch_models, torch_text
from rfrec.encoders.folder import Folder
from rfrec.encoders.running import Encoded, Loaded
from rfrec.encoders.sentence import Recipe
from rfrec.encoders.store import Store, cache_folder, open_store


class TextPlan(NamedTuple):
    """Texts to encode.

    Attributes:
      folder: Checkpoint of the encoder.
      recipe: How token states become a vector.
      max_tokens: Maximum number of tokens of a text; None uses the encoder's.
      dtype: Data type of the weights.
      texts: Texts of each item, whose vectors are averaged; () for an item without
        text.
    """

    folder: Folder
    recipe: Recipe
    max_tokens: int | None
    dtype: str
    texts: list[tuple[str, ...]]

    def settings(self) -> dict[str, Any]:
        """Returns what the vectors depend on, beside the encoder's files and texts."""
        return {
            "kind": "text",
            "pooling": self.recipe.pooling,
            "normalise": self.recipe.normalise,
            "max_tokens": self.max_tokens,
            "dtype": self.dtype,
        }


def encode(
    plan: TextPlan, cache: Path, *, device: str, batch_size: int, seconds: float
) -> Encoded:
    """Encodes the texts that have no vector in the cache yet.

    Args:
      plan: Texts and encoder.
      cache: Folder of cached vectors, which several encoders may share.
      device: `cpu`, `cuda` or `auto`.
      batch_size: Number of texts in a batch.
      seconds: Interval at which vectors are stored.

    Raises:
      UserError: The encoder cannot be loaded, or a vector is not finite.
      Preempted: The process received SIGTERM; encoded texts are stored.
    """
    identity = folders.identity(plan.folder)
    store = open_store(cache_folder(cache, identity, plan.settings()), reader="")
    keys = [tuple(map(_key, texts)) for texts in plan.texts]
    pending = {
        key: text
        for texts, own in zip(plan.texts, keys, strict=True)
        for text, key in zip(texts, own, strict=True)
        if not store.knows(key)
    }
    if pending:
        _encode(plan, store, pending, device, batch_size, seconds)
    reasons = {row: "no text" for row, own in enumerate(keys) if not own}
    return Encoded(
        plan.folder, identity, plan.settings(), store, keys, reasons, len(pending)
    )


def _encode(
    plan: TextPlan,
    store: Store,
    pending: dict[bytes, str],
    device: str,
    batch_size: int,
    seconds: float,
) -> None:
    torch_models.require("rfrec.launch.features")
    encoder = torch_text.load(
        plan.folder,
        plan.recipe,
        max_tokens=plan.max_tokens,
        dtype=plan.dtype,
        device=torch_models.pick_device(device),
    )
    tokens, cut = torch_text.tokenize(encoder, list(pending.values()))
    if cut:
        logging.warning(
            "%d of %d texts have more than %d tokens; the rest of them is not encoded",
            *(cut, len(pending), encoder.max_tokens),
        )
    known = dict(zip(pending, tokens, strict=True))

    def load(batch: Sequence[bytes]) -> Loaded:
        padded = torch_text.pad(encoder, [known[key] for key in batch])
        return Loaded(list(batch), padded, {})

    running.encode_all(
        store,
        # Sorted by length, to pad little; the longest first, so that a lack of memory
        # shows at the start.
        sorted(pending, key=lambda key: -len(known[key])),
        load,
        lambda batch: torch_text.encode(encoder, batch),
        batch_size=batch_size,
        seconds=seconds,
        what="text",
    )


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
