# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes what a tokenizer made: codes.json, latents.npz and the report's numbers.

Several data sets under one quantizer are separate catalogues: each gets unique codes
and a file of its own, `codes.NAME.json`.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float, Int

from rfrec import files
from rfrec.codes import repair, table
from rfrec.data.features import ItemVectors
from rfrec.tokenizer import kmeans

# Above this, latents.npz (for plots) holds a sample of the items.
_MAX_LATENTS = 50_000


@dataclasses.dataclass(frozen=True)
class Tokenized:
    """All items in the space in which codes are chosen.

    Attributes:
      codes: Nearest codes.
      latents: What they stand for.
      codebooks: The code vectors of each level.
      energy_left: Share of the items' energy that the reconstruction misses.
    """

    codes: Int[np.ndarray, "N Q"]
    latents: Float[np.ndarray, "N W"]
    codebooks: tuple[Float[np.ndarray, "_ W"], ...]
    energy_left: float

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of codes of each level."""
        return tuple(map(len, self.codebooks))


def residual_kmeans(
    values: Float[np.ndarray, "N D"],
    sizes: tuple[int, ...],
    *,
    seed: int,
    iterations: int,
) -> Tokenized:
    """Tokenizes without training: k-means, level by level, on the items themselves."""
    x = jnp.asarray(values, jnp.float32)
    fit = kmeans.fit_residual(jax.random.key(seed), x, sizes, iterations=iterations)
    energy = jnp.sum(fit.residual**2) / jnp.maximum(jnp.sum(x**2), 1e-30)
    return Tokenized(
        codes=np.asarray(fit.codes),
        latents=np.asarray(x),
        codebooks=tuple(np.asarray(c) for c in fit.codebooks),
        energy_left=float(energy),
    )


def export_codes(
    workdir: Path,
    items: ItemVectors,
    tokenized: Tokenized,
    *,
    method: str,
    modality: str,
) -> dict[str, Any]:
    """Repairs and writes the codes of each data set, and latents for the plots.

    Returns:
      For the report: `codes` with `before`, `after` and what the repair cost, and
      `levels`. Counts are summed over data sets.
    """
    reports, first = {}, 0
    for name, count in items.segments:
        rows = slice(first, first + count)
        first += count
        done = repair.repair(
            tokenized.codes[rows], tokenized.latents[rows], tokenized.codebooks, method
        )
        file = "codes.json" if len(items.segments) == 1 else f"codes.{name}.json"
        ids = None if items.ids is None else items.ids[rows]
        table.write_index(workdir / file, done.codes, modality=modality, item_ids=ids)
        before = table.statistics(tokenized.codes[rows], tokenized.sizes)
        after = table.statistics(done.codes, done.sizes)
        logging.info(
            "%s: %d items, %d conflict items before repair, %d after (%s moved %d)",
            workdir / file,
            count,
            before.conflict_items,
            after.conflict_items,
            method,
            done.moved,
        )
        reports[name] = {
            "file": file,
            "items": count,
            "before": _counts(before),
            "after": _counts(after),
            "moved": done.moved,
            "distance_before": done.cost_before,
            "distance_after": done.cost_after,
        }
    _write_latents(workdir / "latents.npz", tokenized)
    levels = table.statistics(tokenized.codes, tokenized.sizes).as_dict()["levels"]
    return {"codes": _summary(reports, method), "levels": levels}


def _counts(statistics: table.CodeStatistics) -> dict[str, Any]:
    values = statistics.as_dict()
    values.pop("levels")
    return values


def _summary(reports: dict[str, dict], method: str) -> dict[str, Any]:
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

    def cost(when: str) -> float:
        return sum(part[when] * part["items"] for part in parts) / items

    return {
        "repair": method,
        "before": add("before"),
        "after": add("after"),
        "moved": sum(part["moved"] for part in parts),
        "distance_before": cost("distance_before"),
        "distance_after": cost("distance_after"),
        "data_sets": reports,
    }


def _write_latents(path: Path, tokenized: Tokenized) -> None:
    rows = np.arange(len(tokenized.codes))
    if len(rows) > _MAX_LATENTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, _MAX_LATENTS, False))
    arrays = {"latents": tokenized.latents[rows], "codes": tokenized.codes[rows]}
    arrays |= {f"codebook_{i}": c for i, c in enumerate(tokenized.codebooks)}
    with files.replacing(path) as partial:
        np.savez(partial, allow_pickle=False, **arrays)
