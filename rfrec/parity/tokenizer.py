# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of a recorded MQL4GRec RQ-VAE: passes, gradients and optimiser steps.

The record's names are those of `third_party/golden/README.md`. Gradients and steps come
from the trainer's own compiled step.
"""

import re
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Float

from rfrec.config import UserError
from rfrec.parity import arrays as golden
from rfrec.parity.arrays import Arrays, Check, exact, near
from rfrec.tokenizer import (
    catalogue,
    codebooks,
    loss,
    mql4grec,
    quantizer,
    rqvae,
    training,
)
from rfrec.train import loop, optim, partition
from rfrec.train import state as train_state
from rfrec.typing import PyTree

# Level mean, residual stop and these are how the record was made.
_OBJECTIVE = loss.Objective(beta=0.25, level_reduce="mean", recon_reduce="mean")
_OPTIMIZER = optim.Optimizer(name="adamw", lr=1e-3, weight_decay=1e-4)

_FIXED = (
    *("x", "z", "nn/codes", "nn/x_q", "nn/rq_loss", "sk/codes", "sk/x_q", "sk/rq_loss"),
    *("train/recon", "train/loss", "train/recon_loss", "train/rq_loss"),
    *("steps/x", "steps/loss", "sk_epsilons", "num_emb_list", "layers"),
)
_DISTANCES = re.compile(r"nn/distances(?:[/_](\d+))?")


class _Recorded(NamedTuple):
    """A record, its weights in our layout and its model."""

    arrays: Arrays
    weights: mql4grec.Weights
    arch: rqvae.Architecture


def is_rqvae(arrays: Arrays) -> bool:
    """Whether this is a record of MQL4GRec's RQ-VAE."""
    return any(name.startswith("init/rq.") for name in arrays)


def check_rqvae(arrays: Arrays) -> list[Check]:
    """Runs all checks of a record."""
    record = _understand(arrays)
    return [*_passes(record), *_gradients(record), *_steps(record)]


def _understand(arrays: Arrays) -> _Recorded:
    """Refuses what does not fit together; sizes come from the weights."""
    names = _part(arrays, "init")
    distances = {name for name in arrays if _DISTANCES.fullmatch(name)}
    needed = {f"{part}/{n}" for part in ("init", "grad", "final") for n in names}
    golden.expect(arrays, needed.union(_FIXED), allowed=distances)
    weights = mql4grec.read_state_dict(names)
    if weights.batch_stats:
        raise UserError("batch norms are not understood")
    for name in names:
        for part in ("grad", "final"):
            golden.expect_shape(arrays, f"{part}/{name}", names[name].shape)
    levels = len(weights.sizes)
    golden.expect_shape(arrays, "sk_epsilons", (levels,))
    for name, found in (("num_emb_list", weights.sizes), ("layers", weights.hidden)):
        if tuple(arrays[name].ravel().tolist()) != found:
            said = arrays[name].tolist()
            raise UserError(f"array {name!r} is {said}, but the weights give {found}")
    # Levels of different sizes the reference cannot stack.
    if not distances and len(set(weights.sizes)) == 1:
        raise UserError("array 'nn/distances' is missing")
    golden.expect_shape(arrays, "x", (None, weights.input_width))
    golden.expect_shape(arrays, "steps/x", (None, None, weights.input_width))
    golden.expect_shape(arrays, "steps/loss", (len(arrays["steps/x"]), 3))
    for name in ("nn/codes", "sk/codes"):
        golden.expect_shape(arrays, name, (len(arrays["x"]), levels))
        golden.expect_codes(arrays, name, weights.sizes)
    quantization = quantizer.Quantization(
        sizes=weights.sizes,
        residual_grad="stop",
        sk_epsilons=tuple(map(float, arrays["sk_epsilons"])),
        sk_iterations=50,
    )
    arch = rqvae.Architecture(
        input_width=weights.input_width,
        hidden=weights.hidden,
        latent_width=weights.latent_width,
        quantization=quantization,
    )
    return _Recorded(arrays, weights, arch)


def _part(arrays: Arrays, part: str) -> dict[str, np.ndarray]:
    """Returns the parameters, or what belongs to them, under a prefix."""
    prefix = f"{part}/"
    return {
        n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)
    }


def _passes(record: _Recorded) -> list[Check]:
    """Checks a pass with nearest codes and one in training mode."""
    arrays, model = record.arrays, rqvae.RQVAE(record.arch)
    x = arrays["x"].astype(np.float32)
    variables = {"params": record.weights.params}

    def run(training: bool) -> tuple[rqvae.Output, loss.Losses]:
        def forward(variables, x):
            output: Any = model.apply(variables, x, training=training)
            rows = loss.row_losses(output, x, _OBJECTIVE, beta=_OBJECTIVE.beta)
            return output, jax.tree.map(lambda row: row.mean(), rows)

        return jax.jit(forward)(variables, x)

    nearest, nearest_loss = run(training=False)
    trained, trained_loss = run(training=True)
    return [
        near("z", nearest.latents, arrays["z"]),
        exact("nn/codes", nearest.quantized.codes, arrays["nn/codes"]),
        *_distances(record, nearest.quantized),
        near("nn/x_q", nearest.quantized.output, arrays["nn/x_q"]),
        near("nn/rq_loss", nearest_loss.quantization, arrays["nn/rq_loss"]),
        exact("sk/codes", trained.quantized.codes, arrays["sk/codes"]),
        near("sk/x_q", trained.quantized.output, arrays["sk/x_q"]),
        near("sk/rq_loss", trained_loss.quantization, arrays["sk/rq_loss"]),
        near("train/recon", trained.reconstruction, arrays["train/recon"]),
        near("train/loss", trained_loss.total, arrays["train/loss"]),
        near(
            "train/recon_loss", trained_loss.reconstruction, arrays["train/recon_loss"]
        ),
        near("train/rq_loss", trained_loss.quantization, arrays["train/rq_loss"]),
    ]


