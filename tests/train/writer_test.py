# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The metrics file survives kills and does not hold a step twice."""

import json

import pytest

from rfrec.config import UserError
from rfrec.train import writer

ROWS = [
    {"step": step, "split": split, "loss": 1 / (step + 3)}
    for step in (4, 8, 12)
    for split in ("train", "eval")
]


def write(folder, rows, resume_step=0):
    made = writer.Writer(folder, resume_step=resume_step)
    for row in rows:
        made.write(row)
    made.close()


def test_rows_come_back_exactly(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert writer.read_metrics(path) == []
    write(tmp_path, ROWS)
    assert writer.read_metrics(path) == ROWS
    assert path.read_text().count("\n") == len(ROWS)


def test_rows_are_on_disk_before_the_end(tmp_path):
    made = writer.Writer(tmp_path, resume_step=0)
    made.write(ROWS[0])
    assert writer.read_metrics(tmp_path / "metrics.jsonl") == ROWS[:1]
    made.close()


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_cut_last_line_is_left_out(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    write(tmp_path, ROWS)
    path.write_bytes(path.read_bytes()[:-cut])
    kept = ROWS if cut == 1 else ROWS[:-1]
    assert writer.read_metrics(path) == kept
    # A resumed run appends to whole lines, the last of which may come again.
    write(tmp_path, ROWS[4:], resume_step=8)
    assert writer.read_metrics(path) == ROWS


def test_a_damaged_line_before_the_last_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(tmp_path, ROWS)
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:-3]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 3 is"):
        writer.read_metrics(path)


def test_rows_beyond_the_resumed_step_go(tmp_path):
    write(tmp_path, ROWS)
    made = writer.Writer(tmp_path, resume_step=8)
    made.close()
    assert writer.read_metrics(tmp_path / "metrics.jsonl") == ROWS[:4]


def test_scalars_and_levels_become_events(tmp_path):
    events = pytest.importorskip("tensorboardX", reason="needs rfrec[tensorboard]")
    levels = [{"size": 4, "used": 3, "perplexity": 2.5, "entropy": 0.9}]
    write(tmp_path, [{**ROWS[1], "epoch": 1, "levels": levels}])
    (path,) = tmp_path.glob("events.out.tfevents.*")
    tags = [b"eval/loss", b"eval/level_1/perplexity", b"eval/level_1/used"]
    assert all(tag in path.read_bytes() for tag in tags)
    assert events is not None


def test_every_line_is_strict_json(tmp_path):
    write(tmp_path, ROWS)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
