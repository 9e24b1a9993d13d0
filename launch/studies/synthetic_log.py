# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes a synthetic interaction log of any size, to measure what a size costs.

python launch/studies/synthetic_log.py --interactions=1000000 --out=log.csv

Items follow Zipf's law with exponent 1 (each item rank r has weight 1 / (r + 10)), the
lengths of histories are log-normal with mean 10 and at least 1, and the log is in order
of time over all users, as a company's log is. Columns: user_id, item_id, timestamp. The
suffix of --out decides between CSV, gzipped CSV and Parquet.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import csv, parquet

CHUNK = 2_000_000


def make_log(interactions: int, num_items: int, mean_length: float, seed: int):
    """Yields tables of the log, in order of time.

    Args:
      interactions: Number of rows.
      num_items: Number of items that can occur.
      mean_length: Mean number of interactions of a user.
      seed: Seed of all random numbers.
    """
    rng = np.random.default_rng(seed)
    users = max(int(interactions / mean_length), 1)
    # Activity of a user; rows choose users in proportion to it.
    activity = np.cumsum(rng.lognormal(0.0, 1.0, users))
    popularity = np.cumsum(1.0 / (np.arange(num_items) + 10.0))
    time = 1_500_000_000.0
    for start in range(0, interactions, CHUNK):
        size = min(CHUNK, interactions - start)
        user = np.searchsorted(activity, rng.random(size) * activity[-1])
        item = np.searchsorted(popularity, rng.random(size) * popularity[-1])
        times = time + np.cumsum(rng.exponential(100_000_000 / interactions, size))
        time = times[-1]
        yield pyarrow.table(
            {
                "user_id": pyarrow.array(np.char.add("U", user.astype("U12"))),
                "item_id": pyarrow.array(np.char.add("B", item.astype("U12"))),
                "timestamp": times.astype(np.int64),
            }
        )


def main() -> None:
    """Writes the log that the flags describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--mean_length", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    tables = make_log(flags.interactions, flags.items, flags.mean_length, flags.seed)
    first = next(tables)
    if flags.out.suffix == ".parquet":
        writer = parquet.ParquetWriter(flags.out, first.schema)
    else:
        stream = pyarrow.output_stream(str(flags.out))  # compresses by suffix
        writer = csv.CSVWriter(stream, first.schema)
    with writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)


if __name__ == "__main__":
    main()
