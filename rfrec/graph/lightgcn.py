# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""LightGCN, the floor beside GUME: interactions alone, and no weights but embeddings.

He et al., SIGIR 2020, "LightGCN: Simplifying and Powering Graph Convolution Network for
Recommendation". The mean of all layers is ranked (equations 4 and 8); BPR is trained,
with the squares of the embeddings before any layer (equation 15).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Integer

from rfrec.data.triplets import Triplets
from rfrec.graph import adjacency, gume, loss, spmm
from rfrec.graph.model import Encoded, Model
from rfrec.typing import PyTree


@dataclasses.dataclass(frozen=True)
class Settings:
    """Shape and loss of a LightGCN.

    Attributes:
      num_users: Nodes 0 .. num_users - 1.
      num_items: The nodes behind them.
      width: Of all embeddings.
      layers: Products with the graph.
      regularisation: Weight of half the squared embeddings of a row, lambda.
    """

    num_users: int
    num_items: int
    width: int = 64
    layers: int = 3
    regularisation: float = 1e-4


def constants(
    indptr: Integer[np.ndarray, "U1"], items: Integer[np.ndarray, "E"], num_items: int
) -> spmm.Graph:
    """Returns the symmetric normalised graph of users and items.

    Args:
      indptr: User u has the training items `items[indptr[u] : indptr[u + 1]]`.
      items: Of training.
      num_items: Items, those without users included.
    """
    joined = sp.csr_matrix((num_items, num_items), dtype=np.float32)
    return spmm.from_scipy(adjacency.user_item(indptr, items, num_items, joined)[0])


def model(settings: Settings) -> Model:
    """Returns the model, whose constants are those of `constants`."""

    def objective(params, model_state, constants, batch, key, epoch):
        del key, epoch
        total, parts = _loss(settings, params, constants, batch)
        return total, (parts, model_state)

    def encode(params, model_state, constants, epoch):
        del model_state, epoch
        nodes = gume.convolve(constants, params["nodes"], settings.layers)
        users = settings.num_users
        return Encoded(nodes[:users], nodes[users:], {})

    return Model(lambda key: (_init(settings, key), {}), objective, encode)


def _init(settings: Settings, key: jax.Array) -> PyTree:
    """Returns Xavier-uniform tables of users and of items, one below the other."""
    draw, keys = jax.nn.initializers.xavier_uniform(), jax.random.split(key)
    counts = settings.num_users, settings.num_items
    pairs = zip(keys, counts, strict=True)
    tables = [draw(key, (count, settings.width)) for key, count in pairs]
    return {"nodes": jnp.concatenate(tables)}


def _loss(
    settings: Settings, params: PyTree, graph: spmm.Graph, batch: Triplets
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    nodes = gume.convolve(graph, params["nodes"], settings.layers)
    first = settings.num_users
    chosen = (batch.users, batch.positives + first, batch.negatives + first)
    users, positives, negatives = (nodes[rows] for rows in chosen)
    bpr = loss.bpr(users, positives, negatives, batch.weights)
    own = sum(jnp.sum(params["nodes"][rows] ** 2, axis=1) for rows in chosen)
    squares = 0.5 * jnp.sum(batch.weights * own) / jnp.sum(batch.weights)
    parts = {"bpr": bpr, "embeddings": squares}
    return bpr + settings.regularisation * squares, parts
