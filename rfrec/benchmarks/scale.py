# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cases of a large catalogue whose item vectors stream from a memory-mapped file.

Besides an epoch of the tokenizer and the codes of all items, reading codes and as many
interactions is timed. With `repair`, `trie/build` and `trie/search` at the same sizes,
the cases cover all steps from item vectors to a search.
"""

import atexit
import tempfile
from pathlib import Path

import numpy as np

from rfrec.benchmarks import data, timing
from rfrec.benchmarks.options import Options, Scale
from rfrec.codes import table
from rfrec.config import override
from rfrec.data import interactions
from rfrec.tokenizer import fitting, training

# Number of items of each history that is read.
_HISTORY = 10


def prepare(
    options: Options, torch: bool, *, what: str, num_items: int
) -> timing.Bench:
    """Times one of the cases of a large catalogue.

    Args:
      options: Sizes of all cases.
      torch: Ignored: there is no side of PyTorch.
      what: One of `epoch`, `codes`, `read_codes`, `read_histories`.
      num_items: Number of items.
    """
    del torch
    # Removed when the process that measures ends.
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    function = {
        "epoch": lambda *args: epoch(_on_file(*args)),
        "codes": lambda *args: _codes(_on_file(*args)),
        "read_codes": _read_codes,
        "read_histories": _read_histories,
    }[what]
    return timing.host(
        function(options.scale, num_items, options.seed, Path(folder.name))
    )


def _on_file(sizes: Scale, num_items: int, seed: int, folder: Path) -> training.Trainer:
    path = folder / "vectors.npy"
    data.write_vectors(path, (num_items, sizes.width), seed)
    return build_trainer(sizes, seed, np.load(path, mmap_mode="r"))


def build_trainer(sizes: Scale, seed: int, vectors: np.ndarray) -> training.Trainer:
    """Returns a trainer whose items stay in the file."""
    batch = sizes.batch_size
    options = override(
        fitting.Options(),
        seed=seed,
        hidden=sizes.hidden,
        latent_width=sizes.latent_width,
        sizes=sizes.sizes,
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
    """Returns a block that trains one epoch from the start and returns its losses."""
    program, engine = training.Run(trainer).program(), trainer.engine
    steps, most = trainer.schedule.steps_per_epoch, trainer.schedule.steps_per_call

    def run(stop: int) -> np.ndarray:
        state = program.begin_epoch(engine.replicate(trainer.init()), 0)
        losses = []
        for first in range(0, stop, most):
            state, metrics = program.run(state, first, min(most, stop - first))
            losses.append(np.stack(list(metrics.values()), axis=1))
        return np.concatenate(losses)

    run(min(most, steps))  # compiles
    return lambda: run(steps)


# The time includes the compilation, which a catalogue needs once.
def _codes(trainer: training.Trainer) -> timing.Block:
    run, rows = training.Run(trainer), np.arange(len(trainer.items.values))
    state = trainer.engine.replicate(trainer.init())
    return lambda: run.evaluate(state, rows).codes


def _read_codes(sizes: Scale, num_items: int, seed: int, folder: Path) -> timing.Block:
    codes = data.drawn_codes(
        np.random.default_rng(seed), num_items, len(sizes.sizes), min(sizes.sizes)
    )
    table.write_index(folder / "codes.json", codes)
    return lambda: table.read_index(folder / "codes.json").codes


def _read_histories(
    sizes: Scale, num_items: int, seed: int, folder: Path
) -> timing.Block:
    """Reads as many interactions as there are items."""
    del sizes
    count, each = num_items, _HISTORY
    rng = np.random.default_rng(seed)
    users = count // each
    # Distinct within a history: each item is from another part of the catalogue.
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
