# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rfrec.config import UserError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a file to write that takes the place of `path` once it is complete.

    A kill or an error leaves `path` as it was. The file stands beside it, so that
    taking its place is one step, and ends as `path` does, for writers that look.

    Args:
      path: To make or replace.

    Raises:
      UserError: It cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
