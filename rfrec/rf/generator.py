# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""A generator of embeddings by rectified flow: pure functions, state in, state out.

A host recommender brings target embeddings and conditions, rows that belong together;
the generator learns the flow from noise to targets, generates embeddings from
conditions, and mixes them with the host's. `Settings` decide how. A host that trains
everything in one step holds `params` in its own state and calls `loss`; one that does
not calls `update`.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from rfrec.rf import average, contrast, flow, sample, units, velocity
from rfrec.rf.settings import Settings
from rfrec.typing import PyTree


class State(NamedTuple):
    """State of a generator that trains itself; arrays only.

    Attributes:
      params: Parameters of the velocity network.
      ema: Their moving average; empty without `ema_decay`.
      moments: Moments of targets and conditions.
      opt_state: State of `optimizer`.
      key: Raw data of the random key; that of a step is `fold_in(key, step)`.
      step: Steps done.
    """

    params: PyTree
    ema: PyTree
    moments: units.Moments
    opt_state: PyTree
    key: PyTree
    step: PyTree


def join(conditions: Sequence[Float[Array, "B _"]]) -> Float[Array, "B C"]:
    """Puts conditions side by side."""
    return jnp.concatenate(list(conditions), axis=1)


def optimizer(settings: Settings) -> optax.GradientTransformation:
    """Returns the generator's own optimiser: AdamW, clipped if so set."""
    rule = optax.adamw(settings.lr, weight_decay=settings.weight_decay)
    if settings.clip_norm == 0:
        return rule
    return optax.chain(optax.clip_by_global_norm(settings.clip_norm), rule)


def init_params(
    settings: Settings,
    width: int,
    condition_width: int,
    key: PRNGKeyArray,
    *,
    sides: int = 0,
) -> PyTree:
    """Draws the parameters of a velocity network.

    Args:
      settings: Settings of the generator.
      width: Width of the embeddings.
      condition_width: Width of all conditions side by side.
      key: Random key.
      sides: Number of kinds of rows that the network distinguishes; 0 for none.
    """
    return velocity.init(_architecture(settings, width, condition_width, sides), key)


def init(
    settings: Settings, width: int, condition_widths: Sequence[int], seed: int
) -> State:
    """Returns the state of a generator before its first step.

    Args:
      settings: Settings of the generator.
      width: Width of the embeddings.
      condition_widths: Width of each condition.
      seed: Seed of the parameters and of all random numbers.
    """
    key = jax.random.key(seed)
    total = sum(condition_widths)
    params = init_params(settings, width, total, jax.random.fold_in(key, 0))
    return State(
        params=params,
        ema=average.start(settings.ema_decay, params),
        moments=units.start(width, total),
        opt_state=optimizer(settings).init(params),
        key=jax.random.key_data(jax.random.fold_in(key, 1)),
        step=jnp.int32(0),
    )


def _architecture(
    settings: Settings, width: int, condition_width: int, sides: int
) -> velocity.Architecture:
    return velocity.Architecture(
        width=width,
        condition_width=condition_width,
        hidden=settings.hidden_dim,
        layers=settings.n_layers,
        dropout=settings.dropout,
        time=settings.time_code,
        sides=sides,
        null_condition=settings.condition_dropout > 0,
        linear_skip=settings.linear_skip,
    )


def network(
    settings: Settings, moments: units.Moments, side: Int[Array, " B"] | None
) -> velocity.Architecture:
    """Returns the shape of the network that flows between these moments' columns."""
    widths = (len(moments.target.mean), len(moments.condition.mean))
    return _architecture(settings, *widths, sides=0 if side is None else 2)


