# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Templates: order, labels, and nothing of what an item does not have."""

from pathlib import Path

import pytest

from rfrec.config import UserError
from rfrec.data import texts
from rfrec.data.tables import Table

TABLE = Table(
    Path("t.tsv"),
    ("0", "1", "2"),
    {
        "title": (" Black\n tea ", "Cup", ""),
        "kinds": (("p q", " ", "r"), (), ""),
        "brand": ("", "{B}", "  "),
    },
)


def test_pieces_follow_the_template_and_empty_ones_are_left_out():
    pieces = texts.parse(("Kinds: {kinds};", "{title}.", "{{by}} {brand}"))
    assert texts.compose(TABLE, pieces) == [
        ("Kinds: p q, r;", "Black tea."),
        ("Cup.", "{by} {B}"),
        (),
    ]


@pytest.mark.parametrize(
    "form", ["title", "{title} {brand}", "{}", "{title!r}", "{title:>3}", "{title", ""]
)
def test_a_form_without_one_column_is_refused(form):
    with pytest.raises(UserError, match="config.text.pieces"):
        texts.parse((form,))


def test_a_missing_column_is_named_with_those_there():
    with pytest.raises(UserError, match=r"no column 'plot'.*title, kinds, brand"):
        texts.compose(TABLE, texts.parse(("{plot}",)))
