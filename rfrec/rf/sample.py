# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Generation: noise and conditions in, embeddings at the end of the flow's ODE out.

The ODE dx/dt = v(x, t) runs from noise at time 0 to an embedding at time 1, or back,
under any explicit solver of diffrax. All functions are pure and may be compiled;
`sample_jit` is.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from rfrec.config import UserError
from rfrec.rf import flow, velocity
from rfrec.rf.velocity import Architecture
from rfrec.typing import PyTree

Noise = Literal["fresh", "zero"]
# Arguments, time and rows in, velocities out.
Field = Callable[[Any, Array, Array], Array]

SOLVERS: Mapping[str, type[diffrax.AbstractSolver]] = {
    solver.__name__.lower(): solver
    for solver in (
        *(diffrax.Euler, diffrax.Heun, diffrax.Midpoint, diffrax.Ralston),
        *(diffrax.Bosh3, diffrax.Tsit5, diffrax.Dopri5, diffrax.Dopri8),
        *(diffrax.LeapfrogMidpoint, diffrax.ReversibleHeun),
    )
}
# Up to so many steps the backward pass keeps the rows of every step.
_KEPT_STEPS = 50
_MOST_ADAPTIVE_STEPS = 4096


@dataclasses.dataclass(frozen=True)
class Solver:
    """How an ODE is solved.

    Attributes:
      name: Key of `SOLVERS`, in upper or lower case.
      steps: Equal steps; with tolerances, the first is 1/steps long, and a trajectory
        has so many pieces.
      rtol: With `atol`: relative and absolute tolerance of an adaptive step size, one
        for all rows. None or 0 for equal steps.
      atol: See `rtol`.

    Raises:
      UserError: There is no such solver, or it cannot adapt its steps.
    """

    name: str = "euler"
    steps: int = 10
    rtol: float | None = None
    atol: float | None = None

    def __post_init__(self):
        solver_class = SOLVERS.get(self.name.lower())
        if solver_class is None:
            known = ", ".join(SOLVERS)
            raise UserError(f"solver {self.name!r} does not exist: use one of {known}")
        if self.steps < 1:
            raise UserError(f"solver steps are {self.steps}: take at least 1")
        if self.adaptive and not issubclass(
            solver_class, diffrax.AbstractAdaptiveSolver
        ):
            raise UserError(
                f"solver {self.name!r} does not estimate its error:"
                " leave out rtol and atol, or take another, heun for one"
            )

    @property
    def adaptive(self) -> bool:
        """Whether tolerances choose the steps."""
        return bool(self.rtol or self.atol)


class Solution(NamedTuple):
    """Solution of an ODE.

    Attributes:
      x: Rows at its end; NaN if an adaptive solver did not reach it.
      evaluations: Calls of the velocity, over all draws; of two networks each where
        classifier-free guidance acts.
      trajectory: Rows at steps+1 times from its start to its end; None if not asked
        for.
    """

    x: Float[Array, "B D"]
    evaluations: Int[Array, ""]
    trajectory: Float[Array, "S B D"] | None = None


def solve(
    field: Field,
    args: PyTree,
    x0: Float[Array, "B D"],
    solver: Solver,
    *,
    reverse: bool = False,
    trajectory: bool = False,
) -> Solution:
    """Follows dx/dt = field(args, t, x) from time 0 to 1.

    Args:
      field: Gives the velocity of rows at one time.
      args: What it reads. Gradients reach these and `x0`, nothing it closes over.
      x0: Rows at the start.
      solver: How.
      reverse: Whether to go from time 1 to 0, back to the noise.
      trajectory: Whether to return the rows on the way.
    """
    method: Any = SOLVERS[solver.name.lower()]()
    start, end = (1.0, 0.0) if reverse else (0.0, 1.0)
    n = most = solver.steps
    controller, saved = diffrax.ConstantStepSize(), diffrax.SaveAt(t1=True)
    if trajectory:
        saved = diffrax.SaveAt(t0=True, steps=True)
    if solver.adaptive:
        controller = diffrax.PIDController(solver.rtol or 0.0, solver.atol or 0.0)
        most = _MOST_ADAPTIVE_STEPS
        if trajectory:
            saved = diffrax.SaveAt(ts=jnp.linspace(start, end, n + 1))
    kept = most if most <= _KEPT_STEPS else None
    solved = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, x, args: field(args, jnp.asarray(t), x)),
        method,
        *(start, end, (end - start) / n, x0, args),
        saveat=saved,
        stepsize_controller=controller,
        max_steps=most,
        throw=False,
        adjoint=diffrax.RecursiveCheckpointAdjoint(kept),
    )
    path = jnp.asarray(solved.ys)
    x = jnp.where(solved.result == diffrax.RESULTS.successful, path[-1], jnp.nan)
    evaluations = _evaluations(method, solved)
    return Solution(x, evaluations, path if trajectory else None)


