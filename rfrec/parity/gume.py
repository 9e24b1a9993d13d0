# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of a recorded GUME: graphs, every embedding, losses, gradients and steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rfrec.graph import adjacency, gume, losses
from rfrec.parity.arrays import (
    GRADIENT,
    RUN,
    Arrays,
    Check,
    Recorded,
    exact,
    leaf,
    near,
)
from rfrec.rf import contrast
from rfrec.typing import PyTree

_MODALITIES = ("image", "text")
_GRAPHS = ("image_adj", "text_adj", "norm_adj", "R")
_EMBEDDINGS = {
    "extended_id": lambda parts, whole: parts.behaviour,
    "explicit_image": lambda parts, whole: parts.explicit[0],
    "explicit_text": lambda parts, whole: parts.explicit[1],
    "extended_it": lambda parts, whole: parts.interest,
    "integration": lambda parts, whole: whole.integration,
    "all_embeds": lambda parts, whole: whole.embeddings,
}
_BATCH = ("users", "pos", "neg")
# The reference trains its feature tables in place, so `image_feat` and `text_feat` hold
# their values after the steps. The graphs are built from the initial ones.
_TABLES = {m: f"init/{m}_embedding.weight" for m in _MODALITIES}
# Adam's, in the recorded steps.
_LEARNING_RATE = 1e-3

Path = tuple[str, ...]


def check_gume(arrays: Arrays) -> list[Check]:
    """Checks the graphs, all embeddings, the losses of a batch, and steps on it."""
    arch = gume.Architecture(
        num_users=arrays["n_users"].item(),
        num_items=arrays["n_items"].item(),
        modalities=_MODALITIES,
        feature_widths=tuple(arrays[f"{m}_feat"].shape[1] for m in _MODALITIES),
        width=arrays["config/embedding_size"].item(),
        ui_layers=arrays["config/n_ui_layers"].item(),
        item_layers=arrays["config/n_layers"].item(),
    )
    record = Recorded(arrays, arch, _from_torch(arrays, arch))
    checks, matrices = _build_graphs(record)
    graphs = adjacency.place(matrices)
    return [*checks, *_forward(record, graphs), *_train(record, graphs)]


def _parameters() -> dict[str, tuple[Path, bool]]:
    """Returns the path in ours of each recorded parameter, and whether to transpose."""
    names: dict[str, tuple[Path, bool]] = {
        "user_embedding.weight": (("users",), False),
        "item_id_embedding.weight": (("items",), False),
        "separate_coarse.0.weight": (("attention", "kernel"), True),
        "separate_coarse.0.bias": (("attention", "bias"), False),
        "separate_coarse.2.weight": (("attention", "score"), True),
    }
    for m in _MODALITIES:
        names[f"extended_{m}_user.weight"] = (("preferences", m), False)
        names[f"{m}_embedding.weight"] = (("features", m), False)
        for theirs, ours in (
            (f"{m}_reduce_dim", ("project", m, "reduce")),
            (f"{m}_trans_dim.0", ("project", m, "transform")),
            (f"{m}_behavior.0", ("behaviour", m)),
        ):
            names[f"{theirs}.weight"] = ((*ours, "kernel"), True)
            names[f"{theirs}.bias"] = ((*ours, "bias"), False)
    return names


def _from_torch(arrays: Arrays, arch: gume.Architecture) -> PyTree:
    """Returns the recorded initial parameters in our layout."""
    features = [jnp.asarray(arrays[f"{m}_feat"]) for m in _MODALITIES]
    params = gume.init(arch, jax.random.key(0), features)
    for name, (path, transposed) in _parameters().items():
        array = jnp.asarray(arrays[f"init/{name}"], jnp.float32)
        leaf(params, path[:-1])[path[-1]] = array.T if transposed else array
    return params


def _weights(arrays: Arrays) -> losses.Weights:
    """Returns the recorded weights of the losses."""

    def setting(name: str) -> float:
        return arrays[f"config/{name}"].item()

    return losses.Weights(
        behaviour=setting("bm_loss"),
        behaviour_temperature=setting("bm_temp"),
        user=setting("um_loss"),
        user_temperature=setting("um_temp"),
        alignment=setting("vt_loss"),
        embeddings=setting("reg_weight_1"),
        interest=setting("reg_weight_2"),
        batch_size=int(setting("train_batch_size")),
    )


