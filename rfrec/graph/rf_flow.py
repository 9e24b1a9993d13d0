# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The generator of a host that has users and items: rows, sides, state.

A host's embeddings H and what they are to be generated from flow in; generated rows of
H and the loss of the flow come out. There is one generator for all nodes, or one for
each side.
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

# Rows generated at once where all are.
_BLOCK = 8192
# Which rows are held out never changes: errors of all runs are of the same rows.
_HELDOUT_SEED = 0


class Sides(NamedTuple):
    """Rows of all users, and of all items."""

    users: Float[Array, "U D"]
    items: Float[Array, "I D"]


class Host(NamedTuple):
    """Embeddings of users, and of items.

    Attributes:
      behaviour: H, to be generated.
      condition: What it is generated from, all side by side.
      prior: What a user's distance from the mean user guides; None for no guidance.
    """

    behaviour: Sides
    condition: Sides
    prior: Sides | None


class Part(NamedTuple):
    """Nodes of one generator.

    Attributes:
      name: Of the generator.
      nodes: Their numbers, users first.
      users: How many of them are users.
      place: Where they stand among the rows that were asked for.
    """

    name: str
    nodes: Int[Array, " B"]
    users: int
    place: slice


@dataclasses.dataclass(frozen=True)
class Flow:
    """The generators of a host; holds settings, no arrays.

    Attributes:
      settings: Of the generators.
      num_users: Nodes 0 .. num_users - 1.
      num_items: The nodes behind them.
      width: Of H.
      condition_width: Of all conditions.
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
        """Whether the generator is told the side of a row."""
        return self.names == ("shared",) and self.settings.side_embedding

    @property
    def training_settings(self) -> Settings:
        """The switches of training: of ratio 0, the host hears nothing of the flow."""
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
          users: How many of them are users.
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
        """Returns what the network is told of rows."""
        if not self.has_sides:
            return None
        return jnp.asarray(np.arange(len(part.nodes)) >= part.users, jnp.int32)

    def condition(self, host: Host, part: Part) -> Float[Array, "B C"]:
        """Returns the conditions of rows, with gradient if it is wanted."""
        condition = self.take(host.condition, part)
        attached = self.training_settings.attach_conditions
        return condition if attached else lax.stop_gradient(condition)

    def prior(self, host: Host, part: Part) -> Float[Array, "B D"] | None:
        """Returns how users differ from the mean user; items do not, zero rows."""
        if host.prior is None or not self.settings.user_guidance_scale:
            return None
        users = lax.stop_gradient(host.prior.users)
        rows = users[part.nodes[: part.users]] - jnp.mean(users, axis=0)[None]
        return jnp.pad(rows, ((0, len(part.nodes) - part.users), (0, 0)))

    def generate(
        self, params: PyTree, state: PyTree, host: Host, part: Part, key: jax.Array
    ) -> sample.Solution:
        """Returns generated rows of H, of the parameters as given."""
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
        """Returns generated rows of H, one part behind the other.

        More rows than there are nodes have some twice: then each node is generated
        once, from one draw of noise.
        """
        nodes = jnp.concatenate([part.nodes for part in parts])
        count = self.num_users + self.num_items
        often = len(nodes) > count
        if often:
            parts = self.split(jnp.arange(count), self.num_users)
        made = [
            self.generate(params, state, host, part, jax.random.fold_in(key, i)).x
            for i, part in enumerate(parts)
        ]
        rows = jnp.concatenate(made)
        return rows[nodes] if often else rows

    def generate_all(
        self, params: PyTree, state: PyTree, host: Host, key: jax.Array
    ) -> tuple[Sides, Int[Array, ""]]:
        """Generates H of all nodes, in blocks, by the averaged parameters.

        Returns:
          Generated H, and calls of the velocity in the block that needed most.
        """
        weights = average.choose(self.settings.ema_decay, state["ema"], params)

        def whole(name: str, first: int, count: int):
            size = min(_BLOCK, count)

            def block(start):
                # Behind the last node it is repeated, and cut off below.
                nodes = jnp.minimum(start + jnp.arange(size), first + count - 1)
                users = size if first == 0 else 0
                part = Part(name, nodes, users, slice(None))
                drawn = jax.random.fold_in(key, start)
                return self.generate(weights, state, host, part, drawn)

            made = lax.map(block, first + size * jnp.arange(-(-count // size)))
            return made.x.reshape(-1, self.width)[:count], jnp.max(made.evaluations)

        users, asked = whole(self.names[0], 0, self.num_users)
        items, again = whole(self.names[-1], self.num_users, self.num_items)
        return Sides(users, items), jnp.maximum(asked, again)

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
          params: Of the generators.
          state: Of them.
          host: Of all nodes.
          parts: Rows that train.
          weights: Of these rows, held out ones among them.
          generated: These rows generated with gradient; None if they were not.
          key: Of the step.
        """
        weights = jnp.where(
            jnp.asarray(self.heldout())[jnp.concatenate([p.nodes for p in parts])],
            0.0,
            weights,
        )
        moments, found = {}, []
        for i, part in enumerate(parts):
            target = self.take(host.behaviour, part)
            condition = self.condition(host, part)
            counted, side = weights[part.place], self.side(part)
            moments[part.name] = units.observe(
                self.settings, state["moments"][part.name], target, condition, counted
            )
            # The first half of a split: the runs of `results` drew from it.
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
            found.append((total, {k: terms[k] for k in ("rf_loss", "cl_loss")}))
        total, terms = jax.tree.map(lambda *a: sum(a) / len(a), *found)
        return total, terms, {**state, "moments": moments}
