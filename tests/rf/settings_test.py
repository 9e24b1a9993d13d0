# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Presets against the tables of the documents, and how switches are overridden."""

import dataclasses

import pytest

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.rf import settings

# "RF-GUME", the section on configuration.
JOINT = {
    "hidden_dim": 256,
    "n_layers": 3,
    "dropout": 0.1,
    "loss_weight": 1.0,
    "contrast_loss_weight": 0.1,
    "sampling_steps": 10,
}


def test_the_joint_preset_is_its_document():
    made = settings.resolve("joint", {})
    assert settings.resolve("joint", JOINT) == made
    for name, value in JOINT.items():
        known = settings.ALIASES.get(name) or name
        assert getattr(made, known) == value


def test_every_preset_is_one_line_of_the_config_and_passes_its_rules():
    for preset, made in settings.PRESETS.items():
        section = settings.section()
        section.use_rf, section.preset = True, preset
        assert settings.from_section(section) == made
        for name, value in dataclasses.asdict(made).items():
            section[name] = value
        config = cfg.ConfigDict({"rf": section})
        cfg.check(config, settings.RULES)
        assert settings.from_section(section) == made


def test_overrides_change_what_they_name_and_nothing_else():
    section = settings.section()
    section.use_rf = True
    section.preset, section.learning_rate, section.sampling_steps = "plugin", 0.5, 1
    wanted = dataclasses.replace(settings.Settings(), lr=0.5, sampling_steps=1)
    assert settings.from_section(section) == wanted


def test_without_the_flow_there_are_no_settings():
    assert settings.from_section(settings.section()) is None


def test_a_ratio_that_is_set_is_not_chosen():
    assert settings.resolve("improved", {}).inference_choices[0] == 0
    made = settings.resolve("improved", {"inference_mix_ratio": 0.3})
    assert (made.inference_mix_ratio, made.inference_choices) == (0.3, ())
    both = {"inference_mix_ratio": 0.3, "inference_choices": (0.1,)}
    assert settings.resolve("improved", both).inference_choices == (0.1,)


@pytest.mark.parametrize(
    "preset, overrides, message",
    [
        ("both", {}, "rf.preset 'both' does not exist: use one of improved"),
        ("plugin", {"learn_rate": 1.0}, "'learn_rate' does not exist: .*lr"),
        (
            "plugin",
            {"lr": 0.1, "learning_rate": 0.2},
            "different values",
        ),
        ("plugin", {"rtol": 0.1}, "rf.rtol and rf.atol require"),
        ("plugin", {"guidance_weight": 2.0}, "rf.condition_dropout"),
        ("improved", {"draws": 4}, "rf.draws=4 .* rf.noise=fresh"),
        ("joint", {"rows": 8}, "rf.rows cannot be combined"),
        ("joint", {"heldout_share": 0.1}, "rf.heldout_share cannot be combined"),
        ("plugin", {"rtol": 0.1, "atol": 0.1}, "'euler' does not estimate its error"),
        ("plugin", {"reflow": "distil"}, "rf.sampling_steps=10 .* rf.reflow=distil"),
        (
            "plugin",
            {"reflow": "reflow", "guided_sampling": True},
            "rf.reflow=reflow learns guided paths",
        ),
    ],
)
def test_what_cannot_be_is_one_line(preset, overrides, message):
    with pytest.raises(UserError, match=message) as error:
        settings.resolve(preset, overrides)
    assert "\n" not in str(error.value)
