# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of configs: rules, None, comparison, and the way to JSON and back."""

import json

import pytest
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec.config import UserError


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
    assert cfg.differing_keys(a, b) == ["gone", "part.n", "part.new"]
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


def test_the_rf_section():
    section = ConfigDict({"rf": cfg.rf_section()})
    cfg.check(section, cfg.RF_RULES)
    section.rf.sampling_steps = 0
    with pytest.raises(UserError, match="rf.sampling_steps=0"):
        cfg.check(section, cfg.RF_RULES)
