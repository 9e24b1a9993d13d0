# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""How good generated embeddings are: their error, mean and deviation beside H's."""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from rfrec.graph.rf_flow import Host, Sides

# Of a condition's variance: keeps the least squares solvable where two say the same.
_RIDGE = 1e-5


def compare(
    generated: Sides, host: Host, heldout: Bool[np.ndarray, " N"]
) -> dict[str, Float[Array, ""]]:
    """Returns the numbers that are logged with an evaluation.

    Args:
      generated: Of all users, and of all items.
      host: What they should be, and what they are generated from.
      heldout: Nodes that never trained the flow, users first.

    Returns:
      `rf_error` of all nodes, `rf_error_users`, `rf_error_items`; where nodes are held
      out their `rf_error_heldout` and, beside it, `rf_error_heldout_linear` of linear
      maps of the same conditions, one for each side; and, over all entries,
      `rf_{generated,target}_{mean,std}_{users,items}`.
    """
    target = host.behaviour
    users = np.arange(len(heldout)) < len(target[0])
    groups = {"": np.ones_like(users), "_users": users, "_items": ~users}
    # The spread of a single row is nothing.
    told = heldout.sum() > 1
    if told:
        groups["_heldout"] = heldout
    pair = jnp.concatenate(generated), jnp.concatenate(target)
    numbers = {
        f"rf_error{name}": relative_error(*pair, jnp.asarray(rows))
        for name, rows in groups.items()
    }
    if told:
        # One map for each side: the generator is told which side a row is of.
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

    Who always generates the mean row has 1.
    """
    weights = rows.astype(target.dtype)[:, None]
    mean = jnp.sum(weights * target, axis=0, keepdims=True) / jnp.sum(weights)
    spread = jnp.sum(weights * (target - mean) ** 2)
    return jnp.sqrt(jnp.sum(weights * (generated - target) ** 2) / spread)


def fit_linear(
    condition: Float[Array, "N C"], target: Float[Array, "N D"], rows: Bool[Array, " N"]
) -> Float[Array, "N D"]:
    """Returns the target as a linear map of conditions has it, with an intercept.

    The floor of a generator: least squares over some rows, in closed form.

    Args:
      condition: Conditions side by side.
      target: To be told from them.
      rows: That the map is fitted to.
    """
    weights = rows.astype(target.dtype)[:, None]
    total = jnp.maximum(jnp.sum(weights), 1.0)
    x, y = (
        a - jnp.sum(weights * a, axis=0, keepdims=True) / total
        for a in (condition, target)
    )
    # Columns of one size, whatever the units of a condition.
    deviation = jnp.sqrt(jnp.sum(weights * x * x, axis=0, keepdims=True) / total)
    x = x / jnp.maximum(deviation, 1e-30)
    product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    gram = product((weights * x).T, x) / total
    moment = product((weights * x).T, y) / total
    ridge = _RIDGE * jnp.eye(len(gram))
    found = jnp.linalg.solve(gram + ridge, moment)
    return product(x, found) + (target - y)
