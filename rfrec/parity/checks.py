# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The recorded files: the check of each, and the table of a folder of them.

To add a file, write its check, add a row to `FILES`, and describe its arrays in
`third_party/golden/README.md`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from rfrec import files
from rfrec.config import UserError
from rfrec.parity import flow, gume, metrics, retrieval, tokenizer
from rfrec.parity.arrays import Arrays, Check


class File(NamedTuple):
    """A recorded file.

    Attributes:
      sha256: SHA-256 of its content, which never changes.
      check: Function that checks our implementation against its arrays.
    """

    sha256: str
    check: Callable[[Arrays], list[Check]]


FILES = {
    "gume.npz": File(
        "262afc049b876772d5746581fc71aabd907bf7e6f50bc0573957a440a58615a4",
        gume.check_gume,
    ),
    "mmrec_metrics.npz": File(
        "535bd97b95f864146dfb73b18ea71928fc874c7df46850807bd7fb371d6e13ca",
        metrics.check_metrics,
    ),
    "mql4grec_ensemble.npz": File(
        "8568417e23215b6a0ad7aa004cffc70032555e1c43dc32cacb75da32fe2ba1f7",
        retrieval.check_ensemble,
    ),
    "mql4grec_repair_heavy.npz": File(
        "ad90d4e468329e0a1d2046b097e35dcf8c4cc9e81171934ec9f270eec232086c",
        tokenizer.check_repair,
    ),
    "mql4grec_repair_light.npz": File(
        "385426f366639b41218a3593ce86f7c250010f11aa15aa6069d85b67e80c5738",
        tokenizer.check_repair,
    ),
    "mql4grec_rqvae_equal.npz": File(
        "3e77d2b4a06085bf2d46d1cdc1492c17ab010885f9c274e8c73f791933e54efd",
        tokenizer.check_rqvae,
    ),
    "mql4grec_rqvae_sinkhorn_all_levels.npz": File(
        "d6ce0f6fe1a354c96d03982c78eb5142879ddf400ac809a5880849209d18f0a7",
        tokenizer.check_rqvae,
    ),
    "mql4grec_sinkhorn_128x32.npz": File(
        "50bf79223d9dcfd975bda7743e710b767ab061fcd9af820b55c12d9e55a23513",
        tokenizer.check_sinkhorn,
    ),
    "mql4grec_sinkhorn_64x64.npz": File(
        "c6013cdd1ada877629745fa41e97d5e5773f2df4538e35cb0fb1c8d177a8e894",
        tokenizer.check_sinkhorn,
    ),
    "rf_module.npz": File(
        "5525a6cb0a83d1a29ade849954aea4c1d225e1c3568e68f7140a99009593715c",
        flow.check_rf,
    ),
    "rotation_trick.npz": File(
        "14ece1193f798ee416bbd69cfa0896e1cb33978f1a6648748121b6d0f32ff2ea",
        tokenizer.check_rotation,
    ),
    "t5_constrained_beam.npz": File(
        "e63452bc69321d276f14382edcff0e770824baf436a3eb54136c926e8427b0e5",
        retrieval.check_t5,
    ),
}


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a recorded file.

    Raises:
      UserError: The file is not one of `FILES`, or its content has changed.
    """
    if path.name not in FILES:
        raise UserError(
            f"{path} has no check; remove it, or add it to FILES in {__name__}"
        )
    if not path.is_file() or files.sha256(path) != FILES[path.name].sha256:
        raise UserError(
            f"{path} differs from the recorded file (SHA-256"
            f" {FILES[path.name].sha256[:12]}...); restore it from the repository"
        )
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def check(name: str, arrays: Arrays) -> list[Check]:
    """Runs the check of a recorded file, by the name of the file."""
    # Accelerators round the operands of float32 products otherwise.
    with jax.default_matmul_precision("highest"):
        return FILES[name].check(arrays)


def check_folder(folder: Path) -> bool:
    """Prints a row for each check of each `.npz` file of a folder.

    Returns:
      Whether there is a file, each file could be read, and every check passed.

    Raises:
      UserError: The folder does not exist.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; use third_party/golden")
    paths = sorted(path for path in folder.iterdir() if path.suffix == ".npz")
    if not paths:
        print(f"{folder}: FAIL, there is no .npz file in it")
        return False
    print(_row("check", "error", "tolerance", ""))
    total, failed, unread = 0, 0, 0
    for path in paths:
        try:
            arrays = read(path)
        except UserError as error:
            print(f"FAIL: {error}", flush=True)
            unread += 1
            continue
        results = check(path.name, arrays)
        for result in results:
            mark = "ok" if result.ok else "FAIL"
            values = (_number(result.error), _number(result.tolerance))
            print(_row(f"{path.name} {result.name}", *values, mark), flush=True)
        total += len(results)
        failed += sum(not result.ok for result in results)
    print(
        f"{len(paths)} files, {total} checks: {failed} failed, {unread} files not read"
    )
    return not failed and not unread


def _row(name: str, error: str, tolerance: str, mark: str) -> str:
    return f"{name:<72} {error:>9} {tolerance:>9}  {mark}".rstrip()


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1e}"
