# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads checkpoints as torch modules; only this and `torch_*` need torch."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rfrec.config import UserError

DTYPES = ("float32", "bfloat16", "float16")


def require(what: str) -> None:
    """Checks that torch, transformers and pillow are installed.

    Args:
      what: Name of the command that needs them.

    Raises:
      UserError: One of them is not installed.
    """
    try:
        import PIL  # noqa: F401
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise UserError(
            f"{what} needs torch, transformers and pillow ({error}): pip install"
            " 'rfrec[encoders]'"
        ) from error
    # Its progress bars and hints would interrupt the log.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def pick_device(name: str) -> str:
    """Returns the device to run on; `auto` is a GPU if there is one.

    Raises:
      UserError: `cuda` was requested and there is no GPU.
    """
    import torch

    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise UserError(
            "config.device='cuda': torch sees no GPU; use cpu, or install torch for"
            " this machine's driver"
        )
    return ("cuda" if present else "cpu") if name == "auto" else name


def load_model(
    auto_class: Any,
    path: Path,
    *,
    dtype: str,
    device: str,
    unused: tuple[str, ...],
) -> Any:
    """Loads a model from a local folder, for inference.

    Args:
      auto_class: Class of transformers with `from_pretrained`.
      path: Folder of the checkpoint.
      dtype: Data type of the weights, one of `DTYPES`.
      device: Device of the model.
      unused: Prefixes of weights that may be missing, because no vector depends on
        them.

    Raises:
      UserError: The weights are damaged, do not match the config, or do not fit into
        memory.
    """
    import torch

    try:
        model, loading = auto_class.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # a damaged file can make transformers raise anything
        raise _refused(path, error) from error
    missing = [name for name in loading["missing_keys"] if not name.startswith(unused)]
    wrong = sorted(missing) + sorted(str(key) for key in loading["mismatched_keys"])
    if wrong:
        raise UserError(
            f"{path}: its weights do not match its config.json; {len(wrong)} are"
            f" missing or have another shape, such as {wrong[0]}; copy the checkpoint"
            " again"
        )
    with out_of_memory("another device, or a smaller dtype"):
        return model.to(device).eval()


def load_processor(auto_class: Any, path: Path, **options: Any) -> Any:
    """Loads a tokenizer or an image processor from a local folder.

    Raises:
      UserError: Its files are missing or damaged.
    """
    try:
        return auto_class.from_pretrained(
            path, local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:
        raise _refused(path, error) from error


@contextlib.contextmanager
def out_of_memory(remedy: str) -> Iterator[None]:
    """Turns an error of torch about GPU memory into one line.

    Args:
      remedy: What to use instead; ends the message.

    Raises:
      UserError: The GPU has too little memory.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"the GPU's memory is full: use {remedy}") from error


def _refused(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(f"{path}: cannot be loaded ({reason}); copy the checkpoint again")
