# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of configs: rules, None, comparison, and the way to JSON and back."""

import dataclasses
import json
from typing import Literal

import numpy as np
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
    with pytest.raises(UserError, match="'smok' does not exist.*'smoke'.*big, smoke"):
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


@dataclasses.dataclass(frozen=True)
class Base:
    """Options that parts share.

    Attributes:
      rate: A rate, explained
        over two lines.
    """

    rate: float = cfg.option(0.5, cfg.above(0))


@dataclasses.dataclass(frozen=True)
class Part(Base):
    """A part of the options.

    Attributes:
      sizes: Some sizes.
      kind: A kind.

    Example:
      rate: No attribute.
    """

    sizes: tuple[int, ...] = cfg.option((4, 8), cfg.each(cfg.whole(1), least=1))
    kind: Literal["a", "b"] = "a"
    limit: int | None = cfg.option(None, cfg.whole(2))
    pair: tuple[float, float] = (0.0, 1.0)
    fast: bool = True


@dataclasses.dataclass(frozen=True)
class Options:
    """All of them.

    Attributes:
      seed: A seed.
      part: A part.
      other: Its neighbour.
    """

    seed: int = cfg.option(0, cfg.whole(0))
    part: Part = Part(rate=2.0)
    other: Base = Base()


def test_a_section_has_the_defaults_and_types_of_its_dataclass():
    section = cfg.section(Options).lock()
    assert cfg.as_json(section) == {
        "seed": 0,
        "other": {"rate": 0.5},
        "part": {
            "rate": 2.0,
            "sizes": [4, 8],
            "kind": "a",
            "limit": None,
            "pair": [0.0, 1.0],
            "fast": True,
        },
    }
    assert cfg.is_optional(section, "part.limit")
    assert not cfg.is_optional(section, "part.kind")
    section.part.limit = 3
    with pytest.raises(TypeError):
        section.part.limit = "many"
    with pytest.raises(TypeError):
        section.part.sizes = 3
    # The values of an instance become the defaults.
    assert cfg.section(Options(seed=7)).seed == 7


def test_an_integer_default_of_a_float_does_not_make_it_an_integer():
    @dataclasses.dataclass(frozen=True)
    class Careless:
        rate: float = 1

    section = cfg.section(Careless)
    section.rate = 0.5
    assert section.rate == 0.5


def test_rules_are_declared_or_implied_by_the_annotation():
    checks = cfg.rules(Options, "x.")
    wanted = {"x.seed", "x.part.rate", "x.part.sizes", "x.part.kind", "x.part.limit"}
    assert checks.keys() == wanted | {"x.part.fast", "x.other.rate"}
    assert checks["x.part.kind"].text == "one of a, b"
    assert not checks["x.part.fast"].holds(1)
    section = cfg.section(Options)
    cfg.check(section, cfg.rules(Options))
    section.part.kind = "c"
    with pytest.raises(UserError, match=r"config\.part\.kind='c': must be one of a, b"):
        cfg.check(section, cfg.rules(Options))


def test_a_section_is_parsed_into_its_dataclass():
    section = cfg.section(Options)
    assert cfg.parse(Options, section) == Options()
    section.part.sizes = (2,)
    section.other.rate = 9.0
    parsed = cfg.parse(Options, section)
    assert parsed == Options(part=Part(rate=2.0, sizes=(2,)), other=Base(9.0))


def test_missing_keys_keep_the_values_of_the_instance():
    # A part has the default that its owner sets, not the one of its own class.
    assert cfg.parse(Options, ConfigDict({"part": {"kind": "b"}})).part.rate == 2.0
    base = Options(seed=3)
    assert cfg.parse(base, ConfigDict({"unknown": 1})) == base


def test_override_finds_options_by_their_plain_names():
    options = Options()
    assert cfg.override(options, seed=4, kind="b").part.kind == "b"
    assert cfg.override(options, seed=4).seed == 4
    assert options.seed == 0
    nested = cfg.override(options, part={"rate": 1.0, "limit": 5}, other=Base(4.0))
    assert (nested.part.rate, nested.part.limit, nested.other.rate) == (1.0, 5, 4.0)
    assert cfg.override(nested, limit=None).part.limit is None


def test_override_converts_without_loss():
    made = cfg.override(
        Options(), sizes=[np.int64(2), 3], pair=[0, 2], limit=np.int32(4), seed=5
    ).part
    assert made.sizes == (2, 3) and type(made.sizes[0]) is int
    assert made.pair == (0.0, 2.0) and type(made.pair[0]) is float
    assert type(made.limit) is int
    made = cfg.override(Options(), part={"rate": 1}).part
    assert type(made.rate) is float


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sede": 1}, "'sede' does not exist: did you mean 'seed'.*kind, limit"),
        ({"part": {"knd": 1}}, "'knd' does not exist: did you mean 'kind'"),
        ({"zzzzz": 1}, "'zzzzz' does not exist: use one of fast"),
        ({"rate": 1.0}, r"'rate' is ambiguous \(part.rate, other.rate\); .*part={"),
        ({"seed": -1}, "seed=-1: must be an integer of at least 0"),
        ({"seed": 0.5}, "seed=0.5: must be an integer"),
        ({"seed": True}, "seed=True: must be an integer"),
        ({"seed": None}, "seed=None: must be an integer"),
        ({"kind": "c"}, "kind='c': must be one of a, b"),
        ({"fast": 1}, "fast=1: must be True or False"),
        ({"sizes": 3}, "sizes=3: must be a tuple of 1 or more values"),
        ({"sizes": (1.5,)}, "sizes=.*must be a tuple of 1 or more values"),
        ({"pair": (1.0,)}, "pair=.*must be a tuple of 2 values"),
        ({"pair": "ab"}, "pair='ab': must be a tuple"),
        ({"limit": 1}, "limit=1: must be an integer of at least 2"),
        ({"part": 3}, "part=3: must be a mapping or a Part"),
        ({"other": Base(-1.0)}, "rate=-1.0: must be above 0"),
    ],
)
def test_override_refuses_in_one_line(changes, message):
    with pytest.raises(UserError, match=message) as error:
        cfg.override(Options(), **changes)
    assert "\n" not in str(error.value)


def test_meanings_are_the_attributes_of_the_docstring():
    assert cfg.meanings(Part) == {
        "rate": "A rate, explained over two lines.",
        "sizes": "Some sizes.",
        "kind": "A kind.",
    }
    assert cfg.meanings(Options())["other"] == "Its neighbour."


def test_combinations_are_refused_by_their_keys():
    cfg.refuse_together({"a=1 and b=2": False})
    with pytest.raises(UserError, match="config: a=1 cannot be combined with b=2; ch"):
        cfg.refuse_together({"c and d": False, "a=1 and b=2": True})


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
