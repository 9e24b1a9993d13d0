# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared by all commands: flags, one-line errors, processes, the page of a run."""

import logging as standard_logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from rfrec.config import Preempted, UserError, check, config_file, is_optional

_CONFIG = re.compile(r"--?config(=.*)?", re.DOTALL)
_RF = re.compile(r"--config\.rf\.(\w+)=(.*)", re.DOTALL)
_NONE = re.compile(r"--config\.([A-Za-z0-9_.]+)=None")
# Exit code of a process that SIGTERM ended.
_PREEMPTED = 143


def config_main(
    main: Callable[[ConfigDict, Any], None],
    name: str,
    *,
    variant: str = "",
    workdir: bool = True,
    page: bool = False,
    flow: bool = False,
) -> None:
    """Runs a command that takes a config; errors of the user become one line.

    Args:
      main: Function of the locked config and the run folder (None without --workdir).
      name: Config file that is used if --config is missing: `configs/NAME.py`.
      variant: Variant of that config file.
      workdir: Whether --workdir is required.
      page: Whether to write the run as a page, `report.html`, when it has ended.
      flow: Whether the command reads the section `rf`; if not, values that the user
        sets there cause a warning.
    """
    default = default_config(name) + (f":{variant}" if variant else "")
    # The default is inserted when flags are parsed. As the flag's own default, it would
    # apply overrides before this module can report a wrong one.
    holder = config_flags.DEFINE_config_file(
        "config", None, f"Config file[:variant]; {default} by default."
    )
    folder = flags.DEFINE_string("workdir", None, "Folder for everything a run writes.")
    flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0.")
    flags.DEFINE_integer("num_processes", None, "Number of processes.")
    flags.DEFINE_integer("process_id", None, "Rank of this process.")
    flags.DEFINE_bool("distributed", False, "Join the processes of SLURM or a TPU pod.")
    flags.DEFINE_string("profile", None, "Folder for a profiler trace of the run.")
    if page:
        flags.DEFINE_bool("page", True, "Write report.html; needs 'rfrec[plots]'.")

    def guarded() -> None:
        if workdir and not folder.value:
            raise UserError(
                "--workdir is required: the run writes its checkpoints and reports"
                " there"
            )
        _join_processes()
        _check_flow(holder.value, flow)
        path = Path(folder.value).expanduser() if folder.value else None
        _run_profiled(main, holder.value, path)
        if page and flags.FLAGS.page and path:
            _write_pages(path)

    app.run(
        lambda argv: _one_line_errors(guarded),
        flags_parser=lambda argv: _parse_config(argv, default),
    )


def flags_main(main: Callable[[], None]) -> None:
    """Runs a command that takes flags only; errors of the user become one line.

    Such a command needs no training code: it runs where only an artefact is installed.
    """
    app.run(lambda argv: _one_line_errors(main), flags_parser=_parse_flags)


def default_config(name: str) -> str:
    """Returns the path of a command's config file: in the current folder, or installed.

    Args:
      name: Name of the command.
    """
    here = Path("configs") / f"{name}.py"
    return str(here if here.is_file() else config_file(name))


def folder_flag(name: str) -> Path | None:
    """Returns the value of a flag that names a folder, None if it is not set."""
    value = flags.FLAGS[name].value
    return Path(value).expanduser() if value else None


def _one_line_errors(main: Callable[[], None]) -> None:
    logging.set_verbosity(logging.INFO)
    # orbax reports every file that it writes, jax every backend that is missing.
    logging.get_absl_handler().addFilter(_is_own_message)
    try:
        main()
    except UserError as error:
        _stop(str(error), 2)
    except Preempted as stopped:
        _stop(f"{stopped}; run the same command to resume", _PREEMPTED)


def _check_flow(config: ConfigDict, flow: bool) -> None:
    """Checks the section `rf`, and warns about values that the command ignores."""
    from rfrec.rf import settings as rf_settings

    check(config, rf_settings.RULES)
    ignored = [] if flow else rf_settings.changed_keys(config)
    if ignored:
        logging.warning(
            "config.%s: this command has no flow and ignores the value",
            ", config.".join(ignored),
        )


