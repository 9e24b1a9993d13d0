# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""How good generated embeddings are: their error, mean and deviation beside H's."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rfrec.graph.rf_flow import Sides


def compare(
    generated: Sides, target: Sides, heldout: Bool[np.ndarray, " N"]
) -> dict[str, Float[Array, ""]]:
    """Returns the numbers that are logged with an evaluation.

    Args:
      generated: Of all users, and of all items.
      target: What they should be.
      heldout: Nodes that never trained the flow, users first.

    Returns:
      `rf_error` of all nodes, `rf_error_users`, `rf_error_items`, `rf_error_heldout`
      where there are such, and `rf_{generated,target}_{mean,std}_{users,items}` over
      all entries.
    """
    users = np.arange(len(heldout)) < len(target[0])
    groups = {"": np.ones_like(users), "_users": users, "_items": ~users}
    if heldout.any():
        groups["_heldout"] = heldout
    pair = jnp.concatenate(generated), jnp.concatenate(target)
    numbers = {
        f"rf_error{name}": relative_error(*pair, jnp.asarray(rows))
        for name, rows in groups.items()
    }
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
