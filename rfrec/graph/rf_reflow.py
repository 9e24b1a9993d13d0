# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reflow of a host's generators, once training is over and the host rests.

While a host trains, its embeddings move on, and a flow that learned from a frozen
teacher would fall behind them. So the flow that validation chose is the teacher: pairs
of its noise and ends are stored, and a student learns them.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rfrec.graph.rf_flow import Flow, Host, Part
from rfrec.rf import generator, reflow
from rfrec.typing import PyTree

# Paths from each row, and pairs of a step.
_ROUNDS, _BATCH = 4, 2048


def straighten(
    flow: Flow, params: PyTree, state: PyTree, host: Host, key: jax.Array
) -> tuple[PyTree, PyTree]:
    """Returns the parameters and the state of students in place of their teachers.

    Args:
      flow: Of the generators; its `reflow` is not `none`.
      params: Of them.
      state: Of them; the moments stay.
      host: Of all nodes, of which those held out train nobody.
      key: Of the noise and the batches.
    """
    kept = np.flatnonzero(~flow.heldout())
    users = int(np.sum(kept < flow.num_users))
    params, average = dict(params), dict(state["ema"])
    for i, part in enumerate(flow.split(jnp.asarray(kept), users)):
        drawn = jax.random.split(jax.random.fold_in(key, i))
        teacher = generator.State(
            params=params[part.name],
            ema=average.get(part.name, {}),
            moments=state["moments"][part.name],
            opt_state=(),
            key=jax.random.key_data(drawn[0]),
            step=state["count"],
        )
        student = _learn(flow, teacher, host, part, drawn[1])
        params[part.name] = student.params
        if average:
            average[part.name] = student.ema
    return params, {**state, "ema": average}


def _learn(
    flow: Flow, teacher: generator.State, host: Host, part: Part, key: jax.Array
) -> generator.State:
    settings = flow.settings
    assert settings.reflow != "none"
    pairs = reflow.make_pairs(
        settings,
        teacher,
        flow.condition(host, part),
        key,
        rounds=_ROUNDS,
        side=flow.side(part),
    )
    return reflow.train(
        settings,
        teacher,
        pairs,
        kind=settings.reflow,
        steps=settings.reflow_steps,
        batch_size=min(_BATCH, len(pairs.start)),
    )[0]
