# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's side of GUME: the model by its equations, graphs as COO tensors.

Functions take NumPy arrays and return a function that runs a block of work. Choices
favour PyTorch where the code stays plain: batches are drawn beforehand, noise is drawn
for the rows of a batch only, and losses are fetched once a block.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from rfrec.benchmarks.torch_tokenizer import Block, set_up

_NOISE = 0.1
# Length of the evaluated lists, and the cut-offs of the metrics.
_LISTED, _CUTS = 50, (5, 10, 20, 50)

Linear = tuple[np.ndarray, np.ndarray]


class Weights(NamedTuple):
    """Initial parameters; a linear map is a kernel [in, out] and a bias.

    Attributes:
      users: Embeddings of the users.
      items: Embeddings of the items.
      interests: Preferences of the users in each modality.
      features: Item features of each modality.
      projections: Linear maps of the features of each modality, in their order.
      attention: Hidden layer of the attention over modalities.
      attention_out: Output weights of the attention.
      gates: Behaviour gate of each modality.
    """

    users: Float[np.ndarray, "U D"]
    items: Float[np.ndarray, "I D"]
    interests: tuple[Float[np.ndarray, "U D"], ...]
    features: tuple[Float[np.ndarray, "I _"], ...]
    projections: tuple[tuple[Linear, ...], ...]
    attention: Linear
    attention_out: Float[np.ndarray, "D 1"]
    gates: tuple[Linear, ...]


class Graphs(NamedTuple):
    """Graphs as scipy matrices: all nodes, users to items, similar items."""

    adjacency: Any
    user_item: Any
    similar: tuple[Any, ...]


class Settings(NamedTuple):
    """Settings of model, loss and Adam; weights of the loss have the names in GUME."""

    ui_layers: int
    item_layers: int
    bm_temp: float
    um_temp: float
    bm_loss: float
    um_loss: float
    vt_loss: float
    reg_weight_1: float
    reg_weight_2: float
    batch_size: int
    lr: float
    freeze_features: bool = False


class Split(NamedTuple):
    """Items of each user as rows padded with -1: training items and held-out items."""

    train: Int[np.ndarray, "U _"]
    heldout: tuple[Int[np.ndarray, "U _"], ...]


