# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Records of a GUME: changed numbers fail their checks."""

import functools
import pathlib

import numpy as np

from rfrec.parity import checks, gume

GOLDEN = pathlib.Path(__file__).parents[2] / "third_party" / "golden"


@functools.cache
def _file():
    return checks.read(GOLDEN / "gume.npz")


def _changed(**changes):
    named = {n.replace("__", "/"): np.asarray(a) for n, a in changes.items()}
    return {**_file(), **named}


def _failed(arrays):
    return {check.name for check in gume.check_gume(arrays) if not check.ok}


def test_wrong_numbers_fail_where_they_are():
    record = _file()
    edges = record["text_adj"].copy()
    edges[2, np.flatnonzero(edges[2] == 0)[0]] = 0.1
    wrong = _changed(
        text_adj=edges,
        extended_it=record["extended_it"] * 1.0001,
        um_c=record["um_c"] * 1.0001,
        steps_loss=record["steps_loss"] + [0, 0, 0, 0, 0.01],
    )
    name = "grad/text_trans_dim.0.bias"
    wrong[name] = record[name] * 1.1
    wanted = {
        *("text_adj edges", "text_adj", "extended_it", "um_c", "steps_loss"),
        "grad/text_trans_dim",
    }
    assert _failed(wrong) == wanted


def test_other_settings_give_other_numbers():
    failed = _failed(_changed(config__n_layers=1, config__knn_k=5))
    assert {"image_adj edges", "norm_adj edges", "explicit_text", "loss"} <= failed
    assert "reg1" in failed and "R edges" not in failed
