# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that recommends: a short run, a wrong key, its help."""

from tests.support.commands import check_command


def test_the_command_runs_refuses_a_wrong_key_and_has_help(served_run, tmp_path):
    overrides = {"run": served_run, "search.beams": 10, "eval.resamples": 10}
    check_command(
        "recommend", tmp_path, wrong="search.beems=8", variant="", **overrides
    )
