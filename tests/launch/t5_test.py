# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that trains a T5: a short run, a wrong key, its help."""

from tests.support.commands import check_command


def test_the_command_runs_refuses_a_wrong_key_and_has_help(tmp_path):
    overrides = {
        "data.num_items": 50,
        "data.num_users": 60,
        "model.d_model": 8,
        "train.epochs": 1,
        "train.buckets": "()",
        "eval.users": 10,
        "eval.beams": 2,
    }
    check_command("t5", tmp_path, wrong="model.d_modle=8", **overrides)