def _evaluations(method: Any, solved: diffrax.Solution) -> Int[Array, ""]:
    """Counts calls of the velocity.

    A method whose last stage is the first of the next step makes one a step fewer, and
    one more at the start.
    """
    tableau = getattr(method, "tableau", None)
    each, once = 1, isinstance(method, diffrax.ReversibleHeun)
    if tableau is not None:
        each, once = tableau.num_stages - tableau.fsal, tableau.fsal
    return jnp.asarray(solved.stats["num_steps"] * each + once, jnp.int32)


def noise(
    key: PRNGKeyArray, shape: tuple[int, int], kind: Noise = "fresh", scale: float = 1.0
) -> Float[Array, "B D"]:
    """Returns where generation starts.

    Args:
      key: Random key.
      shape: Rows and width.
      kind: `fresh`: normal noise; `zero`: its mean.
      scale: Standard deviation of the noise.
    """
    if kind == "zero":
        return jnp.zeros(shape)
    if kind != "fresh":
        raise ValueError(f"there is no noise {kind!r}")
    return scale * jax.random.normal(key, shape)


class Inputs(NamedTuple):
    """The inputs of a velocity that are constant along a path.

    Attributes:
      params: Parameters of the network.
      code: Code of the conditions, `velocity.encode`.
      unconditional: Code of no conditions; None without classifier-free guidance.
      prior: Direction that rows are pushed in; None for none.
    """

    params: PyTree
    code: velocity.Code
    unconditional: velocity.Code | None = None
    prior: Float[Array, "B D"] | None = None


def prepare(
    arch: Architecture,
    params: PyTree,
    condition: Float[Array, "B C"],
    *,
    side: Int[Array, " B"] | None = None,
    guidance: float = 1.0,
    prior: Float[Array, "B D"] | None = None,
) -> Inputs:
    """Encodes conditions once for all steps; arguments as for `sample`.

    Raises:
      UserError: Guidance needs a network that has learned to do without conditions.
    """
    unconditional = None
    if guidance != 1.0:
        if not arch.null_condition:
            raise UserError(
                f"guidance weight {guidance} needs a network that was trained without"
                " conditions too: set condition_dropout above 0, or the weight to 1"
            )
        drop = jnp.ones(len(condition), bool)
        unconditional = velocity.encode(arch, params, condition, side=side, drop=drop)
    code = velocity.encode(arch, params, condition, side=side)
    return Inputs(params, code, unconditional, prior)


def build_field(
    arch: Architecture,
    *,
    guidance: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
    prior_scale: float = 0.0,
    prior_power: float = 2.0,
) -> Field:
    """Returns a network's velocity for `solve`, which takes `Inputs` as its args."""

    def plain(inputs: Inputs, t: Array, x: Array) -> Array:
        return velocity.velocity(arch, inputs.params, x, t[None], inputs.code)

    def guided(inputs: Inputs, t: Array, x: Array) -> Array:
        v, code = plain(inputs, t, x), inputs.unconditional
        assert code is not None
        without = velocity.velocity(arch, inputs.params, x, t[None], code)
        return v + (guidance - 1.0) * (v - without)

    def field(inputs: Inputs, t: Array, x: Array) -> Array:
        t = jnp.asarray(t, x.dtype)
        if inputs.unconditional is None:
            v = plain(inputs, t, x)
        else:
            inside = (t >= interval[0]) & (t <= interval[1])
            v = lax.cond(inside, guided, plain, inputs, t, x)
        if inputs.prior is None:
            return v
        return v + flow.prior_guidance(t[None], inputs.prior, prior_scale, prior_power)

    return field


