# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The whole search as portable programs: StableHLO that needs no model's code to run.

A program takes dictionaries of arrays and returns one:

    weights    parameters by path, `decoder/layers_0/attention/q`
    catalogue  what `room.lay_out` makes
    inputs     `histories` [b L] item rows, oldest first; `lengths` [b] of them, at
               least 1; `seen` [b h] distinct rows that must not come, -1 as padding;
               `users` [b] user tokens, if the model has them
    found      `items` [b S G], `scores` [b S], `leaves` [b S], as of `beam.Beams`

b and h are symbolic: any batch and any number of seen items. L is of the bucket.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export
from jaxtyping import Shaped

from rfrec.config import UserError
from rfrec.retrieval import batches, beam, t5
from rfrec.serving import capacity
from rfrec.serving.capacity import Arrays, Room
from rfrec.typing import PyTree

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a program searches.

    Attributes:
      arch: Of the model.
      room: Of the catalogue.
      row: Of the task tables.
      segments: Times that the encoder reads a history.
      num_beams: Beams kept at each level.
      score: As of `beam.Search`.
    """

    arch: t5.Architecture
    capacity: Room
    row: int
    segments: int
    num_beams: int
    score: Literal["full", "level"]


def flat_weights(params: PyTree) -> Arrays:
    """Names parameters by their paths."""
    flat = traverse_util.flatten_dict(params, sep="/")
    return {name: np.asarray(value) for name, value in flat.items()}


def search_function(asked: Asked, slots: int) -> Callable[..., dict[str, Any]]:
    """Returns the function that a bucket's program is made of.

    Args:
      asked: What to search.
      slots: Of the bucket, see `batches.encode_histories`.
    """
    search = beam.Search(
        arch=asked.arch,
        nodes=tuple(min(n, asked.num_beams) for n in asked.capacity.nodes[1:]),
        widths=asked.capacity.widths,
        num_beams=asked.num_beams,
        score=asked.score,
    )
    sizes = asked.capacity.sizes

    def run(weights, catalogue, inputs):
        tokens = batches.encode_histories(
            capacity.tables_of(catalogue),
            inputs["histories"],
            inputs["lengths"],
            inputs.get("users"),
            history=slots,
            row=asked.row,
        )
        beams = beam.search(
            traverse_util.unflatten_dict(weights, sep="/"),
            tokens,
            capacity.index_of(catalogue, sizes),
            search,
            allowed=capacity.filter_of(catalogue, sizes, inputs["seen"]),
        )
        return {"items": beams.items, "scores": beams.scores, "leaves": beams.leaves}

    return run


def serialize(
    asked: Asked,
    slots: int,
    weights: Arrays,
    catalogue: Arrays,
    platforms: Sequence[str],
) -> bytes:
    """Exports the program of one bucket.

    Args:
      asked: What to search.
      slots: Of the bucket, a multiple of the segments.
      weights: Whose shapes count.
      catalogue: Whose shapes count.
      platforms: Some of `PLATFORMS`.

    Returns:
      What `jax.export.deserialize` reads.

    Raises:
      UserError: The package flatbuffers is missing.
    """
    b, h = export.symbolic_shape("b, h")
    shapes = {
        "histories": (b, slots // asked.segments),
        "lengths": (b,),
        "seen": (b, h),
    }
    if catalogue["task_users"].shape[0]:
        shapes["users"] = (b,)
    run = jax.jit(search_function(asked, slots))
    made = export.export(run, platforms=tuple(platforms))(
        jax.tree.map(_shape, weights),
        jax.tree.map(_shape, catalogue),
        {name: jax.ShapeDtypeStruct(s, jnp.int32) for name, s in shapes.items()},
    )
    try:
        return bytes(made.serialize())
    except ImportError as error:
        raise UserError(
            "an export needs the package flatbuffers: install rfrec[serve]"
        ) from error


def _shape(array: Shaped[np.ndarray, "..."]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)
