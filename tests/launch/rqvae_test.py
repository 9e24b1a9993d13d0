# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The commands rqvae, codes and grow on the command line, one after the other."""

import numpy as np

from tests.support.commands import check_command

TINY = {
    "data.source": "folder",
    "model.method": "rkmeans",
    "codebook.sizes": "(6,6,6)",
}


def test_commands_from_vectors_to_a_catalogue(tmp_path):
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    data.mkdir()
    np.save(data / "toys.text.npy", rng.normal(size=(40, 8)).astype("f4"))
    overrides = TINY | {"data.path": data}
    check_command("rqvae", tmp_path, wrong="codebook.size=(8,)", **overrides)
    codes = (tmp_path / "run" / "codes.json").read_bytes()
    check_command("codes", tmp_path, wrong="repairs=none", variant="", repair="none")
    assert (tmp_path / "run" / "codes.json").read_bytes() != codes
