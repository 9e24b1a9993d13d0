# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a run, report.html, which needs no other file and no network.

The commands `rqvae`, `t5`, `recommend`, `sasrec` and `gume` write it when they end,
unless --nopage is set; `rfrec.launch.html` writes it again with other options, for
example with images of items. The page states what the folder of the run lacks; a
damaged file is an error.
"""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from rfrec import config as cfg
from rfrec import files
from rfrec.codes import table
from rfrec.config import UserError
from rfrec.pipelines import options
from rfrec.reports import examples as item_examples
from rfrec.reports import figures, graph_figures, published, run_figures, sections
from rfrec.reports.sections import Figure, Report, Section, Table

PAGE = "report.html"
_TEMPLATE = "page.html.jinja"
_HEADINGS = {
    "rqvae": "Tokenizer",
    "t5": "Generative retrieval, training",
    "recommend": "Generative retrieval, lists",
    "sasrec": "SASRec",
    "gume": "Graph recommender",
}
# Validation metrics of the curves.
_WATCHED = {
    "gume": ("recall@10", "recall@20", "ndcg@10", "ndcg@20"),
    "t5": ("hr@1", "hr@5", "hr@10", "ndcg@10"),
    "sasrec": ("hr@1", "hr@5", "hr@10", "ndcg@10"),
}
# Figures of rfrec.launch.plots, which are slow to draw: the page embeds the files.
_SLOW_FIGURES = {
    "tsne.png": "t-SNE",
    "steps.png": "Number of sampling steps",
}
# Number of first-level codes that are shown, and of items for each.
_GROUPS, _MEMBERS = 8, 6


@dataclasses.dataclass(frozen=True)
class Examples:
    """Options of the example lists.

    Attributes:
      users: Number of users whose lists are shown; 0 shows none.
      seed: Seed of the sample of users.
      top_k: Number of items of a list that are shown.
      table: Table of the items, .tsv or .jsonl; None takes NAME.items.tsv in the
        folder of the data.
      title: Column of the titles.
      image: Column of the image files; None takes ROW.jpg or ROW.png in `folder`.
      folder: Folder of the images; None takes the folder of the table if `image` is
        set, and shows no images otherwise.
      pixels: Longer side of an image, in pixels.
    """

    users: int = cfg.option(6, cfg.whole(0))
    seed: int = cfg.option(0, cfg.whole(0))
    top_k: int = cfg.option(8, cfg.whole(1))
    table: str | None = None
    title: str = cfg.option("title", cfg.Rule(bool, "a column"))
    image: str | None = None
    folder: str | None = None
    pixels: int = cfg.option(96, cfg.whole(8))


@dataclasses.dataclass(frozen=True)
class Options(published.Options):
    """Options of the page of a run.

    Attributes:
      reference_numbers: JSON file with published results.
      dpi: Resolution of the curves, in pixels per inch.
      examples: Options of the example lists.
    """

    dpi: int = cfg.option(100, cfg.at_least(30))
    examples: Examples = Examples()


def main(config: ConfigDict, workdir: Path) -> None:
    """Writes the page of a run.

    Raises:
      UserError: A value of the config is not allowed, a file of the run is damaged, or
        a package is not installed.
    """
    options.check(config, Options)
    figures.require_matplotlib()
    if not workdir.is_dir():
        raise UserError(f"{workdir} does not exist: --workdir is the folder of a run")
    page = render(workdir.resolve().name, *build(config, workdir))
    files.write_text(workdir / PAGE, page)
    logging.info("page: %s", workdir / PAGE)


def write_pages(workdir: Path) -> None:
    """Writes the page of a run that has ended, or one page for each of its seeds.

    A page that cannot be written causes a warning, not an error.

    Args:
      workdir: Folder of the run.
    """
    config = options.make_config(Options)
    reports = [workdir / "report.json", *sorted(workdir.glob("seed_*/report.json"))]
    for report in filter(Path.is_file, reports):
        try:
            main(config, report.parent)
        except UserError as error:
            logging.warning("no page for %s: %s", report.parent, error)


def render(name: str, kind: str, parts: Sequence[Section]) -> str:
    """Returns the page as HTML.

    Args:
      name: Name of the run.
      kind: Kind of the run, in words.
      parts: Sections of the page.

    Raises:
      UserError: The package jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise UserError("the page needs jinja2: pip install 'rfrec[plots]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        # Titles of items are untrusted text.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template(_TEMPLATE)
    return template.render(name=name, kind=kind, sections=parts)


def build(config: ConfigDict, workdir: Path) -> tuple[str, list[Section]]:
    """Returns the kind of a run, in words, and the sections of its page.

    Args:
      config: Config of the page.
      workdir: Folder of the run.

    Raises:
      UserError: The folder does not contain a run, or a file in it is damaged.
    """
    run = cfg.read_config(workdir / "config.json")
    rows = run_figures.read_rows(workdir / "metrics.jsonl")
    path = workdir / "report.json"
    if not path.exists():
        note = "The run is not finished: there is no report.json yet."
        parts = [Section("Run", (note,)), curves(kind_of(run), rows, config.dpi)]
        return "Unfinished run", [*parts, sections.config_section(run)]
    report = Report(path, files.read_json(path, "run the command again"))
    kind = report.at("main", kind=str)
    if kind not in _HEADINGS:
        raise UserError(f"{path}: runs of rfrec.launch.{kind} have no page")
    parts = [sections.what_ran(report)]
    if kind != "recommend":
        parts.append(curves(kind, rows, config.dpi))
    if kind == "rqvae":
        parts += [sections.code_health(report), codes(config, run, report)]
    elif kind == "t5":
        parts.append(checkpoints(report))
    else:
        parts.append(sections.metrics(report))
    numbers = Path(config.reference_numbers).expanduser()
    parts.append(published.section(numbers, report))
    if kind not in ("rqvae", "t5"):
        parts.append(examples(config, run, report))
    parts += slow_figures(workdir / "plots")
    return _HEADINGS[kind], [*parts, sections.config_section(run)]


def kind_of(run: ConfigDict) -> str:
    """Returns the command of a config, with the same curves as the true one."""
    if "codebook" in run:
        return "rqvae"
    return "gume" if "graph" in run else "t5"


def checkpoints(report: Report) -> Section:
    """Returns the section with the validation metrics of a T5's checkpoints."""
    note = (
        "Validation metrics of a sample of users. rfrec.launch.recommend evaluates all"
        " users, with confidence intervals."
    )
    return Section("Validation metrics", (note,), sections.models(report))


def curves(kind: str, rows: list[dict[str, Any]], dpi: int) -> Section:
    """Returns the section with the curves of `metrics.jsonl`."""
    if not rows:
        return Section("Curves", ("None: metrics.jsonl has no rows.",))
    if kind == "rqvae":
        drawn = {"Losses and collisions over epochs": figures.draw_curves(rows)}
        levels = [row for row in rows if row.get("levels")]
        if levels:
            drawn["Code usage of each level over epochs"] = figures.draw_levels(levels)
    else:
        figure = graph_figures.draw_training(rows, _WATCHED[kind])
        drawn = {"Loss and validation metrics over epochs": figure}
        if any("rf_loss" in row for row in rows):
            drawn["Rectified flow over epochs"] = graph_figures.draw_flow(rows)
    shown = [Figure(caption, as_uri(figure, dpi)) for caption, figure in drawn.items()]
    return Section("Curves", figures=tuple(shown))


def as_uri(figure: Any, dpi: int) -> str:
    """Returns a matplotlib figure as a PNG in a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return item_examples.data_uri(buffer.getvalue(), "image/png")


def slow_figures(folder: Path) -> list[Section]:
    """Returns a section with the slow figures that `rfrec.launch.plots` has written."""
    shown = [
        Figure(caption, item_examples.data_uri(path.read_bytes(), "image/png"))
        for name, caption in _SLOW_FIGURES.items()
        if (path := folder / name).exists()
    ]
    return [Section("Figures", figures=tuple(shown))] if shown else []


def codes(config: ConfigDict, run: ConfigDict, report: Report) -> Section:
    """Returns the section with code usage, and items that share their first code."""
    title, count = "Code usage", report.at("items", kind=int)
    paths = run_figures.index_files(report.path.parent)
    if not paths:
        return Section(title, ("None: there is no codes.json yet.",))
    indices = [table.read_index(path).codes for path in paths]
    drawn = tuple(
        Figure(
            f"Number of items with each code, {path.name}",
            as_uri(figures.draw_usage(index, (), path.name), config.dpi),
        )
        for path, index in zip(paths, indices, strict=True)
    )
    if len(paths) > 1:
        return Section(title, figures=drawn)
    items, notes = item_examples.open_items(config.examples, run.data, count)
    if not any(items.titles):
        return Section(title, tuple(notes[:1]), figures=drawn)
    first, rows = indices[0][:, 0], []
    counts = {code: int((first == code).sum()) for code in set(first.tolist())}
    for code in sorted(counts, key=lambda code: (-counts[code], code))[:_GROUPS]:
        members = [row for row in range(len(first)) if first[row] == code][:_MEMBERS]
        titles = (items.entry(str(row)).title for row in members)
        rows.append((str(code), str(counts[code]), "; ".join(titles)))
    caption, head = "Most frequent first-level codes", ("code", "items", "examples")
    return Section(title, (), (Table(caption, head, tuple(rows)),), drawn)


def examples(config: ConfigDict, run: ConfigDict, report: Report) -> Section:
    """Returns the section with the lists of a few users."""
    title, path = "Examples", report.path.parent / "predictions.jsonl"
    kind, count = report.at("main", kind=str), report.at("items", kind=int)
    if not path.exists():
        return Section(title, ("None: there is no predictions.jsonl.",))
    if config.examples.users == 0:
        return Section(title, ("None: config.examples.users is 0.",))
    which = run.get("which", "test")
    try:
        trained = run if kind != "recommend" else trained_on(run)
        inter = item_examples.read_interactions(kind, trained, which)
        notes = ["Held-out items of the user are framed in the list."]
    except UserError as error:
        # The data may be on another machine.
        trained, inter = run, item_examples.Interactions({}, {})
        notes = [f"Histories and held-out items are not shown: {error}."]
    items, more = item_examples.open_items(config.examples, trained.data, count)
    lists = item_examples.examples(path, items, inter, config.examples)
    return Section(title, (*notes, *more), examples=lists)


def trained_on(run: ConfigDict) -> ConfigDict:
    """Returns the config of the T5 of a list run, with the data of the lists."""
    trained = cfg.read_config(Path(run.run).expanduser() / "config.json")
    with trained.unlocked():
        if run.data.path is not None:
            trained.data.path = run.data.path
        if run.data.name is not None:
            trained.data.names = (run.data.name,)
    return trained
