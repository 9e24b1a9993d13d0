# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Data parallelism behind one interface: pmap, or jit with NamedSharding.

A step is written once, for the rows one device sees, with `axis_name` for what
couples rows of the whole batch. Under `pmap` the axis exists and collectives run over
it; under `jit` it is None and the compiler partitions a program over the whole batch.
Both return the same numbers on any number of devices.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rfrec.config import UserError
from rfrec.typing import PyTree

AXIS = "data"


@dataclasses.dataclass(frozen=True)
class Engine:
    """Places arrays on devices and compiles functions over them.

    Attributes:
      name: `pmap` or `jit`.
      mesh: All devices of all processes on one axis.
    """

    name: Literal["pmap", "jit"]
    mesh: Mesh

    @property
    def axis_name(self) -> str | None:
        """Axis for the collectives of a step; None under `jit`."""
        return AXIS if self.name == "pmap" else None

    @property
    def num_devices(self) -> int:
        """Number of devices over all processes."""
        return self.mesh.size

    def check_batch(self, batch_size: int, name: str) -> None:
        """Raises UserError if a batch cannot be spread evenly."""
        if batch_size % self.num_devices:
            raise UserError(
                f"{name}={batch_size} is not a multiple of the {self.num_devices}"
                " devices: choose a multiple"
            )

    def _sharding(self, *spec: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def replicate(self, tree: PyTree) -> PyTree:
        """Copies host arrays to every device."""

        def put(a):
            a = np.asarray(a)
            if self.name == "jit":
                return jax.make_array_from_callback(
                    a.shape, self._sharding(), lambda index: a[index]
                )
            shape = (self.num_devices, *a.shape)
            return jax.make_array_from_callback(
                shape, self._sharding(AXIS), lambda _: a[np.newaxis]
            )

        return jax.tree.map(put, tree)

    def fetch(self, tree: PyTree) -> PyTree:
        """Returns host copies of replicated arrays."""

        def get(a):
            local = np.asarray(a.addressable_data(0))
            return local[0] if self.name == "pmap" else local

        return jax.tree.map(get, tree)

    def shard(
        self, read: Callable[[slice], np.ndarray], shape: tuple[int, ...]
    ) -> jax.Array:
        """Spreads an array [S, B, ...] over the devices along B.

        Args:
          read: Returns the rows `[:, rows]` of the global array; called only for
            rows of this process, so a memory map is read only where needed.
          shape: Of the global array.
        """
        if self.name == "jit":

            def columns(index):
                return read(slice(*index[1].indices(shape[1])[:2]))

            return jax.make_array_from_callback(
                shape, self._sharding(None, AXIS), columns
            )
        n = self.num_devices
        rows = shape[1] // n

        def part(index):
            device = index[0].indices(n)[0]
            return read(slice(device * rows, (device + 1) * rows))[None]

        return jax.make_array_from_callback(
            (n, shape[0], rows, *shape[2:]), self._sharding(AXIS), part
        )

    def compile(
        self, fn: Callable[..., tuple[PyTree, PyTree]], *, donate: bool = False
    ) -> Callable[..., tuple[PyTree, PyTree]]:
        """Compiles `fn(state, constants, batch, count) -> (state, outputs)`.

        Args:
          fn: `state`, `constants` and `count` are replicated, `batch` is spread, and
            everything returned must be the same on all devices.
          donate: Whether the state's buffers are reused for the new state.
        """
        donated = (0,) if donate else ()
        if self.name == "pmap":
            compiled = jax.pmap(
                fn, axis_name=AXIS, in_axes=(0, 0, 0, None), donate_argnums=donated
            )
        else:
            compiled = jax.jit(
                fn, donate_argnums=donated, out_shardings=self._sharding()
            )
        return compiled


def make_engine(name: Literal["pmap", "jit"], *, devices=None) -> Engine:
    """Makes an engine over all devices of all processes."""
    devices = jax.devices() if devices is None else devices
    # Explicit axes, the default of make_mesh, refuse gathers from a sharded index.
    mesh = jax.make_mesh(
        (len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )
    return Engine(name, mesh)


def gather(x: jax.Array, axis_name: str | None, *, axis: int = 0) -> jax.Array:
    """Joins the rows of all devices; identity where there is no device axis."""
    if axis_name is None:
        return x
    return jax.lax.all_gather(x, axis_name, axis=axis, tiled=True)


def mean(tree: PyTree, axis_name: str | None) -> PyTree:
    """Averages over the devices; identity where there is no device axis."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def row_keys(key: jax.Array, num_rows: int, axis_name: str | None) -> jax.Array:
    """Returns one random key for each row this device holds.

    A key depends on the row's place in the global batch alone, so noise does not
    depend on the number of devices.
    """
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * num_rows
    rows = first + jnp.arange(num_rows)
    return jax.vmap(functools.partial(jax.random.fold_in, key))(rows)
