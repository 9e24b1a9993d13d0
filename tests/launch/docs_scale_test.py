# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of scale: it stands as measured, and carries costs on by its own rules."""

import json
from pathlib import Path

import pytest

from rfrec.config import UserError
from rfrec.launch import docs_scale

ROOT = Path(__file__).parents[2]


def write(path, drop=()):
    """Writes a benchmark in which every stage took 2 s and 2^20 bytes."""
    names = [
        docs_scale.row_name(stage, size)
        for stage in docs_scale.STAGES
        for size in docs_scale.SIZES
    ]
    rows = [
        {"name": name, "unit": "s", "ours": 2.0, "peak_bytes": 2**20}
        for name in [*names, "t5/train_step"]
        if name not in drop
    ]
    path.write_text(json.dumps({"rows": rows}))
    return path


def test_the_page_in_the_checkout_is_up_to_date():
    written = (ROOT / docs_scale.PAGE).read_text(encoding="utf-8")
    assert written == docs_scale.page(ROOT), "run `python -m rfrec.launch.docs`"


def test_estimates_follow_their_rules(tmp_path):
    costs = docs_scale.read(write(tmp_path / "scale.json"))
    found = {e.what: e for e in docs_scale.estimate(costs, 3 * 10**6, 5 * 10**6)}
    assert found["tokenizer, 20 epochs"].hours == pytest.approx(20 * 3 * 2 / 3600)
    assert found["repair"].hours == pytest.approx(3 * 2 / 3600)
    assert found["repair"].memory == 3 * 2**20
    assert found["codes of all items"].memory == 3 * 10**6 * 36 * 4
    log = found["reading `inter.json`"]
    assert (log.hours, log.memory) == (pytest.approx(5 * 2 / 3600), 5 * 2**20)
    # 2 samples a second for 5 million interactions: 28.9 days.
    training = found["T5, every interaction once"]
    assert training.hours == pytest.approx(5e6 / 2 / 3600) and training.hosts == 5
    assert all(each.hosts == 1 for each in found.values() if each is not training)


@pytest.mark.parametrize("name", ["repair/1e5", "scale/codes_1e6", "t5/train_step"])
def test_a_row_that_was_not_measured_is_named(tmp_path, name):
    path = write(tmp_path / "scale.json", drop=(name,))
    with pytest.raises(UserError, match=f"lacks the rows {name}"):
        docs_scale.read(path)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "scale.json").write_text("[1]")
    with pytest.raises(UserError, match="holds no rows"):
        docs_scale.read(tmp_path / "scale.json")
