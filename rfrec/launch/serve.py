# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers histories with an exported search, over HTTP or line by line.

python -m rfrec.launch.serve --artefact=artefacts/instruments
python -m rfrec.launch.serve --artefact=artefacts/instruments --histories=- \
  < histories.jsonl > answers.jsonl

The command reads only the folder that rfrec.launch.export wrote: no config, no
checkpoint and no model code.
"""

from pathlib import Path

from absl import flags, logging
from tqdm import tqdm

from rfrec.config import UserError
from rfrec.launch import cli
from rfrec.serving import lines
from rfrec.serving.recommender import Recommender


def main() -> None:
    """Loads an artefact, compiles its programs and answers requests."""
    values = flags.FLAGS
    if not values.artefact:
        raise UserError(
            "--artefact is required: the folder that rfrec.launch.export wrote"
        )
    sizes = parse_batch_sizes(values.batch_sizes)
    # Open the file or the port first: compiling takes long, and these may fail.
    if values.histories is not None:
        with lines.open_lines(values.histories) as stream:
            recommender = load_recommender(sizes)
            for line in lines.answer_lines(recommender, stream, values.histories):
                print(line, flush=True)
        return
    http = _import_http()
    with http.bind(values.host, values.port) as listening:
        recommender = load_recommender(sizes)
        for program in tqdm(recommender.programs(), unit="program", desc="compiling"):
            recommender.compile(*program)
        host, port = listening.getsockname()[:2]
        logging.info("http://%s:%d answers POST /recommend", host, port)
        limits = http.Limits(
            max_wait=values.max_wait_ms / 1000,
            max_queue=values.max_queue,
            max_body=values.max_body,
            body_seconds=values.body_seconds,
            drain_seconds=values.drain_seconds,
        )
        http.run(recommender, limits, listening)
    logging.info("all accepted requests have been answered")


def parse_batch_sizes(texts: list[str]) -> tuple[int, ...]:
    """Returns the value of `--batch_sizes`.

    Raises:
      UserError: The values are not ascending positive integers.
    """
    sizes = [int(text) if text.strip().isdecimal() else 0 for text in texts]
    if not sizes or min(sizes) < 1 or sizes != sorted(set(sizes)):
        raise UserError(
            f"--batch_sizes={','.join(texts)}: must be ascending positive integers, as"
            " in 1,4,16"
        )
    return tuple(sizes)


def load_recommender(batch_sizes: tuple[int, ...]) -> Recommender:
    """Loads the artefact and the catalogue that the flags name."""
    values = flags.FLAGS
    return Recommender(
        Path(values.artefact).expanduser(),
        batch_sizes=batch_sizes,
        max_items=values.max_items,
        catalogue=Path(values.catalogue).expanduser() if values.catalogue else None,
    )


def _import_http():
    try:
        from rfrec.serving import http
    except ModuleNotFoundError as error:
        raise UserError(
            f"the HTTP server needs the package {error.name}: install rfrec[serve], or"
            " answer a file with --histories=FILE"
        ) from error
    return http


def _define_flags() -> None:
    flags.DEFINE_string("artefact", None, "Folder that rfrec.launch.export wrote.")
    flags.DEFINE_string(
        "catalogue", None, "Grown catalogue that replaces the one of the artefact."
    )
    flags.DEFINE_string(
        "histories", None, "JSON lines to answer instead of HTTP; - is standard input."
    )
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on.")
    flags.DEFINE_integer("port", 8000, "Port; 0 chooses a free one.", lower_bound=0)
    flags.DEFINE_list(
        "batch_sizes", ["1", "4", "16"], "Batch sizes that programs are compiled for."
    )
    flags.DEFINE_float(
        "max_wait_ms", 3, "Milliseconds that a request waits for others.", lower_bound=0
    )
    flags.DEFINE_integer("max_queue", 256, "Limit of waiting requests.", lower_bound=1)
    flags.DEFINE_integer(
        "max_items", 256, "Limit of items in a history; the model reads the latest.", 1
    )
    flags.DEFINE_integer("max_body", 65_536, "Limit of bytes of a request.", 1)
    flags.DEFINE_float(
        "body_seconds", 10, "Seconds until a request must have arrived.", lower_bound=0
    )
    flags.DEFINE_integer(
        "drain_seconds", 60, "Seconds to answer accepted requests after SIGTERM.", 1
    )


if __name__ == "__main__":
    _define_flags()
    cli.flags_main(main)
