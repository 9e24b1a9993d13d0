# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The flow of a host with users and items: which rows each generator trains on.

The flow generates the host's embeddings H from conditions. There is one generator for
all nodes, or one for each side.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from rfrec.rf import average, generator, sample, units
from rfrec.rf.settings import Settings
from rfrec.typing import PyTree

# Rows that are generated at once when all are generated.
_BLOCK = 8192
# The held-out rows never change, so that errors of all runs are comparable.
_HELDOUT_SEED = 0


class Sides(NamedTuple):
    """Rows of all users, and of all items."""

    users: Float[Array, "U D"]
    items: Float[Array, "I D"]


class Host(NamedTuple):
    """Embeddings of users, and of items.

    Attributes:
      behaviour: H, the target.
      condition: All conditions side by side.
      prior: Priors of the guidance, from the distance to the mean user; None for no
        guidance.
    """

    behaviour: Sides
    condition: Sides
    prior: Sides | None


class Part(NamedTuple):
    """Nodes of one generator.

    Attributes:
      name: Name of the generator.
      nodes: Their numbers, users first.
      users: Number of users among them.
      place: Their positions among the rows that are generated.
    """

    name: str
    nodes: Int[Array, " B"]
    users: int
    place: slice


@dataclasses.dataclass(frozen=True)
class Flow:
    """The generators of a host; holds settings, no arrays.

    Attributes:
      settings: Settings of the generators.
      num_users: Nodes 0 .. num_users - 1.
      num_items: The nodes behind them.
      width: Width of H.
      condition_width: Width of all conditions.
    """

    settings: Settings
    num_users: int
    num_items: int
    width: int
    condition_width: int

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of the generators."""
        shared = self.settings.generators == "shared"
        return ("shared",) if shared else ("users", "items")

    @property
    def has_sides(self) -> bool:
        """Whether the generator receives the side of a row as an input."""
        return self.names == ("shared",) and self.settings.side_embedding

    @property
    def training_settings(self) -> Settings:
        """The settings of training; at ratio 0 no gradient reaches the host."""
        if self.settings.mix_ratio > 0:
            return self.settings
        return dataclasses.replace(
            self.settings,
            attach_target=False,
            attach_conditions=False,
            attach_generated=False,
        )

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        """Returns the parameters and the state of all generators."""
        widths = self.width, self.condition_width
        keys = dict(
            zip(self.names, jax.random.split(key, len(self.names)), strict=True)
        )
        sides = 2 if self.has_sides else 0
        params = {
            name: generator.init_params(self.settings, *widths, key, sides=sides)
            for name, key in keys.items()
        }
        state: dict[str, Any] = {
            "moments": {name: units.start(*widths) for name in self.names},
            "ema": average.start(self.settings.ema_decay, params),
            "count": jnp.int32(0),
        }
        return params, state

    def after_update(self, params: PyTree, state: PyTree) -> PyTree:
        """Moves the average of the parameters."""
        decay = self.settings.ema_decay
        ema = average.advance(decay, state["ema"], params, state["count"])
        return {**state, "ema": ema, "count": state["count"] + 1}

    def heldout(self) -> np.ndarray:
        """Returns which nodes never train the flow."""
        draws = np.random.default_rng(_HELDOUT_SEED)
        return draws.random(self.num_users + self.num_items) < (
            self.settings.heldout_share
        )

    def draw_nodes(self, key: jax.Array) -> tuple[Int[Array, " B"], int]:
        """Draws nodes for a step: as many of each side as it has of all.

        Returns:
          The nodes, users first, and the number of users.
        """
        users, items, count = self.num_users, self.num_items, self.settings.rows
        first = min(max(round(count * users / (users + items)), 1), max(count - 1, 1))
        keys = jax.random.split(key)
        drawn = (
            jax.random.randint(keys[0], (first,), 0, users),
            jax.random.randint(keys[1], (count - first,), users, users + items),
        )
        return jnp.concatenate(drawn), first

    def split(self, nodes: Int[Array, " B"], users: int) -> list[Part]:
        """Splits nodes among the generators.

        Args:
          nodes: Users first.
          users: Number of users among them.
        """
        if self.names == ("shared",):
            return [Part("shared", nodes, users, slice(None))]
        return [
            Part("users", nodes[:users], users, slice(users)),
            Part("items", nodes[users:], 0, slice(users, None)),
        ]

    def take(self, sides: Sides, part: Part) -> Float[Array, "B _"]:
        """Returns the rows of a part."""
        users, items = part.nodes[: part.users], part.nodes[part.users :]
        if len(items) == 0:
            return sides.users[users]
        of_items = sides.items[items - self.num_users]
        if len(users) == 0:
            return of_items
        return jnp.concatenate([sides.users[users], of_items])

    def side(self, part: Part) -> Int[Array, " B"] | None:
        """Returns the side of each row, if the network receives it."""
        if not self.has_sides:
            return None
        return jnp.asarray(np.arange(len(part.nodes)) >= part.users, jnp.int32)

    def condition(self, host: Host, part: Part) -> Float[Array, "B C"]:
        """Returns the conditions of rows, with gradient if so configured."""
        condition = self.take(host.condition, part)
        attached = self.training_settings.attach_conditions
        return condition if attached else lax.stop_gradient(condition)

    def prior(self, host: Host, part: Part) -> Float[Array, "B D"] | None:
        """Returns the difference of users to the mean user; zeros for items."""
        if host.prior is None or not self.settings.user_guidance_scale:
            return None
        users = lax.stop_gradient(host.prior.users)
        rows = users[part.nodes[: part.users]] - jnp.mean(users, axis=0)[None]
        return jnp.pad(rows, ((0, len(part.nodes) - part.users), (0, 0)))

    def generate(
        self, params: PyTree, state: PyTree, host: Host, part: Part, key: jax.Array
    ) -> sample.Solution:
        """Returns generated rows of H, with the given parameters."""
        return generator.generate(
            self.settings,
            params[part.name],
            state["moments"][part.name],
            self.condition(host, part),
            key,
            side=self.side(part),
            prior=self.prior(host, part),
        )

    def generate_rows(
        self,
        params: PyTree,
        state: PyTree,
        host: Host,
        parts: Sequence[Part],
        key: jax.Array,
    ) -> Float[Array, "B D"]:
        """Returns generated rows of H, the parts in sequence.

        If there are more rows than nodes, each node is generated once.
        """
        nodes = jnp.concatenate([part.nodes for part in parts])
        count = self.num_users + self.num_items
        often = len(nodes) > count
        if often:
            parts = self.split(jnp.arange(count), self.num_users)
        generated = [
            self.generate(params, state, host, part, jax.random.fold_in(key, i)).x
            for i, part in enumerate(parts)
        ]
        rows = jnp.concatenate(generated)
        return rows[nodes] if often else rows

    def generate_all(
        self, params: PyTree, state: PyTree, host: Host, key: jax.Array
    ) -> tuple[Sides, Int[Array, ""]]:
        """Generates H of all nodes, in blocks, by the averaged parameters.

        Returns:
          Generated H, and the largest number of velocity evaluations of a block.
        """
        weights = average.choose(self.settings.ema_decay, state["ema"], params)

        def generate_side(name: str, first: int, count: int):
            size = min(_BLOCK, count)

            def block(start):
                # The last node is repeated to fill the block; it is cut off below.
                nodes = jnp.minimum(start + jnp.arange(size), first + count - 1)
                users = size if first == 0 else 0
                part = Part(name, nodes, users, slice(None))
                drawn = jax.random.fold_in(key, start)
                return self.generate(weights, state, host, part, drawn)

            blocks = lax.map(block, first + size * jnp.arange(-(-count // size)))
            return blocks.x.reshape(-1, self.width)[:count], jnp.max(blocks.evaluations)

        users, user_calls = generate_side(self.names[0], 0, self.num_users)
        items, item_calls = generate_side(
            self.names[-1], self.num_users, self.num_items
        )
        return Sides(users, items), jnp.maximum(user_calls, item_calls)

    def loss(
        self,
        params: PyTree,
        state: PyTree,
        host: Host,
        parts: Sequence[Part],
        weights: Float[Array, " B"],
        generated: Float[Array, "B D"] | None,
        key: jax.Array,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]], PyTree]:
        """Returns the mean loss of the generators, its terms, and their new state.

        Args:
          params: Parameters of the generators.
          state: State of the generators.
          host: Embeddings of all nodes.
          parts: Rows to train on.
          weights: Weights of these rows; held-out rows are ignored.
          generated: These rows, generated with gradient; None if they were not.
          key: Random key of the step.
        """
        weights = jnp.where(
            jnp.asarray(self.heldout())[jnp.concatenate([p.nodes for p in parts])],
            0.0,
            weights,
        )
        moments, results = {}, []
        for i, part in enumerate(parts):
            target = self.take(host.behaviour, part)
            condition = self.condition(host, part)
            counted, side = weights[part.place], self.side(part)
            moments[part.name] = units.observe(
                self.settings, state["moments"][part.name], target, condition, counted
            )
            # The first key of a split, as in the recorded results.
            drawn = jax.random.split(jax.random.fold_in(key, i))[0]
            total, terms = generator.loss(
                self.training_settings,
                params[part.name],
                moments[part.name],
                target,
                condition,
                drawn,
                prior=self.prior(host, part),
                side=side,
                weights=counted,
                generated=None if generated is None else generated[part.place],
            )
            results.append((total, {k: terms[k] for k in ("rf_loss", "cl_loss")}))
        total, terms = jax.tree.map(lambda *a: sum(a) / len(a), *results)
        return total, terms, {**state, "moments": moments}
