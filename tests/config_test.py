# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of configs: rules, None, comparison, and the way to JSON and back."""

import json

import pytest
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError
from rfrec.rf import settings as rf_settings


def make():
    made = ConfigDict({"rate": 0.5, "name": "a", "part": {"sizes": (4, 8), "n": 3}})
    made.part.limit = cfg.optional(float)
    made.part.path = cfg.optional(str, "here")
    return made.lock()


@pytest.mark.parametrize(
    "rule, good, bad",
    [
        (cfg.one_of("a", "b"), ["a", "b"], ["c", "", 3]),
        (cfg.at_least(1), [1, 1.0, 99], [0, 0.99, "1"]),
        (cfg.above(0), [1e-9, 5], [0, -1, float("nan")]),
        (cfg.within(0, 1), [0, 0.999], [1, -0.1, float("nan")]),
        (cfg.each(cfg.at_least(2), least=1), [(2,), (2, 9)], [(), (1,), (2, 1), 2]),
    ],
)
def test_rules(rule, good, bad):
    for value, wanted in [(v, True) for v in good] + [(v, False) for v in bad]:
        config = ConfigDict({"key": value})
        if wanted:
            cfg.check(config, {"key": rule})
        else:
            with pytest.raises(UserError, match=r"^config\.key=.*: must be "):
                cfg.check(config, {"key": rule})


def test_none_passes_only_where_it_is_allowed():
    config = make()
    cfg.check(config, {"part.limit": cfg.above(0)})
    assert cfg.is_optional(config, "part.limit")
    assert not cfg.is_optional(config, "part.n")
    assert not cfg.is_optional(config, "rate")
    plain = ConfigDict({"key": cfg.optional(int, 3), "other": 3})
    plain.key = None
    cfg.check(plain, {"key": cfg.at_least(1)})


def test_an_optional_value_keeps_its_type():
    config = make()
    with pytest.raises(TypeError):
        config.part.limit = "many"
    config.part.limit = 2.5
    with pytest.raises(UserError, match=r"config\.part\.limit=2\.5: must be above 3"):
        cfg.check(config, {"part.limit": cfg.above(3)})


def test_an_unknown_variant_lists_those_there_are():
    variants = {"": print, "smoke": print, "big": print}
    assert cfg.choose_variant("smoke", variants) is print
    with pytest.raises(UserError, match="'smok' does not exist.*smoke, big"):
        cfg.choose_variant("smok", variants)


def test_differing_keys_are_dotted():
    a = {"x": 1, "part": {"n": 3, "same": [1, 2]}, "gone": None}
    b = {"x": 1, "part": {"n": 4, "same": [1, 2], "new": None}}
    # What another version lacks is null.
    assert cfg.differing_keys(a, b) == ["part.n"]
    assert cfg.differing_keys(a, b | {"gone": 0}) == ["gone", "part.n"]
    assert cfg.differing_keys(a, a) == []


def test_a_config_comes_back_from_its_file(tmp_path):
    config, path = make(), tmp_path / "config.json"
    path.write_text(json.dumps(cfg.as_json(config)))
    made = cfg.read_config(path)
    assert made.part.sizes == (4, 8)
    assert made.part.limit is None
    assert cfg.differing_keys(cfg.as_json(made), cfg.as_json(config)) == []


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "does not exist: is this the folder of a run"),
        ('{"a": ', "is not JSON"),
        ("[1]", "holds no config"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, message):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        cfg.read_config(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_config_that_lacks_a_key_is_refused():
    config = ConfigDict({"part": {"n": 3}})
    with pytest.raises(UserError, match=r"config\.part\.m is missing"):
        cfg.check(config, {"part.n": cfg.whole(1), "part.m": cfg.whole(1)})


def make_rf(**values):
    config = ConfigDict({"rf": rf_settings.section()}).lock()
    for name, value in values.items():
        config.rf[name] = value
    return config


def test_the_rf_section_has_every_documented_parameter():
    # Of the tables of both documents, less `rf_`; the width is the host's.
    documented = {
        *("use_rf", "hidden_dim", "n_layers", "dropout", "loss_weight"),
        *("contrast_loss_weight", "sampling_steps", "lr", "learning_rate"),
        *("user_guidance_scale", "guidance_decay_power", "cosine_guidance_scale"),
        *("cosine_decay_power", "warmup_epochs", "train_mix_ratio", "mix_ratio"),
        *("inference_mix_ratio", "contrast_temp", "contrast_weight"),
    }
    config = make_rf()
    assert documented <= set(config.rf)
    assert {f"rf.{name}" for name in config.rf} == set(rf_settings.RULES)
    cfg.check(config, rf_settings.RULES)
    with pytest.raises(AttributeError, match="learning_rat"):
        config.rf.learning_rat = 0.1


@pytest.mark.parametrize("alias, name", rf_settings.ALIASES.items())
def test_two_names_of_one_parameter_hold_one_value(alias, name):
    for first, second in ((alias, name), (name, alias)):
        config = make_rf(**{first: 0.25})
        assert config.rf[second] == 0.25
        assert cfg.as_json(config)["rf"][second] == 0.25


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("sampling_steps", 1, 0),
        ("mix_ratio", 1.0, 1.01),
        ("train_mix_ratio", 0.0, -0.1),
        ("inference_mix_ratio", 0.5, 2.0),
        ("solver", "Heun", "rk5"),
        ("preset", "joint", "both"),
        ("guidance_interval", (0.2, 0.8), (0.8, 0.2)),
        ("ema_decay", 0.0, 1.0),
        ("standardise", False, None),
    ],
)
def test_values_of_the_rf_section(name, good, bad):
    cfg.check(make_rf(**{name: good}), rf_settings.RULES)
    if bad is None:
        cfg.check(make_rf(**{name: bad}), rf_settings.RULES)
        return
    with pytest.raises(UserError, match=rf"config\.rf\.{name}=.*must be"):
        cfg.check(
            make_rf(**{name: bad}), {f"rf.{name}": rf_settings.RULES[f"rf.{name}"]}
        )
