# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a large catalogue costs a tokenizer whose items stream from a memory map.

And what it costs to read codes, and histories of as many interactions. With `repair`,
`trie/build` and `trie/search`, which take codes of the same sizes, that is all that
lies between item vectors and a search.
"""

import atexit
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from rfrec.benchmarks import data, graph_data, timing
from rfrec.codes import table
from rfrec.config import override
from rfrec.data import interactions
from rfrec.tokenizer import fitting, training

# Items of a history that is read.
_HISTORY = 10


def prepare(settings: dict[str, Any], seed: int, torch: bool) -> timing.Bench:
    """Times what the settings say: an `epoch`, the `codes` of all items, or reading."""
    del torch
    # Removed when the process that measures ends.
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    make = {
        "epoch": lambda *given: epoch(_on_file(*given)),
        "codes": lambda *given: _codes(_on_file(*given)),
        "read_codes": _read_codes,
        "read_histories": _read_histories,
    }[settings["what"]]
    return timing.host(make(settings, seed, Path(folder.name)))


def _on_file(settings: dict[str, Any], seed: int, folder: Path) -> training.Trainer:
    path = folder / "vectors.npy"
    shape = (settings["num_items"], settings["width"])
    graph_data.write_vectors(path, shape, seed)
    return make_trainer(settings, seed, np.load(path, mmap_mode="r"))


def make_trainer(
    settings: dict[str, Any], seed: int, vectors: np.ndarray
) -> training.Trainer:
    """Returns a trainer whose items stay where they are."""
    batch = settings["batch_size"]
    options = override(
        fitting.Options(),
        seed=seed,
        hidden=settings["hidden"],
        latent_width=settings["latent_width"],
        sizes=settings["sizes"],
        init="uniform",
        bypass=False,
        freeze=False,
        lr=1e-3,
        schedule="constant",
        epochs=1,
        eval_every=1,
        batch_size=batch,
        resident="never",
        steps_per_call=-(-len(vectors) // batch),
    )
    return fitting.build_trainer(options, vectors)


def epoch(trainer: training.Trainer) -> timing.Block:
    """Returns what trains one epoch from the start, and returns its losses."""
    program, engine = training.Run(trainer).program(), trainer.engine
    steps, most = trainer.schedule.steps_per_epoch, trainer.schedule.steps_per_call

    def run(stop: int) -> np.ndarray:
        state = program.begin_epoch(engine.replicate(trainer.init()), 0)
        losses = []
        for first in range(0, stop, most):
            state, told = program.run(state, first, min(most, stop - first))
            losses.append(np.stack(list(told.values()), axis=1))
        return np.concatenate(losses)

    run(min(most, steps))  # compiles
    return lambda: run(steps)


# Its time holds the compilation, once a catalogue.
def _codes(trainer: training.Trainer) -> timing.Block:
    run, rows = training.Run(trainer), np.arange(len(trainer.items.values))
    state = trainer.engine.replicate(trainer.init())
    return lambda: run.evaluate(state, rows).codes


def _read_codes(settings: dict[str, Any], seed: int, folder: Path) -> timing.Block:
    sizes = settings["sizes"]
    codes = data.drawn_codes(
        np.random.default_rng(seed), settings["num_items"], len(sizes), min(sizes)
    )
    table.write_index(folder / "codes.json", codes)
    return lambda: table.read_index(folder / "codes.json").codes


def _read_histories(settings: dict[str, Any], seed: int, folder: Path) -> timing.Block:
    """Reads as many interactions as there are items, some in each history."""
    count, each = settings["num_items"], _HISTORY
    rng = np.random.default_rng(seed)
    users = count // each
    # Distinct within a history: each from a part of the catalogue of its own.
    part = np.arange(each) * (count // each)
    items = part + rng.integers(0, count // each, (users, each))
    inter = interactions.Interactions(
        indptr=np.arange(users + 1) * each,
        items=items.ravel().astype(np.int32),
        num_items=count,
        user_ids=tuple(map(str, range(users))),
    )
    path = folder / "scale.inter.json"
    interactions.write_inter_json(inter, path)
    return lambda: interactions.read_inter_json(path).items
