# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME: embeddings of users and items from interactions and modalities.

Lin et al., CIKM 2024, "GUME: Graphs and User Modalities Enhancement for Long-Tail
Multimodal Recommendation".

`propagate` passes item features along three kinds of graphs. Its result holds, for
users and for items, the behaviour embeddings H (the paper's extended id), the explicit
features F of each modality, and the extended interest Q. `integrate` then turns rows of
H and F into the final embeddings Z, row by row. Nodes are numbered with users first,
then items.

The number of modalities is free; the paper's means over two become means over M.
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

# One array for each modality.
Features = Sequence[Float[Array | np.ndarray, "I _"]]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Shape of a GUME.

    Attributes:
      num_users: Number of users: nodes 0 to num_users - 1.
      num_items: Number of items: the nodes after them.
      modalities: Names of the modalities.
      feature_widths: Width of the features of each modality.
      width: Width of all embeddings.
      ui_layers: Number of products with the user-item graph, L.
      item_layers: Number of products with the item graph of a modality, K.
      freeze_features: Whether features are constants. Otherwise they are the initial
        values of trained tables, as in the authors' code.
      merge_projection: Whether features are projected by one linear map. The authors'
        code has two in sequence, which represent the same functions.
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
    """The graphs of a GUME, from `adjacency.place`.

    The normalised graph of all nodes is stored in parts, so that users and items keep
    arrays of their own and no product has to join or split them.

    Attributes:
      user_item: Edges [U I] from items to users; the transpose leads back.
      joined: Edges [I I] between items that are similar in all modalities.
      similar: Edges [I I] between similar items, one graph for each modality.
    """

    user_item: spmm.Graph
    joined: spmm.Graph
    similar: tuple[spmm.Graph, ...]


class Side(NamedTuple):
    """Embeddings of all users, or of all items.

    Attributes:
      convolved: H, and Q if it was computed.
      explicit: F of each modality.
    """

    convolved: Float[Array, "S K D"]
    explicit: Float[Array, "S M D"]


class Propagated(NamedTuple):
    """Embeddings of users and of items; the properties that join them make copies."""

    users: Side
    items: Side

    @property
    def behaviour(self) -> Float[Array, "N D"]:
        """H of all nodes, from interactions."""
        return jnp.concatenate([side.convolved[:, 0] for side in self])

    @property
    def interest(self) -> Float[Array, "N D"]:
        """Q of all nodes, which only the losses read."""
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
    """Rows of G and of Z = H + G; scores are products of rows of Z."""

    integration: Float[Array, "B D"]
    embeddings: Float[Array, "B D"]


class Rows(NamedTuple):
    """Rows that the losses read: users, then positives, then negatives.

    Attributes:
      behaviour: H, or the rows that replace it.
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
      arch: Architecture of the model.
      key: Random key.
      features: Initial values of the feature table of each modality; not used if
        features are frozen.
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
            raise ValueError("trained features require initial values")
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
    """Maps features of a modality to the width of the embeddings; values in [0, 1]."""
    maps = params["project"][modality]
    if not arch.merge_projection:
        x, maps = _apply(maps["reduce"], x), maps["transform"]
    return jax.nn.sigmoid(_apply(maps, x))


def convolve(
    graph: spmm.Graph, x: Float[Array, "N D"], layers: int
) -> Float[Array, "N D"]:
    """Returns the mean of x, Ax, ... A^layers x.

    Horner's rule: no layer has to be stored.
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
    """Applies `convolve` to the graph of all nodes; returns users and items apart."""
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
      arch: Architecture of the model.
      params: Result of `init`.
      graphs: Graphs from `adjacency.place`.
      features: Features of each modality; only read if they are frozen.
      interest: Whether to compute Q.
    """
    if not arch.freeze_features:
        features = [params["features"][name] for name in arch.modalities]
    if features is None:
        raise ValueError("frozen features must be passed as an argument")
    sent = []
    for name, graph, x in zip(arch.modalities, graphs.similar, features, strict=True):
        y = params["items"] * project(arch, params, name, jnp.asarray(x))
        for _ in range(arch.item_layers):
            y = spmm.product(graph, y)
        sent.append(y)
    # Columns side by side need one product instead of one for each modality. The
    # convolution is linear and the same for all, so Q needs only their mean.
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
    """Weights modalities by attention and by behaviour, row by row.

    Args:
      arch: Architecture of the model.
      params: Result of `init`.
      behaviour: Rows of H, or the rows that replace them.
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


def batch_nodes(
    arch: Architecture,
    users: Int[Array, " B"],
    positives: Int[Array, " B"],
    negatives: Int[Array, " B"],
) -> Int[Array, " B3"]:
    """Returns the nodes of a batch: users, positives, negatives."""
    items = jnp.concatenate([positives, negatives]) + arch.num_users
    return jnp.concatenate([users, items])


def take_nodes(
    arch: Architecture, propagated: Propagated, chosen: Int[Array, " B3"]
) -> Side:
    """Returns the embeddings of the nodes of a batch.

    Args:
      arch: Architecture of the model.
      propagated: Embeddings of all nodes.
      chosen: Result of `batch_nodes`: the first third are users.
    """
    count = len(chosen) // 3
    users, items = chosen[:count], chosen[count:] - arch.num_users
    return Side(
        *(
            jnp.concatenate([of_users[users], of_items[items]])
            for of_users, of_items in zip(*propagated, strict=True)
        )
    )


def batch_rows(
    arch: Architecture,
    params: PyTree,
    propagated: Propagated,
    chosen: Int[Array, " B3"],
    behaviour: Float[Array, "B3 D"] | None = None,
) -> Rows:
    """Returns the rows of a batch that the losses read.

    Args:
      arch: Architecture of the model.
      params: Result of `init`.
      propagated: Embeddings of all nodes, with interest.
      chosen: Result of `batch_nodes`.
      behaviour: Rows that replace these rows of H; None for H itself.
    """
    taken = take_nodes(arch, propagated, chosen)
    if behaviour is None:
        behaviour = taken.convolved[:, 0]
    explicit = [taken.explicit[:, m] for m in range(len(arch.modalities))]
    whole = integrate(arch, params, behaviour, explicit)
    two = 2 * (len(chosen) // 3)
    interest = taken.convolved[:two, 1]
    return Rows(behaviour, whole.integration, whole.embeddings, interest)


def embed(
    arch: Architecture,
    params: PyTree,
    propagated: Propagated,
    behaviour: Sequence[Float[Array, "_ D"]] | None = None,
) -> tuple[Float[Array, "U D"], Float[Array, "I D"]]:
    """Returns the final embeddings Z of all users and of all items.

    Args:
      arch: Architecture of the model.
      params: Result of `init`.
      propagated: Result of `propagate`; Q is not read.
      behaviour: Rows that replace H, of users and of items; None for H itself.
    """
    if behaviour is None:
        behaviour = [side.convolved[:, 0] for side in propagated]
    users, items = (
        integrate(
            arch,
            params,
            rows,
            [side.explicit[:, m] for m in range(len(arch.modalities))],
        ).embeddings
        for side, rows in zip(propagated, behaviour, strict=True)
    )
    return users, items