def _distances(record: _Recorded, quantized: quantizer.Quantized) -> list[Check]:
    """Checks the distances to the codes of every level.

    They are recorded for all levels in one array [B, Q, K], padded where levels differ
    in size, or for each level apart.
    """
    arrays, sizes = record.arrays, record.weights.sizes
    levels = jax.vmap(
        jax.vmap(quantizer.code_distances, (0, None, None)), (1, 0, None), 1
    )(quantized.residuals, record.weights.params["codebook"], "l2")
    checks = []
    for match in filter(None, map(_DISTANCES.fullmatch, arrays)):
        name, level, rows = match[0], match[1], len(arrays["x"])
        if level is not None:
            if int(level) >= len(sizes):
                raise UserError(f"array {name!r}: there are {len(sizes)} levels")
            ours = levels[:, int(level), : sizes[int(level)]]
            checks.append(near(name, ours, arrays[name]))
            continue
        golden.expect_shape(arrays, name, (rows, len(sizes), max(sizes)))
        real = np.arange(max(sizes)) < np.array(sizes)[:, None]
        checks.append(near(name, np.asarray(levels)[:, real], arrays[name][:, real]))
    return checks


def _gradients(record: _Recorded) -> list[Check]:
    """Checks the gradient of every parameter in one training step."""
    # This optimiser's state is the last gradient.
    keep = optax.trace(decay=0.0)
    state, _ = _train(record, record.arrays["x"][None], keep)
    return _compare_parameters(record, "grad", state.opt_state.trace, golden.GRADIENT)


def _steps(record: _Recorded) -> list[Check]:
    """Checks the losses before each optimiser step, and the weights after the last."""
    batches, recorded = record.arrays["steps/x"], record.arrays["steps/loss"]
    optimizer = optim.build(_OPTIMIZER, len(batches))
    state, losses = _train(record, batches, optimizer)
    checks = [
        near(f"steps/loss {name}", ours, recorded[:, column], golden.RUN)
        for column, (name, ours) in enumerate(losses._asdict().items())
    ]
    return checks + _compare_parameters(record, "final", state.params, golden.RUN)


def _train(
    record: _Recorded,
    batches: Float[np.ndarray, "S B D"],
    optimizer: optax.GradientTransformation,
) -> tuple[train_state.TrainState, loss.Losses]:
    """Does a step on each batch; returns the last state and the losses on the host."""
    steps, size, width = batches.shape
    rows = np.arange(steps * size, dtype=np.int32).reshape(steps, size)
    trainer = training.Trainer(
        arch=record.arch,
        objective=_OBJECTIVE,
        codebooks=codebooks.Codebooks(init="uniform"),
        optimizer=optimizer,
        schedule=loop.Schedule(1, steps, steps, 1),
        batch_size=size,
        seed=0,
        # One device, since recorded batches need not divide by more.
        engine=partition.make_engine("pmap", devices=jax.local_devices()[:1]),
        items=catalogue.Items(
            values=batches.reshape(-1, width).astype(np.float32),
            train=rows.ravel(),
            validation=rows[:0, 0],
        ),
    )
    state = train_state.create(
        params=record.weights.params, model_state={}, optimizer=optimizer, seed=0
    )
    engine = trainer.engine
    state, losses = trainer.compile_steps(frozen=False)(
        engine.replicate(state),
        trainer.place_vectors(),
        trainer.place_batches(rows),
        np.int32(steps),
    )
    return engine.fetch(state), engine.fetch(losses)


def _compare_parameters(
    record: _Recorded, part: str, ours: PyTree, tolerance: float
) -> list[Check]:
    recorded = mql4grec.read_state_dict(_part(record.arrays, part)).params
    sizes = record.weights.sizes
    pairs = zip(_leaves(ours, sizes), _leaves(recorded, sizes), strict=True)
    return [
        near(f"{part}/{name}", array, wanted, tolerance)
        for (name, array), (_, wanted) in pairs
    ]


def _leaves(params: PyTree, sizes: tuple[int, ...]) -> list[tuple[str, np.ndarray]]:
    """Returns parameters with their names, codebooks level by level."""
    params = dict(params)
    codebook = params.pop("codebook")
    leaves = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]
    books = zip(codebook, sizes, strict=True)
    return leaves + [
        (f"codebook/{i}", np.asarray(b[:k])) for i, (b, k) in enumerate(books)
    ]
