# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cases of the tokenizer: training steps, Sinkhorn, k-means and repair."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Int

from rfrec.benchmarks import data, timing, torch_tokenizer
from rfrec.benchmarks.options import Options, Shape
from rfrec.codes import repair as repairs
from rfrec.config import override
from rfrec.tokenizer import fitting, kmeans, sinkhorn, training
from rfrec.tokenizer.codebooks import ONE_PHASE
from rfrec.train import epochs as epochs_lib
from rfrec.train import partition

_OPTIONS = override(
    fitting.Options(),
    **(ONE_PHASE | {"init_on": "all"}),
    lr=1e-3,
    weight_decay=1e-4,
    schedule="constant",
    epochs=1,
    eval_every=1,
)


def build_trainer(shape: Shape, epsilon: float, seed: int) -> training.Trainer:
    """Returns a trainer on synthetic items, with k-means before the first step.

    Args:
      shape: Sizes.
      epsilon: Sinkhorn regularisation of the last level; 0 takes the nearest codes.
      seed: Seed of items and parameters.
    """
    sizes = shape.sizes
    options = override(
        _OPTIONS,
        seed=seed,
        sizes=sizes,
        sk_epsilons=(0.0,) * (len(sizes) - 1) + (epsilon,),
        hidden=shape.hidden,
        latent_width=shape.latent_width,
        batch_size=shape.batch_size,
        steps_per_call=shape.steps,
    )
    rng = np.random.default_rng(seed)
    x = data.clusters(rng, shape.num_items, shape.width)
    # PyTorch uses one device too.
    engine = partition.make_engine("pmap", devices=jax.local_devices()[:1])
    return fitting.build_trainer(options, x, engine=engine)


def _batches(trainer: training.Trainer, first: int) -> Int[np.ndarray, "S B"]:
    """Returns the rows of the steps of a block, as the run draws them."""
    size, count = trainer.schedule.steps_per_epoch, trainer.schedule.steps_per_call
    epochs = range(first // size, (first + count - 1) // size + 1)
    drawn = [
        epochs_lib.epoch_rows(
            trainer.items.train, trainer.batch_size, seed=trainer.seed, epoch=epoch
        )
        for epoch in epochs
    ]
    start = first - epochs[0] * size
    return np.concatenate(drawn)[start : start + count]


def steps(options: Options, torch: bool, *, shape: str, sinkhorn: bool) -> timing.Bench:
    """Times training steps; the losses are fetched once a block.

    Args:
      options: Sizes of all cases.
      torch: Whether to prepare PyTorch's side.
      shape: Name of the shape in `options.rqvae`.
      sinkhorn: Whether the last level assigns codes by Sinkhorn.
    """
    sizes = getattr(options.rqvae, shape)
    epsilon = options.sinkhorn.epsilon if sinkhorn else 0.0
    trainer, count = build_trainer(sizes, epsilon, options.seed), sizes.steps
    program, engine = training.Run(trainer).program(), trainer.engine
    held = {
        "state": program.begin_epoch(engine.replicate(trainer.init()), 0),
        "step": 0,
    }
    # A copy: the step reuses the buffers.
    start = jax.tree.map(np.array, engine.fetch(held["state"]).params)

    def ours():
        held["state"], losses = program.run(held["state"], held["step"], count)
        held["step"] += count
        return np.stack(list(losses.values()), axis=1)

    def compiled():
        lowered = trainer.compile_steps(frozen=False).lower(
            held["state"],
            trainer.place_vectors(),
            trainer.place_batches(_batches(trainer, 0)),
            np.int32(count),
        )
        return lowered.compile()

    theirs = None
    if torch:
        theirs = torch_tokenizer.train(
            start,
            trainer.items.values,
            lambda first: _batches(trainer, first),
            trainer.arch.quantization,
            beta=_OPTIONS.loss.beta,
            lr=_OPTIONS.optim.lr,
            weight_decay=_OPTIONS.optim.weight_decay,
            device=timing.torch_device(),
        )
    return timing.Bench(
        ours=ours,
        torch=theirs,
        unit="ms/step",
        per_block=count,
        # Later losses differ after the first code that rounding decides.
        disagreement=lambda a, b: float(np.max(np.abs(a[0] / b[0] - 1))),
        tolerance=1e-2,
        peak_bytes=lambda: timing.peak(compiled),
    )


def assign(options: Options, torch: bool, *, shape: tuple[int, int]) -> timing.Bench:
    """Times balanced assignments, several batches a call as in training."""
    rows, codes = shape
    calls, epsilon = options.sinkhorn.calls, options.sinkhorn.epsilon
    rng = np.random.default_rng(options.seed)
    x, centers = (
        data.clusters(rng, rows * calls, 32),
        data.clusters(rng, codes, 32),
    )
    d = kmeans.squared_distances(jnp.asarray(x), jnp.asarray(centers))
    d = np.asarray(d).reshape(calls, rows, codes)
    program = jax.jit(
        lambda d: lax.map(lambda batch: sinkhorn.assign(batch, epsilon=epsilon), d)
    )
    placed = jax.device_put(d)
    theirs = None
    if torch:
        theirs = torch_tokenizer.assign(
            d, epsilon=epsilon, iterations=50, device=timing.torch_device()
        )
    return timing.Bench(
        ours=lambda: np.asarray(program(placed)),
        torch=theirs,
        unit="ms",
        per_block=calls,
        disagreement=lambda a, b: float(np.mean(a != b)),
        tolerance=1e-2,
        peak_bytes=lambda: timing.peak(lambda: program.lower(placed).compile()),
    )


def cluster(
    options: Options, torch: bool, *, shape: tuple[int, int, int]
) -> timing.Bench:
    """Times k-means with its seeding."""
    (rows, width, k), seed = shape, options.seed
    x = data.clusters(np.random.default_rng(seed), rows, width)
    placed, key = jax.device_put(x), jax.random.key(seed)
    static = {"k": k, "iterations": options.kmeans.iterations}
    theirs = None
    if torch:
        # As many iterations as ours takes until it converges.
        done = int(kmeans.fit(key, placed, **static).iterations)
        theirs = torch_tokenizer.cluster(
            x, k, iterations=done, device=timing.torch_device()
        )
    return timing.Bench(
        ours=lambda: np.asarray(kmeans.fit(key, placed, **static).inertia),
        torch=theirs,
        unit="s",
        per_block=1,
        # The initial centres differ.
        disagreement=lambda a, b: float(np.abs(a / b - 1)),
        tolerance=0.1,
        peak_bytes=lambda: timing.peak(
            lambda: kmeans.fit.lower(key, placed, **static).compile()
        ),
    )


def repair(options: Options, torch: bool, *, num_items: int) -> timing.Bench:
    """Times the default repair of a code table with conflicts, on the host."""
    del torch
    items = data.conflicting_codes(options.repair, num_items, options.seed)
    return timing.host(
        lambda: repairs.repair(items.codes, items.latents, items.codebooks).codes
    )
