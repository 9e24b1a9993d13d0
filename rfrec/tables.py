# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tables as text: aligned columns for a terminal, and Markdown."""

from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


def align(rows: Rows) -> str:
    """Returns rows of cells as aligned columns: the first left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        right = (c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *right]).rstrip())
    return "\n".join(lines)


def markdown(head: Sequence[str], rows: Rows) -> str:
    """Returns a Markdown table."""
    lines = [head, *rows]
    texts = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([texts[0], "|---" * len(head) + "|", *texts[1:]])