class Model:
    """GUME with its parameters on a device."""

    def __init__(
        self, weights: Weights, graphs: Graphs, settings: Settings, device: str
    ):
        import torch

        def leaf(array):
            value = torch.tensor(np.asarray(array), device=device)
            return value.requires_grad_(True)

        self.settings, self.device = settings, device
        self.users, self.items = leaf(weights.users), leaf(weights.items)
        self.interests = [leaf(a) for a in weights.interests]
        self.features = [leaf(a) for a in weights.features]
        self.projections = [
            [(leaf(kernel), leaf(bias)) for kernel, bias in maps]
            for maps in weights.projections
        ]
        self.attention = tuple(leaf(a) for a in weights.attention)
        self.attention_out = leaf(weights.attention_out)
        self.gates = [tuple(leaf(a) for a in gate) for gate in weights.gates]
        if settings.freeze_features:
            for table in self.features:
                table.requires_grad_(False)
        self.adjacency = to_coo(graphs.adjacency, device)
        self.user_item = to_coo(graphs.user_item, device)
        self.similar = [to_coo(graph, device) for graph in graphs.similar]

    def parameters(self) -> list[Any]:
        """Returns all trained tensors."""
        maps = [pair for maps in self.projections for pair in maps]
        pairs = [*maps, self.attention, *self.gates]
        tensors = [self.users, self.items, *self.interests, *self.features]
        tensors += [tensor for pair in pairs for tensor in pair]
        tensors.append(self.attention_out)
        return [tensor for tensor in tensors if tensor.requires_grad]

    def propagate(self):
        """Returns behaviour, explicit and interest embeddings of all nodes."""
        import torch

        def propagate_mean(x):
            layers = [x]
            for _ in range(self.settings.ui_layers):
                layers.append(torch.sparse.mm(self.adjacency, layers[-1]))
            return torch.stack(layers).mean(dim=0)

        behaviour = propagate_mean(torch.cat([self.users, self.items]))
        explicit, interests = [], []
        for m, similar in enumerate(self.similar):
            x = self.features[m]
            for kernel, bias in self.projections[m]:
                x = x @ kernel + bias
            x = self.items * torch.sigmoid(x)
            for _ in range(self.settings.item_layers):
                x = torch.sparse.mm(similar, x)
            explicit.append(torch.cat([torch.sparse.mm(self.user_item, x), x]))
            both = torch.cat([self.interests[m], x])
            interests.append(propagate_mean(both))
        return behaviour, explicit, torch.stack(interests).mean(dim=0)

    def integrate(self, behaviour, explicit):
        """Returns the integrated modality embeddings and the final embeddings."""
        import torch

        def attend(x):
            kernel, bias = self.attention
            return torch.tanh(x @ kernel + bias) @ self.attention_out

        shares = torch.softmax(torch.cat([attend(x) for x in explicit], dim=1), dim=1)
        weighted = [shares[:, m, None] * x for m, x in enumerate(explicit)]
        coarse = torch.stack(weighted).sum(dim=0)
        total = coarse
        for (kernel, bias), x in zip(self.gates, explicit, strict=True):
            total = total + torch.sigmoid(behaviour @ kernel + bias) * (x - coarse)
        integration = total / (len(explicit) + 1)
        return integration, behaviour + integration

    def embeddings(self):
        """Returns the final embeddings of users and of items."""
        import torch

        with torch.no_grad():
            behaviour, explicit, _ = self.propagate()
            z = self.integrate(behaviour, explicit)[1]
        return z[: len(self.users)], z[len(self.users) :]

    def loss(self, users, positives, negatives):
        """Returns the loss of a batch."""
        from torch.nn import functional

        set_ = self.settings
        behaviour, explicit, interest = self.propagate()
        integration, z = self.integrate(behaviour, explicit)
        p, n = positives + len(self.users), negatives + len(self.users)
        margin = (z[users] * (z[p] - z[n])).sum(dim=1)
        ranking = -functional.logsigmoid(margin).mean()
        modality = sum(
            info_nce(integration[rows], behaviour[rows], set_.bm_temp)
            for rows in (users, p)
        )
        fine, wish = integration[users], interest[users]
        user = info_nce(wish, fine, set_.um_temp) + sum(
            info_nce(perturb(x), perturb(x), set_.um_temp) for x in (fine, wish)
        )
        norms = sum((z[rows] ** 2).sum() for rows in (users, p, n))
        kept = set_.reg_weight_1 * norms + set_.reg_weight_2 * (interest[p] ** 2).sum()
        return (
            ranking
            + set_.vt_loss * align(explicit)
            + set_.bm_loss * modality
            + set_.um_loss * user
            + kept / (2 * set_.batch_size)
        )


def to_coo(matrix, device: str):
    """Turns a scipy matrix into a COO tensor."""
    import torch

    coo = scipy.sparse.coo_array(matrix)
    indices = torch.tensor(np.stack(coo.coords).astype(np.int64))
    values = torch.tensor(coo.data.astype(np.float32))
    matrix = torch.sparse_coo_tensor(indices, values, coo.shape, check_invariants=False)
    return matrix.coalesce().to(device)


def info_nce(x, y, temperature: float):
    """InfoNCE: classifies which row of y belongs to each row of x."""
    import torch
    from torch.nn import functional

    x, y = functional.normalize(x), functional.normalize(y)
    right = torch.arange(len(x), device=x.device)
    return functional.cross_entropy(x @ y.T / temperature, right)


