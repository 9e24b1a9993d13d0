# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Two sides of the same work, how they are timed, and the memory that they use."""

import contextlib
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rfrec.benchmarks import torch_tokenizer
from rfrec.config import UserError

Block = Callable[[], np.ndarray]


class Bench(NamedTuple):
    """Both sides of one case, ready to run.

    Attributes:
      ours: Function that does a block of work, waits for it and returns its result.
      unit: Unit of the row: a time for each unit of work, a rate (`users/s`), or
        `fraction`, the time that `ours` takes in addition to `against`.
      per_block: Units of work in a block.
      peak_bytes: Function that returns the peak of memory; called at the end.
      torch: The same work in PyTorch; None if it is not timed.
      disagreement: Distance of the first results of both sides.
      tolerance: Largest disagreement of sides that do the same work.
      warm: Whether the first block is not timed, because it compiles.
      torch_per_block: Units of work in a block of PyTorch; None for as many as ours.
      against: Another way of ours to do a block, for the unit `fraction`.
    """

    ours: Block
    unit: str
    per_block: int
    peak_bytes: Callable[[], int]
    torch: Block | None = None
    disagreement: Callable[[np.ndarray, np.ndarray], float] = lambda a, b: 0.0
    tolerance: float = 0.0
    warm: bool = True
    torch_per_block: int | None = None
    against: Block | None = None


def torch_device() -> str:
    """Returns the device on which PyTorch has to run: that of JAX.

    Raises:
      UserError: PyTorch cannot use it.
    """
    backend = jax.default_backend()
    if backend == "cpu":
        return "cpu"
    if backend != "gpu" or not torch_tokenizer.sees_gpu():
        raise UserError(
            f"--torch: PyTorch cannot use the {backend} that JAX runs on; install a"
            " PyTorch that can, or set JAX_PLATFORMS=cpu"
        )
    return "cuda"


def peak(compiled: Callable[[], jax.stages.Compiled]) -> int:
    """Returns the peak of memory of the device; on a CPU, that of the program.

    Args:
      compiled: Function that returns the program; only called on a CPU.
    """
    counted = jax.local_devices()[0].memory_stats()
    if counted and "peak_bytes_in_use" in counted:
        return int(counted["peak_bytes_in_use"])
    sizes: Any = compiled().memory_analysis()
    return int(
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes
    )


def _resident_bytes(field: str) -> int:
    """Returns `VmRSS`, the memory of this process, or `VmHWM`, its peak so far.

    Without /proc, both are the peak so far.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = status.read_text(encoding="ascii").splitlines()
    return next(int(li.split()[1]) * 1024 for li in lines if li.startswith(field))


class Watched:
    """Block on the host that measures by how much its first run grows the process.

    Memory that PyTorch's side takes afterwards does not count.
    """

    def __init__(self, block: Block):
        self._block, self._peak = block, None

    def __call__(self) -> np.ndarray:
        """Runs the block."""
        if self._peak is not None:
            return self._block()
        # The peak so far may be from drawing the data: reset it, where allowed.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _resident_bytes("VmRSS")
        result = self._block()
        self._peak = max(_resident_bytes("VmHWM") - before, 0)
        return result

    def peak(self) -> int:
        """Returns the growth in bytes; on an accelerator, the peak of the device."""
        assert self._peak is not None, "the block has not run yet"
        if jax.default_backend() == "cpu":
            return self._peak
        return peak(lambda: jax.jit(lambda: 0).lower().compile())


def host(block: Block) -> Bench:
    """Returns a case of work on the host, without PyTorch."""
    watched = Watched(block)
    return Bench(
        ours=watched,
        unit="s",
        per_block=1,
        peak_bytes=watched.peak,
        warm=False,
    )
