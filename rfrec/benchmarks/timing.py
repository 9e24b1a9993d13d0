# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a benchmark's case is made of: two sides of the same work, and their memory."""

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
    """Two sides of one case, ready to run.

    Attributes:
      ours: Does a block, waits for it and returns what it computed.
      torch: Does the same; None if it is not timed.
      unit: Of the result. Of a time, the work of a block is divided by; a rate counts
        it by the second; `fraction` is the time that `ours` takes beyond `against`.
      per_block: Units of work in a block.
      disagreement: Of the first results of both sides.
      tolerance: Of the disagreement.
      peak_bytes: Called at the end.
      warm: Whether the first block only compiles.
      torch_per_block: Units of work in a block of PyTorch; None for as many as ours.
      against: Another way of ours to do a block, for the unit `fraction`.
    """

    ours: Block
    torch: Block | None
    unit: str
    per_block: int
    disagreement: Callable[[np.ndarray, np.ndarray], float]
    tolerance: float
    peak_bytes: Callable[[], int]
    warm: bool = True
    torch_per_block: int | None = None
    against: Block | None = None


def torch_device() -> str:
    """Returns where PyTorch has to run to be comparable."""
    backend = jax.default_backend()
    if backend == "cpu":
        return "cpu"
    if backend != "gpu" or not torch_tokenizer.sees_gpu():
        raise UserError(
            f"--torch: PyTorch cannot use the {backend} that JAX runs on: install a"
            " PyTorch that does, or set JAX_PLATFORMS=cpu"
        )
    return "cuda"


def peak(compiled: Callable[[], jax.stages.Compiled]) -> int:
    """Returns the peak of the device, or on a CPU, which counts none, of the program.

    Args:
      compiled: Returns the program, if it is asked for.
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
    """Returns `VmRSS`, the memory of this process now, or `VmHWM`, the most so far.

    Where the kernel does not tell, it is the most so far for both.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = status.read_text(encoding="ascii").splitlines()
    return next(int(li.split()[1]) * 1024 for li in lines if li.startswith(field))


class Watched:
    """A block on the host, and by how much its first run makes the process grow.

    What PyTorch's side takes afterwards does not count.
    """

    def __init__(self, block: Block):
        self._block, self._peak = block, None

    def __call__(self) -> np.ndarray:
        """Does the block."""
        if self._peak is not None:
            return self._block()
        # The most so far may be from drawing the data: start over, where one may.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _resident_bytes("VmRSS")
        result = self._block()
        self._peak = max(_resident_bytes("VmHWM") - before, 0)
        return result

    def peak(self) -> int:
        """Returns the growth in bytes; on an accelerator its own peak."""
        assert self._peak is not None, "asked before the first run"
        if jax.default_backend() == "cpu":
            return self._peak
        return peak(lambda: jax.jit(lambda: 0).lower().compile())


def host(block: Block) -> Bench:
    """Returns a case of work on the host that has no other side."""
    watched = Watched(block)
    return Bench(
        ours=watched,
        torch=None,
        unit="s",
        per_block=1,
        disagreement=lambda a, b: float(np.mean(a != b)),
        tolerance=0.0,
        peak_bytes=watched.peak,
        warm=False,
    )
