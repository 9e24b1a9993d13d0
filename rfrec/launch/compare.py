# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares us with the references: recorded outputs, and published results.

python -m rfrec.launch.compare --golden=third_party/golden
python -m rfrec.launch.compare --run=runs/ml100k

A folder of recorded files comes in; a row for each check goes out, and exit code 1 if
one falls short or a file is not understood. A run's folder comes in; its report goes
out beside the published numbers.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.config import UserError
from rfrec.launch import cli
from rfrec.parity import arrays as golden
from rfrec.parity import flow, gume, metrics, retrieval, tokenizer
from rfrec.pipelines import run_folder

RULES: cfg.Rules = {
    "reference_numbers": cfg.Rule(bool, "a file"),
}


def main(config: ConfigDict, workdir: Path | None) -> None:
    """Does what the flags ask for."""
    del workdir
    cfg.check(config, RULES)
    folder, run = flags.FLAGS.golden, flags.FLAGS.run
    if folder is None and run is None:
        raise UserError("--golden=FOLDER of recorded files or --run=FOLDER is needed")
    passed = folder is None or compare_folder(Path(folder).expanduser())
    if run is not None:
        print(compare_run(Path(run).expanduser(), Path(config.reference_numbers)))
    if not passed:
        sys.exit(1)


def compare_folder(folder: Path) -> bool:
    """Prints a row for each check of each `.npz` file; returns whether all passed.

    Raises:
      UserError: There is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"--golden={folder} is no folder: name one of .npz files")
    paths = sorted(path for path in folder.iterdir() if path.suffix == ".npz")
    if not paths:
        print(f"{folder}: FAIL, there is no .npz file in it")
        return False
    print(_row("check", "error", "tolerance", ""))
    total, failed, unread = 0, 0, 0
    for path in paths:
        try:
            checks = check_arrays(golden.read(path))
        except UserError as error:
            print(f"{path}: FAIL, not understood: {error}", flush=True)
            unread += 1
            continue
        for check in checks:
            mark = "ok" if check.ok else "FAIL"
            values = (_number(check.error), _number(check.tolerance))
            print(_row(f"{path.name} {check.name}", *values, mark), flush=True)
        total += len(checks)
        failed += sum(not check.ok for check in checks)
    print(
        f"{len(paths)} files, {total} checks: {failed} failed, {unread} files not"
        " understood"
    )
    return not failed and not unread


def _row(name: str, error: str, tolerance: str, mark: str) -> str:
    return f"{name:<72} {error:>9} {tolerance:>9}  {mark}".rstrip()


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1e}"


def check_arrays(arrays: golden.Arrays) -> list[golden.Check]:
    """Runs the checks of one file; what it records shows in the names it holds.

    Raises:
      UserError: Its arrays are not understood.
    """
    # Accelerators round the operands of float32 products otherwise.
    with jax.default_matmul_precision("highest"):
        if tokenizer.is_rqvae(arrays):
            return tokenizer.check_rqvae(arrays)
        if golden.is_sinkhorn(arrays):
            return golden.check_sinkhorn(arrays)
        if golden.is_rotation(arrays):
            return golden.check_rotation(arrays)
        if golden.is_repair(arrays):
            return golden.check_repair(arrays)
        if retrieval.is_t5(arrays):
            return retrieval.check_t5(arrays)
        if retrieval.is_ensemble(arrays):
            return retrieval.check_ensemble(arrays)
        if gume.is_gume(arrays):
            return gume.check_gume(arrays)
        if metrics.is_metrics(arrays):
            return metrics.check_metrics(arrays)
        if flow.is_rf(arrays):
            return flow.check_rf(arrays)
    names = ", ".join(sorted(arrays)[:4]) or "none"
    raise UserError(f"no check reads its arrays ({names} ...)")


_HEADER = ("", "items", "distinct", "conflicts", "level 1 perplexity")


def compare_run(run: Path, reference_numbers: Path) -> str:
    """Returns the tables of a run's report and of the published tokenizers.

    Raises:
      UserError: A file is missing or damaged; names it and the key.
    """
    path = run / "report.json"
    report = files.read_json(path, "finish the run of rfrec.launch.rqvae")
    own: list[tuple[Any, ...]] = [_HEADER]
    for when in ("before", "after"):
        perplexity = run_folder.at(path, report, "levels", 0, "perplexity", kind=float)
        own.append(
            (
                f"this run, {when} repair",
                run_folder.at(path, report, "items", kind=int),
                run_folder.at(path, report, "codes", when, "distinct", kind=int),
                run_folder.at(path, report, "codes", when, "conflict_items", kind=int),
                perplexity if when == "before" else None,
            )
        )
    levels: list[tuple[Any, ...]] = [
        ("level", "size", "used", "share", "perplexity", "entropy")
    ]
    for i in range(len(run_folder.at(path, report, "levels", kind=list))):
        size, used = (
            run_folder.at(path, report, "levels", i, name, kind=int)
            for name in ("size", "used")
        )
        measures = (
            run_folder.at(path, report, "levels", i, name, kind=float)
            for name in ("perplexity", "entropy")
        )
        levels.append((str(i + 1), size, used, f"{used / max(size, 1):.1%}", *measures))
    tables = [f"{run}\n{_table(own)}", _table(levels)]
    return "\n\n".join([*tables, *_published(reference_numbers)])


def _published(path: Path) -> list[str]:
    """Returns a table for each data set of the published tokenizers."""
    numbers = files.read_json(path, "it belongs to the checkout")
    tables = []
    for i, _ in enumerate(run_folder.at(path, numbers, "tokenizer", kind=list)):
        data = run_folder.at(path, numbers, "tokenizer", i, kind=dict)
        title = f"published: {data.get('dataset')} ({data.get('protocol')})"
        keys = ("items", "distinct_codes", "conflict_items", "level1_perplexity")
        rows: list[tuple[Any, ...]] = [_HEADER]
        for j, _ in enumerate(run_folder.at(path, data, "rows", kind=list)):
            row = run_folder.at(path, data, "rows", j, kind=dict)
            system = run_folder.at(path, row, "system", kind=str)
            rows.append((system, *(row.get(key) for key in keys)))
        tables.append(f"{title}\n{_table(rows)}")
    return tables


def _table(rows: Sequence[Sequence[Any]]) -> str:
    """Aligns columns: the first left, the others right; None shows as a dash."""

    def show(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.4g}"
        return "-" if value is None else str(value)

    cells = [[show(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *rest in cells:
        right = (c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *right]).rstrip())
    return "\n".join(lines)


def _define_flags() -> None:
    flags.DEFINE_string("golden", None, "Folder of recorded .npz files to check.")
    flags.DEFINE_string("run", None, "Folder of a tokenizer's run to show.")


if __name__ == "__main__":
    _define_flags()
    cli.config_main(main, "compare", workdir=False)
