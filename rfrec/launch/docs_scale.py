# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Measured costs in, docs/scale.md out: what a catalogue of any size takes.

The costs are the rows of `rfrec.launch.bench` in results/scale.json; the page says by
which rule each is carried on to sizes that no machine here holds.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rfrec.config import UserError

SOURCE = Path("results") / "scale.json"
PAGE = Path("docs") / "scale.md"
SIZES = ("1e4", "1e5", "1e6")
# Stages of one catalogue, by the bench row that measures them; and what they do.
STAGES = {
    "scale/epoch": "tokenizer, one epoch, streamed",
    "scale/codes": "codes of all items, streamed",
    "repair": "repair of 3% conflict items",
    "trie/build": "trie",
    "trie/search": "search, 20 beams, 32 users at once",
    "scale/read_codes": "reading `codes.json`",
    "scale/read_histories": "reading `inter.json`, as many interactions",
}
ITEMS, INTERACTIONS = 10**8, 10**10
_EPOCHS, _DAYS = 20, 7
_GIB, _HOUR = 2**30, 3600
# Bytes of an item's 4 codes and 32 latents.
_KEPT = 4 * (4 + 32)


class Cost(NamedTuple):
    """What a stage was seen to take.

    Attributes:
      value: In its unit.
      unit: `s`, or `users/s` of a search, or `samples/s` of training.
      peak: Bytes.
    """

    value: float
    unit: str
    peak: int


def read(path: Path) -> dict[str, Cost]:
    """Reads the rows of a benchmark by their names.

    Raises:
      UserError: The file cannot be read or lacks a row.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        found = {r["name"]: Cost(r["ours"], r["unit"], r["peak_bytes"]) for r in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} holds no rows of rfrec.launch.bench ({error})"
        ) from error
    names = [row_name(stage, size) for stage in STAGES for size in SIZES]
    missing = [name for name in (*names, "t5/train_step") if name not in found]
    if missing:
        raise UserError(f"{path} lacks the rows {', '.join(missing)}: measure them")
    return found


def row_name(stage: str, size: str) -> str:
    """Returns the name of the row that measures a stage at a size."""
    return f"{stage}{'/' if stage == 'repair' else '_'}{size}"


def largest(costs: Mapping[str, Cost], stage: str) -> Cost:
    """Returns the cost of a stage at 10^6 items."""
    return costs[row_name(stage, SIZES[-1])]


class Estimate(NamedTuple):
    """What a stage takes at a size.

    Attributes:
      what: The stage.
      hours: Of one host.
      hosts: That divide the work, for it to end within `_DAYS`; 1 where it cannot be
        divided.
      memory: Bytes on each host.
      rule: How it follows from what was measured.
    """

    what: str
    hours: float
    hosts: int
    memory: float
    rule: str


def estimate(
    costs: Mapping[str, Cost], items: int, interactions: int
) -> list[Estimate]:
    """Carries measured costs on to a size.

    Args:
      costs: Of `read`.
      items: Of the catalogue.
      interactions: Of all histories.
    """
    factor = items / 10**6
    epoch, codes = largest(costs, "scale/epoch"), largest(costs, "scale/codes")
    repair, trie = largest(costs, "repair"), largest(costs, "trie/build")
    read_codes = largest(costs, "scale/read_codes")
    read_log = largest(costs, "scale/read_histories")
    training = costs["t5/train_step"]
    logged = interactions / 10**6
    return [
        _divided(
            f"tokenizer, {_EPOCHS} epochs",
            *(_EPOCHS * factor * epoch.value, epoch.peak),
            "linear; the vectors stay on disk, 307 GB at 10^8 items",
        ),
        _alone(
            "codes of all items",
            *(factor * codes.value, _KEPT * items),
            "linear; process 0 holds codes and latents of all items, 144 bytes each",
        ),
        _alone("repair", factor * repair.value, repair.peak * factor, "linear"),
        _alone("trie", factor * trie.value, trie.peak * factor, "linear"),
        _alone(
            "reading `codes.json`",
            *(factor * read_codes.value, read_codes.peak * factor),
            "linear; a Python object for every item",
        ),
        _alone(
            "reading `inter.json`",
            *(logged * read_log.value, read_log.peak * logged),
            "linear in interactions; every process reads all of them",
        ),
        _divided(
            "T5, every interaction once",
            *(interactions / training.value, training.peak + 4 * interactions),
            "samples a second of the benchmark; every host holds all histories, int32",
        ),
    ]


def _divided(what: str, seconds: float, memory: float, rule: str) -> Estimate:
    hosts = max(1, math.ceil(seconds / (_DAYS * 24 * _HOUR)))
    return Estimate(what, seconds / _HOUR, hosts, memory, rule)


def _alone(what: str, seconds: float, memory: float, rule: str) -> Estimate:
    return Estimate(what, seconds / _HOUR, 1, memory, rule)


def page(root: Path) -> str:
    """Returns the page as Markdown.

    Args:
      root: Of the checkout.

    Raises:
      UserError: As `read`.
    """
    costs = read(root / SOURCE)
    head = "| stage | " + " | ".join(f"{s} items" for s in SIZES) + " |"
    rows = [head, "|---|" + "---|" * len(SIZES)]
    for stage, told in STAGES.items():
        cells = (_cost(costs[row_name(stage, size)]) for size in SIZES)
        rows.append(f"| {told} | " + " | ".join(cells) + " |")
    estimates = estimate(costs, ITEMS, INTERACTIONS)
    return _TEXT.format(
        table="\n".join(rows),
        days=_DAYS,
        estimates="\n".join(_line(each) for each in estimates),
        first=_first(estimates),
    )


def _cost(cost: Cost) -> str:
    value = f"{cost.value:.3g}" if cost.value < 1000 else f"{cost.value:.0f}"
    return f"{value} {cost.unit}, {_bytes(cost.peak)}"


def _bytes(count: float) -> str:
    if count < _GIB:
        return f"{count / 2**20:.0f} MiB"
    return (
        f"{count / _GIB:.1f} GiB" if count < 100 * _GIB else f"{count / _GIB:.0f} GiB"
    )


def _line(each: Estimate) -> str:
    hours = f"{each.hours:.1f}" if each.hours < 100 else f"{each.hours:.0f}"
    memory = _bytes(each.memory)
    return f"| {each.what} | {hours} | {each.hosts} | {memory} | {each.rule} |"


def _first(estimates: Sequence[Estimate]) -> str:
    """Names stages by the memory they take of one host, the greediest first."""
    order: list[Any] = sorted(estimates, key=lambda each: -each.memory)
    return ", ".join(f"{each.what} ({_bytes(each.memory)})" for each in order[:3])


_TEXT = """\
# Scale

