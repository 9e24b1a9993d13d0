# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Recorded outputs of PyTorch references: the arrays of a file in, checks out.

What a file holds shows in the names of its arrays. A check runs our implementation, the
code that trains, on recorded inputs and compares what comes out with the record.
"""

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfrec.codes import reassign, table
from rfrec.config import UserError
from rfrec.tokenizer import quantizer, sinkhorn

Arrays = Mapping[str, np.ndarray]

FORWARD = 1e-5
GRADIENT = 1e-4
# Of a run of optimiser steps.
RUN = 1e-3


class Check(NamedTuple):
    """One comparison; the error of exact ones is the number of differing entries."""

    name: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the error is a number within the tolerance."""
        return self.error <= self.tolerance


def near(name: str, ours, recorded: np.ndarray, tolerance: float = FORWARD) -> Check:
    """Compares real values: max |a - b| / max |b|, the denominator 1 if b is zero."""
    a, b = _pair(name, ours, recorded)
    # A NaN in either stays one, and fails.
    with np.errstate(invalid="ignore", over="ignore"):
        difference, scale = np.max(np.abs(a - b)), np.max(np.abs(b))
        return Check(name, float(difference / (scale or 1.0)), tolerance)


def exact(name: str, ours, recorded: np.ndarray) -> Check:
    """Counts the entries that differ."""
    a, b = _pair(name, ours, recorded)
    return Check(name, float(np.sum(a != b)), 0.0)


def _pair(name: str, ours, recorded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
    if a.shape != b.shape or not b.size:
        raise UserError(f"{name} has shape {b.shape}, the inputs give {a.shape}")
    return a, b


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of a file.

    Raises:
      UserError: It is damaged, or no NumPy archive of numbers.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (
        *(OSError, EOFError, ValueError, AttributeError, TypeError, SyntaxError),
        *(KeyError, NotImplementedError, RuntimeError),
        *(zipfile.BadZipFile, zlib.error, UnicodeDecodeError, MemoryError),
    ) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"damaged, or no .npz archive: {reason}") from error


def expect(
    arrays: Arrays, needed: Iterable[str], *, allowed: Iterable[str] = ()
) -> None:
    """Refuses a file that lacks an array, or holds one that no check reads."""
    needed = set(needed)
    missing = sorted(needed - arrays.keys())
    extra = sorted(arrays.keys() - needed - set(allowed))
    if missing:
        raise UserError(f"array {missing[0]!r} is missing")
    if extra:
        raise UserError(f"array {extra[0]!r} is not understood")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise UserError(f"array {name!r} of type {array.dtype} holds no numbers")


def expect_shape(arrays: Arrays, name: str, shape: tuple[int | None, ...]) -> None:
    """Refuses an array of another shape; None stands for any size from 1 on."""
    got = arrays[name].shape
    fits = len(got) == len(shape) and all(
        g == s if s is not None else g > 0 for g, s in zip(got, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if s is None else str(s) for s in shape)
        raise UserError(f"array {name!r} has shape {got}, not ({wanted})")


def is_sinkhorn(arrays: Arrays) -> bool:
    """Whether this is a record of Sinkhorn plans."""
    return any(name.startswith("Q_eps") for name in arrays)


def check_sinkhorn(arrays: Arrays) -> list[Check]:
    """Checks centring and plans in float64, assignments in float32 as in training."""
    plans = {name: _epsilon(name) for name in arrays if name.startswith("Q_eps")}
    expect(arrays, {"d", "centered", *plans})
    expect_shape(arrays, "d", (None, None))
    d, centered = (arrays[name].astype(np.float64) for name in ("d", "centered"))
    for name in ("centered", *plans):
        expect_shape(arrays, name, d.shape)
    with jax.enable_x64(True):
        checks = [near("centered", jax.jit(sinkhorn.center)(d), centered)]
        plan = jax.jit(sinkhorn.plan, static_argnames="epsilon")
        for name, epsilon in plans.items():
            ours = plan(centered, epsilon=epsilon)
            checks.append(near(f"{name} plan", ours, arrays[name]))
    assign = jax.jit(sinkhorn.assign)
    for name, epsilon in plans.items():
        codes = assign(d.astype(np.float32), epsilon=np.float32(epsilon))
        best = np.argmax(arrays[name], axis=1)
        checks.append(exact(f"{name} assignment", codes, best))
    return checks


def _epsilon(name: str) -> float:
    try:
        epsilon = float(name.removeprefix("Q_eps"))
    except ValueError:
        epsilon = 0.0
    if not 0 < epsilon < np.inf:
        raise UserError(f"array {name!r} names no epsilon above 0")
    return epsilon


def is_rotation(arrays: Arrays) -> bool:
    """Whether this is a record of the rotation trick."""
    return "cotangent" in arrays and "code" in arrays


def check_rotation(arrays: Arrays) -> list[Check]:
    """Checks output and gradient of the rotation-trick estimator."""
    expect(arrays, ("x", "code", "out", "cotangent", "grad_x"))
    expect_shape(arrays, "x", (None, None))
    for name in arrays:
        expect_shape(arrays, name, arrays["x"].shape)
    x, code, cotangent = (
        jnp.asarray(arrays[name], jnp.float32) for name in ("x", "code", "cotangent")
    )
    out, pull = jax.vjp(lambda x: jax.vmap(quantizer.rotate)(x, code), x)
    return [
        near("out", out, arrays["out"]),
        near("grad_x", pull(cotangent)[0], arrays["grad_x"], GRADIENT),
    ]


def is_repair(arrays: Arrays) -> bool:
    """Whether this is a record of a repair of codes."""
    return "codes_before" in arrays and "codes_after" in arrays


def check_repair(arrays: Arrays) -> list[Check]:
    """Checks MQL4GRec's repair of codes."""
    expect(arrays, ("distances", "codes_before", "codes_after"))
    expect_shape(arrays, "distances", (None, None, None))
    distances, before = arrays["distances"], arrays["codes_before"]
    items, levels, size = distances.shape
    for name in ("codes_before", "codes_after"):
        expect_shape(arrays, name, (items, levels))
    expect_codes(arrays, "codes_before", (size,) * levels)
    codes = reassign.reassign(before.astype(np.int64), distances)
    return [exact("codes_after", codes, arrays["codes_after"])]


def expect_codes(arrays: Arrays, name: str, sizes: tuple[int, ...]) -> None:
    """Refuses codes that are no integers or leave their codebooks."""
    if arrays[name].dtype.kind == "f":
        raise UserError(f"array {name!r} of type {arrays[name].dtype} holds no codes")
    try:
        table.check_codes(arrays[name].astype(np.int64), sizes)
    except UserError as error:
        raise UserError(f"array {name!r}: {error}") from error
