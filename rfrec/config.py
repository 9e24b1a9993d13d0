# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Options: frozen dataclasses from which config sections, checks and docs are derived.

A dataclass owns the name, type, default, allowed values and meaning of each option. A
field is declared by `option(default, rule)`; its meaning is its entry in the docstring,
under `Attributes:`. `section` turns the class into a `ConfigDict`, `rules` into checks,
and `parse` turns a checked section into an instance. Modules below `pipelines` never
see a ConfigDict.
"""

import dataclasses
import difflib
import inspect
import json
import numbers
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference

_Options = TypeVar("_Options")


class UserError(Exception):
    """An error that the user can fix; commands print its one line and exit with 2."""


class Preempted(Exception):
    """The process was asked to stop, and the run has stored its state."""


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
        raise UserError(unknown("config variant", variant, filter(None, variants)))
    return variants[variant]


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Returns the message on a name that does not exist, with the closest one.

    Args:
      what: What the name stands for, as in `option`.
      name: The unknown name.
      known: Names that exist.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{what} {name!r} does not exist: {hint}use one of {', '.join(names)}"


def config_file(name: str) -> Path:
    """Returns the config file of a command, in the checkout or the installed package.

    Raises:
      UserError: The package was installed without its config files.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / f"{name}.py").is_file():
            return folder / f"{name}.py"
    raise UserError(
        f"configs/{name}.py is not installed with {package}; reinstall rfrec, or run"
        " it from a checkout"
    )


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


def option(default: Any, rule: Rule | None = None, *, when: str = "") -> Any:
    """Declares a field of an options dataclass.

    Args:
      default: Default value; immutable.
      rule: Condition on the value. `Literal` and `bool` annotations imply theirs.
      when: When the option is read. `evaluation`: only after training, so that a
        finished run may be evaluated with another value; `training`: also in training,
        without effect on the shape of a model; empty: it determines what is trained.
    """
    return dataclasses.field(default=default, metadata={"rule": rule, "when": when})


def keys_read(options: Any, when: str, prefix: str = "") -> frozenset[str]:
    """Returns the dotted keys of the options that were declared with this `when`.

    Args:
      options: Dataclass or instance.
      when: `evaluation` or `training`, as for `option`.
      prefix: Text before each key, as in `"rf."`.
    """
    declared = {f.name: f.metadata.get("when") for f in dataclasses.fields(options)}
    keys: set[str] = set()
    for name, kind, value in _fields(options):
        if dataclasses.is_dataclass(kind):
            keys |= keys_read(value, when, f"{prefix}{name}.")
        elif declared[name] == when:
            keys.add(prefix + name)
    return frozenset(keys)


def section(options: Any) -> ConfigDict:
    """Returns the config section of an options dataclass, with its defaults.

    Args:
      options: Dataclass, or an instance whose values become the defaults. Fields that
        are dataclasses become sections; fields annotated `X | None` may be None.
    """
    config = ConfigDict()
    for name, kind, value in _fields(options):
        if dataclasses.is_dataclass(kind):
            config[name] = section(value)
        elif _is_union(kind):
            config[name] = optional(_plain_type(kind), _convert(kind, value))
        else:
            config[name] = _convert(kind, value)
    return config


def rules(options: Any, prefix: str = "") -> dict[str, Rule]:
    """Returns the checks of an options dataclass by dotted key.

    Args:
      options: Dataclass or instance.
      prefix: Put before each key, as in `"codebook."`.
    """
    by_key: dict[str, Rule] = {}
    declared = {f.name: f.metadata.get("rule") for f in dataclasses.fields(options)}
    for name, kind, value in _fields(options):
        key = prefix + name
        if dataclasses.is_dataclass(kind):
            by_key |= rules(value, f"{key}.")
        elif declared[name] is not None:
            by_key[key] = declared[name]
        elif choices := _choices(kind):
            by_key[key] = one_of(*choices)
        elif bool in (kind, *typing.get_args(kind)):
            by_key[key] = boolean()
    return by_key


def parse(options: type[_Options] | _Options, section: ConfigDict) -> _Options:
    """Turns a checked config section into an instance of its options dataclass.

    Args:
      options: Dataclass, or an instance of it. Keys that the section lacks, as the
        config of an older version may, keep the values of the instance.
      section: Config section; keys that are not options are ignored.
    """
    instance: Any = options() if isinstance(options, type) else options
    values = {}
    for name, kind, default in _fields(instance):
        if name in section:
            is_section = dataclasses.is_dataclass(kind)
            value = section[name]
            values[name] = parse(default, value) if is_section else value
    return dataclasses.replace(instance, **values)


def override(options: _Options, **changes: Any) -> _Options:
    """Returns options with some values replaced, by the plain names of their fields.

    Integers are accepted for floats and lists for tuples.

    Args:
      options: Instance of an options dataclass, possibly with nested dataclasses, whose
        fields are found too.
      **changes: New values. A nested dataclass takes a mapping or an instance. A name
        that occurs in several sections is passed as `section={"name": value}`; the
        outermost fields come first.

    Raises:
      UserError: The option does not exist, the name is ambiguous, or the value has a
        wrong type or is not allowed.
    """
    for name, value in changes.items():
        options = _replace(options, name, value)
    return options


def meanings(options: Any) -> dict[str, str]:
    """Returns the entries of `Attributes:` in a dataclass's docstring by field name.

    Entries of its base classes come first.
    """
    kind = options if isinstance(options, type) else type(options)
    entries: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            entries |= _attributes(inspect.cleandoc(base.__doc__ or ""))
    return entries


