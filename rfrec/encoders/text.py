# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Texts of items in; keys of their vectors, all of them in a store, out."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging
from ml_collections import ConfigDict

from rfrec.encoders import folder as folders
from rfrec.encoders import running, torch_models, torch_text
from rfrec.encoders.running import Loaded
from rfrec.encoders.store import Store, open_store
from rfrec.pipelines import features
from rfrec.pipelines.features import ImagePlan, TextPlan


class Encoded(NamedTuple):
    """Where the vectors of all items are.

    Attributes:
      plan: What was asked for.
      identity: Hash of the encoder's files.
      store: Holds the vectors.
      keys: Of each item; the vectors of several are averaged.
      reasons: Why an item has no vector, by its row.
      new: How many vectors this call made.
    """

    plan: TextPlan | ImagePlan
    identity: str
    store: Store
    keys: list[tuple[bytes, ...]]
    reasons: dict[int, str]
    new: int


def make(config: ConfigDict, plan: TextPlan, workdir: Path) -> Encoded:
    """Encodes the texts that have no vector yet.

    Raises:
      UserError: The encoder cannot be loaded, or a vector is not finite.
      Preempted: SIGTERM came; what was encoded is stored.
    """
    identity = folders.identity(plan.folder)
    place = features.store_folder(config, workdir, identity, plan.settings())
    store = open_store(place, reader="")
    keys = [tuple(map(_key, texts)) for texts in plan.texts]
    pending = {
        key: text
        for texts, own in zip(plan.texts, keys, strict=True)
        for text, key in zip(texts, own, strict=True)
        if not store.knows(key)
    }
    if pending:
        _encode(config, plan, store, pending)
    reasons = {row: "no text" for row, own in enumerate(keys) if not own}
    return Encoded(plan, identity, store, keys, reasons, len(pending))


def _encode(
    config: ConfigDict, plan: TextPlan, store: Store, pending: dict[bytes, str]
) -> None:
    torch_models.require("rfrec.launch.features")
    encoder = torch_text.load(
        plan.folder,
        plan.recipe,
        max_tokens=plan.max_tokens,
        dtype=plan.dtype,
        device=torch_models.pick_device(config.device),
    )
    tokens, cut = torch_text.tokenize(encoder, list(pending.values()))
    if cut:
        logging.warning(
            "%d of %d texts have more than %d tokens: what follows is not encoded",
            *(cut, len(pending), encoder.max_tokens),
        )
    known = dict(zip(pending, tokens, strict=True))

    def load(batch: Sequence[bytes]) -> Loaded:
        padded = torch_text.pad(encoder, [known[key] for key in batch])
        return Loaded(list(batch), padded, {})

    running.encode_all(
        store,
        # Of like length side by side, for the padding; the longest first, so that
        # memory proves to be enough at the start.
        sorted(pending, key=lambda key: -len(known[key])),
        load,
        lambda batch: torch_text.encode(encoder, batch),
        batch_size=config.text.batch_size,
        seconds=config.cache.seconds,
        what="text",
    )


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
