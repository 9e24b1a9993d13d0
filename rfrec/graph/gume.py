# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME: embeddings of users and items from interactions and modalities.

Lin et al., CIKM 2024, "GUME: Graphs and User Modalities Enhancement for Long-Tail
Multimodal Recommendation". Item features and three kinds of graphs flow in; behaviour
H (the paper's extended id), explicit features F of each modality and extended interest
Q flow out of `propagate`, of users and of items. What follows works row by row:
`integrate` turns rows of H and F into the embeddings that are ranked. Nodes are users
first, then items.

Any number of modalities; with M of them the paper's means over two become means over M.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rfrec.graph import spmm
from rfrec.train.matmul import matmul
from rfrec.typing import PyTree

# Of each modality.
Features = Sequence[Float[Array | np.ndarray, "I _"]]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Shape of a GUME.

    Attributes:
      num_users: Nodes 0 .. num_users - 1.
      num_items: The nodes behind them.
      modalities: Their names.
      feature_widths: Of each modality's features.
      width: Of all embeddings.
      ui_layers: Products with the user-item graph, L.
      item_layers: Products with a modality's item graph, K.
      freeze_features: Features are constants; otherwise they are tables to be trained,
        as in the paper's code, which start from the files.
      merge_projection: One linear map from features to embeddings. The paper's code has
        two without anything between them, which is the same function.
    """

    num_users: int
    num_items: int
    modalities: tuple[str, ...]
    feature_widths: tuple[int, ...]
    width: int = 64
    ui_layers: int = 3
    item_layers: int = 2
    freeze_features: bool = False
    merge_projection: bool = False


class Graphs(NamedTuple):
    """What embeddings flow along, as `adjacency.place` makes it.

    The normalised graph of all nodes in parts: users and items keep arrays of their
    own, which no product has to join and split, and parts are multiplied side by side.

    Attributes:
      user_item: [U I], from items to users; its transpose leads back.
      joined: [I I], between items that are similar in all modalities.
      similar: [I I] of each modality.
    """

    user_item: spmm.Graph
    joined: spmm.Graph
    similar: tuple[spmm.Graph, ...]


class Side(NamedTuple):
    """Embeddings of all users, or of all items.

    Attributes:
      convolved: H, then Q if it was asked for.
      explicit: F of each modality.
    """

    convolved: Float[Array, "S K D"]
    explicit: Float[Array, "S M D"]


class Propagated(NamedTuple):
    """Embeddings of users and of items; what joins them copies."""

    users: Side
    items: Side

    @property
    def behaviour(self) -> Float[Array, "N D"]:
        """H of all nodes, from interactions."""
        return jnp.concatenate([side.convolved[:, 0] for side in self])

    @property
    def interest(self) -> Float[Array, "N D"]:
        """Q of all nodes, which the losses alone read."""
        return jnp.concatenate([side.convolved[:, 1] for side in self])

    @property
    def explicit(self) -> tuple[Float[Array, "N D"], ...]:
        """F of all nodes, of each modality."""
        count = self.users.explicit.shape[1]
        return tuple(
            jnp.concatenate([side.explicit[:, m] for side in self])
            for m in range(count)
        )


class Integrated(NamedTuple):
    """Rows of G and of Z = H + G; Z is what is ranked."""

    integration: Float[Array, "B D"]
    embeddings: Float[Array, "B D"]


class Rows(NamedTuple):
    """What the losses read: users, positives and negatives, one behind the other.

    Attributes:
      behaviour: H, what has been put in its place included.
      integration: G.
      embeddings: Z.
      interest: Q of users and positives.
    """

    behaviour: Float[Array, "B3 D"]
    integration: Float[Array, "B3 D"]
    embeddings: Float[Array, "B3 D"]
    interest: Float[Array, "B2 D"]


def init(
    arch: Architecture,
    key: jax.Array,
    features: Features | None = None,
) -> PyTree:
    """Returns parameters: tables Xavier-uniform, linear maps as PyTorch's `Linear`.

    Args:
      arch: Of the model.
      key: Source of the draws.
      features: Of each modality, where training of their tables starts; not used if
        they are frozen.
    """
    d, tables = arch.width, jax.nn.initializers.xavier_uniform()
    keys = iter(jax.random.split(key, 4 + 4 * len(arch.modalities)))
    params: dict[str, PyTree] = {
        "users": tables(next(keys), (arch.num_users, d)),
        "items": tables(next(keys), (arch.num_items, d)),
        "attention": _linear(next(keys), d, d),
    }
    params["attention"]["score"] = _linear(next(keys), d, 1)["kernel"]
    for group in ("preferences", "project", "behaviour"):
        params[group] = {}
    for name, width in zip(arch.modalities, arch.feature_widths, strict=True):
        params["preferences"][name] = tables(next(keys), (arch.num_users, d))
        reduce, transform = _linear(next(keys), width, d), _linear(next(keys), d, d)
        params["project"][name] = (
            _merge(reduce, transform)
            if arch.merge_projection
            else {"reduce": reduce, "transform": transform}
        )
        params["behaviour"][name] = _linear(next(keys), d, d)
    if not arch.freeze_features:
        if features is None:
            raise ValueError("features to be trained have to be given")
        pairs = zip(arch.modalities, features, strict=True)
        params["features"] = {m: jnp.array(x, jnp.float32) for m, x in pairs}
    return params


def _linear(key: jax.Array, inputs: int, outputs: int) -> PyTree:
    bound, keys = inputs**-0.5, jax.random.split(key)
    draw = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
    return {
        "kernel": draw(keys[0], (inputs, outputs)),
        "bias": draw(keys[1], (outputs,)),
    }


def _merge(reduce: PyTree, transform: PyTree) -> PyTree:
    kernel = reduce["kernel"] @ transform["kernel"]
    return {
        "kernel": kernel,
        "bias": reduce["bias"] @ transform["kernel"] + transform["bias"],
    }


def _apply(linear: PyTree, x: Float[Array, "*B C"]) -> Float[Array, "*B D"]:
    y = matmul(x, linear["kernel"])
    return y + jnp.broadcast_to(linear["bias"], y.shape)


def project(
    arch: Architecture, params: PyTree, modality: str, x: Float[Array, "B C"]
) -> Float[Array, "B D"]:
    """Maps features of a modality to the width of the embeddings, each in 0 .. 1."""
    maps = params["project"][modality]
    if not arch.merge_projection:
        x, maps = _apply(maps["reduce"], x), maps["transform"]
    return jax.nn.sigmoid(_apply(maps, x))


def convolve(
    graph: spmm.Graph, x: Float[Array, "N D"], layers: int
) -> Float[Array, "N D"]:
    """Returns the mean of x, Ax, ... A^layers x.

    By Horner's rule, so that no layer has to be kept.
    """
    y = x
    for _ in range(layers):
        y = x + spmm.product(graph, y)
    return y / (layers + 1)


def convolve_sides(
    graphs: Graphs,
    users: Float[Array, "U D"],
    items: Float[Array, "I D"],
    layers: int,
) -> tuple[Float[Array, "U D"], Float[Array, "I D"]]:
    """Returns what `convolve` does with the graph of all nodes, of each side."""
    down, up = graphs.user_item, spmm.transposed(graphs.user_item)
    u, i = users, items
    for _ in range(layers):
        among = spmm.product(graphs.joined, i)
        u, i = users + spmm.product(down, i), items + spmm.product(up, u) + among
    return u / (layers + 1), i / (layers + 1)


def propagate(
    arch: Architecture,
    params: PyTree,
    graphs: Graphs,
    features: Features | None = None,
    *,
    interest: bool = True,
) -> Propagated:
    """Passes embeddings along the graphs.

    Args:
      arch: Of the model.
      params: Of `init`.
      graphs: Constants.
      features: Of each modality; only read if they are frozen.
      interest: Whether to compute Q.
    """
    if not arch.freeze_features:
        features = [params["features"][name] for name in arch.modalities]
    if features is None:
        raise ValueError("frozen features have to be given")
    sent = []
    for name, graph, x in zip(arch.modalities, graphs.similar, features, strict=True):
        y = params["items"] * project(arch, params, name, jnp.asarray(x))
        for _ in range(arch.item_layers):
            y = spmm.product(graph, y)
        sent.append(y)
    # Columns side by side take one product instead of one for each modality. The
    # convolution is linear and the same for all: Q needs modalities only as their mean.
    explicit = jnp.concatenate(sent, axis=1)
    received = spmm.product(graphs.user_item, explicit)
    users, items = [params["users"]], [params["items"]]
    if interest:
        preferences = (params["preferences"][name] for name in arch.modalities)
        users.append(sum(preferences) / len(sent))
        items.append(sum(sent) / len(sent))
    of_users, of_items = convolve_sides(
        graphs,
        jnp.concatenate(users, axis=1),
        jnp.concatenate(items, axis=1),
        arch.ui_layers,
    )
    pairs = (of_users, received), (of_items, explicit)
    return Propagated(*(_side(x, f, arch.width) for x, f in pairs))


def _side(convolved: Array, explicit: Array, width: int) -> Side:
    shape = (len(explicit), -1, width)
    return Side(convolved.reshape(shape), explicit.reshape(shape))


def integrate(
    arch: Architecture,
    params: PyTree,
    behaviour: Float[Array, "B D"],
    explicit: Sequence[Float[Array, "B D"]],
) -> Integrated:
    """Weighs modalities by attention and by behaviour, row by row.

    Args:
      arch: Of the model.
      params: Of `init`.
      behaviour: Rows of H, or of what takes its place.
      explicit: The same rows of F of each modality.
    """
    attention = params["attention"]
    scores = [jnp.tanh(_apply(attention, f)) @ attention["score"] for f in explicit]
    shares = jax.nn.softmax(jnp.concatenate(scores, axis=1), axis=1)
    coarse, fine = jnp.zeros_like(behaviour), jnp.zeros_like(behaviour)
    for i, f in enumerate(explicit):
        coarse += jnp.broadcast_to(shares[:, i, None], f.shape) * f
    for name, f in zip(arch.modalities, explicit, strict=True):
        gate = jax.nn.sigmoid(_apply(params["behaviour"][name], behaviour))
        fine += gate * (f - coarse)
    integration = (fine + coarse) / (len(explicit) + 1)
    return Integrated(integration, behaviour + integration)


def nodes(
    arch: Architecture,
    users: Int[Array, " B"],
    positives: Int[Array, " B"],
    negatives: Int[Array, " B"],
) -> Int[Array, " B3"]:
    """Returns the nodes of a batch: users, positives, negatives."""
    items = jnp.concatenate([positives, negatives]) + arch.num_users
    return jnp.concatenate([users, items])


def take(arch: Architecture, propagated: Propagated, chosen: Int[Array, " B3"]) -> Side:
    """Returns the embeddings of the nodes of a batch.

    Args:
      arch: Of the model.
      propagated: Of all.
      chosen: Of `nodes`: a third are users.
    """
    count = len(chosen) // 3
    users, items = chosen[:count], chosen[count:] - arch.num_users
    return Side(
        *(
            jnp.concatenate([of_users[users], of_items[items]])
            for of_users, of_items in zip(*propagated, strict=True)
        )
    )


def rows(
    arch: Architecture,
    params: PyTree,
    propagated: Propagated,
    chosen: Int[Array, " B3"],
    behaviour: Float[Array, "B3 D"] | None = None,
) -> Rows:
    """Returns what the losses read of a batch.

    Args:
      arch: Of the model.
      params: Of `init`.
      propagated: With interest.
      chosen: Of `nodes`.
      behaviour: What takes the place of these rows of H; None for H itself.
    """
    found = take(arch, propagated, chosen)
    if behaviour is None:
        behaviour = found.convolved[:, 0]
    explicit = [found.explicit[:, m] for m in range(len(arch.modalities))]
    whole = integrate(arch, params, behaviour, explicit)
    two = 2 * (len(chosen) // 3)
    interest = found.convolved[:two, 1]
    return Rows(behaviour, whole.integration, whole.embeddings, interest)


def embed(
    arch: Architecture,
    params: PyTree,
    graphs: Graphs,
    features: Features | None = None,
) -> tuple[Float[Array, "U D"], Float[Array, "I D"]]:
    """Returns the embeddings of all users and items; Q is left out."""
    found = propagate(arch, params, graphs, features, interest=False)
    users, items = (
        integrate(
            arch,
            params,
            side.convolved[:, 0],
            [side.explicit[:, m] for m in range(len(arch.modalities))],
        ).embeddings
        for side in found
    )
    return users, items