def loss(
    settings: Settings,
    params: PyTree,
    moments: units.Moments,
    target: Float[Array, "B D"],
    condition: Float[Array, "B C"],
    key: PRNGKeyArray,
    *,
    prior: Float[Array, "B D"] | None = None,
    side: Int[Array, " B"] | None = None,
    weights: Float[Array, " B"] | None = None,
    generated: Float[Array, "B D"] | None = None,
    line: units.Line | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Returns the loss of the flow.

    Args:
      settings: Settings of the generator.
      params: Parameters of its network.
      moments: With the rows of this step observed.
      target: Embeddings to be generated.
      condition: Conditions side by side.
      key: Random key of the step.
      prior: Direction that guides each row in training; None for none.
      side: 0 for a user's row, 1 for an item's, of a network that has sides.
      weights: Weights of the rows; 0 for rows to ignore. None for all equal.
      generated: Rows already generated from these conditions, with gradient.
      line: Ends and times of the lines to learn; None draws them.

    Returns:
      The total, and `rf_loss`, `cl_loss` (without their weights) and `total_loss`.
    """
    target, condition, prior = _detach(settings, target, condition, prior)
    keys = jax.random.split(key, 5)
    if line is None:
        line = units.draw_line(settings, moments, target, keys[0])
    x_t = flow.interpolate(line.start, line.end, line.times)
    predicted = velocity.apply(
        network(settings, moments, side),
        params,
        x_t,
        line.times,
        units.enter(settings, moments.condition, condition),
        side=side,
        drop=_drop(settings, keys[1], len(target)),
        dropout_key=keys[2],
    ) + _training_guidance(settings, moments, x_t, line, prior)
    wanted = flow.target(line.start, line.end)
    rf_loss = flow.regression(predicted, wanted, settings.loss, weights)
    pair = flow.endpoint(x_t, predicted, line.times), line.end
    if settings.contrast in ("mse", "infonce_samples"):
        if generated is None:
            generated = generate(
                settings, params, moments, condition, keys[3], side=side, prior=prior
            ).x
        pair = generated, target
    cl_loss = _compare(settings, *pair, keys[4], weights)
    total = settings.loss_weight * rf_loss + settings.contrast_weight * cl_loss
    return total, {"rf_loss": rf_loss, "cl_loss": cl_loss, "total_loss": total}


def _detach(settings: Settings, target, condition, prior):
    """Stops the gradients that are not attached."""
    if not settings.attach_target:
        target = jax.lax.stop_gradient(target)
    if not settings.attach_conditions:
        condition = jax.lax.stop_gradient(condition)
    return target, condition, jax.lax.stop_gradient(prior)


def _drop(settings: Settings, key: PRNGKeyArray, count: int):
    if settings.condition_dropout == 0:
        return None
    return jax.random.bernoulli(key, settings.condition_dropout, (count,))


def _training_guidance(
    settings: Settings, moments: units.Moments, x_t, line: units.Line, prior
):
    return flow.guidance(
        x_t,
        line.end,
        line.times,
        units.direction(settings, moments.target, prior),
        prior_scale=settings.user_guidance_scale,
        prior_power=settings.guidance_decay_power,
        cosine_scale=settings.cosine_guidance_scale,
        cosine_power=settings.cosine_decay_power,
    )


def _compare(settings: Settings, x, y, key: PRNGKeyArray, weights):
    """Returns the contrast loss of generated rows and targets."""
    if settings.contrast == "none":
        return jnp.float32(0)
    if settings.contrast == "mse":
        return contrast.squared(x, y, weights)
    if settings.negatives == 0:
        return contrast.info_nce(x, y, settings.contrast_temp, weights=weights)
    chosen = jax.random.randint(key, (settings.negatives,), 0, len(y))
    return contrast.info_nce_sampled(
        x, y, settings.contrast_temp, chosen, weights=weights
    )


@functools.partial(jax.jit, static_argnames=("settings",))
def update(
    settings: Settings,
    state: State,
    target: Float[Array, "B D"],
    condition: Float[Array, "B C"],
    *,
    prior: Float[Array, "B D"] | None = None,
    side: Int[Array, " B"] | None = None,
    weights: Float[Array, " B"] | None = None,
    line: units.Line | None = None,
) -> tuple[State, dict[str, Float[Array, ""]]]:
    """Does one step; arguments as for `loss`."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    moments = state.moments
    if line is None:  # Otherwise its ends are in the units of these moments.
        moments = units.observe(settings, moments, target, condition, weights)

    def objective(params: PyTree):
        return loss(
            settings,
            params,
            moments,
            target,
            condition,
            key,
            prior=prior,
            side=side,
            weights=weights,
            line=line,
        )

    grads, parts = jax.grad(objective, has_aux=True)(state.params)
    rule = optimizer(settings)
    updates, opt_state = rule.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = average.advance(settings.ema_decay, state.ema, params, state.step)
    return State(params, ema, moments, opt_state, state.key, state.step + 1), parts


def generate(
    settings: Settings,
    params: PyTree,
    moments: units.Moments,
    condition: Float[Array, "B C"],
    key: PRNGKeyArray,
    *,
    steps: int | None = None,
    side: Int[Array, " B"] | None = None,
    prior: Float[Array, "B D"] | None = None,
) -> sample.Solution:
    """Returns generated embeddings and the number of velocity evaluations.

    Args:
      settings: Settings of the generator.
      params: Parameters of its network.
      moments: Moments of training.
      condition: Conditions side by side.
      key: Random key of the noise; a row's noise also depends on its position.
      steps: Number of ODE steps; None for that of the settings.
      side: As for `loss`.
      prior: As for `loss`; read with `guided_sampling` alone.
    """
    if settings.guided_sampling:
        prior = units.direction(settings, moments.target, prior)
    else:
        prior = None
    solution = sample.sample(
        network(settings, moments, side),
        params,
        units.enter(settings, moments.condition, condition),
        key,
        solver(settings, steps),
        side=side,
        draws=settings.draws,
        noise_kind=settings.noise,
        noise_scale=settings.noise_scale,
        guidance=settings.guidance_weight,
        interval=settings.guidance_interval,
        prior=prior,
        prior_scale=settings.user_guidance_scale,
        prior_power=settings.guidance_decay_power,
    )
    return solution._replace(x=units.leave(settings, moments.target, solution.x))


def solver(settings: Settings, steps: int | None = None) -> sample.Solver:
    """Returns the solver of the settings, with another number of steps if given."""
    return sample.Solver(
        settings.solver,
        steps=settings.sampling_steps if steps is None else steps,
        rtol=settings.rtol or None,
        atol=settings.atol or None,
    )


def mix(
    settings: Settings,
    original: Float[Array, "B D"],
    generated: Float[Array, "B D"],
    *,
    training: bool,
    epoch: int | Int[Array, ""],
    ratio: float | Float[Array, ""] | None = None,
) -> Float[Array, "B D"]:
    """Returns the host's embeddings, mixed with generated ones after the warm-up.

    Args:
      settings: Settings of the generator.
      original: Embeddings of the host.
      generated: The same rows.
      training: Whether `mix_ratio` applies, else `inference_mix_ratio`.
      epoch: Current epoch; rows are mixed from `warmup_epochs` on.
      ratio: Replaces the ratio of the settings.
    """
    if ratio is None:
        ratio = settings.mix_ratio if training else settings.inference_mix_ratio
    if isinstance(ratio, (int, float)) and ratio == 0:
        return original
    kept = 1.0 if settings.mixing == "residual" else 1.0 - ratio
    # The original is not read at all, so that it has no gradient.
    whole = isinstance(kept, float) and kept == 0
    mixed = generated if whole else kept * original + ratio * generated
    if not isinstance(ratio, (int, float)):
        # Zero times a row that is not finite would spoil the host's.
        mixed = jnp.where(ratio == 0, original, mixed)
    if settings.warmup_epochs == 0:
        return mixed
    return jnp.where(epoch < settings.warmup_epochs, original, mixed)
