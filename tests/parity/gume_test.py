# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Records of a GUME: wrong numbers fail, what does not fit together is told."""

import functools
import pathlib

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.launch import compare
from rfrec.parity import arrays as golden

GOLDEN = pathlib.Path(__file__).parents[2] / "third_party" / "golden"


@functools.cache
def _file():
    return golden.read(GOLDEN / "gume.npz")


def _changed(**changes):
    named = {n.replace("__", "/"): np.asarray(a) for n, a in changes.items()}
    return {**_file(), **named}


def _failed(arrays):
    return {check.name for check in compare.check_arrays(arrays) if not check.ok}


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


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"users": np.full(32, 37)}, "'users' has numbers of no user"),
        ({"interactions": np.array([[0, 29]])}, "'interactions' has numbers"),
        ({"noise": np.ones((4, 37, 15))}, "'noise' has shape"),
        ({"config__knn_k": 0}, "'config/knn_k' is 0"),
        ({"config__bm_temp": np.nan}, "'config/bm_temp' is nan"),
        ({"init__image_space_trans.0.bias": np.ones(16)}, "differ"),
        ({"init__image_reduce_dim.bias": np.ones(15)}, "has shape"),
        ({"other": np.ones(3)}, "'other' is not understood"),
    ],
)
def test_what_does_not_fit_together_is_told(changes, told):
    with pytest.raises(UserError, match=told):
        compare.check_arrays(_changed(**changes))
