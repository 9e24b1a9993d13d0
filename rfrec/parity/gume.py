# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of a recorded GUME: graphs, every embedding, losses, gradients and steps.

The records' names are those of `third_party/golden/README.md`. Sizes come from the
arrays: any number of users, items, layers and neighbours.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rfrec.config import UserError
from rfrec.graph import adjacency, gume, loss
from rfrec.parity import arrays as golden
from rfrec.parity.arrays import Arrays, Check, exact, near
from rfrec.rf import contrast
from rfrec.typing import PyTree

_MODALITIES = ("image", "text")
_CONFIG = (
    *("embedding_size", "n_ui_layers", "n_layers", "knn_k", "train_batch_size"),
    *("bm_loss", "bm_temp", "um_loss", "um_temp", "vt_loss"),
    *("reg_weight_1", "reg_weight_2"),
)
_DATA = ("interactions", "n_users", "n_items", "image_feat", "text_feat")
_GRAPHS = ("image_adj", "text_adj", "norm_adj", "R")
_EMBEDDINGS = {
    "extended_id": lambda found, whole: found.behaviour,
    "explicit_image": lambda found, whole: found.explicit[0],
    "explicit_text": lambda found, whole: found.explicit[1],
    "extended_it": lambda found, whole: found.interest,
    "integration": lambda found, whole: whole.integration,
    "all_embeds": lambda found, whole: whole.embeddings,
}
_BATCH = ("users", "pos", "neg")
_LOSSES = ("loss", "bpr", "reg1", "vt", "bm", "um_c")
# The reference trains its tables in place of the features: `image_feat` and `text_feat`
# are recorded as they stand after the steps, `init` holds what graphs are built from.
_TABLES = {m: f"init/{m}_embedding.weight" for m in _MODALITIES}
# Of the optimiser of the recorded steps.
_LEARNING_RATE = 1e-3

Path = tuple[str, ...]


class _Recorded(NamedTuple):
    """A record, and its model in our layout.

    Attributes:
      arrays: As recorded.
      arch: Of the model.
      weights: Of its losses.
      params: At the start.
    """

    arrays: Arrays
    arch: gume.Architecture
    weights: loss.Weights
    params: PyTree


def is_gume(arrays: Arrays) -> bool:
    """Whether this is a record of a GUME."""
    return "norm_adj" in arrays and "extended_id" in arrays


def check_gume(arrays: Arrays) -> list[Check]:
    """Runs all checks of a record."""
    record = _understand(arrays)
    checks, matrices = _build_graphs(record)
    graphs = adjacency.place(matrices)
    return [*checks, *_forward(record, graphs), *_train(record, graphs)]


def _parameters() -> dict[str, tuple[Path, bool]]:
    """Returns where each recorded parameter is in ours, and whether it is turned."""
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


def _copies() -> dict[str, str]:
    """Returns the names under which the reference lists layers a second time."""
    return {
        f"{m}_space_trans.{theirs}.{kind}": f"{m}_{ours}.{kind}"
        for m in _MODALITIES
        for theirs, ours in (("0", "reduce_dim"), ("1.0", "trans_dim.0"))
        for kind in ("weight", "bias")
    }


def _understand(arrays: Arrays) -> _Recorded:
    """Refuses what does not fit together."""
    names, copies = _parameters(), _copies()
    golden.expect(
        arrays,
        {
            *(*_DATA, *_GRAPHS, *_EMBEDDINGS, *_BATCH, *_LOSSES),
            *("noise", "steps_loss"),
            *(f"config/{name}" for name in _CONFIG),
            *(f"init/{name}" for name in (*names, *copies)),
            *(f"grad/{name}" for name in names),
        },
    )
    sizes = ("n_users", "n_items", *(f"config/{n}" for n in _CONFIG), *_LOSSES)
    for name in sizes:
        golden.expect_shape(arrays, name, ())
    arch, weights = _architecture(arrays), _weights(arrays)
    given = [jnp.asarray(arrays[f"{m}_feat"]) for m in _MODALITIES]
    params = gume.init(arch, jax.random.key(0), given)
    for name, (path, turned) in names.items():
        shape = _at(params, path).shape
        for kind in ("init", "grad"):
            golden.expect_shape(
                arrays, f"{kind}/{name}", shape[::-1] if turned else shape
            )
        array = jnp.asarray(arrays[f"init/{name}"], jnp.float32)
        _at(params, path[:-1])[path[-1]] = array.T if turned else array
    for name, other in copies.items():
        if not np.array_equal(arrays[f"init/{name}"], arrays[f"init/{other}"]):
            raise UserError(f"arrays 'init/{name}' and 'init/{other}' differ")
    _check_shapes(arrays, arch)
    return _Recorded(arrays, arch, weights, params)


def _at(params: PyTree, path: Path) -> PyTree:
    for name in path:
        params = params[name]
    return params


def _number(arrays: Arrays, name: str, least: float = 0) -> float:
    value = arrays[name].item()
    if not value >= least:
        raise UserError(f"array {name!r} is {value}, less than {least}")
    return value


def _count(arrays: Arrays, name: str) -> int:
    return int(_number(arrays, name, 1))


