# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Metrics of a run: JSON lines, and TensorBoard events if tensorboardX is installed."""

import json
from pathlib import Path
from typing import Any

from rfrec import files
from rfrec.config import UserError


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads a metrics file without an incomplete last line.

    Raises:
      UserError: Another line is not a JSON object with `step`.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        # A complete line ends in a newline, so the last element is incomplete.
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
        elif number < len(lines):
            raise UserError(
                f"{path}, line {number} is not a row of metrics; remove that line"
            )
    return rows


class Writer:
    """Appends rows to `metrics.jsonl`, and scalars to TensorBoard events."""

    def __init__(self, workdir: Path, *, resume_step: int):
        """Opens the files and removes the rows beyond `resume_step`."""
        path = workdir / "metrics.jsonl"
        kept = [row for row in read_metrics(path) if row["step"] <= resume_step]
        if path.exists():
            files.write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", encoding="utf-8")
        try:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(workdir), purge_step=resume_step + 1)
        except ImportError:
            self._events = None

    def write(self, row: dict[str, Any]) -> None:
        """Appends one row; `step` and `split` are required keys."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._events is None:
            return
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in ("step", "epoch"):
                tag = f"{row['split']}/{name.replace('@', '_')}"
                self._events.add_scalar(tag, value, row["step"])
        for level, values in enumerate(row.get("levels", ())):
            for name in ("used", "perplexity", "entropy"):
                tag = f"{row['split']}/level_{level + 1}/{name}"
                self._events.add_scalar(tag, values[name], row["step"])

    def close(self) -> None:
        """Flushes and closes the files."""
        self._file.close()
        if self._events is not None:
            self._events.close()
