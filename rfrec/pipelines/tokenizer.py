# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer's run: config and item vectors to codes.json, latents.npz, report.json.

Several data sets under one quantizer are separate catalogues: each gets unique codes
and its own file, `codes.NAME.json`.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import Bool
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.codes import table
from rfrec.config import UserError
from rfrec.data import join, sources
from rfrec.data.features import ItemVectors
from rfrec.pipelines import collaborative, run_folder
from rfrec.pipelines import options as options_lib
from rfrec.tokenizer import fitting, training
from rfrec.tokenizer.fitting import CRITERIA, Tokenized
from rfrec.tokenizer.item_tokenizer import ItemTokenizer
from rfrec.train.checkpoint import Checkpoints

# Of more items, latents.npz (for figures) contains a sample.
_MAX_LATENTS = 50_000


@dataclasses.dataclass(frozen=True)
class Data:
    """Item vectors.

    Attributes:
      source: Format of the data.
      path: Folder of the data; None uses the environment variable RFREC_DATA.
      names: Data sets of the folder, stacked for one quantizer; () if it contains one.
      features: Features side by side; () takes those the source has. `rf` stands for
        the item vectors of the graph recommender in `data.graph`.
      graph: Folder of a run of `rfrec.launch.gume` on the same items; the section `rf`
        says how its flow generates vectors of items that nobody has used.
      scale: Scale of dense features: `none`, or `mean_square`, which divides each by
        its root mean square.
      text_width: Width of title vectors and of synthetic features.
      num_items: Number of synthetic items.
      val_ratio: Share of the items that are held out from training.
    """

    source: str = cfg.option("movielens-100k", cfg.one_of(*sources.SOURCES))
    path: str | None = None
    names: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    graph: str | None = None
    scale: Literal["none", "mean_square"] = "mean_square"
    text_width: int = cfg.option(64, cfg.at_least(1))
    num_items: int = cfg.option(10_000, cfg.at_least(1))
    val_ratio: float = cfg.option(0.0, cfg.within(0, 1))


@dataclasses.dataclass(frozen=True)
class Options(fitting.Options):
    """Options of `rfrec.launch.rqvae`.

    Attributes:
      data: Item vectors.
    """

    data: Data = Data()


@dataclasses.dataclass(frozen=True)
class Export:
    """Options of `rfrec.launch.codes`; None takes the value of the run's config.

    Attributes:
      checkpoint: Criterion whose best checkpoint makes the codes, or `last`.
      repair: Repair of colliding codes.
      modality: Letters of the code tokens.
    """

    checkpoint: Literal["collision_rate", "loss", "last"] | None = None
    repair: Literal["assign", "reassign", "suffix", "none"] | None = None
    modality: Literal["text", "image"] | None = None


class FinishedRun(NamedTuple):
    """A finished run as its folder describes it.

    Attributes:
      options: Options of the run.
      rf: Section `rf` of its config.
      report: Content of its report.
    """

    options: Options
    rf: ConfigDict
    report: dict[str, Any]


def check(config: ConfigDict) -> Options:
    """Returns the options of a config.

    Raises:
      UserError: A value is not allowed, or values cannot be combined; names the keys.
    """
    options_lib.check(config, Options)
    options = cfg.parse(Options, config)
    fitting.check(options)
    rf, data = collaborative.NAME in options.data.features, options.data
    cfg.refuse_together(
        {
            "data.features with 'rf' and data.graph=None": rf and not data.graph,
            "data.graph and data.features without 'rf'": bool(data.graph) and not rf,
            "data.features with 'rf' and several data.names": rf
            and len(data.names) > 1,
        }
    )
    return options


def load_items(options: Options, rf: ConfigDict) -> ItemVectors:
    """Loads the item vectors of a run.

    Args:
      options: Options of the run.
      rf: Section `rf` of its config.

    Raises:
      UserError: The data cannot be read, or `data.graph` has other items.
    """
    data = options.data
    names = tuple(name for name in data.features if name != collaborative.NAME)
    if len(names) == len(data.features):
        return _load_files(options, names)
    feature, ids = collaborative.load(Path(str(data.graph)).expanduser(), rf)
    if not names:
        name = data.names[0] if data.names else data.source
        return join.join([feature], name=name, scale=data.scale, ids=ids)
    items = _load_files(options, names)
    if (items.ids or tuple(map(str, range(len(items.values))))) != ids:
        raise UserError(
            f"config.data.graph={data.graph} has {len(ids)} items, which are not the"
            f" {len(items.values)} of the data; train it on the same items"
        )
    return join.beside(items, feature, scale=data.scale)


