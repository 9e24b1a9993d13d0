# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A file is there whole or as it was, whatever happens while it is written."""

import numpy as np
import pytest

from rfrec import files
from rfrec.config import UserError


def test_the_file_takes_its_place_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.npz"
    for value in (1, 2):
        with files.replacing(path) as partial:
            np.savez(partial, x=value)
    assert np.load(path)["x"] == 2
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_file_as_it_was(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(error), files.replacing(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_one_line(tmp_path):
    path = tmp_path / "missing" / "a.json"
    refused = pytest.raises(UserError, match="a.json: cannot be written: No such file")
    with refused, files.replacing(path) as partial:
        partial.write_text("x")