def sample(
    arch: Architecture,
    params: PyTree,
    condition: Float[Array, "B C"],
    key: PRNGKeyArray,
    solver: Solver,
    *,
    side: Int[Array, " B"] | None = None,
    draws: int = 1,
    noise_kind: Noise = "fresh",
    noise_scale: float = 1.0,
    guidance: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
    prior: Float[Array, "B D"] | None = None,
    prior_scale: float = 0.0,
    prior_power: float = 2.0,
    trajectory: bool = False,
) -> Solution:
    """Generates a row for each row of conditions.

    Args:
      arch: Architecture of the velocity network.
      params: Parameters of the network.
      condition: All conditions side by side.
      key: Random key of the noise: the same key and shape give the same noise.
      solver: Solver of the ODE.
      side: Kind of each row, if the network has kinds.
      draws: Samples whose mean is returned; of zero noise, all are the same.
      noise_kind: As for `noise`.
      noise_scale: As for `noise`.
      guidance: Weight w of classifier-free guidance, v + (w - 1)(v - v without
        conditions) (Ho & Salimans 2022); 1 for none.
      interval: First and last time at which it acts (Kynkäänniemi et al. 2024).
      prior: Direction of `flow.prior_guidance`, as in training.
      prior_scale: Scale of the prior.
      prior_power: Exponent of its decay.
      trajectory: Whether to return the (mean) rows on the way.

    Raises:
      UserError: Guidance needs a network that has learned to do without conditions.
    """
    inputs = prepare(arch, params, condition, side=side, guidance=guidance, prior=prior)
    field = build_field(
        arch,
        guidance=guidance,
        interval=interval,
        prior_scale=prior_scale,
        prior_power=prior_power,
    )

    def draw(number: Int[Array, ""]) -> Solution:
        drawn = jax.random.fold_in(key, number)
        x0 = noise(drawn, (len(condition), arch.width), noise_kind, noise_scale)
        return solve(field, inputs, x0, solver, trajectory=trajectory)

    if draws == 1 or noise_kind == "zero":
        return draw(jnp.int32(0))
    every = lax.map(draw, jnp.arange(draws))
    mean: Solution = jax.tree.map(lambda x: jnp.mean(x, axis=0), every)
    return mean._replace(evaluations=jnp.sum(every.evaluations))


_STATIC = (
    *("arch", "solver", "draws", "noise_kind", "noise_scale", "guidance", "interval"),
    *("prior_scale", "prior_power", "trajectory"),
)
sample_jit = jax.jit(sample, static_argnames=_STATIC)


def straightness(
    field: Field, args: PyTree, x0: Float[Array, "B D"], solver: Solver
) -> Float[Array, ""]:
    """Returns how far a flow is from straight, S = int E|(Z1 - Z0) - v(Z_t, t)|^2 dt.

    Of Liu et al. 2022, section 2.2; 0 for straight paths, which one step of Euler
    follows exactly. The integral is the trapezoidal sum over steps+1 times, so a solver
    of few steps sees little of the path: take 50 or more.

    Args:
      field: As for `solve`.
      args: What it reads.
      x0: Noise.
      solver: Solver of the path Z_t.
    """
    path = solve(field, args, x0, solver, trajectory=True).trajectory
    assert path is not None
    chord = path[-1] - path[0]

    def gap(at: tuple[Array, Array]) -> Array:
        return jnp.mean(jnp.sum((chord - field(args, *at)) ** 2, axis=1))

    times = jnp.linspace(0.0, 1.0, solver.steps + 1)
    return jnp.trapezoid(lax.map(gap, (times, path)), times)
