# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run of a T5 and its artefact, for the tests of the mains that serve."""

from pathlib import Path

import numpy as np
import pytest

from rfrec.codes import table
from rfrec.data.interactions import write_inter_json
from rfrec.data.synthetic import histories
from rfrec.launch import export
from tests.support import commands
from tests.support.runs import write_t5_run

ROOT = Path(__file__).parents[2]
ITEMS, USERS = 50, 40


def load_config(name, **overrides):
    """Returns the config of a main with other values."""
    return commands.load_config(name, "smoke" if name == "t5" else "", **overrides)


@pytest.fixture(scope="session")
def served_run(tmp_path_factory):
    """The folder of a run of a tiny T5, as training leaves it but for its length."""
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
    """What rfrec.launch.export makes of the run."""
    pytest.importorskip("flatbuffers", reason="an export needs flatbuffers")
    folder = tmp_path_factory.mktemp("served_artefact") / "toy"
    overrides = {"run": str(served_run), "search.beams": 12, "search.top_k": 5}
    export.main(load_config("export", **overrides), folder)
    return folder
