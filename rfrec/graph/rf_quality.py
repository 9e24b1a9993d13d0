# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Quality of generated embeddings: their error, mean and deviation compared with H."""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from rfrec.graph.rf_flow import Host, Sides

# Share of a condition's variance that is added so that collinear conditions are
# solvable.
_RIDGE = 1e-5


def compare(
    generated: Sides, host: Host, heldout: Bool[np.ndarray, " N"]
) -> dict[str, Float[Array, ""]]:
    """Returns the numbers that are logged with an evaluation.

    Args:
      generated: Generated embeddings of all users and of all items.
      host: Targets and conditions.
      heldout: Nodes that never trained the flow, users first.

    Returns:
      `rf_error` of all nodes, `rf_error_users` and `rf_error_items`; if nodes are held
      out, `rf_error_heldout` and the `rf_error_heldout_linear` of linear maps of the
      same conditions, one for each side; and, over all entries,
      `rf_{generated,target}_{mean,std}_{users,items}`.
    """
    target = host.behaviour
    users = np.arange(len(heldout)) < len(target[0])
    groups = {"": np.ones_like(users), "_users": users, "_items": ~users}
    # A single row has no spread.
    has_heldout = heldout.sum() > 1
    if has_heldout:
        groups["_heldout"] = heldout
    pair = jnp.concatenate(generated), jnp.concatenate(target)
    numbers = {
        f"rf_error{name}": relative_error(*pair, jnp.asarray(rows))
        for name, rows in groups.items()
    }
    if has_heldout:
        # One map for each side: the generator also receives the side of a row.
        fitted = jnp.concatenate(
            [
                fit_linear(condition, of_side, jnp.asarray(~heldout[rows]))
                for condition, of_side, rows in zip(
                    host.condition, target, (users, ~users), strict=True
                )
            ]
        )
        numbers["rf_error_heldout_linear"] = relative_error(
            fitted, pair[1], jnp.asarray(heldout)
        )
    for kind, sides in (("generated", generated), ("target", target)):
        for side, rows in zip(("users", "items"), sides, strict=True):
            numbers[f"rf_{kind}_mean_{side}"] = jnp.mean(rows)
            numbers[f"rf_{kind}_std_{side}"] = jnp.std(rows)
    return numbers


def relative_error(
    generated: Float[Array, "N D"], target: Float[Array, "N D"], rows: Bool[Array, " N"]
) -> Float[Array, ""]:
    """Returns RMS(generated - target) / RMS(target - its mean) over some rows.

    Generating the mean row always gives 1.
    """
    weights = rows.astype(target.dtype)[:, None]
    mean = jnp.sum(weights * target, axis=0, keepdims=True) / jnp.sum(weights)
    spread = jnp.sum(weights * (target - mean) ** 2)
    return jnp.sqrt(jnp.sum(weights * (generated - target) ** 2) / spread)


def fit_linear(
    condition: Float[Array, "N C"], target: Float[Array, "N D"], rows: Bool[Array, " N"]
) -> Float[Array, "N D"]:
    """Returns the prediction of the target by a linear map with an intercept.

    The baseline of a generator: least squares over some rows, in closed form.

    Args:
      condition: Conditions side by side.
      target: Rows to predict.
      rows: Rows to which the map is fitted.
    """
    weights = rows.astype(target.dtype)[:, None]
    total = jnp.maximum(jnp.sum(weights), 1.0)
    x, y = (
        a - jnp.sum(weights * a, axis=0, keepdims=True) / total
        for a in (condition, target)
    )
    # Columns are scaled to the same size.
    deviation = jnp.sqrt(jnp.sum(weights * x * x, axis=0, keepdims=True) / total)
    x = x / jnp.maximum(deviation, 1e-30)
    product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    gram = product((weights * x).T, x) / total
    moment = product((weights * x).T, y) / total
    ridge = _RIDGE * jnp.eye(len(gram))
    solution = jnp.linalg.solve(gram + ridge, moment)
    return product(x, solution) + (target - y)
