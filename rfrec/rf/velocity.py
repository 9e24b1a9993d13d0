# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The velocity network, a function of noisy rows, times and conditions.

A sum of three codes (of the row, of its time, of its conditions) passes residual blocks
of linear layers; a linear map of the conditions may be added to what comes out. What
the conditions give does not change along a path, so a solver makes it once: `encode`,
then `velocity` at every step. Parameters are plain dicts.
"""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from rfrec.dropout import dropout
from rfrec.typing import PyTree

_TIME_CHANNELS = 64
# As PyTorch's layer norm.
_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Shape of a velocity network.

    Attributes:
      width: Width of the embeddings.
      condition_width: Width of all conditions side by side; 0 for none.
      hidden: Width of the layers.
      layers: Residual blocks.
      dropout: Rate, after each layer.
      time: How a time in [0, 1] is coded. `raw`: sinusoids of at most 1 radian, as
        documented, most of which are nearly constant or linear in time. `fourier`:
        sinusoids from a quarter of a turn to 16 turns.
      sides: Kinds of rows, each with a learned code that is added; 0 for one kind.
      null_condition: Whether there is a learned code that stands for no condition, as
        classifier-free guidance needs it.
      linear_skip: Whether velocities are a linear map of the conditions, one for each
        side, plus what the layers make. The layers' norms lose how large a condition
        is; at the mean of the noise, the best linear velocity is least squares.
    """

    width: int
    condition_width: int
    hidden: int = 256
    layers: int = 2
    dropout: float = 0.1
    time: Literal["raw", "fourier"] = "raw"
    sides: int = 0
    null_condition: bool = False
    linear_skip: bool = False


class Code(NamedTuple):
    """What conditions and sides give, the same along a path.

    Attributes:
      hidden: What is added to the codes of row and time.
      linear: What is added to the velocity; None without `linear_skip`.
    """

    hidden: Float[Array, "B H"]
    linear: Float[Array, "B D"] | None = None