Made by `python -m rfrec.launch.docs` from `results/scale.json`; do not edit it here.

## One machine

Vectors of width 768 in a memory map; a tokenizer of 768-512-256-128-32 with 4 levels
of 256 codes, batch 1024; a T5 of MQL4GRec's size. 2 CPU cores with AVX-512,
jax 0.10.2, one run.
Time (of codes with compiling, of the others without), and by how much the process
grows, pages of the mapped file included (of searches: arguments and temporaries of the
program).

{table}

`python -m rfrec.launch.bench --only=scale,repair,trie/build,trie/search` measures it.

## 10^8 items, 10^10 interactions

The same costs carried on: hours on one host like the one above, hosts for {days} days
where hosts divide the work ([hosts](hosts.md)), memory of each host. No run of this
size was made.

| stage | hours of one host | hosts | memory a host | rule |
|---|---|---|---|---|
{estimates}

What breaks first, by memory: {first}. So before 10^10 interactions:

1. Histories have to leave JSON: `NAME.inter.json` is one object in memory. What comes
   after it, two flat arrays (`rfrec.data.interactions.Interactions`), would do from a
   memory map.
2. Every process reads all histories. Each needs its own users alone, but the batches
   are drawn from all of them.
3. Codes have to leave JSON too; the trie's own file and a catalogue's are flat arrays
   already.
4. GUME holds its graph and the tables of all users and items on one device: 10^10
   edges are 80 GB in CSR, their transpose as much again. It has no way to divide
   them.
5. Items number to 2^31 and code tuples to 256^4 = 4.3 x 10^9: both are wide enough.
   With 2% of all tuples taken, conflicts of a tokenizer of real vectors are far more
   than of an even hash; repair moves them up a level, at a cost that was not measured
   at this size.
"""
