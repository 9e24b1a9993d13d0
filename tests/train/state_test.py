# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run carries: its random key does not move, its steps' keys differ."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rfrec.train import state


def create(seed=7):
    return state.create(
        params={"w": jnp.ones(2)},
        model_state={},
        optimizer=optax.adam(1e-3),
        seed=seed,
    )


def test_the_start():
    made = create()
    assert made.step == 0
    assert made.key.dtype == jnp.uint32
    assert jax.tree.leaves(made.opt_state)[1].shape == (2,)


def test_the_key_of_a_step_depends_on_seed_and_step_alone():
    def draw(made):
        return float(jax.random.uniform(state.step_key(made)))

    first = create()
    second = first.replace(step=jnp.int32(1), params={"w": jnp.zeros(2)})
    again = create().replace(step=jnp.int32(1))
    draws = [draw(first), draw(second), draw(create(seed=8))]
    assert len(set(draws)) == 3
    assert draw(second) == draw(again)
    np.testing.assert_array_equal(first.key, second.key)
