# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's side of the tokenizer: the same work, as plain code by definition.

Functions take NumPy arrays and return a function that runs a block of work; copying its
result to the host waits for a GPU. Choices favour PyTorch: items and batches are on the
device, and losses are fetched once a block.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rfrec.tokenizer import quantizer

Block = Callable[[], np.ndarray]


def sees_gpu() -> bool:
    """Whether PyTorch can use a GPU."""
    import torch

    return torch.cuda.is_available()


def set_up(device: str) -> None:
    """Makes PyTorch use the same hardware as JAX: all cores, and TF32 on a GPU."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    if device == "cuda":
        # JAX multiplies float32 in TF32 by default.
        torch.set_float32_matmul_precision("high")


def train(
    params: Mapping[str, Any],
    items: Float[np.ndarray, "N D"],
    batches: Callable[[int], Int[np.ndarray, "S B"]],
    spec: quantizer.Quantization,
    *,
    beta: float,
    lr: float,
    weight_decay: float,
    device: str,
) -> Block:
    """Prepares RQ-VAE training steps with AdamW.

    Args:
      params: Initial parameters of our model.
      items: Item vectors.
      batches: Function that returns the rows of a block, given its first step.
      spec: Sizes and Sinkhorn; the estimator is straight-through, with squared L2.
      beta: Commitment weight.
      lr: Learning rate.
      weight_decay: Weight decay of AdamW.
      device: `cpu` or `cuda`.

    Returns:
      A function that runs the next block and returns total, reconstruction and
      quantization loss of each step.
    """
    import torch

    set_up(device)
    encoder = _mlp(params["encoder"], device)
    decoder = _mlp(params["decoder"], device)
    codebooks = [
        torch.nn.Parameter(torch.tensor(vectors[:size], device=device))
        for vectors, size in zip(params["codebook"], spec.sizes, strict=True)
    ]
    weights = [*encoder.parameters(), *decoder.parameters(), *codebooks]
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=weight_decay)
    vectors = torch.tensor(items, device=device)
    done = 0

    def step(x):
        optimizer.zero_grad()
        quantized, quantization = _quantize(encoder(x), codebooks, spec, beta)
        reconstruction = torch.nn.functional.mse_loss(decoder(quantized), x)
        total = reconstruction + quantization
        total.backward()
        optimizer.step()
        return torch.stack([total, reconstruction, quantization]).detach()

    def block():
        nonlocal done
        rows = torch.tensor(batches(done), dtype=torch.long, device=device)
        done += len(rows)
        return torch.stack([step(vectors[batch]) for batch in rows]).cpu().numpy()

    return block


def _mlp(layers: Mapping[str, Any], device: str):
    """Builds linear layers with ReLU between them from our parameters."""
    import torch

    modules = []
    for i in range(len(layers)):
        kernel, bias = layers[f"linear_{i}"]["kernel"], layers[f"linear_{i}"]["bias"]
        linear = torch.nn.Linear(*kernel.shape, device=device)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(kernel.T))
            linear.bias.copy_(torch.tensor(bias))
        modules += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1])


def _quantize(z, codebooks, spec: quantizer.Quantization, beta: float):
    """Quantizes level by level; returns the sum of the codes, and the loss."""
    import torch

    mse = torch.nn.functional.mse_loss
    residual, quantized, losses = z, torch.zeros_like(z), []
    for codebook, epsilon in zip(codebooks, spec.sk_epsilons, strict=True):
        with torch.no_grad():
            d = _squared_distances(residual, codebook)
            if epsilon:
                codes = balance(d, epsilon=epsilon, iterations=spec.sk_iterations)
            else:
                codes = d.argmin(dim=1)
        q = torch.nn.functional.embedding(codes, codebook)
        losses.append(mse(q, residual.detach()) + beta * mse(residual, q.detach()))
        estimate = residual + (q - residual).detach()
        quantized, residual = quantized + estimate, residual - estimate
    return quantized, torch.stack(losses).mean()


def _squared_distances(x, centers):
    """Returns |x|^2 + |c|^2 - 2 x.c for all pairs."""
    norms = (x**2).sum(dim=1, keepdim=True) + (centers**2).sum(dim=1)
    return norms - 2 * x @ centers.T


def balance(d, *, epsilon: float, iterations: int):
    """Assigns rows by Sinkhorn on the plan itself in float64, as MQL4GRec does."""
    top, low = d.max(), d.min()
    middle = (top + low) / 2
    plan = (-((d - middle) / (top - middle + 1e-5)).double() / epsilon).exp()
    plan /= plan.sum()
    rows, columns = plan.shape
    for _ in range(iterations):
        plan /= plan.sum(dim=1, keepdim=True) * rows
        plan /= plan.sum(dim=0, keepdim=True) * columns
    return plan.argmax(dim=1)


def assign(
    d: Float[np.ndarray, "C B K"], *, epsilon: float, iterations: int, device: str
) -> Block:
    """Prepares balanced assignments of several batches."""
    import torch

    set_up(device)
    placed = torch.tensor(d, device=device)

    def block():
        codes = [balance(b, epsilon=epsilon, iterations=iterations) for b in placed]
        return torch.stack(codes).cpu().numpy()

    return block


def cluster(
    x: Float[np.ndarray, "N D"], k: int, *, iterations: int, device: str
) -> Block:
    """Prepares k-means with greedy k-means++ seeding; a block returns the inertia."""
    import torch

    set_up(device)
    placed = torch.tensor(x, device=device)

    def block():
        torch.manual_seed(0)
        centers = _seed(placed, k)
        for _ in range(iterations):
            codes = _squared_distances(placed, centers).argmin(dim=1)
            sums = torch.zeros_like(centers).index_add_(0, codes, placed)
            counts = torch.bincount(codes, minlength=k)[:, None]
            centers = torch.where(counts > 0, sums / counts.clamp(min=1), centers)
        closest = _squared_distances(placed, centers).min(dim=1).values
        return closest.clamp(min=0).sum().cpu().numpy()

    return block


def _seed(x, k: int):
    """Picks rows by greedy k-means++ (Arthur and Vassilvitskii, SODA 2007)."""
    import torch

    trials = 2 + int(np.log(k))
    chosen = [x[torch.randint(len(x), (1,), device=x.device)]]
    closest = _squared_distances(x, chosen[0])[:, 0].clamp(min=0)
    for _ in range(k - 1):
        candidates = x[torch.multinomial(closest, trials, replacement=True)]
        after = torch.minimum(closest[:, None], _squared_distances(x, candidates))
        best = after.clamp_(min=0).sum(dim=0).argmin()
        chosen.append(candidates[best][None])
        closest = after[:, best]
    return torch.cat(chosen)
