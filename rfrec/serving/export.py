# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Export of a trained model's search as portable programs (StableHLO).

A program takes three dictionaries of arrays and returns one:

    weights    parameters by path, as in `decoder/layers_0/attention/q`
    catalogue  the arrays of `capacity.lay_out`
    inputs     `histories` [b L], item rows with the oldest first; `lengths` [b], at
               least 1; `seen` [b h], distinct rows to exclude, where -1 is padding;
               `users` [b], user tokens if the model has them
    output     `items` [b S G], `scores` [b S], `leaves` [b S], as in `beam.Beams`

The batch size b and the number h of excluded items are symbolic; L belongs to the
length bucket. Running a program needs no code of the model.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Shaped
from tqdm import tqdm

from rfrec import config as cfg
from rfrec.codes import catalogue
from rfrec.config import UserError
from rfrec.retrieval import beam, builders, t5, tasks
from rfrec.retrieval.retriever import GenerativeRetriever
from rfrec.retrieval.search import Source, search_function
from rfrec.retrieval.tasks import ListTask
from rfrec.retrieval.vocab import Vocabulary
from rfrec.serving import artefact, capacity
from rfrec.serving.artefact import Manifest, Parts
from rfrec.serving.capacity import Arrays
from rfrec.typing import PyTree

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """Options of an exported search.

    Attributes:
      beams: Beams of the search, and maximum length of a list.
      top_k: Length of a list if a request has no `k`.
      score: `full` scores items as Hugging Face does; `level` normalises over the legal
        codes of each level.
      buckets: History lengths with their own program, ascending. An empty tuple takes
        those of training. The maximum length is added.
    """

    beams: int = cfg.option(20, cfg.whole(1))
    top_k: int = cfg.option(10, cfg.whole(1))
    score: Literal["full", "level"] = "full"
    buckets: tuple[int, ...] = cfg.option((), cfg.each(cfg.whole(1)))


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
      platforms: Platforms that the programs can run on: cpu, cuda, rocm, tpu.
      room: Additional items that a grown catalogue may have, as a share of the present
        number.
      search: Options of the search.
    """

    platforms: tuple[str, ...] = cfg.option(
        ("cpu", "cuda", "tpu"), cfg.each(cfg.one_of(*PLATFORMS), least=1)
    )
    room: float = cfg.option(0.25, cfg.at_least(0))
    search: SearchOptions = SearchOptions()


class TrainedModel(NamedTuple):
    """A trained model and its catalogue.

    Attributes:
      source: Model, trie and tables of the search.
      vocabulary: Vocabulary of the model.
      task: Task that makes the lists.
      item_ids: Item id of each row; None if the rows are the ids.
      max_history: Number of latest items that the model reads.
      buckets: History lengths that the model was trained with.
      version: Run, step and fingerprints of the model.
    """

    source: Source
    vocabulary: Vocabulary
    task: ListTask
    item_ids: tuple[str, ...] | None
    max_history: int
    buckets: tuple[int, ...]
    version: catalogue.T5Record


def check(options: ExportOptions) -> None:
    """Refuses options that contradict each other.

    Raises:
      UserError: The default list is longer than the beams allow, or the buckets do not
        ascend.
    """
    search = options.search
    if search.top_k > search.beams:
        raise UserError(
            f"config.search.top_k={search.top_k} is more than config.search.beams="
            f"{search.beams}: a list has at most one item for each beam"
        )
    if (np.diff(search.buckets) <= 0).any():
        raise UserError(f"config.search.buckets={search.buckets}: must be ascending")


def export(model: TrainedModel, folder: Path, options: ExportOptions) -> Manifest:
    """Exports the search of a trained model, completely or not at all.

    Args:
      model: The trained model.
      folder: Folder to create; `rfrec.Recommender` and `rfrec.launch.serve` read it.
      options: Options of the export.

    Raises:
      UserError: The options contradict each other, the folder is not empty, or the
        package flatbuffers is not installed.
    """
    check(options)
    artefact.check_empty(folder)
    search, source, task = options.search, model.source, model.task
    tables = source.tables._replace(
        items=np.zeros(1, np.int32), users=source.tables.users[:1]
    )
    planned = capacity.plan_capacity(source.trie, options.room)
    arrays = capacity.lay_out(planned, source.trie, source.tokens, tables)
    weights = flat_weights(source.params)
    manifest = Manifest(
        jax=jax.__version__,
        platforms=options.platforms,
        t5=model.version,
        task=task.name,
        row=source.row,
        sources=task.sources,
        target=task.target,
        segments=len(task.sources),
        max_history=model.max_history,
        beams=search.beams,
        top_k=search.top_k,
        room=planned,
    )
    programs = {}
    for slots in tqdm(_slots(model, search.buckets), unit="program"):
        run = program_function(source.arch, manifest, search.score, slots)
        programs[slots] = serialize(run, manifest, slots, weights, arrays)
    parts = Parts(
        programs, weights, tables, source.trie, model.vocabulary, model.item_ids
    )
    return artefact.write(folder, parts, manifest)


def export_retriever(
    retriever: GenerativeRetriever,
    folder: Path,
    *,
    task: ListTask | None = None,
    run: str = "GenerativeRetriever",
    step: int = 0,
    **options: Any,
) -> Manifest:
    """Exports a fitted retriever.

    Args:
      retriever: Retriever that is fitted.
      folder: Folder to create.
      task: Task that makes the lists; None takes the one that training evaluated.
      run: Name of the run for the manifest.
      step: Step of the checkpoint for the manifest.
      **options: Fields of `ExportOptions` and `SearchOptions`, as in `beams=50`.

    Raises:
      UserError: An option is unknown or not allowed, the folder is not empty, or the
        package flatbuffers is not installed.
    """
    chosen = cfg.override(ExportOptions(), **options)
    trained, data, vocabulary = retriever.options, retriever.data, retriever.vocabulary
    assert data is not None and vocabulary is not None, "the retriever is not fitted"
    task = task or tasks.list_task(trained.watched)
    params = retriever.params
    model = TrainedModel(
        source=builders.build_source(trained, params, vocabulary, data, task),
        vocabulary=vocabulary,
        task=task,
        item_ids=data.inter.item_ids,
        max_history=trained.data.max_history,
        buckets=tuple(trained.train.buckets),
        version=builders.identify(vocabulary, params, run=run, step=step),
    )
    return export(model, folder, chosen)


def _slots(model: TrainedModel, buckets: Sequence[int]) -> list[int]:
    """Returns the slots of each program, ascending multiples of the segments."""
    segments = len(model.task.sources)
    whole = {b // segments * segments for b in buckets or model.buckets}
    longest = model.max_history * segments
    return sorted({b for b in whole if 0 < b < longest} | {longest})


def flat_weights(params: PyTree) -> Arrays:
    """Returns parameters by their paths."""
    flat = traverse_util.flatten_dict(params, sep="/")
    return {name: np.asarray(value) for name, value in flat.items()}


def program_function(
    arch: t5.Architecture,
    manifest: Manifest,
    score: Literal["full", "level"],
    slots: int,
) -> Callable[..., dict[str, Any]]:
    """Returns the function that the program of a bucket is exported from.

    Args:
      arch: Architecture of the model.
      manifest: Capacity, beams and task of the search.
      score: Score of the items, see `beam.Search`.
      slots: History slots of the bucket, see `batches.encode_histories`.
    """
    planned = manifest.capacity
    search = beam.Search(
        arch=arch,
        nodes=tuple(min(n, manifest.beams) for n in planned.nodes[1:]),
        widths=planned.widths,
        num_beams=manifest.beams,
        score=score,
    )
    function = search_function(search, row=manifest.row, history=slots)

    def run(weights, catalogue, inputs):
        params = traverse_util.unflatten_dict(weights, sep="/")
        space = capacity.unpack(catalogue, len(planned.sizes))
        beams = function(params, space, inputs)
        return {"items": beams.items, "scores": beams.scores, "leaves": beams.leaves}

    return run


def serialize(
    run: Callable[..., dict[str, Any]],
    manifest: Manifest,
    slots: int,
    weights: Arrays,
    arrays: Arrays,
) -> bytes:
    """Exports the program of one bucket.

    Args:
      run: Function of the program, from `program_function`.
      manifest: Platforms and segments of the search.
      slots: History slots of the bucket, a multiple of the segments.
      weights: Parameters by path, of which only the shapes are used.
      arrays: Arrays of the catalogue, of which only the shapes are used.

    Returns:
      Bytes for `jax.export.deserialize`.

    Raises:
      UserError: The package flatbuffers is not installed.
    """
    b, h = jax.export.symbolic_shape("b, h")
    shapes = {
        "histories": (b, slots // manifest.segments),
        "lengths": (b,),
        "seen": (b, h),
    }
    if arrays["task_users"].shape[0]:
        shapes["users"] = (b,)
    exported = jax.export.export(jax.jit(run), platforms=manifest.platforms)(
        jax.tree.map(_shape, weights),
        jax.tree.map(_shape, arrays),
        {name: jax.ShapeDtypeStruct(s, jnp.int32) for name, s in shapes.items()},
    )
    try:
        return bytes(exported.serialize())
    except ImportError as error:
        raise UserError(
            "an export needs the package flatbuffers: install rfrec[serve]"
        ) from error


def _shape(array: Shaped[np.ndarray, "..."]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)