def _architecture(arrays: Arrays) -> gume.Architecture:
    items = _count(arrays, "n_items")
    for m in _MODALITIES:
        golden.expect_shape(arrays, f"{m}_feat", (items, None))
    return gume.Architecture(
        num_users=_count(arrays, "n_users"),
        num_items=items,
        modalities=_MODALITIES,
        feature_widths=tuple(arrays[f"{m}_feat"].shape[1] for m in _MODALITIES),
        width=_count(arrays, "config/embedding_size"),
        ui_layers=_count(arrays, "config/n_ui_layers"),
        item_layers=_count(arrays, "config/n_layers"),
    )


def _weights(arrays: Arrays) -> loss.Weights:
    return loss.Weights(
        behaviour=_number(arrays, "config/bm_loss"),
        behaviour_temperature=_number(arrays, "config/bm_temp"),
        user=_number(arrays, "config/um_loss"),
        user_temperature=_number(arrays, "config/um_temp"),
        alignment=_number(arrays, "config/vt_loss"),
        embeddings=_number(arrays, "config/reg_weight_1"),
        interest=_number(arrays, "config/reg_weight_2"),
        batch_size=_count(arrays, "config/train_batch_size"),
    )


def _check_shapes(arrays: Arrays, arch: gume.Architecture) -> None:
    users, items, width = arch.num_users, arch.num_items, arch.width
    count = users + items
    for name, shape in {
        "interactions": (None, 2),
        "norm_adj": (count, count),
        "R": (users, items),
        "image_adj": (items, items),
        "text_adj": (items, items),
        "users": (None,),
        "pos": arrays["users"].shape,
        "neg": arrays["users"].shape,
        "noise": (loss.DRAWS, users, width),
        "steps_loss": (None,),
        **dict.fromkeys(_EMBEDDINGS, (count, width)),
    }.items():
        golden.expect_shape(arrays, name, shape)
    limits = {"users": users, "pos": items, "neg": items, "interactions": count}
    for name, limit in limits.items():
        found = arrays[name]
        if name == "interactions":
            found = np.where(found < (users, items), found, limit)
        if found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= limit:
            raise UserError(f"array {name!r} has numbers of no user or item")


def _build_graphs(record: _Recorded) -> tuple[list[Check], adjacency.Matrices]:
    """Checks the graphs: their edges exactly, and their weights."""
    arrays, arch = record.arrays, record.arch
    pairs = arrays["interactions"]
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    counts = np.bincount(pairs[:, 0], minlength=arch.num_users)
    built = adjacency.build(
        np.cumsum([0, *counts]),
        pairs[:, 1],
        {m: arrays[name] for m, name in _TABLES.items()},
        adjacency.Settings(neighbours=_count(arrays, "config/knn_k")),
    )
    graphs = (*built.similar, built.adjacency, built.user_item)
    checks = []
    for name, graph in zip(_GRAPHS, graphs, strict=True):
        dense, recorded = graph.toarray(), arrays[name]
        checks.append(exact(f"{name} edges", dense != 0, recorded != 0))
        checks.append(near(name, dense, recorded))
    return checks, built


def _forward(record: _Recorded, graphs: gume.Graphs) -> list[Check]:
    """Checks the embeddings of all users and items."""

    @jax.jit
    def run(params):
        found = gume.propagate(record.arch, params, graphs)
        return found, gume.integrate(
            record.arch, params, found.behaviour, found.explicit
        )

    found, whole = run(record.params)
    return [
        near(name, choose(found, whole), record.arrays[name])
        for name, choose in _EMBEDDINGS.items()
    ]


def _train(record: _Recorded, graphs: gume.Graphs) -> list[Check]:
    """Checks losses and gradients of a batch, and steps on it."""
    arrays, settings = record.arrays, record.weights
    users, positives, negatives = (jnp.asarray(arrays[n], jnp.int32) for n in _BATCH)
    chosen = gume.nodes(record.arch, users, positives, negatives)
    noise, ones = jnp.asarray(arrays["noise"])[:, users], jnp.ones(len(users))

    def objective(params):
        found = gume.propagate(record.arch, params, graphs)
        rows = gume.rows(record.arch, params, found, chosen)
        value, parts = loss.total(settings, rows, found, noise, ones)
        return value, (parts, rows)

    run = jax.jit(jax.value_and_grad(objective, has_aux=True))
    (total, (parts, rows)), gradient = run(record.params)
    interest, integration = (x[: len(users)] for x in (rows.interest, rows.integration))
    apart = contrast.info_nce(interest, integration, settings.user_temperature)
    theirs = {
        "loss": total,
        "bpr": parts["bpr"],
        "reg1": settings.embeddings * parts["embeddings"],
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

    What reaches the attention's first bias all but cancels: its rounding counts beside
    the rest of the layer.
    """
    layers: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for name, (path, turned) in _parameters().items():
        ours = np.asarray(_at(gradient, path))
        pair = (ours.T if turned else ours).ravel(), arrays[f"grad/{name}"].ravel()
        layers.setdefault(name.split(".")[0], []).append(pair)
    checks = []
    for name, parts in layers.items():
        ours, recorded = (np.concatenate(side) for side in zip(*parts, strict=True))
        checks.append(near(f"grad/{name}", ours, recorded, golden.GRADIENT))
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
        near("steps_loss", losses, arrays["steps_loss"], golden.RUN),
        *(
            near(f"{m}_feat", params["features"][m], arrays[f"{m}_feat"], golden.RUN)
            for m in _MODALITIES
        ),
    ]
