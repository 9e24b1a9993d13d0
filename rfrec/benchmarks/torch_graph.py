# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's side of the graphs: how they are built, and the product with one.

Cosines of all pairs are in memory at once, as in plain code they are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rfrec.benchmarks.torch_gume import to_coo
from rfrec.benchmarks.torch_tokenizer import Block, set_up


def neighbours(x, k: int):
    """Returns cosines and numbers of the k rows nearest to each, itself among them."""
    from torch.nn import functional

    x = functional.normalize(x)
    return (x @ x.T).topk(k, dim=1)


def normalised(rows, columns, values, size: int):
    """Makes a COO matrix with each value over the roots of its row and column sums.

    A node without edges has sum 0, and none of its own edges would be divided by it.
    """
    import torch

    degree = torch.zeros(size, device=values.device).index_add_(0, rows, values)
    root = degree.pow(-0.5)
    root[torch.isinf(root)] = 0
    values = root[rows] * values * root[columns]
    places = torch.stack([rows, columns])
    shape = (size, size)
    return torch.sparse_coo_tensor(
        places, values, shape, check_invariants=False
    ).coalesce()


def build(
    users: Int[np.ndarray, " E"],
    items: Int[np.ndarray, " E"],
    num_users: int,
    features: Sequence[Float[np.ndarray, "I _"]],
    *,
    k: int,
    device: str,
) -> Block:
    """Prepares the building of all graphs.

    Args:
      users: Of the training pairs.
      items: Of the training pairs.
      num_users: U.
      features: X_m.
      k: Neighbours in each modality.
      device: `cpu` or `cuda`.

    Returns:
      A function that builds them and returns their products with `probe`: those of
      the graph of all nodes, then those of the alike items of each modality.
    """
    import torch

    set_up(device)
    tables = [torch.tensor(np.asarray(x), device=device) for x in features]
    pairs = [torch.tensor(a.astype(np.int64), device=device) for a in (users, items)]
    num_items = len(tables[0])
    vector = torch.tensor(probe(num_users + num_items), device=device)[:, None]

    def block():
        near = [neighbours(x, k) for x in tables]
        rows = torch.arange(num_items, device=device).repeat_interleave(k)
        similar = [
            normalised(rows, found.indices.flatten(), found.values.flatten(), num_items)
            for found in near
        ]
        lists = [found.indices.tolist() for found in near]
        common = [
            (item, other)
            for item, several in enumerate(zip(*lists, strict=True))
            for other in set.intersection(*map(set, several)) - {item}
        ]
        semantic = torch.tensor(common, dtype=torch.long, device=device).reshape(-1, 2)
        semantic = semantic + num_users
        bought, own = pairs[1] + num_users, pairs[0]
        adjacency = normalised(
            torch.cat([own, bought, semantic[:, 0]]),
            torch.cat([bought, own, semantic[:, 1]]),
            torch.ones(2 * len(own) + len(semantic), device=device),
            num_users + num_items,
        )
        products = [torch.sparse.mm(adjacency, vector)]
        products += [torch.sparse.mm(graph, vector[num_users:]) for graph in similar]
        return torch.cat(products)[:, 0].cpu().numpy()

    return block


def probe(size: int) -> Float[np.ndarray, " N"]:
    """Draws a vector whose products tell graphs apart."""
    return np.random.default_rng(0).standard_normal(size, np.float32)


def product(matrix, x: Float[np.ndarray, "N D"], *, calls: int, device: str) -> Block:
    """Prepares products with a matrix of scipy, and their gradients.

    Args:
      matrix: A, square.
      x: To multiply.
      calls: Of a block, each of which multiplies by A and then by its transpose, which
        is the gradient of half the squared product.
      device: `cpu` or `cuda`.

    Returns:
      A function that returns what comes of x.
    """
    import torch

    set_up(device)
    graph = to_coo(matrix, device)
    start = torch.tensor(x, device=device)

    def block():
        dense: Any = start
        for _ in range(calls):
            leaf = dense.clone().requires_grad_(True)
            made = torch.sparse.mm(graph, leaf)
            made.backward(made.detach())
            dense = leaf.grad
        return dense.cpu().numpy()

    return block