def _run_profiled(main: Callable, config: ConfigDict, path: Path | None) -> None:
    import jax

    if not flags.FLAGS.profile:
        main(config, path)
        return
    with jax.profiler.trace(flags.FLAGS.profile):
        main(config, path)


def _write_pages(workdir: Path) -> None:
    import jax

    if jax.process_index() == 0:
        # Imported late: it needs matplotlib, for which no run should wait.
        from rfrec.reports import page

        page.write_pages(workdir)


def _is_own_message(record: standard_logging.LogRecord) -> bool:
    foreign = "orbax" in record.pathname or "jax" in record.pathname
    return not foreign or record.levelno >= standard_logging.ERROR


def _stop(message: str, code: int) -> None:
    print(f"rfrec: {message}", file=sys.stderr)
    sys.exit(code)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        _stop(_first_line(error), 2)
    return _refuse_rest(rest)


def _refuse_rest(rest: list[str]) -> list[str]:
    if len(rest) > 1:
        _stop(f"unexpected argument {rest[1]!r}: flags start with --", 2)
    return rest


def _parse_config(argv: list[str], default: str) -> list[str]:
    """Parses flags and config overrides; a wrong one is reported in one line.

    Args:
      argv: Arguments of the process.
      default: Config file that is used if none is given.
    """
    if not any(_CONFIG.fullmatch(argument) for argument in argv):
        argv = [argv[0], f"--config={default}", *argv[1:]]
    none = [m[1] for m in map(_NONE.fullmatch, argv) if m]
    kept = [argument for argument in argv if not _NONE.fullmatch(argument)]
    try:
        _refuse_two_values(argv)
        rest = flags.FLAGS(kept)
        config = flags.FLAGS.config
        _ = config.rf  # A file that failed to load is only noticed on use.
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
    return _refuse_rest(rest)


def _set_none(config: ConfigDict, key: str) -> None:
    *sections, name = key.split(".")
    section = config
    for part in sections:
        section = getattr(section, part)
    getattr(section, name)
    if not is_optional(config, key):
        raise UserError(f"config.{key}=None: a value is required for this key")
    section[name] = None


def _first_line(error: Exception) -> str:
    # str() of a KeyError is the repr of its argument.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    while isinstance(text, BaseException):
        text = text.args[0] if text.args else ""
    return " ".join(str(text).split())[:300]


def _refuse_two_values(argv: list[str]) -> None:
    """Refuses different values for a key and its alias.

    The config stores one value for both names, and the last one would win.
    """
    from rfrec.rf.settings import ALIASES

    seen: dict[str, re.Match[str]] = {}
    for match in filter(None, map(_RF.fullmatch, argv)):
        first = seen.setdefault(ALIASES.get(match[1], match[1]), match)
        if first[1] != match[1] and first[2] != match[2]:
            raise UserError(
                f"{first[0]} and {match[0]} set the same key under two names; set only"
                " one"
            )


def _culprit(argv: list[str], error: Exception) -> str:
    """Returns the override that caused an error of the config."""
    overrides = [a for a in argv if a.startswith(("--config.", "--noconfig."))]
    named = re.findall(r"['\"]([A-Za-z0-9_]+)['\"]", str(error))
    for override in overrides:
        key = override.split("=", 1)[0].split(".")
        if any(name in key for name in named):
            return override
    return overrides[0] if len(overrides) == 1 else "--config"


def _join_processes() -> None:
    import jax

    values = flags.FLAGS
    if values.distributed:
        jax.distributed.initialize()
    elif values.coordinator_address:
        if values.num_processes is None or values.process_id is None:
            raise UserError(
                "--coordinator_address requires --num_processes and --process_id"
            )
        jax.distributed.initialize(
            values.coordinator_address, values.num_processes, values.process_id
        )
