# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Text tables: alignment and Markdown."""

from rfrec import tables


def test_the_first_column_is_aligned_left_and_the_others_right():
    text = tables.align([("name", "ms"), ("a", "10.5"), ("longer", "2")])
    assert text.splitlines() == ["name      ms", "a       10.5", "longer     2"]


def test_markdown_has_a_rule_under_the_head():
    text = tables.markdown(("a", "b"), [("1", "2"), ("3", "4")])
    assert text.splitlines() == ["| a | b |", "|---|---|", "| 1 | 2 |", "| 3 | 4 |"]
