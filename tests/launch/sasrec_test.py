# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that trains a SASRec: a short run, a wrong key, its help."""

from tests.support.commands import check_command


def test_the_command_runs_refuses_a_wrong_key_and_has_help(tmp_path):
    overrides = {
        "data.num_users": 60,
        "train.epochs": 2,
        "eval.resamples": 10,
    }
    check_command("sasrec", tmp_path, wrong="model.widht=8", **overrides)