def time_code(t: Float[Array, " B"], kind: str) -> Float[Array, "B C"]:
    """Returns sines, then cosines, of times at 32 frequencies in geometric order."""
    half = _TIME_CHANNELS // 2
    low, high = (1e-4, 1.0) if kind == "raw" else (math.pi / 2, 32 * math.pi)
    frequencies = np.geomspace(high, low, half).astype(np.float32)
    angles = t[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


class Linear(nn.Module):
    """A linear map whose weight and bias start as PyTorch's: U(-1, 1)/sqrt(inputs)."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B F"]:
        """Maps rows."""

        def start(key, shape):
            bound = x.shape[-1] ** -0.5
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        kernel: Any = self.param("kernel", start, (x.shape[-1], self.features))
        bias: Any = self.param("bias", start, (self.features,))
        return x @ kernel + bias[None]


class Layer(nn.Module):
    """Linear map, layer norm, SiLU, dropout."""

    arch: Architecture
    site: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B D"], keys: Key[Array, " B"] | None
    ) -> Float[Array, "B H"]:
        """Transforms rows.

        Args:
          x: Rows of any width.
          keys: A random key for each row; None for no dropout.
        """
        x = Linear(self.arch.hidden, name="linear")(x)
        x = nn.silu(nn.LayerNorm(_EPSILON, name="norm")(x))
        return dropout(x, self.arch.dropout, keys=keys, site=self.site)


class Block(nn.Module):
    """SiLU(x + norm(linear(layer(x))))."""

    arch: Architecture
    site: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H"], keys: Key[Array, " B"] | None
    ) -> Float[Array, "B H"]:
        """Transforms rows; `keys` as for `Layer`."""
        y = Layer(self.arch, self.site, name="layer")(x, keys)
        y = Linear(self.arch.hidden, name="linear")(y)
        return nn.silu(x + nn.LayerNorm(_EPSILON, name="norm")(y))


class VelocityNet(nn.Module):
    """The network; see `apply` for its arguments."""

    arch: Architecture

    def setup(self):
        """Creates the layers."""
        a = self.arch
        self.time = Linear(a.hidden)
        if a.condition_width:
            self.condition = Layer(a, site=1)
        if a.null_condition:
            self.null = self.param("null", nn.initializers.zeros, (1, a.hidden))
        if a.sides:
            self.side = self.param("side", nn.initializers.zeros, (a.sides, a.hidden))
        if a.linear_skip:
            shape = (max(a.sides, 1), a.condition_width, a.width)
            self.skip = self.param("skip", nn.initializers.zeros, shape)
        self.input = Layer(a, site=2)
        self.blocks = [Block(a, site=4 + i) for i in range(a.layers)]
        self.last = Layer(a, site=3)
        self.output = Linear(a.width)

    def encode(
        self,
        condition: Float[Array, "B C"],
        side: Int[Array, " B"] | None = None,
        drop: Bool[Array, " B"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> Code:
        """Returns the code of conditions and sides."""
        a = self.arch
        if (side is None) != (a.sides == 0):
            raise ValueError(f"side is {side}, the network has {a.sides} sides")
        if drop is not None and not a.null_condition:
            raise ValueError("conditions are dropped, there is no null condition")
        if a.condition_width:
            code = self.condition(condition, keys)
        else:
            code = jnp.zeros((len(condition), a.hidden), condition.dtype)
        if drop is not None:
            code = jnp.where(drop[:, None], jnp.asarray(self.null), code)
        if side is None:
            return Code(code, self._linear(condition, None, drop))
        # A product, for the gradient of a gather adds up row by row; in full precision,
        # for a gather is exact.
        chosen = jax.nn.one_hot(side, a.sides, dtype=code.dtype)
        code += jnp.matmul(chosen, jnp.asarray(self.side), precision="highest")
        return Code(code, self._linear(condition, chosen, drop))

    def _linear(
        self,
        condition: Float[Array, "B C"],
        chosen: Float[Array, "B S"] | None,
        drop: Bool[Array, " B"] | None,
    ) -> Float[Array, "B D"] | None:
        """Returns the linear map of the conditions of each row's side."""
        if not self.arch.linear_skip:
            return None
        if chosen is None:
            chosen = jnp.ones((len(condition), 1), condition.dtype)
        if drop is not None:
            chosen = jnp.where(drop[:, None], 0.0, chosen)
        weights = jnp.asarray(self.skip)
        return jnp.einsum("bs,bc,scd->bd", chosen, condition, weights)

    def velocity(
        self,
        x: Float[Array, "B D"],
        t: Float[Array, " #B"],
        code: Code,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B D"]:
        """Returns the velocity of rows whose conditions are encoded."""
        a = self.arch
        time = nn.silu(self.time(time_code(t, a.time)))
        if keys is not None:
            time = jnp.broadcast_to(time, code.hidden.shape)
            time = dropout(time, a.dropout, keys=keys, site=0)
        y = self.input(x, keys) + time + code.hidden
        for block in self.blocks:
            y = block(y, keys)
        v = self.output(self.last(y, keys))
        return v if code.linear is None else v + code.linear

    def __call__(
        self,
        x: Float[Array, "B D"],
        t: Float[Array, " #B"],
        condition: Float[Array, "B C"],
        side: Int[Array, " B"] | None = None,
        drop: Bool[Array, " B"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B D"]:
        """Encodes the conditions and returns velocities."""
        return self.velocity(x, t, self.encode(condition, side, drop, keys), keys)


def init(arch: Architecture, key: PRNGKeyArray) -> PyTree:
    """Draws the parameters of a network."""
    x, condition = (jnp.zeros((1, n)) for n in (arch.width, arch.condition_width))
    side = jnp.zeros(1, jnp.int32) if arch.sides else None
    return VelocityNet(arch).init(key, x, jnp.zeros(1), condition, side)["params"]


def apply(
    arch: Architecture,
    params: PyTree,
    x: Float[Array, "B D"],
    t: Float[Array, " #B"],
    condition: Float[Array, "B C"],
    *,
    side: Int[Array, " B"] | None = None,
    drop: Bool[Array, " B"] | None = None,
    dropout_key: PRNGKeyArray | None = None,
) -> Float[Array, "B D"]:
    """Returns velocities.

    Args:
      arch: Architecture of the network.
      params: From `init`.
      x: Points on the paths.
      t: Times in [0, 1]; one for all rows, or one for each.
      condition: All conditions side by side.
      side: Kind of each row, 0..sides-1; None if there is one kind.
      drop: Rows that the null condition stands for; None for none.
      dropout_key: A row's mask depends on this and on its place; None for no dropout.

    Raises:
      ValueError: `side` or `drop` does not fit the network.
    """
    keys = None
    if dropout_key is not None and arch.dropout:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(dropout_key, jnp.arange(len(x)))
    net = VelocityNet(arch)
    return jnp.asarray(net.apply({"params": params}, x, t, condition, side, drop, keys))


def encode(
    arch: Architecture,
    params: PyTree,
    condition: Float[Array, "B C"],
    *,
    side: Int[Array, " B"] | None = None,
    drop: Bool[Array, " B"] | None = None,
) -> Code:
    """Returns the code of conditions, for `velocity`; arguments as for `apply`."""
    net, variables = VelocityNet(arch), {"params": params}
    code: Any = net.apply(variables, condition, side, drop, method="encode")
    return code


def velocity(
    arch: Architecture,
    params: PyTree,
    x: Float[Array, "B D"],
    t: Float[Array, " #B"],
    code: Code,
) -> Float[Array, "B D"]:
    """Returns velocities, as `apply` without dropout, from codes of conditions."""
    net = VelocityNet(arch)
    return jnp.asarray(net.apply({"params": params}, x, t, code, method="velocity"))
