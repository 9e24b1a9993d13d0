# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What mains without a config share: flags, and errors of one line.

Such a main needs no training code: it runs where only an artefact is.
"""

import logging as standard_logging
import sys
from collections.abc import Callable

from absl import app, flags, logging

from rfrec.config import UserError


def run(main: Callable[[], None]) -> None:
    """Parses flags, runs a main, and turns errors of the user into one line."""

    def one_line(argv: list[str]) -> None:
        del argv
        logging.set_verbosity(logging.INFO)
        # jax reports every backend that it does not find.
        logging.get_absl_handler().addFilter(_own_messages)
        try:
            main()
        except UserError as error:
            _stop(str(error))

    app.run(one_line, flags_parser=_parse)


def _own_messages(record: standard_logging.LogRecord) -> bool:
    return "jax" not in record.pathname or record.levelno >= standard_logging.ERROR


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        _stop(" ".join(str(error).split()))
    if len(rest) > 1:
        _stop(f"{rest[1]!r} is no flag: flags start with --")
    return rest


def _stop(message: str) -> None:
    print(f"rfrec: {message}", file=sys.stderr)
    sys.exit(2)
