# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reflow of a host's generators after training.

The embeddings of a host change while it trains, and a flow that learned from a frozen
teacher would lag behind. Reflow therefore starts after training: the flow of the best
epoch is the teacher, and a student learns pairs of its noise and endpoints.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rfrec.graph.rf_flow import Flow, Host, Part
from rfrec.rf import generator, reflow
from rfrec.typing import PyTree

# Number of paths from each row, and of pairs in a step.
_ROUNDS, _BATCH = 4, 2048


def straighten(
    flow: Flow, params: PyTree, state: PyTree, host: Host, key: jax.Array
) -> tuple[PyTree, PyTree]:
    """Returns the parameters and the state of the students.

    Args:
      flow: Flow whose setting `reflow` is not `none`.
      params: Parameters of the teachers.
      state: State of the teachers; the moments are kept.
      host: Embeddings of all nodes; held-out nodes are not used.
      key: Random key of the noise and the batches.
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
