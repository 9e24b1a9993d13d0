# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A data set without certain items, as files."""

import json
from pathlib import Path

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.data import pairs
from rfrec.pipelines import cold_data
from tests.support.commands import load_config

ITEMS, USERS = 30, 40


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = {str(u): rng.permutation(ITEMS)[:9].tolist() for u in range(USERS)}
    (folder / "shop.inter.json").write_text(json.dumps(rows))
    np.save(folder / "shop.text.npy", rng.normal(size=(ITEMS, 4)).astype("f4"))
    (folder / "shop.items.tsv").write_text(
        "item\ttitle\n" + "".join(f"{i}\ttitle {i}\n" for i in range(ITEMS))
    )
    return folder


def config(data: Path, **overrides):
    return load_config("withhold", **{"data.path": str(data), **overrides})


def test_a_graph_recommender_cannot_learn_of_withheld_items(data, tmp_path):
    out = tmp_path / "out"
    cold_data.run(config(data, share=0.2), out)
    cold = [int(line) for line in (out / "shop.withheld.txt").read_text().split()]
    assert len(cold) == 6
    found = pairs.load(
        source="folder", path=out, features=("text",), split="leave_one_out"
    )
    assert not np.isin(cold, found.split.train.items).any()
    assert not np.isin(cold, found.split.valid.items).any()
    report = json.loads((out / "report.json").read_text())
    assert report["cold_targets"] == np.isin(found.split.test.items, cold).sum() > 0
    assert report["users"]["left"] == found.split.num_users
    assert found.split.num_items == ITEMS
    for name in ("shop.text.npy", "shop.items.tsv"):
        assert (out / name).read_bytes() == (data / name).read_bytes()


def test_items_of_a_file_are_withheld(data, tmp_path):
    (tmp_path / "cold.txt").write_text("3\n17\n")
    cold_data.run(config(data, withheld=str(tmp_path / "cold.txt")), tmp_path / "out")
    assert (tmp_path / "out" / "shop.withheld.txt").read_text() == "3\n17\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [("3\n99\n", "line 2: item '99' is not in the catalogue of 30"), ("\n", "no item")],
)
def test_a_wrong_file_of_items_leaves_nothing_behind(data, tmp_path, lines, message):
    (tmp_path / "cold.txt").write_text(lines)
    with pytest.raises(UserError, match=message):
        cold_data.run(
            config(data, withheld=str(tmp_path / "cold.txt")), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_the_data_are_never_written_over(data):
    before = (data / "shop.inter.json").read_bytes()
    with pytest.raises(UserError, match="is the folder of the data"):
        cold_data.run(config(data), data)
    assert (data / "shop.inter.json").read_bytes() == before
    assert not (data / "config.json").exists()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_is_above_0_and_below_1(data, tmp_path, share):
    with pytest.raises(UserError, match="config.share"):
        cold_data.run(config(data, share=share), tmp_path / "out")
