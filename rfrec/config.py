# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Config sections shared by all mains, their checks, and the errors a user can mend.

A config file returns a locked `ConfigDict`; a main checks it against its `Rules` and
turns it into keyword arguments. Nothing below `launch` sees a ConfigDict.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference


class UserError(Exception):
    """An error the user can mend; a main prints its one line and exits with 2."""


class Optional(FieldReference):
    """The value of a key that may be None, of a fixed type otherwise."""


def optional(field_type: type, value: Any = None) -> Optional:
    """Makes the value of a key for which `--config.key=None` means none."""
    return Optional(value, field_type=field_type)


def choose_variant(variant: str, variants: Mapping[str, Callable[[ConfigDict], None]]):
    """Returns the function that turns the default config into a variant.

    Args:
      variant: What follows the colon in `--config=configs/x.py:variant`.
      variants: By name; `` is the default.

    Raises:
      UserError: There is no such variant.
    """
    if variant not in variants:
        known = ", ".join(name for name in variants if name)
        raise UserError(
            f"config variant {variant!r} does not exist: use one of {known}"
        )
    return variants[variant]


class Rule(NamedTuple):
    """A condition on one value, and its wording."""

    holds: Callable[[Any], bool]
    text: str


Rules = Mapping[str, Rule]


def one_of(*choices: str) -> Rule:
    """The value is one of these."""
    return Rule(lambda v: v in choices, f"one of {', '.join(choices)}")


def at_least(low: float) -> Rule:
    """The value is a number >= low."""
    return Rule(lambda v: v >= low, f"at least {low}")


def whole(low: int) -> Rule:
    """The value is an integer >= low."""
    return Rule(
        lambda v: isinstance(v, int) and v >= low, f"an integer of at least {low}"
    )


def above(low: float) -> Rule:
    """The value is a number > low."""
    return Rule(lambda v: v > low, f"above {low}")


def within(low: float, high: float) -> Rule:
    """The value lies in [low, high)."""
    return Rule(lambda v: low <= v < high, f"at least {low} and below {high}")


def each(rule: Rule, *, least: int = 0) -> Rule:
    """Every element fulfils a rule, and there are at least so many."""
    return Rule(
        lambda v: len(v) >= least and all(rule.holds(x) for x in v),
        f"a tuple of {least} or more values, each {rule.text}",
    )


def between(low: float, high: float) -> Rule:
    """The value lies in [low, high]."""
    return Rule(lambda v: low <= v <= high, f"at least {low} and at most {high}")


def boolean() -> Rule:
    """The value is true or false."""
    return Rule(lambda v: isinstance(v, bool), "True or False")


def _interval() -> Rule:
    return Rule(
        lambda v: len(v) == 2 and 0 <= v[0] < v[1] <= 1,
        "two times, the first below the second, in [0, 1]",
    )


# Of diffrax, for the ODE of a flow; a letter's case does not count.
RF_SOLVERS = (
    *("euler", "heun", "midpoint", "ralston", "bosh3", "tsit5", "dopri5", "dopri8"),
    *("leapfrogmidpoint", "reversibleheun"),
)
RF_PRESETS = ("joint", "plugin", "improved")
# Names that the documents give to one parameter: setting either sets both.
RF_ALIASES = {
    "learning_rate": "lr",
    "train_mix_ratio": "mix_ratio",
    "contrast_loss_weight": "contrast_weight",
}
# What a preset decides: type and rule. Their meaning stands at `rf.settings.Settings`.
_RF_KEYS: Mapping[str, tuple[type, Rule]] = {
    # The network.
    "generators": (str, one_of("shared", "split")),
    "side_embedding": (bool, boolean()),
    "hidden_dim": (int, whole(1)),
    "n_layers": (int, whole(0)),
    "dropout": (float, within(0, 1)),
    "time_code": (str, one_of("raw", "fourier")),
    "linear_skip": (bool, boolean()),
    # The loss of the flow.
    "loss": (str, one_of("mse", "huber", "pseudo_huber")),
    "loss_weight": (float, at_least(0)),
    "time_law": (str, one_of("uniform", "logit_normal", "u_shaped")),
    "standardise": (bool, boolean()),
    "user_guidance_scale": (float, at_least(0)),
    "guidance_decay_power": (float, at_least(0)),
    "cosine_guidance_scale": (float, at_least(0)),
    "cosine_decay_power": (float, at_least(0)),
    "guided_sampling": (bool, boolean()),
    "neighbour_condition": (bool, boolean()),
    "condition_dropout": (float, within(0, 1)),
    # The loss that compares what is generated with the target.
    "contrast": (
        str,
        one_of("mse", "infonce_samples", "infonce_endpoint", "none"),
    ),
    "contrast_weight": (float, at_least(0)),
    "contrast_temp": (float, above(0)),
    "negatives": (int, whole(0)),
    # Gradients, and who takes the steps.
    "attach_target": (bool, boolean()),
    "attach_conditions": (bool, boolean()),
    "attach_generated": (bool, boolean()),
    "optimizer": (str, one_of("host", "own")),
    "lr": (float, above(0)),
    "weight_decay": (float, at_least(0)),
    "clip_norm": (float, at_least(0)),
    "ema_decay": (float, within(0, 1)),
    "rows": (int, whole(0)),
    "heldout_share": (float, within(0, 1)),
    # Sampling.
    "sampling_steps": (int, whole(1)),
    "solver": (
        str,
        Rule(lambda v: v.lower() in RF_SOLVERS, f"one of {', '.join(RF_SOLVERS)}"),
    ),
    "rtol": (float, at_least(0)),
    "atol": (float, at_least(0)),
    "noise": (str, one_of("fresh", "zero")),
    "noise_scale": (float, above(0)),
    "draws": (int, whole(1)),
    "guidance_weight": (float, at_least(0)),
    "guidance_interval": (tuple, _interval()),
    # Mixing with the host's embeddings.
    "mixing": (str, one_of("convex", "residual")),
    "mix_ratio": (float, between(0, 1)),
    "inference_mix_ratio": (float, between(0, 1)),
    "inference_choices": (tuple, each(between(0, 1))),
    "warmup_epochs": (int, whole(0)),
    # Straightening.
    "reflow": (str, one_of("none", "reflow", "distil")),
    "reflow_steps": (int, whole(1)),
    "teacher_steps": (int, whole(1)),
}

