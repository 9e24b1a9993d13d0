# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run of a tiny T5 and its artefact, for the tests of export and serving."""

from pathlib import Path

import numpy as np
import pytest

from rfrec.codes import table
from rfrec.data.interactions import write_inter_json
from rfrec.data.synthetic import histories
from rfrec.pipelines import export
from rfrec.serving.recommender import Recommender
from tests.support import commands
from tests.support.runs import write_t5_run

ROOT = Path(__file__).parents[2]
ITEMS, USERS = 50, 40


def load_config(name, **overrides):
    """Returns the config of a command with other values."""
    return commands.load_config(name, "smoke" if name == "t5" else "", **overrides)


@pytest.fixture(scope="session")
def served_run(tmp_path_factory):
    """Returns the folder of a short run of a tiny T5."""
    data_folder = tmp_path_factory.mktemp("served_data")
    inter = histories(USERS, num_items=ITEMS, num_clusters=2, seed=0)
    write_inter_json(inter, data_folder / "toy.inter.json")
    keys = np.random.default_rng(0).choice(128, ITEMS, replace=False)
    codes = np.stack(np.unravel_index(keys, (4, 4, 8)), axis=1)
    table.write_index(data_folder / "toy.index_lemb.json", codes)
    config = load_config(
        "t5",
        **{
            "data.source": "folder",
            "data.names": ("toy",),
            "data.path": str(data_folder),
            "data.image": None,
            "data.max_history": 8,
            "task.names": ("seqrec",),
            "model.d_model": 16,
            "model.d_ff": 16,
            "model.num_heads": 2,
            "train.buckets": (4,),
        },
    )
    workdir = tmp_path_factory.mktemp("served_run") / "t5"
    write_t5_run(config, workdir)
    return workdir


@pytest.fixture(scope="session")
def served_artefact(served_run, tmp_path_factory):
    """Returns the folder of the exported search of the run."""
    pytest.importorskip("flatbuffers", reason="an export needs flatbuffers")
    folder = tmp_path_factory.mktemp("served_artefact") / "toy"
    overrides = {"run": str(served_run), "search.beams": 12, "search.top_k": 5}
    export.export_run(load_config("export", **overrides), folder)
    return folder


@pytest.fixture(scope="session")
def recommender(served_artefact):
    """Returns a recommender with compiled programs for the batch sizes 1 and 4."""
    loaded = Recommender(served_artefact, batch_sizes=(1, 4), max_items=32)
    for program in loaded.programs():
        loaded.compile(*program)
    return loaded


def draw_histories(count, seed=0):
    """Returns histories of 1 to 11 items each."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, ITEMS, rng.integers(1, 12)).tolist() for _ in range(count)]
