# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's side of the graphs: their construction, and products with one.

As in the public code, the cosines of all pairs are in memory at once.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rfrec.benchmarks.torch_gume import to_coo
from rfrec.benchmarks.torch_tokenizer import Block, set_up


def neighbours(x, k: int):
    """Returns cosines and indices of the k nearest rows, a row itself included."""
    from torch.nn import functional

    x = functional.normalize(x)
    return (x @ x.T).topk(k, dim=1)


def normalised(rows, columns, values, size: int):
    """Returns a COO matrix of values divided by the roots of their row and column sums.

    Nodes without edges have the sum 0, by which no value is divided.
    """
    import torch

    degree = torch.zeros(size, device=values.device).index_add_(0, rows, values)
    root = degree.pow(-0.5)
    root[torch.isinf(root)] = 0
    values = root[rows] * values * root[columns]
    indices = torch.stack([rows, columns])
    shape = (size, size)
    return torch.sparse_coo_tensor(
        indices, values, shape, check_invariants=False
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
    """Prepares the construction of all graphs.

    Args:
      users: User of each training pair.
      items: Item of each training pair.
      num_users: Number of users.
      features: Item features of each modality.
      k: Number of neighbours in each modality.
      device: `cpu` or `cuda`.

    Returns:
      A function that builds them and returns their products with `probe`: those of
      the graph of all nodes, then those of the similar items of each modality.
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
            normalised(rows, top.indices.flatten(), top.values.flatten(), num_items)
            for top in near
        ]
        lists = [top.indices.tolist() for top in near]
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
    """Draws a vector whose products differ between graphs."""
    return np.random.default_rng(0).standard_normal(size, np.float32)


def product(matrix, x: Float[np.ndarray, "N D"], *, calls: int, device: str) -> Block:
    """Prepares products with a sparse matrix, and their gradients.

    Args:
      matrix: Square scipy matrix.
      x: Dense matrix to multiply.
      calls: Products of a block, each with the matrix and then with its transpose,
        which gives the gradient of half the squared product.
      device: `cpu` or `cuda`.

    Returns:
      A function that returns the result of all products.
    """
    import torch

    set_up(device)
    graph = to_coo(matrix, device)
    start = torch.tensor(x, device=device)

    def block():
        dense: Any = start
        for _ in range(calls):
            leaf = dense.clone().requires_grad_(True)
            output = torch.sparse.mm(graph, leaf)
            output.backward(output.detach())
            dense = leaf.grad
        return dense.cpu().numpy()

    return block
