# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures requests per second and latency of a server that runs on this machine.

python -m rfrec.launch.load --url=http://127.0.0.1:8000 --histories=histories.jsonl \
  --out=load.json

The clients share the processor with the server.
"""

import json
from pathlib import Path

from absl import flags

from rfrec import files
from rfrec.config import UserError
from rfrec.launch import cli
from rfrec.serving import load


def main() -> None:
    """Measures with each number of clients in turn; prints a table and JSON."""
    values = flags.FLAGS
    if not values.url or not values.histories:
        raise UserError("--url=URL and --histories=FILE are required")
    load.check_loopback(values.url)
    clients = [int(c) for c in values.clients if c.strip().isdecimal() and int(c) > 0]
    if len(clients) != len(values.clients) or not clients:
        text = ",".join(values.clients)
        raise UserError(f"--clients={text}: must be positive integers, as in 1,8,32")
    bodies = load.read_requests(Path(values.histories).expanduser())
    measurements = [
        load.measure(values.url, bodies, number, values.requests, values.seconds)
        for number in clients
    ]
    turns = [load.summarise(measurement) for measurement in measurements]
    report = {"url": values.url, "turns": turns}
    print("\n".join(load.format_table(measurements)))
    if values.out:
        files.write_json(values.out, report)
    else:
        print(json.dumps(report))


def _define_flags() -> None:
    flags.DEFINE_string("url", None, "URL of the server (loopback addresses only).")
    flags.DEFINE_string("histories", None, "File with one JSON request on each line.")
    flags.DEFINE_list(
        "clients", ["1", "8", "32"], "Numbers of concurrent clients, measured in turn."
    )
    flags.DEFINE_integer(
        "requests", 512, "Maximum number of requests of a measurement.", lower_bound=1
    )
    flags.DEFINE_float(
        "seconds", 30, "Maximum duration of a measurement in seconds.", lower_bound=0
    )
    flags.DEFINE_string("out", None, "JSON file for the figures; printed by default.")


if __name__ == "__main__":
    _define_flags()
    cli.flags_main(main)
