# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The smoke variant of every main that exists, from items to unique codes."""

import json
from pathlib import Path

import numpy as np

from rfrec.launch import codes, rqvae
from tests.support.commands import load_config

ROOT = Path(__file__).parents[1]


def test_items_in_unique_codes_out(tmp_path):
    config = load_config("rqvae", "smoke")
    rqvae.main(config, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    table = json.loads((tmp_path / "codes.json").read_text())

    assert report["items"] == len(table) == 500
    assert report["seconds"] > 0
    assert list(table) == [str(i) for i in range(500)]
    assert len({tuple(code) for code in table.values()}) == 500
    assert report["codes"]["after"]["distinct"] == 500
    assert report["codes"]["after"]["conflict_items"] == 0
    before = report["codes"]["before"]
    assert 0 <= before["conflict_items"] == 500 - before["distinct"] < 150
    assert [level["size"] for level in report["levels"]] == [16, 16, 16]
    for level in report["levels"]:
        assert level["used"] == 16
        assert 8 < level["perplexity"] <= 16
        assert 0 < level["entropy"] <= np.log(16) + 1e-9
    tokens = [token for code in table.values() for token in code]
    assert {token[:3] for token in tokens} == {"<a_", "<b_", "<c_"}

    # Repair moved the items it says it moved, and no others.
    with np.load(tmp_path / "latents.npz", allow_pickle=False) as file:
        nearest = file["codes"]
    numbers = np.array([[int(t[3:-1]) for t in code] for code in table.values()])
    moved = (numbers != nearest).any(axis=1).sum()
    assert moved == report["codes"]["moved"]

    # The model learned: codes say more of an item than nothing would.
    assert report["models"]["loss"]["energy_left"] < 1

    codes.main(load_config("codes"), tmp_path)
    assert json.loads((tmp_path / "codes.json").read_text()) == table
