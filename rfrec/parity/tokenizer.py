# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of recorded tokenizer parts: RQ-VAE, Sinkhorn, rotation trick, repair.

Gradients and optimizer steps of the RQ-VAE come from the trainer's own compiled step.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from rfrec.codes import reassign
from rfrec.parity.arrays import (
    GRADIENT,
    RUN,
    Arrays,
    Check,
    Recorded,
    exact,
    near,
    part,
)
from rfrec.tokenizer import (
    codebooks,
    loss,
    mql4grec,
    quantizer,
    rqvae,
    sinkhorn,
    training,
)
from rfrec.train import loop, optim, partition
from rfrec.train import state as train_state
from rfrec.typing import PyTree

# Settings of the recorded model, with `residual_grad="stop"`.
_OBJECTIVE = loss.Objective(beta=0.25, level_reduce="mean", recon_reduce="mean")
_OPTIMIZER = optim.Optimizer(name="adamw", lr=1e-3, weight_decay=1e-4)

_DISTANCES = re.compile(r"nn/distances(?:[/_](\d+))?")


def check_rqvae(arrays: Arrays) -> list[Check]:
    """Checks passes, gradients and optimizer steps of an RQ-VAE."""
    weights = mql4grec.read_state_dict(part(arrays, "init"))
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
    record = Recorded(arrays, arch, weights.params)
    return [*_passes(record), *_gradients(record), *_steps(record)]


def _passes(record: Recorded) -> list[Check]:
    """Checks a pass with nearest codes and one in training mode."""
    arrays, model = record.arrays, rqvae.RQVAE(record.arch)
    x = arrays["x"].astype(np.float32)
    variables = {"params": record.params}

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


def _distances(record: Recorded, quantized: quantizer.Quantized) -> list[Check]:
    """Checks the distances to the codes of every level.

    They are recorded in one array [B, Q, K], padded where levels differ in size, or in
    one array for each level.
    """
    arrays, sizes = record.arrays, record.arch.quantization.sizes
    levels = jax.vmap(
        jax.vmap(quantizer.code_distances, (0, None, None)), (1, 0, None), 1
    )(quantized.residuals, record.params["codebook"], "l2")
    checks = []
    for match in filter(None, map(_DISTANCES.fullmatch, arrays)):
        name, level = match[0], match[1]
        if level is not None:
            ours = levels[:, int(level), : sizes[int(level)]]
            checks.append(near(name, ours, arrays[name]))
            continue
        real = np.arange(max(sizes)) < np.array(sizes)[:, None]
        checks.append(near(name, np.asarray(levels)[:, real], arrays[name][:, real]))
    return checks


def _gradients(record: Recorded) -> list[Check]:
    """Checks the gradient of every parameter in one training step."""
    # The state of this optimizer is the last gradient.
    keep = optax.trace(decay=0.0)
    state, _ = _train(record, record.arrays["x"][None], keep)
    return _compare_parameters(record, "grad", state.opt_state.trace, GRADIENT)


def _steps(record: Recorded) -> list[Check]:
    """Checks the losses before each optimizer step, and the weights after the last."""
    batches, recorded = record.arrays["steps/x"], record.arrays["steps/loss"]
    optimizer = optim.build(_OPTIMIZER, len(batches))
    state, losses = _train(record, batches, optimizer)
    checks = [
        near(f"steps/loss {name}", ours, recorded[:, column], RUN)
        for column, (name, ours) in enumerate(losses._asdict().items())
    ]
    return checks + _compare_parameters(record, "final", state.params, RUN)


def _train(
    record: Recorded,
    batches: Float[np.ndarray, "S B D"],
    optimizer: optax.GradientTransformation,
) -> tuple[train_state.TrainState, loss.Losses]:
    """Trains one step on each batch; returns the last state and all losses."""
    steps, size, width = batches.shape
    rows = np.arange(steps * size, dtype=np.int32).reshape(steps, size)
    trainer = training.Trainer(
        arch=record.arch,
        objective=_OBJECTIVE,
        codebooks=codebooks.Codebooks(init="uniform", bypass=False, freeze=False),
        optimizer=optimizer,
        schedule=loop.Schedule(1, steps, steps, 1),
        batch_size=size,
        seed=0,
        # One device, since recorded batches need not divide by more.
        engine=partition.make_engine("pmap", devices=jax.local_devices()[:1]),
        items=training.Items(
            values=batches.reshape(-1, width).astype(np.float32),
            train=rows.ravel(),
            validation=rows[:0, 0],
        ),
    )
    state = train_state.create(
        params=record.params, model_state={}, optimizer=optimizer, seed=0
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
    record: Recorded, name: str, ours: PyTree, tolerance: float
) -> list[Check]:
    recorded = mql4grec.read_state_dict(part(record.arrays, name)).params
    sizes = record.arch.quantization.sizes
    pairs = zip(_leaves(ours, sizes), _leaves(recorded, sizes), strict=True)
    return [
        near(f"{name}/{path}", array, wanted, tolerance)
        for (path, array), (_, wanted) in pairs
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


def check_sinkhorn(arrays: Arrays) -> list[Check]:
    """Checks centring and plans in float64, assignments in float32 as in training."""
    plans = {
        name: float(name.removeprefix("Q_eps"))
        for name in arrays
        if name.startswith("Q_eps")
    }
    d, centered = (arrays[name].astype(np.float64) for name in ("d", "centered"))
    with jax.enable_x64(True):
        checks = [near("centered", jax.jit(sinkhorn.center)(d), centered)]
        plan = jax.jit(sinkhorn.plan, static_argnames="epsilon")
        for name, epsilon in plans.items():
            ours = plan(centered, epsilon=epsilon)
            checks.append(near(f"{name} plan", ours, arrays[name]))
    assign = jax.jit(sinkhorn.assign)
    for name, epsilon in plans.items():
        codes = assign(d.astype(np.float32), epsilon=np.float32(epsilon))
        best = np.argmax(arrays[name], axis=1)
        checks.append(exact(f"{name} assignment", codes, best))
    return checks


def check_rotation(arrays: Arrays) -> list[Check]:
    """Checks output and gradient of the rotation-trick estimator."""
    x, code, cotangent = (
        jnp.asarray(arrays[name], jnp.float32) for name in ("x", "code", "cotangent")
    )
    out, pull = jax.vjp(lambda x: jax.vmap(quantizer.rotate)(x, code), x)
    return [
        near("out", out, arrays["out"]),
        near("grad_x", pull(cotangent)[0], arrays["grad_x"], GRADIENT),
    ]


def check_repair(arrays: Arrays) -> list[Check]:
    """Checks MQL4GRec's repair of codes."""
    before = arrays["codes_before"].astype(np.int64)
    codes = reassign.reassign(before, arrays["distances"])
    return [exact("codes_after", codes, arrays["codes_after"])]
