# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Times the parts, alone or in turns with PyTorch.

python -m rfrec.launch.bench --only=rqvae,sinkhorn,kmeans,repair --out=FILE --torch
python -m rfrec.launch.bench --only=beam,t5,trie --out=FILE --torch
python -m rfrec.launch.bench --only=gume,spmm,knn,flow --out=FILE --torch

PyTorch's side of the tokenizer and of the graphs is written by definition, that of
retrieval is Hugging Face's T5. Every row is measured in a process of its own, so that
its peak of memory is its own.
"""

import importlib.util
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.benchmarks import cases as bench_cases
from rfrec.benchmarks import data
from rfrec.config import UserError
from rfrec.launch import cli

GROUPS = (
    *("rqvae", "sinkhorn", "kmeans", "repair", "scale", "beam", "t5", "trie"),
    *("gume", "spmm", "knn", "flow"),
)


def rules(config: ConfigDict) -> cfg.Rules:
    """Returns the rules of a config; `rqvae` has a section for each shape."""
    count, counts = cfg.at_least(1), cfg.each(cfg.at_least(1), least=1)
    clusters = cfg.Rule(
        lambda v: _numbers(3).holds(v) and v[2] <= v[0],
        "vectors, width and clusters, no more clusters than vectors",
    )
    scalars = ("num_items", "width", "latent_width", "batch_size", "steps")
    found: dict[str, cfg.Rule] = {}
    for shape in config.rqvae:
        found |= {f"rqvae.{shape}.{name}": count for name in scalars}
        found[f"rqvae.{shape}.hidden"] = cfg.each(count)
        found[f"rqvae.{shape}.sizes"] = counts
    return {
        "seed": cfg.at_least(0),
        "repetitions": count,
        **found,
        "sinkhorn.shapes": cfg.each(_numbers(2)),
        "sinkhorn.epsilon": cfg.above(0),
        "sinkhorn.calls": count,
        "kmeans.shapes": cfg.each(clusters),
        "kmeans.iterations": count,
        "repair.num_items": cfg.each(count),
        "repair.width": count,
        "repair.sizes": counts,
        "repair.conflicts": cfg.within(0, 1),
        "repair.repetitions": count,
        **{f"scale.{key}": count for key in config.scale},
        "scale.num_items": cfg.each(count),
        "scale.hidden": counts,
        "scale.sizes": counts,
        **_retrieval_rules(config),
        **_graph_rules(config),
    }


def _retrieval_rules(config: ConfigDict) -> cfg.Rules:
    count = cfg.whole(1)
    lengths = cfg.Rule(
        lambda v: all(map(count.holds, v)) and (np.diff(v) > 0).all(),
        "lengths of history, ascending",
    )
    users = cfg.Rule(
        lambda v: count.holds(v) and v <= config.histories.num_users,
        "an integer of at least 1, no more than config.histories.num_users",
    )
    sections = ("histories", "model", "beam", "t5", "trie")
    rules = {f"{name}.{key}": count for name in sections for key in config[name]}
    return rules | {
        "beam.users": users,
        "beam.buckets": lengths,
        "t5.buckets": lengths,
        "t5.dropout": cfg.within(0, 1),
        "trie.num_items": cfg.each(count),
        "trie.levels": cfg.each(count),
        "trie.exponent": cfg.at_least(0),
    }


def _graph_rules(config: ConfigDict) -> cfg.Rules:
    count, gume = cfg.whole(1), config.gume
    least = cfg.Rule(
        lambda v: count.holds(v) and v >= gume.num_users,
        "an integer, a pair or more for each user",
    )
    parts = [f"gume.{part}_pairs" for part in ("train", "valid", "test")]
    few = cfg.Rule(
        lambda v: least.holds(v) and 4 * v <= gume.num_users * gume.num_items,
        f"{least.text}, and at most a quarter of what users and items allow",
    )
    neighbours = cfg.Rule(
        lambda v: count.holds(v) and v <= gume.num_items,
        "an integer of at least 1, no more than config.gume.num_items",
    )
    shapes = cfg.Rule(
        lambda v: _numbers(2).holds(v) and v[0] >= config.knn.neighbours,
        "vectors and width, no fewer vectors than config.knn.neighbours",
    )
    sections = ("gume", "spmm", "knn", "flow")
    rules = {f"{name}.{key}": count for name in sections for key in config[name]}
    return rules | {
        **dict.fromkeys(parts, least),
        "gume.train_pairs": few,
        "gume.feature_widths": cfg.each(count, least=1),
        "gume.neighbours": neighbours,
        "spmm.widths": cfg.each(count),
        "knn.shapes": cfg.each(shapes),
    }


def _numbers(length: int) -> cfg.Rule:
    return cfg.Rule(
        lambda v: len(v) == length and all(isinstance(n, int) and n > 0 for n in v),
        f"{length} whole numbers above 0",
    )


def main(config: ConfigDict, workdir: Path | None) -> None:
    """Measures what the flags ask for, prints a table and writes the rows."""
    del workdir
    cfg.check(config, rules(config))
    values = flags.FLAGS
    chosen = select(bench_cases.build(config), values.only)
    out = Path(values.out).expanduser() if values.out else None
    if out is not None and not out.parent.is_dir():
        raise UserError(f"--out={out}: there is no folder {out.parent}: make it")
    if values.torch and importlib.util.find_spec("torch") is None:
        raise UserError("--torch needs PyTorch: pip install 'rfrec[torch]'")
    _warn_if_busy()
    if any(case.name.startswith(("beam/", "t5/")) for case in chosen):
        source = "Instruments, of RFREC_DATA" if data.has_instruments() else None
        logging.info("histories: %s", source or "synthetic, no Instruments found")
    rows = []
    for case in chosen:
        logging.info("%s: measuring", case.name)
        row = measure(case, values.torch)
        logging.info("%s", "  ".join(_cells(row)))
        rows.append(row)
        # After every row, so that a stop loses only the row at hand.
        if out is not None:
            files.write_json(out, [row._asdict() for row in rows])
    print(table(rows))


def _warn_if_busy() -> None:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    # PyTorch's threads wait for each other in every operation, so it suffers most.
    if load > cores / 2:
        logging.warning(
            "the machine is busy (load %.1f on %d cores): the ratios tell little",
            load,
            cores,
        )


def select(cases: Sequence[bench_cases.Case], only: Sequence[str]):
    """Returns the cases that are asked for.

    Args:
      cases: All there are.
      only: Of each the name of a case, or what names of cases begin with, up to a
        slash or an underscore.

    Raises:
      UserError: There is no such name.
    """
    if not only:
        raise UserError(f"--only= names nothing: use some of {', '.join(GROUPS)}")
    names, chosen = {case.name for case in cases}, set()
    for word in only:
        begins = (f"{word}/", f"{word}_")
        found = {word} & names or {n for n in names if n.startswith(begins)}
        if not found:
            known = ", ".join((*GROUPS, *(case.name for case in cases)))
            raise UserError(f"--only={word} is unknown: use some of {known}")
        chosen |= found
    return [case for case in cases if case.name in chosen]


def measure(case: bench_cases.Case, torch: bool) -> bench_cases.Row:
    """Measures one case in a new process.

    Raises:
      UserError: The process died.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(bench_cases.measure, case, torch).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"{case.name}: its process died, perhaps for want of memory: lower its"
                " sizes in the config"
            ) from error


def table(rows: Sequence[bench_cases.Row]) -> str:
    """Aligns the rows under their names."""
    cells = [("name", "ours", "torch", "ratio", "peak", "device"), *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def _cells(row: bench_cases.Row) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.ours:.4g} {row.unit}",
        "-" if row.torch is None else f"{row.torch:.4g} {row.unit}",
        "-" if row.ratio is None else f"{row.ratio:.2f}x",
        f"{row.peak_bytes / 2**20:.4g} MiB",
        row.device,
    )


def _define_flags() -> None:
    flags.DEFINE_list("only", list(GROUPS), "Rows, by name or how it begins.")
    flags.DEFINE_string("out", None, "JSON file for the rows.")
    flags.DEFINE_bool("torch", False, "Time PyTorch in turns with us.")


if __name__ == "__main__":
    _define_flags()
    cli.config_main(main, "bench", workdir=False)
