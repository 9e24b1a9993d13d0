# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What all mains share: flags, one-line errors, processes, the folder of a run."""

import json
import logging as standard_logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from rfrec import files
from rfrec.config import (
    RF_ALIASES,
    UserError,
    as_json,
    differing_keys,
    is_optional,
    read_config,
)
from rfrec.train.loop import Preempted

_CONFIG = re.compile(r"--?config(=.*)?", re.DOTALL)
_RF = re.compile(r"--config\.rf\.(\w+)=(.*)", re.DOTALL)
_NONE = re.compile(r"--config\.([A-Za-z0-9_.]+)=None")
# The exit code of a process ended by SIGTERM.
_PREEMPTED = 143


def run(
    main: Callable[[ConfigDict, Any], None],
    *,
    config: str,
    workdir: bool = True,
    page: bool = False,
) -> None:
    """Parses flags, runs a main, and turns errors of the user into one line.

    Args:
      main: Gets the locked config and the run's folder (None without --workdir).
      config: Default of --config, relative to the checkout.
      workdir: Whether --workdir must be given.
      page: Whether what it leaves is shown as a page, report.html, too.
    """
    # Its default is put in when flags are parsed: here its overrides would be read at
    # once, before anything could be said about a wrong one.
    holder = config_flags.DEFINE_config_file(
        "config", None, f"Config file[:variant]; {config} if not given."
    )
    folder = flags.DEFINE_string("workdir", None, "Folder of all that a run makes.")
    flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0.")
    flags.DEFINE_integer("num_processes", None, "Number of processes.")
    flags.DEFINE_integer("process_id", None, "Rank of this process.")
    flags.DEFINE_bool("distributed", False, "Join the processes of SLURM or a TPU pod.")
    flags.DEFINE_string("profile", None, "Folder for a trace of the whole run.")
    if page:
        flags.DEFINE_bool("page", True, "Write report.html; needs 'rfrec[plots]'.")

    def guarded(argv):
        del argv
        if workdir and not folder.value:
            raise UserError(
                "--workdir=FOLDER is needed: all that a run makes goes there"
            )
        logging.set_verbosity(logging.INFO)
        # orbax reports every file it writes, jax every backend it does not find.
        logging.get_absl_handler().addFilter(_own_messages)
        _join_processes()
        path = Path(folder.value).expanduser() if folder.value else None
        if flags.FLAGS.profile:
            with jax.profiler.trace(flags.FLAGS.profile):
                main(holder.value, path)
        else:
            main(holder.value, path)
        if page and flags.FLAGS.page and path and jax.process_index() == 0:
            _write_pages(path)

    def one_line(argv):
        try:
            guarded(argv)
        except UserError as error:
            _stop(str(error), 2)
        except Preempted as stopped:
            _stop(f"{stopped}; run the same command to go on", _PREEMPTED)

    app.run(one_line, flags_parser=lambda argv: _parse(argv, config))


def _write_pages(workdir: Path) -> None:
    # It imports this module, and matplotlib, which no run waits for.
    from rfrec.launch import html

    html.write_pages(workdir)


def _own_messages(record: standard_logging.LogRecord) -> bool:
    foreign = "orbax" in record.pathname or "jax" in record.pathname
    return not foreign or record.levelno >= standard_logging.ERROR


def _stop(message: str, code: int) -> None:
    print(f"rfrec: {message}", file=sys.stderr)
    sys.exit(code)


def _parse(argv: list[str], default: str) -> list[str]:
    """Parses flags; what is wrong with one is told in a line that names it.

    Args:
      argv: Of the process.
      default: Config file, if none is named.
    """
    if not any(_CONFIG.fullmatch(argument) for argument in argv):
        argv = [argv[0], f"--config={default}", *argv[1:]]
    try:
        _refuse_two_values(argv)
    except UserError as error:
        _stop(str(error), 2)
    none = [m[1] for m in map(_NONE.fullmatch, argv) if m]
    kept = [argument for argument in argv if not _NONE.fullmatch(argument)]
    try:
        rest = flags.FLAGS(kept)
        config = flags.FLAGS.config
        _ = config.rf  # a file that failed to load shows only when it is used
        for key in none:
            _set_none(config, key)
    except UserError as error:
        _stop(str(error), 2)
    except flags.Error as error:
        _stop(_first_line(error), 2)
    except (AttributeError, KeyError) as error:
        _stop(f"{_culprit(kept, error)}: no such key: {_first_line(error)}", 2)
    except (TypeError, ValueError) as error:
        _stop(f"{_culprit(kept, error)}: {_first_line(error)}", 2)
    except (OSError, ImportError, SyntaxError) as error:
        _stop(f"--config: {_first_line(error)}", 2)
    if len(rest) > 1:
        _stop(f"{rest[1]!r} is no flag: flags start with --", 2)
    return rest


def _set_none(config: ConfigDict, key: str) -> None:
    *sections, name = key.split(".")
    section = config
    for part in sections:
        section = getattr(section, part)
    getattr(section, name)
    if not is_optional(config, key):
        raise UserError(f"config.{key}=None: this key needs a value")
    section[name] = None


def _first_line(error: Exception) -> str:
    # str() of a KeyError is the repr of its argument.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    while isinstance(text, BaseException):
        text = text.args[0] if text.args else ""
    return " ".join(str(text).split())[:300]


def _refuse_two_values(argv: list[str]) -> None:
    """Refuses two names of one switch that are given different values.

    The config holds one value for both, of which the last would win.
    """
    given: dict[str, re.Match[str]] = {}
    for found in filter(None, map(_RF.fullmatch, argv)):
        first = given.setdefault(RF_ALIASES.get(found[1], found[1]), found)
        if first[1] != found[1] and first[2] != found[2]:
            raise UserError(
                f"{first[0]} and {found[0]} are two names of one switch: set one"
            )


def _culprit(argv: list[str], error: Exception) -> str:
    """Returns the override that an error of the config speaks of."""
    overrides = [a for a in argv if a.startswith(("--config.", "--noconfig."))]
    named = re.findall(r"['\"]([A-Za-z0-9_]+)['\"]", str(error))
    for override in overrides:
        key = override.split("=", 1)[0].split(".")
        if any(name in key for name in named):
            return override
    return overrides[0] if len(overrides) == 1 else "--config"


def _join_processes() -> None:
    values = flags.FLAGS
    if values.distributed:
        jax.distributed.initialize()
    elif values.coordinator_address:
        if values.num_processes is None or values.process_id is None:
            raise UserError(
                "--coordinator_address needs --num_processes and --process_id"
            )
        jax.distributed.initialize(
            values.coordinator_address, values.num_processes, values.process_id
        )


def open_workdir(workdir: Path, config: ConfigDict) -> None:
    """Makes the folder of a run, or checks that it is one of this config.

    Raises:
      UserError: The folder belongs to a run of another config; names the keys.
    """
    path = workdir / "config.json"
    values = as_json(config)
    if path.exists():
        stored = as_json(read_config(path))
        keys = differing_keys(stored, values)
        if keys:
            raise UserError(
                f"{workdir} holds a run of another config, which differs in"
                f" {', '.join(keys)}: use its values or another --workdir"
            )
        return
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir={workdir}: {error.strerror}") from error
        write_json(path, values)


def write_json(path: Path, value) -> None:
    """Writes a file whole or not at all."""
    with files.replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def default_config(name: str) -> str:
    """Returns the path of a main's own config file in the checkout."""
    return str(Path("configs") / f"{name}.py")
