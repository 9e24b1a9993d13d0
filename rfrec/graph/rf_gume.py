# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""GUME with a generator of its behaviour embeddings H, as a `Model`.

A rectified flow learns H from the explicit features F of all modalities. Its rows are
mixed with H, or take its place: while the host trains, those that a batch reads; when
it ranks, all of them, generated once from a fixed key. Where the training ratio is 0
the host is GUME, bit for bit, and the flow only watches.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float

from rfrec.data.triplets import Triplets
from rfrec.graph import gume, gume_model, rf_quality, rf_reflow, spmm
from rfrec.graph import loss as losses
from rfrec.graph.gume_model import Constants
from rfrec.graph.model import HOST, RF, Encoded, Model
from rfrec.graph.rf_flow import Flow, Host, Sides
from rfrec.rf import generator
from rfrec.rf.settings import Settings
from rfrec.typing import PyTree

# Where the flow stands among the parameters, and in the model's state.
FLOW = "rf"
# Of the flow's random keys, apart from the host's.
_KEY = 0x5F10


def make_flow(arch: gume.Architecture, settings: Settings) -> Flow:
    """Returns the generators of a GUME."""
    conditions = len(arch.modalities) + settings.neighbour_condition
    return Flow(
        settings,
        num_users=arch.num_users,
        num_items=arch.num_items,
        width=arch.width,
        condition_width=arch.width * conditions,
    )


def read_host(settings: Settings, graphs: gume.Graphs, found: gume.Propagated) -> Host:
    """Returns what the generators read of a GUME.

    Args:
      settings: Of the generators.
      graphs: Of the GUME.
      found: Its embeddings.
    """
    behaviour = Sides(*(side.convolved[:, 0] for side in found))
    condition = Sides(
        *(side.explicit.reshape(len(side.explicit), -1) for side in found)
    )
    if settings.neighbour_condition:
        pairs = zip(condition, _receive(graphs, behaviour), strict=True)
        condition = Sides(*(jnp.concatenate(pair, axis=1) for pair in pairs))
    prior = None
    if settings.user_guidance_scale:
        prior = Sides(*(jnp.sum(side.explicit, axis=1) for side in found))
    return Host(behaviour, condition, prior)


def _receive(graphs: gume.Graphs, rows: Sides) -> Sides:
    """Returns what each node gets of its neighbours' rows.

    Theirs hold a part of its own, which came to them by the same edges.
    """
    up = spmm.product(spmm.transposed(graphs.user_item), rows.users)
    return Sides(
        spmm.product(graphs.user_item, rows.items),
        up + spmm.product(graphs.joined, rows.items),
    )


def optimizer(
    settings: Settings, host: optax.GradientTransformation, model: Model
) -> optax.GradientTransformation:
    """Returns the host's optimiser, with the generator's own for its parameters."""
    own = host if settings.optimizer == "host" else generator.optimizer(settings)
    rules = {HOST: host, RF: own}
    return optax.multi_transform(rules, model.labels)