def _build_graphs(record: Recorded) -> tuple[list[Check], adjacency.Matrices]:
    """Checks the graphs, their edges exactly; returns the checks and our graphs."""
    arrays, arch = record.arrays, record.arch
    pairs = arrays["interactions"]
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    counts = np.bincount(pairs[:, 0], minlength=arch.num_users)
    built = adjacency.build(
        np.cumsum([0, *counts]),
        pairs[:, 1],
        {m: arrays[name] for m, name in _TABLES.items()},
        adjacency.Options(neighbours=arrays["config/knn_k"].item()),
    )
    graphs = (*built.similar, built.adjacency, built.user_item)
    checks = []
    for name, graph in zip(_GRAPHS, graphs, strict=True):
        dense, recorded = graph.toarray(), arrays[name]
        checks.append(exact(f"{name} edges", dense != 0, recorded != 0))
        checks.append(near(name, dense, recorded))
    return checks, built


def _forward(record: Recorded, graphs: gume.Graphs) -> list[Check]:
    """Checks the embeddings of all users and items."""

    @jax.jit
    def run(params):
        parts = gume.propagate(record.arch, params, graphs)
        return parts, gume.integrate(
            record.arch, params, parts.behaviour, parts.explicit
        )

    parts, whole = run(record.params)
    return [
        near(name, choose(parts, whole), record.arrays[name])
        for name, choose in _EMBEDDINGS.items()
    ]


def _train(record: Recorded, graphs: gume.Graphs) -> list[Check]:
    """Checks losses and gradients of a batch, and steps on it."""
    arrays, weights = record.arrays, _weights(record.arrays)
    users, positives, negatives = (jnp.asarray(arrays[n], jnp.int32) for n in _BATCH)
    chosen = gume.batch_nodes(record.arch, users, positives, negatives)
    noise, ones = jnp.asarray(arrays["noise"])[:, users], jnp.ones(len(users))

    def objective(params):
        embeddings = gume.propagate(record.arch, params, graphs)
        rows = gume.batch_rows(record.arch, params, embeddings, chosen)
        value, parts = losses.total(weights, rows, embeddings, noise, ones)
        return value, (parts, rows)

    run = jax.jit(jax.value_and_grad(objective, has_aux=True))
    (total, (parts, rows)), gradient = run(record.params)
    interest, integration = (x[: len(users)] for x in (rows.interest, rows.integration))
    apart = contrast.info_nce(interest, integration, weights.user_temperature)
    theirs = {
        "loss": total,
        "bpr": parts["bpr"],
        "reg1": weights.embeddings * parts["embeddings"],
        "vt": parts["alignment"],
        "bm": parts["behaviour_modality"],
        "um_c": apart,
    }
    return [
        *(near(name, value, arrays[name]) for name, value in theirs.items()),
        *_compare_gradients(arrays, gradient),
        *_steps(arrays, record.params, run),
    ]


def _compare_gradients(arrays: Arrays, gradient: PyTree) -> list[Check]:
    """Checks the gradient of each table and of each layer, weights and biases together.

    The terms of the gradient of the attention's first bias nearly cancel, so that its
    relative rounding error is large. It is compared relative to the whole layer.
    """
    layers: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for name, (path, transposed) in _parameters().items():
        ours = np.asarray(leaf(gradient, path))
        pair = (ours.T if transposed else ours).ravel(), arrays[f"grad/{name}"].ravel()
        layers.setdefault(name.split(".")[0], []).append(pair)
    checks = []
    for name, parts in layers.items():
        ours, recorded = (np.concatenate(side) for side in zip(*parts, strict=True))
        checks.append(near(f"grad/{name}", ours, recorded, GRADIENT))
    return checks


def _steps(arrays: Arrays, params: PyTree, run) -> list[Check]:
    """Checks the losses of steps on one batch, and the tables after them."""
    optimizer, losses = optax.adam(_LEARNING_RATE), []
    state = optimizer.init(params)
    for _ in arrays["steps_loss"]:
        (total, _), gradient = run(params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(total)
    return [
        near("steps_loss", losses, arrays["steps_loss"], RUN),
        *(
            near(f"{m}_feat", params["features"][m], arrays[f"{m}_feat"], RUN)
            for m in _MODALITIES
        ),
    ]
