# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Recorded arrays of a PyTorch reference, and how they are compared with ours.

The names of the arrays are explained in `third_party/golden/README.md`. The recorded
files are pinned by their SHA-256 (`rfrec.parity.checks`), so the checks do not validate
them. Sizes are read from the arrays.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfrec.typing import PyTree

Arrays = Mapping[str, np.ndarray]

# Tolerances: one forward pass, its gradients, a run of optimizer steps.
FORWARD = 1e-5
GRADIENT = 1e-4
RUN = 1e-3


class Check(NamedTuple):
    """Result of one comparison.

    Attributes:
      name: Name of the compared array.
      error: Largest relative error of real values, see `near`; number of differing
        entries of exact values, see `exact`; infinite if the shapes differ.
      tolerance: Largest error that passes.
    """

    name: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance


class Recorded(NamedTuple):
    """Recorded arrays, and the recorded model in our layout.

    Attributes:
      arrays: Arrays by their recorded name.
      arch: Architecture of the model.
      params: Recorded initial parameters.
    """

    arrays: Arrays
    arch: Any
    params: PyTree

    def float32(self, name: str) -> Float[Array, "..."]:
        """Returns an array in single precision, as a JAX array."""
        return jnp.asarray(self.arrays[name], jnp.float32)


def near(name: str, ours, recorded: np.ndarray, tolerance: float = FORWARD) -> Check:
    """Compares real values: max |a - b| / max |b|, the denominator 1 if b is zero."""
    a, b = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
    if a.shape != b.shape:
        return Check(name, np.inf, tolerance)
    # A NaN in either array makes the error NaN, which fails.
    with np.errstate(invalid="ignore", over="ignore"):
        difference, scale = np.max(np.abs(a - b)), np.max(np.abs(b))
        return Check(name, float(difference / (scale or 1.0)), tolerance)


def exact(name: str, ours, recorded: np.ndarray) -> Check:
    """Counts the entries that differ."""
    a, b = np.asarray(ours), np.asarray(recorded)
    if a.shape != b.shape:
        return Check(name, np.inf, 0.0)
    return Check(name, float(np.sum(a != b)), 0.0)


def part(arrays: Arrays, name: str) -> dict[str, np.ndarray]:
    """Returns the arrays named `NAME/...`, without that prefix."""
    prefix = f"{name}/"
    return {
        key.removeprefix(prefix): array
        for key, array in arrays.items()
        if key.startswith(prefix)
    }


def leaf(tree: PyTree, path: tuple[str, ...]) -> Any:
    """Returns the entry of nested dictionaries at a path of keys."""
    for key in path:
        tree = tree[key]
    return tree