def _attributes(docstring: str) -> dict[str, str]:
    _, _, body = docstring.partition("Attributes:\n")
    entries: dict[str, str] = {}
    name = ""
    for line in body.splitlines():
        if line and not line.startswith(" "):
            break
        if match := re.match(r"  (\w+): (.*)", line):
            name = match[1]
            entries[name] = match[2]
        elif name and line.strip():
            entries[name] += " " + line.strip()
    return entries


def _fields(options: Any) -> list[tuple[str, Any, Any]]:
    """Returns name, type and value (of a class: default) of each field."""
    kind = options if isinstance(options, type) else type(options)
    instance = options() if isinstance(options, type) else options
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    return [(name, hints[name], getattr(instance, name)) for name in names]


def _is_union(kind: Any) -> bool:
    return isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union


def _without_none(kind: Any) -> Any:
    """Returns X of an annotation `X | None`, and others unchanged."""
    if not _is_union(kind):
        return kind
    return next(k for k in typing.get_args(kind) if k is not types.NoneType)


def _plain_type(kind: Any) -> type:
    """Returns the class of the values of an annotation; `X | None` is X."""
    kind = _without_none(kind)
    if typing.get_origin(kind) is Literal:
        return type(typing.get_args(kind)[0])
    return typing.get_origin(kind) or kind


def _choices(kind: Any) -> tuple[str, ...]:
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    if _is_union(kind):
        return tuple(c for k in typing.get_args(kind) for c in _choices(k))
    return ()


def _flatten(options: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted key and the value of each option."""
    for name, kind, value in _fields(options):
        if dataclasses.is_dataclass(kind):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _replace(options: Any, name: str, value: Any) -> Any:
    """Replaces one option, found by the plain name of its field."""
    for field_name, kind, current in _fields(options):
        if field_name == name:
            new = _accept(name, kind, current, value, rules(options).get(name))
            return dataclasses.replace(options, **{name: new})
    keys = [key for key, _ in _flatten(options)]
    matching = [key for key in keys if key.rpartition(".")[2] == name]
    if not matching:
        known = {key.rpartition(".")[2] for key in keys}
        raise UserError(unknown("option", name, known))
    outer = matching[0].partition(".")[0]
    if len(matching) > 1:
        raise UserError(
            f"option {name!r} is ambiguous ({', '.join(matching)}); pass it as"
            f" {outer}={{{name!r}: ...}}"
        )
    inner = _replace(getattr(options, outer), name, value)
    return dataclasses.replace(options, **{outer: inner})


def _accept(name: str, kind: Any, current: Any, value: Any, rule: Rule | None) -> Any:
    """Returns a value as its field stores it, or refuses it."""
    if dataclasses.is_dataclass(kind):
        if isinstance(value, Mapping):
            return override(current, **value)
        if not isinstance(value, type(current)):
            wanted = type(current).__name__
            raise UserError(f"{name}={value!r}: must be a mapping or a {wanted}")
        return override(value, **{n: v for n, _, v in _fields(value)})
    if value is None and _is_union(kind):
        return None
    try:
        converted = _convert(kind, value)
    except TypeError as error:
        text = rule.text if rule else str(error)
        raise UserError(f"{name}={value!r}: must be {text}") from error
    if rule is not None:
        _check_value(name, converted, rule, none=False)
    return converted


def _convert(kind: Any, value: Any) -> Any:
    """Converts a value to an annotation without loss.

    Raises:
      TypeError: The value is of another type; the message names the right one.
    """
    if _is_union(kind):
        if value is None:
            return None
        kind = _without_none(kind)
    base = _plain_type(kind)
    if base is tuple and isinstance(value, (list, tuple)):
        elements = typing.get_args(kind) or (Any, ...)
        if elements[-1] is ...:
            return tuple(_convert(elements[0], v) for v in value)
        if len(elements) != len(value):
            raise TypeError(f"a tuple of {len(elements)} values")
        return tuple(map(_convert, elements, value))
    numbers_of = {int: numbers.Integral, float: numbers.Real}
    if base in numbers_of:
        if isinstance(value, numbers_of[base]) and not isinstance(value, bool):
            return base(value)
    elif base is Any or isinstance(value, base):
        return value
    names = {int: "an integer", float: "a number", str: "a string"}
    raise TypeError(names.get(base, f"a {base.__name__}"))


def _check_value(shown: str, value: Any, rule: Rule, *, none: bool) -> None:
    """Checks one value; None passes if `none` says that it is allowed."""
    if value is None and none:
        return
    try:
        holds = value is not None and rule.holds(value)
    except TypeError:
        holds = False
    if not holds:
        raise UserError(f"{shown}={value!r}: must be {rule.text}")


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
        optional_key = value is None and is_optional(config, key)
        _check_value(f"config.{key}", value, rule, none=optional_key)


def refuse_together(combinations: Mapping[str, bool]) -> None:
    """Refuses settings that cannot be combined.

    Args:
      combinations: For each pair `"a=1 and b=2"`, written as keys of the config,
        whether both hold.

    Raises:
      UserError: Some combination holds.
    """
    for keys, holds in combinations.items():
        if holds:
            first, _, second = keys.partition(" and ")
            raise UserError(
                f"config: {first} cannot be combined with {second}; change one of them"
            )


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
