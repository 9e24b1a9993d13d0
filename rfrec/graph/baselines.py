# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Baselines for GUME, on the same pairs: LightGCN and the most popular items.

Both read interactions only. They are the shortest examples of a `Model`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Integer

from rfrec.graph import adjacency, gume, losses, spmm
from rfrec.graph.model import Encoded, Model


@dataclasses.dataclass(frozen=True)
class LightGCN(Model):
    """LightGCN (He et al., SIGIR 2020): a graph convolution without further weights.

    Items are ranked by the mean of all layers (equations 4 and 8). The loss is BPR plus
    the squared embeddings before the first layer (equation 15).

    Attributes:
      num_users: Number of users.
      num_items: Number of items.
      width: Width of the embeddings.
      layers: Number of products with the graph.
      regularisation: Weight of half the squared embeddings of a row, lambda.
    """

    num_users: int
    num_items: int
    width: int = 64
    layers: int = 3
    regularisation: float = 1e-4

    def init(self, key):
        """Returns Xavier-uniform tables of users and of items in one array [N D]."""
        draw, keys = jax.nn.initializers.xavier_uniform(), jax.random.split(key)
        pairs = zip(keys, (self.num_users, self.num_items), strict=True)
        tables = [draw(key, (count, self.width)) for key, count in pairs]
        return {"nodes": jnp.concatenate(tables)}, {}

    def loss(self, params, model_state, constants, batch, key, epoch):
        """Returns BPR plus the weighted squares of the embeddings."""
        del key, epoch
        nodes = gume.convolve(constants, params["nodes"], self.layers)
        rows = (
            batch.users,
            batch.positives + self.num_users,
            batch.negatives + self.num_users,
        )
        users, positives, negatives = (nodes[chosen] for chosen in rows)
        bpr = losses.bpr(users, positives, negatives, batch.weights)
        own = sum(jnp.sum(params["nodes"][chosen] ** 2, axis=1) for chosen in rows)
        squares = 0.5 * jnp.sum(batch.weights * own) / jnp.sum(batch.weights)
        terms = {"bpr": bpr, "embeddings": squares}
        return bpr + self.regularisation * squares, (terms, model_state)

    def encode(self, params, model_state, constants, epoch, **choice):
        """Returns the means of all layers."""
        del model_state, epoch, choice
        nodes = gume.convolve(constants, params["nodes"], self.layers)
        return Encoded(nodes[: self.num_users], nodes[self.num_users :], {})


@dataclasses.dataclass(frozen=True)
class Popularity(Model):
    """The same items for every user, by their number of training pairs.

    Attributes:
      num_users: Number of users.
    """

    num_users: int

    def init(self, key):
        """Returns no parameters."""
        del key
        return {}, {}

    def loss(self, params, model_state, constants, batch, key, epoch):
        """Returns 0: there is nothing to learn."""
        del params, constants, batch, key, epoch
        return jnp.float32(0), ({}, model_state)

    def encode(self, params, model_state, constants, epoch, **choice):
        """Returns the counts as item embeddings of width 1."""
        del params, model_state, epoch, choice
        return Encoded(jnp.ones((self.num_users, 1)), constants[:, None], {})


def normalised_graph(
    indptr: Integer[np.ndarray, "U1"], items: Integer[np.ndarray, "E"], num_items: int
) -> spmm.Graph:
    """Returns the constants of a LightGCN: the graph of users and items.

    Args:
      indptr: User u has the training items `items[indptr[u] : indptr[u + 1]]`.
      items: Items of the training pairs.
      num_items: Number of items, including those without users.
    """
    no_edges = sp.csr_matrix((num_items, num_items), dtype=np.float32)
    return spmm.from_scipy(adjacency.user_item(indptr, items, num_items, no_edges)[0])


def count_items(
    items: Integer[np.ndarray, "E"], num_items: int
) -> Float32[np.ndarray, "I"]:
    """Returns the constants of `Popularity`: how often each item occurs.

    Args:
      items: Items of the training pairs.
      num_items: Number of items, including those that do not occur.
    """
    return np.bincount(items, minlength=num_items).astype(np.float32)
