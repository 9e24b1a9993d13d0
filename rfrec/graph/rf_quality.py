# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""How good generated embeddings are: their error, mean and deviation beside H's."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def compare(
    generated: Float[Array, "N D"],
    target: Float[Array, "N D"],
    num_users: int,
    heldout: Bool[np.ndarray, " N"],
) -> dict[str, Float[Array, ""]]:
    """Returns the numbers that are logged with an evaluation.

    Args:
      generated: Of all nodes, users first.
      target: What they should be.
      num_users: Nodes that are users.
      heldout: Nodes that never trained the flow.

    Returns:
      `rf_error` of all nodes, `rf_error_users`, `rf_error_items`, `rf_error_heldout`
      where there are such, and `rf_{generated,target}_{mean,std}_{users,items}` over
      all entries.
    """
    users = np.arange(len(heldout)) < num_users
    groups = {"": np.ones_like(users), "_users": users, "_items": ~users}
    if heldout.any():
        groups["_heldout"] = heldout
    numbers = {
        f"rf_error{name}": relative_error(generated, target, jnp.asarray(rows))
        for name, rows in groups.items()
    }
    for kind, x in (("generated", generated), ("target", target)):
        for side, rows in (("users", x[:num_users]), ("items", x[num_users:])):
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
