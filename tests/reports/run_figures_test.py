# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run: what is drawn, what is told in one line instead."""

import json
import pathlib
import runpy
import struct
import sys

import numpy as np
import pytest

from rfrec.codes import table
from rfrec.config import UserError
from rfrec.reports import figures as plotting
from rfrec.reports import run_figures

SIZES = (6, 4)


def _config(variant="quick", **tsne):
    path = pathlib.Path(__file__).parents[2] / "configs" / "plots.py"
    config = runpy.run_path(str(path))["get_config"](variant)
    config.dpi = 40
    config.tsne.update(tsne)
    return config


def _latents(items=60, seed=0):
    """Items around six far apart centres, the codebook of level 1."""
    rng = np.random.default_rng(seed)
    first = np.eye(6, 8, dtype=np.float32) * 20
    second = rng.normal(size=(4, 8)).astype(np.float32)
    codes = np.stack([np.arange(items) % 6, rng.integers(0, 4, items)], 1)
    noise = 0.1 * rng.normal(size=(items, 8)).astype(np.float32)
    vectors = first[codes[:, 0]] + second[codes[:, 1]] + noise
    return run_figures.Latents(vectors, codes.astype(np.int32), (first, second))


def _row(epoch, split, **values):
    return {"step": 3 * epoch, "epoch": epoch, "split": split, "loss": 2.0 / epoch} | (
        values
    )


def _rows():
    level = [{"size": k, "used": k - 1, "perplexity": k / 2} for k in SIZES]
    return [
        _row(1, "train", reconstruction=1.0, quantization=0.5),
        _row(2, "train", reconstruction=0.7, quantization=0.4),
        _row(2, "eval", reconstruction=0.8, collision_rate=0.25, levels=level),
    ]


def _save_latents(run, content, /, **replace):
    books = {f"codebook_{i}": book for i, book in enumerate(content.codebooks)}
    arrays = {"latents": content.items, "codes": content.codes} | books | replace
    arrays = {name: value for name, value in arrays.items() if value is not None}
    np.savez(run / "latents.npz", **arrays)


@pytest.fixture
def run(tmp_path):
    lines = "".join(json.dumps(row) + "\n" for row in _rows())
    (tmp_path / "metrics.jsonl").write_text(lines)
    table.write_index(tmp_path / "codes.json", _latents().codes)
    return tmp_path


