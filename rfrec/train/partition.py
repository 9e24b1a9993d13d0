# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Parallelism behind one interface: pmap, or jit with NamedSharding.

A step is written once, for the rows of one device; `axis_name` is the axis over which
it couples the rows of the whole batch. Under `pmap` the axis exists and collectives run
over it; under `jit` it is None and the compiler partitions a program over the whole
batch. Results do not depend on the engine or the number of devices.

Under `jit` a second axis of devices can split the parameters of large models: a model
names the axes of its parameters, and `SPREAD` lists the names that are split.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rfrec.config import UserError
from rfrec.typing import PyTree

AXIS = "data"
TENSOR = "tensor"
# Parameter axes that are split over the tensor axis of the devices.
SPREAD: Mapping[str, str] = {"vocab": TENSOR, "heads": TENSOR, "mlp": TENSOR}


@dataclasses.dataclass(frozen=True)
class Engine:
    """Places arrays on devices and compiles functions over them.

    Attributes:
      name: `pmap` or `jit`.
      mesh: All devices of all processes: an axis for the batch and, under `jit`, one
        for the parameters.
    """

    name: Literal["pmap", "jit"]
    mesh: Mesh

    @property
    def axis_name(self) -> str | None:
        """Axis for the collectives of a step; None under `jit`."""
        return AXIS if self.name == "pmap" else None

    @property
    def num_devices(self) -> int:
        """Number of devices of all processes."""
        return self.mesh.size

    @property
    def num_parts(self) -> int:
        """Number of parts of a batch: devices that hold different rows."""
        return self.mesh.shape[AXIS]

    def check_batch(self, batch_size: int, name: str) -> None:
        """Checks that a batch can be split evenly.

        Args:
          batch_size: Number of rows.
          name: Config key of the batch size, for the error message.

        Raises:
          UserError: The devices do not divide the batch.
        """
        if batch_size % self.num_parts:
            among = "" if self.num_parts == self.num_devices else " along the batch"
            raise UserError(
                f"{name}={batch_size} is not a multiple of the {self.num_parts}"
                f" devices{among}; use a multiple"
            )

    def _sharding(self, *spec: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def shardings(self, tree: PyTree, axes: PyTree) -> PyTree:
        """Returns the sharding of each array of a state under `jit`.

        An array is a parameter, or a moment of one, if its path ends in that of the
        parameter and it has as many axes. An axis whose length the tensor devices do
        not divide is not split, nor is any other array.

        Args:
          tree: Arrays: parameters, or a tree that contains trees like them.
          axes: Tuple of axis names, or None, for each parameter.

        Returns:
          A tree like `tree`.
        """
        named = _by_path(axes, is_leaf=lambda a: a is None or isinstance(a, tuple))

        def choose(path, a):
            keys = _keys(path)
            tails = (keys[i:] for i in range(len(keys)))
            names = next((named[t] for t in tails if t in named), None) or ()
            if len(names) != np.ndim(a):
                return self._sharding()
            return self._sharding(*map(self._spread, names, np.shape(a)))

        return jax.tree_util.tree_map_with_path(choose, tree)

    def _spread(self, name: str | None, length: int) -> str | None:
        axis = SPREAD.get(name) if name else None
        return axis if axis and length % self.mesh.shape[axis] == 0 else None

    def place(self, tree: PyTree, shardings: PyTree) -> PyTree:
        """Copies host arrays to the devices by `shardings`; `jit` only."""

        def put(a, sharding):
            a = np.asarray(a)
            return jax.make_array_from_callback(a.shape, sharding, lambda i: a[i])

        return jax.tree.map(put, tree, shardings)

    def replicate(self, tree: PyTree) -> PyTree:
        """Copies host arrays to every device."""

        def put(a):
            a = np.asarray(a)
            if self.name == "jit":
                return self.place(a, self._sharding())
            shape = (self.num_devices, *a.shape)
            return jax.make_array_from_callback(
                shape, self._sharding(AXIS), lambda _: a[np.newaxis]
            )

        return jax.tree.map(put, tree)

    def fetch(self, tree: PyTree) -> PyTree:
        """Returns host copies of arrays; all processes call it."""

        def get(a):
            if self.name == "pmap":
                return np.asarray(a.addressable_data(0))[0]
            if a.is_fully_replicated:
                return np.asarray(a.addressable_data(0))
            return np.asarray(multihost_utils.process_allgather(a, tiled=True))

        return jax.tree.map(get, tree)

    def shard(
        self, read: Callable[[slice], np.ndarray], shape: tuple[int, ...]
    ) -> jax.Array:
        """Splits an array [S, B, ...] over the devices along B.

        Args:
          read: Returns the rows `[:, rows]` of the global array. It is called only for
            rows of this process, so that a memory map is read only where needed.
          shape: Shape of the global array.
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

    def spread(self, tree: PyTree) -> PyTree:
        """Splits rows computed in a compiled function over the devices; `jit` only."""
        return jax.lax.with_sharding_constraint(tree, self._sharding(AXIS))

    def compile(
        self,
        fn: Callable[..., tuple[PyTree, PyTree]],
        *,
        donate: bool = False,
        shardings: PyTree = None,
    ) -> Callable[..., tuple[PyTree, PyTree]]:
        """Compiles `fn(state, constants, batch, count) -> (state, outputs)`.

        Args:
          fn: Function to compile. `state`, `constants` and `count` are replicated and
            `batch` is split; outputs must be the same on all devices.
          donate: Whether the state's buffers are reused for the new state.
          shardings: Shardings of the new state under `jit`; None replicates it.
        """
        donated = (0,) if donate else ()
        if self.name == "pmap":
            compiled = jax.pmap(
                fn, axis_name=AXIS, in_axes=(0, 0, 0, None), donate_argnums=donated
            )
        else:
            everywhere = self._sharding()
            states = everywhere if shardings is None else shardings
            compiled = jax.jit(
                fn, donate_argnums=donated, out_shardings=(states, everywhere)
            )
        return compiled


def _keys(path: tuple[Any, ...]) -> tuple[str, ...]:
    """Returns a path as names, equal for dicts, dataclasses and tuples."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _by_path(tree: PyTree, is_leaf: Callable[[Any], bool]) -> dict:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    return {_keys(path): leaf for path, leaf in leaves}


def make_engine(
    name: Literal["pmap", "jit"], *, devices=None, tensor: int = 1
) -> Engine:
    """Returns an engine over all devices of all processes.

    Args:
      name: `pmap` or `jit`.
      devices: Devices; None uses all.
      tensor: Number of devices that share one copy of the parameters, `jit` only.

    Raises:
      UserError: `tensor` does not divide the devices, or the engine is `pmap`.
    """
    devices = jax.devices() if devices is None else devices
    if tensor > 1 and name == "pmap":
        raise UserError(
            f"config.train.tensor={tensor}: pmap copies parameters to every device;"
            " use config.train.engine=jit"
        )
    if len(devices) % tensor:
        raise UserError(
            f"config.train.tensor={tensor} does not divide the {len(devices)} devices;"
            " use a divisor"
        )
    # Results of pmap are on a mesh of one axis. If its first arguments were on another
    # mesh, the second call would compile the program again.
    shape = {AXIS: len(devices) // tensor} | (
        {} if name == "pmap" else {TENSOR: tensor}
    )
    # Explicit axes, the default of make_mesh, refuse gathers from a sharded index.
    mesh = jax.make_mesh(
        tuple(shape.values()),
        tuple(shape),
        axis_types=(AxisType.Auto,) * len(shape),
        devices=devices,
    )
    return Engine(name, mesh)


def gather(x: jax.Array, axis_name: str | None, *, axis: int = 0) -> jax.Array:
    """Concatenates the rows of all devices; the identity without a device axis."""
    if axis_name is None:
        return x
    return jax.lax.all_gather(x, axis_name, axis=axis, tiled=True)


def mean(tree: PyTree, axis_name: str | None) -> PyTree:
    """Averages over the devices; the identity without a device axis."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def row_keys(key: jax.Array, num_rows: int, axis_name: str | None) -> jax.Array:
    """Returns one random key for each row of this device.

    A key depends only on the row's index in the global batch, so that noise does not
    depend on the number of devices.
    """
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * num_rows
    rows = first + jnp.arange(num_rows)
    return jax.vmap(functools.partial(jax.random.fold_in, key))(rows)