def perturb(x):
    """Adds a random vector of length 0.1 in the orthant of each row."""
    import torch
    from torch.nn import functional

    return x + _NOISE * torch.sign(x) * functional.normalize(torch.rand_like(x))


def align(explicit: Sequence[Any]):
    """Mean over pairs of modalities of the differences of their mean and variance."""
    import torch

    gaps = [
        (a.var() - b.var()).abs() + (a.mean() - b.mean()).abs()
        for m, a in enumerate(explicit)
        for b in explicit[m + 1 :]
    ]
    return torch.stack(gaps).mean()


def train(
    model: Model, batches: Sequence[tuple[Int[np.ndarray, " _"], ...]], steps: int
) -> Block:
    """Prepares training steps with Adam.

    Args:
      model: Model to train.
      batches: Users, positives and negatives of each step, in turn.
      steps: Number of steps of a block.

    Returns:
      A function that runs the next block and returns the losses.
    """
    import torch

    set_up(model.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=model.settings.lr)
    triplets = [
        [torch.tensor(rows.astype(np.int64), device=model.device) for rows in batch]
        for batch in batches
    ]
    done = 0

    def block():
        nonlocal done
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = model.loss(*triplets[done % len(triplets)])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            done += 1
        return torch.stack(losses).cpu().numpy()

    return block


def evaluate(model: Model, split: Split, batch: int, *, encode_once: bool) -> Block:
    """Prepares an evaluation: validation, then test.

    Args:
      model: Model to evaluate.
      split: Training items, which are masked, and held-out items.
      batch: Users of a batch.
      encode_once: Whether embeddings are computed once for both; otherwise for each
        batch, as in the public code.

    Returns:
      A function that returns recall, NDCG, precision and MAP at 5, 10, 20 and 50, of
      validation and of test.
    """
    import torch

    set_up(model.device)
    train = torch.tensor(split.train.astype(np.int64), device=model.device)
    heldout = [
        torch.tensor(rows.astype(np.int64), device=model.device)
        for rows in split.heldout
    ]

    def block():
        z = model.embeddings() if encode_once else None
        means = []
        for wanted in heldout:
            users = torch.nonzero((wanted >= 0).any(dim=1))[:, 0]
            values = []
            for some in users.split(batch):
                lists = rank(z or model.embeddings(), some, train[some])
                values.append(metrics(lists, wanted[some], len(model.items)))
            means.append(torch.cat(values).mean(dim=0))
        return torch.stack(means).cpu().numpy()

    return block


def rank(z, users, seen):
    """Returns the best items of users, without their training items."""
    import torch

    scores = z[0][users] @ z[1].T
    rows, columns = torch.nonzero(seen >= 0, as_tuple=True)
    scores[rows, seen[rows, columns]] = -torch.inf
    return scores.topk(min(_LISTED, scores.shape[1]), dim=1).indices


def metrics(lists, wanted, num_items: int):
    """Returns the metrics of each list."""
    import torch

    relevant = torch.zeros(len(lists), num_items, device=lists.device)
    rows, columns = torch.nonzero(wanted >= 0, as_tuple=True)
    relevant[rows, wanted[rows, columns]] = 1
    hits, count = relevant.gather(1, lists), relevant.sum(dim=1)
    place = torch.arange(1, hits.shape[1] + 1, device=lists.device)
    gain = 1 / torch.log2(place + 1.0)
    best, exact = gain.cumsum(dim=0), hits * hits.cumsum(dim=1) / place
    columns = {"recall": [], "ndcg": [], "precision": [], "map": []}
    for k in _CUTS:
        most = count.clamp(max=k)
        matches = hits[:, :k].sum(dim=1)
        columns["recall"].append(matches / count)
        columns["ndcg"].append((hits * gain)[:, :k].sum(dim=1) / best[most.long() - 1])
        columns["precision"].append(matches / k)
        columns["map"].append(exact[:, :k].sum(dim=1) / most)
    return torch.stack([value for name in columns for value in columns[name]], dim=1)