def rf_gume_model(
    arch: gume.Architecture,
    weights: losses.Weights,
    features: Sequence[Float[np.ndarray, "I _"]],
    settings: Settings,
) -> Model:
    """Makes a GUME with a generator.

    Its `encode` takes a `ratio` of mixing in place of the settings'.

    Args:
      arch: Shape of the GUME.
      weights: Of its losses.
      features: Where their tables start if they are trained.
      settings: Of the generator.
    """
    host, flow = (
        gume_model.gume_model(arch, weights, features),
        make_flow(arch, settings),
    )

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        params, state = host.init(key)
        flow_params, flow_state = flow.init(jax.random.fold_in(key, _KEY))
        return {**params, FLOW: flow_params}, {**state, FLOW: flow_state}

    def loss(
        params: PyTree,
        model_state: PyTree,
        constants: Constants,
        batch: Triplets,
        key: jax.Array,
        epoch: jax.Array,
    ):
        found = gume.propagate(arch, params, constants.graphs, constants.features)
        host = read_host(settings, constants.graphs, found)
        chosen = gume.nodes(arch, batch.users, batch.positives, batch.negatives)
        parts = flow.parts(chosen, len(batch.users))
        keys = jax.random.split(jax.random.fold_in(key, _KEY), 3)
        generated, mixed = None, None
        if settings.mix_ratio > 0:
            generated = flow.generate_rows(
                params[FLOW], model_state[FLOW], host, parts, keys[0]
            )
            seen = generated if settings.attach_generated else _constant(generated)
            own = gume.take(arch, found, chosen).convolved[:, 0]
            mixed = generator.mix(settings, own, seen, training=True, epoch=epoch)
        rows = gume.rows(arch, params, found, chosen, mixed)
        noise = losses.draw_noise(key, len(batch.users), arch.width)
        total, terms = losses.total(weights, rows, found, noise, batch.weights)
        counted = jnp.tile(batch.weights, 3)
        if settings.rows:
            parts, generated = flow.parts(*flow.draw_nodes(keys[1])), None
            counted = jnp.ones(settings.rows)
        added, told, state = flow.loss(
            params[FLOW],
            model_state[FLOW],
            host,
            parts,
            counted,
            generated,
            keys[2],
        )
        return total + added, (terms | told, {**model_state, FLOW: state})

    def encode(
        params: PyTree,
        model_state: PyTree,
        constants: Constants,
        epoch: jax.Array,
        ratio: float | Float[Array, ""] | None = None,
    ) -> Encoded:
        if ratio is None and settings.inference_choices:
            ratio = settings.inference_choices[0]
        found = gume.propagate(
            arch, params, constants.graphs, constants.features, interest=False
        )
        host = read_host(settings, constants.graphs, found)
        key = jax.random.key(_KEY)
        made, asked = flow.generate_all(params[FLOW], model_state[FLOW], host, key)
        ranked: list[Float[Array, "S D"]] = []
        for side, target, generated in zip(found, host.behaviour, made, strict=True):
            mixed = generator.mix(
                settings, target, generated, training=False, epoch=epoch, ratio=ratio
            )
            explicit = [side.explicit[:, m] for m in range(len(arch.modalities))]
            ranked.append(gume.integrate(arch, params, mixed, explicit).embeddings)
        numbers = rf_quality.compare(made, host, flow.heldout())
        numbers["rf_evaluations"] = asked
        return Encoded(ranked[0], ranked[1], numbers)

    def after_update(params: PyTree, model_state: PyTree) -> PyTree:
        state = flow.after_update(params[FLOW], model_state[FLOW])
        return {**model_state, FLOW: state}

    def labels(params: PyTree) -> PyTree:
        # A host that hears nothing does not share the norm that clips its gradients.
        shared = settings.optimizer == "host" and settings.mix_ratio > 0
        own = HOST if shared else RF
        return {
            name: jax.tree.map(lambda _, name=name: own if name == FLOW else HOST, part)
            for name, part in params.items()
        }

    def refine(
        params: PyTree, model_state: PyTree, constants: Constants
    ) -> tuple[PyTree, PyTree]:
        found = gume.propagate(
            arch, params, constants.graphs, constants.features, interest=False
        )
        host, key = read_host(settings, constants.graphs, found), jax.random.key(_KEY)
        learned, state = rf_reflow.straighten(
            flow, params[FLOW], model_state[FLOW], host, key
        )
        return {**params, FLOW: learned}, {**model_state, FLOW: state}

    ratios = tuple({"ratio": ratio} for ratio in settings.inference_choices)
    then = None if settings.reflow == "none" else refine
    return Model(init, loss, encode, after_update, labels, ratios, then)


def _constant(x: Float[Array, "B D"]) -> Float[Array, "B D"]:
    return lax.stop_gradient(x)


def generated_and_target(
    arch: gume.Architecture,
    settings: Settings,
    params: PyTree,
    model_state: PyTree,
    constants: Constants,
) -> tuple[Sides, Sides]:
    """Returns generated embeddings beside H, each of users and of items, for plots."""
    found = gume.propagate(
        arch, params, constants.graphs, constants.features, interest=False
    )
    host = read_host(settings, constants.graphs, found)
    flow, key = make_flow(arch, settings), jax.random.key(_KEY)
    made, _ = flow.generate_all(params[FLOW], model_state[FLOW], host, key)
    return made, host.behaviour