RF_RULES: Rules = {
    "rf.use_rf": boolean(),
    "rf.preset": one_of(*RF_PRESETS),
    **{f"rf.{name}": rule for name, (_, rule) in _RF_KEYS.items()},
    **{f"rf.{alias}": _RF_KEYS[name][1] for alias, name in RF_ALIASES.items()},
}


def rf_section() -> ConfigDict:
    """Returns the `rf` section, which every config carries.

    It governs the generator of embeddings by rectified flow: of the graph recommender,
    and of collaborative vectors for the tokenizer when `data.features` names `rf`. A
    key that is None has the value of the preset.
    """
    section = ConfigDict({"use_rf": False, "preset": "improved"})
    for name, (field_type, _) in _RF_KEYS.items():
        section[name] = optional(field_type)
    for alias, name in RF_ALIASES.items():
        section[alias] = section.get_ref(name)
    return section


# Of every main that trains.
TRAINING_RULES: Rules = {
    "optim.name": one_of("adamw", "adam", "adagrad", "sgd"),
    "optim.lr": above(0),
    "optim.schedule": one_of("cosine", "constant"),
    "optim.min_lr": at_least(0),
    "optim.weight_decay": at_least(0),
    "optim.clip_norm": above(0),
    "train.epochs": whole(1),
    "train.batch_size": whole(1),
    "train.eval_every": whole(1),
    "train.engine": one_of("pmap", "jit"),
    "train.steps_per_call": whole(1),
}


def check(config: ConfigDict, rules: Rules) -> None:
    """Checks values one by one; None passes only where it is allowed.

    Raises:
      UserError: Names the first key that is missing or breaks its rule.
    """
    for key, rule in rules.items():
        try:
            value = value_at(config, key)
        except KeyError as error:
            raise UserError(
                f"config.{key} is missing: the config is of another version of rfrec"
            ) from error
        if value is None and is_optional(config, key):
            continue
        try:
            holds = value is not None and rule.holds(value)
        except TypeError:
            holds = False
        if not holds:
            raise UserError(f"config.{key}={value!r}: must be {rule.text}")


def value_at(config: ConfigDict, key: str) -> Any:
    """Returns the value of a dotted key."""
    value = config
    for name in key.split("."):
        value = value[name]
    return value


def is_optional(config: ConfigDict, key: str) -> bool:
    """Returns whether a dotted key may be None."""
    *sections, name = key.split(".")
    section = value_at(config, ".".join(sections)) if sections else config
    try:
        return isinstance(section.get_ref(name), Optional)
    except ValueError:
        # A bare None: a config read back or copied, in which the key was optional.
        return True


def as_json(config: ConfigDict) -> dict[str, Any]:
    """Returns plain JSON values; tuples become lists."""
    return json.loads(config.to_json())


def differing_keys(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    """Returns the dotted keys in which two configs as JSON differ.

    A key that is missing, as in runs of another version, is one that is null.
    """
    keys = []
    for name in sorted(a.keys() | b.keys()):
        left, right = a.get(name), b.get(name)
        if isinstance(left, dict) and isinstance(right, dict):
            keys += differing_keys(left, right, f"{prefix}{name}.")
        elif left != right:
            keys.append(f"{prefix}{name}")
    return keys


def read_config(path: Path) -> ConfigDict:
    """Reads a run's `config.json`; lists become tuples again.

    Raises:
      UserError: The file is missing or no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist: is this the folder of a run?"
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not JSON ({error}): use another --workdir"
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no config: use another --workdir")
    return ConfigDict(_tuples(values))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(inner) for name, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