def _load_files(options: Options, features: tuple[str, ...]) -> ItemVectors:
    data = options.data
    return sources.load_items(
        source=data.source,
        path=data.path,
        names=data.names,
        features=features,
        scale=data.scale,
        seed=options.seed,
        num_items=data.num_items,
        text_width=data.text_width,
    )


def multi_hot_columns(items: ItemVectors) -> Bool[np.ndarray, " D"] | None:
    """Returns True for the columns of multi-hot features, None if there are none."""
    columns = [np.full(b.width, b.kind == "multi_hot") for b in items.blocks]
    mask = np.concatenate(columns)
    return mask if mask.any() else None


def build_trainer(options: Options, items: ItemVectors) -> training.Trainer:
    """Builds the trainer of a run."""
    return fitting.build_trainer(
        options,
        items.values,
        val_ratio=options.data.val_ratio,
        multi_hot=multi_hot_columns(items),
    )


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs `rfrec.launch.rqvae`: trains, or resumes, to the end and exports codes.

    Args:
      config: Locked config of `configs/rqvae.py`.
      workdir: Folder for checkpoints, metrics, codes and the report.

    Raises:
      UserError: The config is wrong, the data cannot be read, or the folder belongs to
        another run.
    """
    options = check(config)
    items = load_items(options, config.rf)
    for warning in items.warnings:
        logging.warning("%s", warning)
    rkmeans = options.model.method == "rkmeans"
    # Built before the folder is created: a refused config leaves nothing behind.
    trainer = None if rkmeans else build_trainer(options, items)
    run_folder.open_workdir(workdir, config)
    logging.info(
        "%d items of width %d on %d %s device(s)",
        *items.values.shape,
        *(jax.device_count(), jax.default_backend()),
    )
    started = time.monotonic()
    if trainer is None:
        tokenized = fitting.cluster(items.values, options)
        measured: dict[str, Any] = {"seconds": time.monotonic() - started}
    else:
        with Checkpoints(workdir, lowest=CRITERIA) as checkpoints:
            fit = fitting.train(
                trainer,
                checkpoints,
                chosen=options.codes.checkpoint,
                notes={"items": items.fingerprint},
                workdir=workdir,
            )
        tokenized = fit.tokenized
        measured = {"seconds": fit.seconds, "models": fit.models}
    if jax.process_index() == 0:
        finish(config, options, items, tokenized, workdir, measured)


def finish(
    config: ConfigDict,
    options: Options,
    items: ItemVectors,
    tokenized: Tokenized,
    workdir: Path,
    measured: dict[str, Any],
) -> None:
    """Exports codes and writes the report.

    Args:
      config: Config of the run.
      options: Options of the run.
      items: Item vectors.
      tokenized: All items, tokenized.
      workdir: Folder of the run.
      measured: Further values of the report.
    """
    names = [name for name, _ in items.segments]
    report = {
        **run_folder.report_head("rqvae", config),
        "items": len(items.values),
        "width": items.values.shape[1],
        "data": {"names": names, "sha256": items.fingerprint},
        **measured,
        **export_codes(workdir, items, tokenized, options.codes),
    }
    run_folder.write_report(workdir, report)


def read_run(workdir: Path) -> FinishedRun:
    """Reads config and report of a finished run.

    Raises:
      UserError: The folder contains no finished run of `rfrec.launch.rqvae`.
    """
    config = cfg.read_config(workdir / "config.json")
    if "codebook" not in config:
        raise UserError(f"{workdir} contains no run of rfrec.launch.rqvae; name one")
    cfg.check(config, cfg.rules(Options))
    report = files.read_json(
        workdir / run_folder.REPORT, "finish the run of rfrec.launch.rqvae"
    )
    return FinishedRun(cfg.parse(Options, config), config.get("rf"), report)


def export(config: ConfigDict, workdir: Path) -> None:
    """Runs `rfrec.launch.codes`: exports the codes of a finished run again.

    Args:
      config: Locked config of `configs/codes.py`.
      workdir: Folder of the run of `rfrec.launch.rqvae`.

    Raises:
      UserError: There is no finished run, or the items are not those of its training.
    """
    options_lib.check(config, Export)
    changes = dataclasses.asdict(cfg.parse(Export, config))
    options, rf, report = read_run(workdir)
    changes = {name: value for name, value in changes.items() if value is not None}
    codes = dataclasses.replace(options.codes, **changes)
    items, tokenized = tokenize(workdir, options, rf, report, codes.checkpoint)
    exported = export_codes(workdir, items, tokenized, codes)
    run_folder.write_report(workdir, report | exported)


def open_tokenizer(workdir: Path) -> ItemTokenizer:
    """Returns the tokenizer of a finished run; see `rfrec.load_run`.

    It encodes vectors as the run reads them: features side by side, scaled as
    `data.scale` states.

    Raises:
      UserError: There is no finished run, or the items are not those of its training.
    """
    options, rf, report = read_run(workdir)
    checkpoint = options.codes.checkpoint
    _, tokenized = tokenize(workdir, options, rf, report, checkpoint)
    return ItemTokenizer.from_fitted(options, tokenized)


def tokenize(
    workdir: Path,
    options: Options,
    rf: ConfigDict,
    report: dict[str, Any],
    checkpoint: str,
) -> tuple[ItemVectors, Tokenized]:
    """Tokenizes the items of a finished run by one of its checkpoints.

    Args:
      workdir: Folder of the run.
      options: Options of the run.
      rf: Section `rf` of its config.
      report: Report of the run.
      checkpoint: Criterion whose best checkpoint is used, or `last`.

    Raises:
      UserError: The items are not those of the training, or a checkpoint is damaged.
    """
    items = load_items(options, rf)
    if run_folder.at(workdir, report, "data", "sha256", kind=str) != items.fingerprint:
        raise UserError(
            f"the item vectors are not those that {workdir} was trained on; restore"
            " them"
        )
    if options.model.method == "rkmeans":
        return items, fitting.cluster(items.values, options)
    trainer = build_trainer(options, items)
    with Checkpoints(workdir, lowest=CRITERIA, read_only=True) as checkpoints:
        evaluate = training.Run(trainer)
        models = fitting.compare(evaluate, checkpoints, checkpoint, trainer.init())
    return items, models[0]


def export_codes(
    workdir: Path, items: ItemVectors, tokenized: Tokenized, options: fitting.Codes
) -> dict[str, Any]:
    """Repairs and writes the codes of each data set, and latents for figures.

    Returns:
      Entries of the report: `energy_left`, `codes` with the statistics before and after
      the repair and its cost, summed over data sets, and `levels`.
    """
    reports, first = {}, 0
    for name, count in items.segments:
        rows = slice(first, first + count)
        first += count
        repaired = tokenized.repair(options.repair, rows)
        file = "codes.json" if len(items.segments) == 1 else f"codes.{name}.json"
        ids = None if items.ids is None else items.ids[rows]
        table.write_index(
            workdir / file, repaired.codes, modality=options.modality, item_ids=ids
        )
        described = tokenized.describe(repaired, rows)
        logging.info(
            "%s: %d items, %d conflict items before repair, %d after (%s moved %d)",
            *(workdir / file, count, described["before"]["conflict_items"]),
            described["after"]["conflict_items"],
            *(options.repair, repaired.moved),
        )
        reports[name] = {"file": file, "items": count, **described}
    _write_latents(workdir / "latents.npz", tokenized)
    return {
        "energy_left": tokenized.energy_left,
        "codes": _sum_data_sets(reports, options.repair),
        "levels": tokenized.levels(),
    }


def _sum_data_sets(reports: dict[str, dict], method: str) -> dict[str, Any]:
    parts = list(reports.values())
    items = sum(part["items"] for part in parts)

    def add(when: str) -> dict[str, Any]:
        conflicts = sum(part[when]["conflict_items"] for part in parts)
        return {
            "items": items,
            "distinct": sum(part[when]["distinct"] for part in parts),
            "conflict_items": conflicts,
            "collision_rate": conflicts / items,
            "largest_group": max(part[when]["largest_group"] for part in parts),
        }

    def average(key: str) -> float:
        return sum(part[key] * part["items"] for part in parts) / items

    return {
        "repair": method,
        "before": add("before"),
        "after": add("after"),
        "moved": sum(part["moved"] for part in parts),
        "distance_before": average("distance_before"),
        "distance_after": average("distance_after"),
        "data_sets": reports,
    }


def _write_latents(path: Path, tokenized: Tokenized) -> None:
    rows = np.arange(len(tokenized.codes))
    if len(rows) > _MAX_LATENTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, _MAX_LATENTS, False))
    arrays = {"latents": tokenized.latents[rows], "codes": tokenized.codes[rows]}
    books = tokenized.encoder.codebooks
    arrays |= {f"codebook_{i}": book for i, book in enumerate(books)}
    with files.replacing(path) as partial:
        np.savez(partial, allow_pickle=False, **arrays)