def _pixels(path):
    """Returns width and height of a PNG file."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[-8:-4] == b"IEND"
    return struct.unpack(">II", content[16:24])


def _made(run):
    return sorted(path.name for path in (run / "plots").iterdir())


def test_a_whole_run_gives_four_pictures(run):
    _save_latents(run, _latents())
    run_figures.main(_config(), run)
    assert _made(run) == ["codes.png", "curves.png", "levels.png", "tsne.png"]
    assert all(min(_pixels(path)) > 100 for path in (run / "plots").iterdir())


def test_dpi_scales_a_picture(tmp_path):
    path = tmp_path / "a.png"
    plotting.save(path, plotting.draw_curves(_rows()), 40)
    width, height = _pixels(path)
    plotting.save(path, plotting.draw_curves(_rows()), 80)
    assert _pixels(path) == (2 * width, 2 * height)
    assert list(tmp_path.iterdir()) == [path]


def test_without_latents_one_line_says_why_tsne_is_skipped(run, caplog):
    caplog.set_level("INFO", logger="absl")
    run_figures.main(_config(), run)
    assert _made(run) == ["codes.png", "curves.png", "levels.png"]
    assert [r.message for r in caplog.records if "t-SNE" in r.message] == [
        "t-SNE skipped: there is no latents.npz; large runs write none"
    ]


def test_a_run_without_training_still_shows_its_codes(run):
    (run / "metrics.jsonl").write_text("")
    run_figures.main(_config(), run)
    assert _made(run) == ["codes.png"]


def test_each_data_set_of_a_shared_quantizer_gets_its_picture(run):
    (run / "codes.json").rename(run / "codes.books.json")
    table.write_index(run / "codes.toys.json", _latents(12).codes)
    run_figures.main(_config(), run)
    assert _made(run)[:2] == ["codes.books.png", "codes.toys.png"]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no metrics.jsonl, codes.json or latents"):
        run_figures.main(_config(), tmp_path)
    with pytest.raises(UserError, match=r"does not exist: --workdir is the folder"):
        run_figures.main(_config(), tmp_path / "none")


def test_a_last_line_cut_by_a_kill_is_left_out(run):
    path = run / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 9, "epo')
    assert run_figures.read_rows(path) == _rows()


@pytest.mark.parametrize("line", ['{"step": 9, "epo', '{"step": 1}', ""])
def test_another_damaged_line_is_named(run, line):
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2.*remove"):
        run_figures.read_rows(path)


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        ({"latents": None}, "has no array 'latents'"),
        ({"codebook_1": None}, "has no array 'codebook_1'"),
        ({"codes": np.zeros((3, 2), np.int32)}, r"'codes' is int32 of shape \(3, 2\)"),
        ({"codes": np.zeros((60, 2))}, "'codes' is float64"),
        (
            {"codes": np.full((60, 2), 4)},
            "'codes' are outside the 4 rows of 'codebook_1'",
        ),
        (
            {"codes": np.full((60, 2), -1)},
            "'codes' are outside the 6 rows of 'codebook_0'",
        ),
        ({"codebook_0": np.zeros((6, 3))}, r"'codebook_0' is float64 of shape \(6, 3"),
        ({"latents": np.full((60, 8), np.nan)}, "'latents' contains NaN"),
        ({"latents": np.full((60, 8), "a", object)}, "is damaged"),
    ],
)
def test_latents_that_do_not_fit_are_named(tmp_path, replace, message):
    _save_latents(tmp_path, _latents(), **replace)
    with pytest.raises(UserError, match=message) as error:
        run_figures.read_latents(tmp_path / "latents.npz")
    assert "latents.npz" in str(error.value) and "\n" not in str(error.value)


def test_a_truncated_latents_file_is_refused(tmp_path):
    _save_latents(tmp_path, _latents())
    path = tmp_path / "latents.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="is damaged"):
        run_figures.read_latents(path)


def test_without_matplotlib_the_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'rfrec\[plots\]'"):
        run_figures.main(_config(), run)


@pytest.mark.parametrize(
    ("key", "value"), [("max_items", 9), ("perplexity", 0.0), ("seed", -1)]
)
def test_an_impossible_setting_names_its_key(run, key, value):
    with pytest.raises(UserError, match=rf"config.tsne.{key}={value}: must be"):
        run_figures.main(_config(**{key: value}), run)


def test_residuals_equal_a_loop_over_items():
    latents = _latents()
    first, second = run_figures.residuals(latents)
    np.testing.assert_array_equal(first, latents.items)
    expected = [
        x - latents.codebooks[0][code]
        for x, code in zip(latents.items, latents.codes[:, 0], strict=True)
    ]
    np.testing.assert_array_equal(second, expected)


def test_a_sample_keeps_rows_together_in_order_and_follows_the_seed():
    latents = _latents()
    drawn = run_figures.sample(latents, 20, 1)
    again, other = (
        run_figures.sample(latents, 20, 1),
        run_figures.sample(latents, 20, 2),
    )
    rows = [int((latents.items == x).all(1).argmax()) for x in drawn.items]
    assert rows == sorted(set(rows)) and len(rows) == 20
    np.testing.assert_array_equal(drawn.codes, latents.codes[rows])
    np.testing.assert_array_equal(drawn.items, again.items)
    assert not np.array_equal(drawn.items, other.items)
    assert run_figures.sample(latents, 60, 1) is latents


def test_tsne_lays_codes_among_their_items_and_follows_the_seed():
    latents = _latents()
    book = latents.codebooks[0]
    items, codes = plotting.embed_together(latents.items, book, perplexity=10.0, seed=0)
    again = plotting.embed_together(latents.items, book, perplexity=10.0, seed=0)
    nearest = [int(((items - place) ** 2).sum(1).argmin()) for place in codes]
    np.testing.assert_array_equal(latents.codes[nearest, 0], np.arange(6))
    np.testing.assert_array_equal(items, again[0])


def test_neighbouring_places_differ_in_colour():
    rng = np.random.default_rng(0)
    places = rng.normal(size=(40, 2))
    colours = plotting.contrasting_colours(places, rng.permutation(40).tolist())
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argmin(1)
    assert all(colours[i] != colours[j] for i, j in enumerate(nearest))


def test_curves_draw_every_loss_of_every_split_and_collisions_in_percent():
    losses, collisions = plotting.draw_curves(_rows()).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in losses.lines}
    assert drawn["loss, train"] == [[1, 2.0], [2, 1.0]]
    assert drawn["reconstruction, eval"] == [[2, 0.8]]
    assert len(drawn) == 5
    assert collisions.lines[0].get_xydata().tolist() == [[2, 25.0]]


def test_usage_counts_every_item_once_and_shows_unused_codes():
    codes = np.array([[0, 2], [0, 0], [3, 0]])
    figure = plotting.draw_usage(codes, [5], "codes.json")
    heights = [[bar.get_height() for bar in axis.patches] for axis in figure.axes]
    assert heights == [[2, 0, 0, 1, 0], [2, 0, 1]]
    assert "2 of 5 codes used" in figure.axes[0].get_title()


def test_every_axis_is_labelled():
    latents = _latents(20)
    zeros = np.zeros((20, 2), np.float32)
    maps = [
        plotting.LevelMap(zeros, zeros[:size], latents.codes[:, i], np.arange(size))
        for i, size in enumerate(SIZES)
    ]
    figures = [
        plotting.draw_curves(_rows()),
        plotting.draw_levels(_rows()[-1:]),
        plotting.draw_usage(latents.codes, SIZES, "codes.json"),
        plotting.draw_maps(maps, 40),
    ]
    for axis in (axis for figure in figures for axis in figure.axes):
        if axis.axison:
            assert axis.get_xlabel() and axis.get_ylabel() and axis.get_title()


@pytest.mark.multidevice
def test_the_program_draws_a_run(run, run_python):
    args = ["-m", "rfrec.launch.plots", f"--workdir={run}", "--config.dpi=40"]
    run_python(args, devices=1)
    assert "curves.png" in _made(run)
