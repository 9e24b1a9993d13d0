# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes a run as one page, report.html, that needs no other file and no network.

In: the folder of a run of `rqvae`, `t5`, `recommend`, `sasrec` or `gume`. What the
folder lacks is said on the page; what is damaged in it is an error.

These mains write it themselves when they end, unless told --nopage; made again with
other settings of configs/html.py, for one with pictures of items, by

python -m rfrec.launch.html --workdir=runs/ml100k
"""

import io
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.codes import table
from rfrec.config import UserError
from rfrec.reports import examples as html_items
from rfrec.reports import figures as plotting
from rfrec.reports import graph_drawing, published, run_figures
from rfrec.reports import sections as html_content
from rfrec.reports.sections import Picture, Report, Section, Table

PAGE = "report.html"
_TEMPLATE = "page.html.jinja"
RULES: cfg.Rules = {
    "dpi": cfg.at_least(30),
    "reference_numbers": cfg.Rule(bool, "a file"),
    "examples.users": cfg.whole(0),
    "examples.seed": cfg.whole(0),
    "examples.top_k": cfg.whole(1),
    "examples.title": cfg.Rule(bool, "a column"),
    "examples.pixels": cfg.whole(8),
}
_HEADINGS = {
    "rqvae": "Tokenizer",
    "t5": "Generative retrieval, training",
    "recommend": "Generative retrieval, lists",
    "sasrec": "SASRec",
    "gume": "Graph recommender",
}
# Of validation, over epochs.
_WATCHED = {
    "gume": ("recall@10", "recall@20", "ndcg@10", "ndcg@20"),
    "t5": ("hr@1", "hr@5", "hr@10", "ndcg@10"),
    "sasrec": ("hr@1", "hr@5", "hr@10", "ndcg@10"),
}
# Of rfrec.reports.run_figures, which the page takes as they are.
_DRAWN = {
    "tsne.png": "t-SNE",
    "steps.png": "Steps of sampling",
}
# First-level codes, and items of each, that are shown.
_GROUPS, _MEMBERS = 8, 6


def main(config: ConfigDict, workdir: Path) -> None:
    """Writes the page of a run."""
    cfg.check(config, RULES)
    plotting.require_matplotlib()
    if not workdir.is_dir():
        raise UserError(f"{workdir} does not exist: --workdir is the folder of a run")
    page = render(workdir.resolve().name, *sections(config, workdir))
    with files.replacing(workdir / PAGE) as partial:
        partial.write_text(page, encoding="utf-8")
    logging.info("page: %s", workdir / PAGE)


def write_pages(workdir: Path) -> None:
    """Writes the page of a run that has just ended, or of each of its seeds.

    The run stands without it: what is in the way is told in a line.

    Args:
      workdir: Of the run.
    """
    file = Path(__file__).parents[2] / "configs" / "html.py"
    if not file.is_file():
        logging.warning("no page: %s does not exist, run from a checkout", file)
        return
    config = runpy.run_path(str(file))["get_config"]()
    reports = [workdir / "report.json", *sorted(workdir.glob("seed_*/report.json"))]
    for report in filter(Path.is_file, reports):
        try:
            main(config, report.parent)
        except UserError as error:
            logging.warning("no page of %s: %s", report.parent, error)


def render(name: str, kind: str, parts: Sequence[Section]) -> str:
    """Returns the page.

    Args:
      name: Of the run.
      kind: Of the run, in words.
      parts: What it says.

    Raises:
      UserError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise UserError("pages need jinja2: pip install 'rfrec[plots]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        # Titles of items are of anyone: none is taken for HTML.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template(_TEMPLATE)
    return template.render(name=name, kind=kind, sections=parts)


def sections(config: ConfigDict, workdir: Path) -> tuple[str, list[Section]]:
    """Returns the kind of a run, and what its page says.

    Args:
      config: Of the page.
      workdir: Of the run.

    Raises:
      UserError: The folder is no run's, or holds a damaged file.
    """
    run = cfg.read_config(workdir / "config.json")
    rows = run_figures.read_rows(workdir / "metrics.jsonl")
    path = workdir / "report.json"
    if not path.exists():
        told = "The run is not finished: there is no report.json yet."
        parts = [Section("What ran", (told,)), curves(kind_of(run), rows, config.dpi)]
        return "Unfinished run", [*parts, html_content.config_section(run)]
    report = Report(path, files.read_json(path, "finish the run again"))
    kind = report.at("main", kind=str)
    if kind not in _HEADINGS:
        raise UserError(f"{path} is of rfrec.launch.{kind}, which has no page")
    parts = [html_content.what_ran(report)]
    if kind != "recommend":
        parts.append(curves(kind, rows, config.dpi))
    if kind == "rqvae":
        parts += [html_content.code_health(report), codes(config, run, report)]
    elif kind == "t5":
        parts.append(watched(report))
    else:
        parts.append(html_content.metrics(report))
    numbers = Path(config.reference_numbers).expanduser()
    parts.append(published.section(numbers, report))
    if kind not in ("rqvae", "t5"):
        parts.append(examples(config, run, report))
    parts += drawn(workdir / "plots")
    return _HEADINGS[kind], [*parts, html_content.config_section(run)]


def kind_of(run: ConfigDict) -> str:
    """Returns the main that a config is of, as far as its curves are concerned."""
    if "codebook" in run:
        return "rqvae"
    return "gume" if "graph" in run else "t5"


def watched(report: Report) -> Section:
    """Tells what a T5 reached on the users that were watched while it trained."""
    note = (
        "Of validation, and of a sample of users: lists of all users, with intervals,"
        " are made by rfrec.launch.recommend."
    )
    return Section("Watched metrics", (note,), html_content.models(report))


def curves(kind: str, rows: list[dict[str, Any]], dpi: int) -> Section:
    """Draws what `metrics.jsonl` tells."""
    if not rows:
        return Section("Curves", ("None: metrics.jsonl has no rows.",))
    if kind == "rqvae":
        figures = {"Losses and collisions over epochs": plotting.draw_curves(rows)}
        levels = [row for row in rows if row.get("levels")]
        if levels:
            figures["Use of the levels over epochs"] = plotting.draw_levels(levels)
    else:
        figure = graph_drawing.draw_training(rows, _WATCHED[kind])
        figures = {"Loss and validation over epochs": figure}
        if any("rf_loss" in row for row in rows):
            figures["The flow over epochs"] = graph_drawing.draw_flow(rows)
    pictures = [Picture(alt, as_uri(figure, dpi)) for alt, figure in figures.items()]
    return Section("Curves", pictures=tuple(pictures))


def as_uri(figure: Any, dpi: int) -> str:
    """Returns a figure of matplotlib as a PNG in a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return html_items.data_uri(buffer.getvalue(), "image/png")


def drawn(folder: Path) -> list[Section]:
    """Returns the slow pictures that an earlier run_figures left."""
    found = {name: alt for name, alt in _DRAWN.items() if (folder / name).exists()}
    pictures = [
        Picture(alt, html_items.data_uri((folder / name).read_bytes(), "image/png"))
        for name, alt in found.items()
    ]
    return [Section("Pictures", pictures=tuple(pictures))] if pictures else []


def codes(config: ConfigDict, run: ConfigDict, report: Report) -> Section:
    """Shows the use of the codes, and items that share their first one."""
    workdir, count = report.path.parent, report.at("items", kind=int)
    paths = [*workdir.glob("codes.json"), *sorted(workdir.glob("codes.*.json"))]
    if not paths:
        return Section("Codes", ("None: there is no codes.json yet.",))
    indices = [table.read_index(path).codes for path in paths]
    pictures = [
        Picture(f"Items of each code, {path.name}", as_uri(figure, config.dpi))
        for path, found in zip(paths, indices, strict=True)
        for figure in [plotting.draw_usage(found, (), path.name)]
    ]
    if len(paths) > 1:
        return Section("Codes", pictures=tuple(pictures))
    shelf, notes = html_items.open_shelf(config.examples, run.data, count)
    if not any(shelf.titles):
        return Section("Codes", tuple(notes[:1]), pictures=tuple(pictures))
    first, members = indices[0][:, 0], []
    counts = {code: int((first == code).sum()) for code in set(first.tolist())}
    for code in sorted(counts, key=lambda code: (-counts[code], code))[:_GROUPS]:
        rows = [row for row in range(len(first)) if first[row] == code][:_MEMBERS]
        titles = (shelf.entry(str(row)).title for row in rows)
        members.append((str(code), str(counts[code]), "; ".join(titles)))
    shown = Table(
        "The most frequent first codes", ("code", "items", "such as"), tuple(members)
    )
    return Section("Codes", (), (shown,), tuple(pictures))


def examples(config: ConfigDict, run: ConfigDict, report: Report) -> Section:
    """Shows lists of a few users."""
    title, path = "Examples", report.path.parent / "predictions.jsonl"
    kind, count = report.at("main", kind=str), report.at("items", kind=int)
    if config.examples.users == 0 or not path.exists():
        told = "there is no predictions.jsonl"
        if path.exists():
            told = "config.examples.users is 0"
        return Section(title, (f"None: {told}.",))
    which = run.get("which", "test")
    try:
        trained = run if kind != "recommend" else trained_on(run)
        known = html_items.past(kind, trained, which)
        notes = ["Framed: what the user took, which was held out."]
    except UserError as error:
        # The lists stand without the data, which may be on another machine.
        trained, known = run, html_items.Past({}, {})
        notes = [f"What users took is not shown: {error}."]
    shelf, more = html_items.open_shelf(config.examples, trained.data, count)
    found = html_items.examples(path, shelf, known, config.examples)
    return Section(title, (*notes, *more), examples=found)


def trained_on(run: ConfigDict) -> ConfigDict:
    """Returns the config of the T5 that made lists, with the data of the lists."""
    trained = cfg.read_config(Path(run.run).expanduser() / "config.json")
    with trained.unlocked():
        if run.data.path is not None:
            trained.data.path = run.data.path
        if run.data.name is not None:
            trained.data.names = (run.data.name,)
    return trained
