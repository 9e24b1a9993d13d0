# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Every source gives checked items, or one line that tells how to mend it."""

import os
from pathlib import Path

import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.data import sources
from rfrec.data.features import Block

ROWS = 12


@pytest.fixture(autouse=True)
def no_environment(monkeypatch, request):
    if not request.node.get_closest_marker("realdata"):
        monkeypatch.delenv("RFREC_DATA", raising=False)


@pytest.fixture
def shop(tmp_path):
    """A folder `root` above `shop`, with the data sets tea and cup."""
    folder = tmp_path / "root" / "shop"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, rows in (("tea", ROWS), ("cup", 5)):
        np.save(folder / f"{name}.text.npy", rng.standard_normal((rows, 4)))
        np.save(
            folder / f"{name}.image.npy",
            rng.standard_normal((rows, 3)).astype(np.float16),
        )
    lines = ["row\tshelf\ttitle\tkinds"]
    lines += [
        f'{i}\ts{i}\tTea "{i}\t{"green|cold" if i % 2 else ""}' for i in range(ROWS)
    ]
    (folder / "tea.items.tsv").write_text("\n".join(lines) + "\n")
    (folder / "tea.inter.json").write_text('{"u": [11, 3, 0], "v": [1, 2, 3]}')
    return folder


def load(path, *features, names=("tea",), **kwargs):
    return sources.load_items(
        source="folder", path=path, names=names, features=features, **kwargs
    )


def test_one_feature_stays_mapped(shop):
    items = load(shop, "image")
    assert isinstance(items.values, np.memmap)
    assert items.segments == (("tea", ROWS),)
    assert items.ids is None
    assert items.titles == tuple(f'Tea "{i}' for i in range(ROWS))
    assert items.warnings == ()


def test_a_mask_is_no_feature(shop):
    (shop / "cup.image.npy").unlink()
    np.save(shop / "cup.text_mask.npy", np.ones(5, bool))
    items = load(shop, names=("cup",))
    assert [block.name for block in items.blocks] == ["text"]


def test_features_follow_the_order_asked_for(shop):
    items = load(shop, "image", "kinds", "text")
    assert items.blocks == (
        Block("image", 3, "dense"),
        Block("kinds", 2, "multi_hot"),
        Block("text", 4, "dense"),
    )
    np.testing.assert_array_equal(items.values[:, 3].astype(int), np.arange(ROWS) % 2)
    np.testing.assert_array_equal(
        items.values[:, :3], np.load(shop / "tea.image.npy").astype(np.float32)
    )


def test_data_sets_are_stacked_and_scaled_by_themselves(shop):
    items = load(shop, "text", names=("cup", "tea"), scale="mean_square")
    assert items.segments == (("cup", 5), ("tea", ROWS))
    for rows in (slice(0, 5), slice(5, None)):
        assert np.square(items.values[rows]).mean() == pytest.approx(1, abs=1e-5)


def test_folder_above_and_environment_lead_to_the_data(shop, monkeypatch):
    here = load(shop, "text").fingerprint
    assert load(shop.parent, "text").fingerprint == here
    monkeypatch.setenv("RFREC_DATA", str(shop.parent))
    assert load(None, "text").fingerprint == here
    inter = sources.load_interactions(source="folder", name="tea")
    assert inter.history(0).tolist() == [11, 3, 0]


def test_name_and_feature_may_be_left_out_if_there_is_one(shop):
    for path in (*shop.glob("cup.*"), shop / "tea.text.npy"):
        path.unlink()
    items = sources.load_items(source="folder", path=shop)
    assert items.segments == (("tea", ROWS),)
    assert items.blocks == (Block("image", 3, "dense"),)
    assert sources.load_interactions(source="folder", path=shop).num_items == ROWS


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"source": "shop"}, "data.source is 'shop', expected one of movielens-100k, "),
        ({"source": "folder"}, "set RFREC_DATA or --config.data.path"),
        ({"source": "mmrec"}, "set RFREC_DATA or --config.data.path"),
        ({"source": "movielens"}, "set RFREC_DATA or --config.data.path"),
        ({"source": "synthetic", "path": "x"}, "data.path is set, .*reads no files"),
        ({"source": "synthetic", "names": ("a",)}, r"data.names is \('a',\)"),
        (
            {"source": "movielens-100k", "features": ("rf",)},
            "'rf'.* only the tokenizer accepts",
        ),
        ({"source": "folder", "features": ("rf", "text")}, "trained graph recommender"),
        ({"source": "synthetic", "features": ("x",)}, "no feature 'x'; .*text, image"),
        ({"source": "movielens", "features": ("x",)}, "no feature 'x'.* genres, text"),
        ({"source": "folder", "features": ("a", "a")}, "data.features is .*twice"),
        ({"source": "folder", "names": ("a", "a")}, "data.names is .*twice"),
        ({"source": "folder", "path": "/nowhere/at/all"}, "no such folder"),
        ({"source": "synthetic", "num_items": 0}, "num_items 0"),
        ({"source": "synthetic", "text_width": 0}, "must be at least 1"),
    ],
)
def test_impossible_request_gives_one_line(kwargs, message):
    with pytest.raises(UserError, match=message) as error:
        sources.load_items(**kwargs)
    assert "\n" not in str(error.value)


def test_unknown_feature_lists_what_the_folder_has(shop):
    with pytest.raises(UserError, match="no feature 'poster'.*: image, kinds, text"):
        load(shop, "poster")


def test_choice_of_features_is_asked_for(shop):
    with pytest.raises(UserError, match="image, kinds, text; select"):
        load(shop)


def test_choice_of_names_is_asked_for(shop):
    with pytest.raises(UserError, match="data sets cup, tea; select"):
        load(shop, "text", names=())


def test_unknown_name_lists_what_there_is(shop):
    with pytest.raises(UserError, match="no data set 'te' .*available: cup, tea"):
        load(shop, "text", names=("te",))


def test_data_set_in_two_places_is_ambiguous(shop):
    other = shop.parent / "other"
    other.mkdir()
    (other / "tea.inter.json").write_text("{}")
    with pytest.raises(
        UserError, match="'tea' is in .*other and .*shop; set data.path"
    ):
        load(shop.parent, "text")


def test_differing_features_name_both_files(shop):
    np.save(shop / "tea.image.npy", np.ones((4, 3), np.float32))
    with pytest.raises(
        UserError, match=r"text\.npy has 12 rows but .*image\.npy has 4"
    ):
        load(shop, "text", "image")


def test_short_table_names_both_files(shop):
    table = shop / "tea.items.tsv"
    table.write_text("\n".join(table.read_text().split("\n")[:-3]) + "\n")
    with pytest.raises(
        UserError, match=r"text\.npy has 12 rows but .*items\.tsv has 10 items"
    ):
        load(shop, "text")


def test_log_beyond_the_features_names_both_files(shop):
    (shop / "tea.inter.json").write_text('{"u": [12, 1]}')
    with pytest.raises(
        UserError,
        match=r"text\.npy has 12 rows but .*inter\.json .*up to 12, that is 13",
    ):
        load(shop, "text")
    with pytest.raises(UserError, match="item 12 of user 'u' is out of range 0 to 11"):
        sources.load_interactions(source="folder", path=shop, name="tea")


def test_log_that_ends_early_is_a_warning(shop):
    (shop / "tea.inter.json").write_text('{"u": [8, 1]}')
    (line,) = load(shop, "text").warnings
    assert line.endswith("tea.inter.json: ends at item 8 of 12")
    inter = sources.load_interactions(source="folder", path=shop, name="tea")
    assert inter.num_items == ROWS


def test_damaged_log_is_found_with_the_items(shop):
    (shop / "tea.inter.json").write_text('{"u": [8, 1')
    with pytest.raises(UserError, match="not valid JSON"):
        load(shop, "text")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("3\ts3\t", "3\t", "line 5 has 3 fields, the header has 4"),
        ("3\ts3\t", "4\ts3\t", "line 5 starts with '4', expected 3; column 'row'"),
    ],
)
def test_damaged_table_names_the_line(shop, old, new, message):
    table = shop / "tea.items.tsv"
    table.write_text(table.read_text().replace(f"\n{old}", f"\n{new}"))
    with pytest.raises(UserError, match=rf"tea\.items\.tsv: {message}"):
        load(shop, "text")


@pytest.mark.parametrize(
    ("raw", "message"),
    [(b"", "is empty"), (b"row\ttitle\n0\t\xff\n", "line 2 is not UTF-8")],
)
def test_table_that_is_no_text_is_refused(shop, raw, message):
    (shop / "tea.items.tsv").write_bytes(raw)
    with pytest.raises(UserError, match=rf"items\.tsv: {message}"):
        load(shop, "text")


@pytest.fixture
def baby(tmp_path):
    folder = tmp_path / "baby"
    folder.mkdir()
    (folder / "baby.inter").write_text(
        "userID\titemID\trating\ttimestamp\tx_label\n0\t1\t5\t2\t0\n0\t3\t5\t1\t1\n"
    )
    for name, width in (("text", 4), ("image", 6)):
        np.save(folder / f"{name}_feat.npy", np.eye(4, width, dtype=np.float32))
    return folder


def test_mmrec_folder_gives_features_and_histories(baby):
    items = sources.load_items(source="mmrec", path=baby, features=("image", "text"))
    assert items.values.shape == (4, 10)
    assert items.segments == (("baby", 4),)
    inter = sources.load_interactions(source="mmrec", path=baby.parent, name="baby")
    assert inter.history(0).tolist() == [3, 1]
    assert inter.num_items == 4


def test_mmrec_log_beyond_the_features_names_both_files(baby):
    np.save(baby / "text_feat.npy", np.ones((3, 2), np.float32))
    with pytest.raises(
        UserError, match=r"text_feat\.npy has 3 rows but .*baby\.inter "
    ):
        sources.load_items(source="mmrec", path=baby, features=("text",))


def test_mmrec_log_of_names_has_no_rows(baby):
    (baby / "baby.inter").write_text("user_id:token\titem_id:token\nu\ttea\n")
    with pytest.raises(UserError, match="items have names, .* userID and itemID"):
        sources.load_items(source="mmrec", path=baby, features=("text",))


@pytest.fixture
def movies(tmp_path):
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    words = ["mill", "harbour", "lantern", "zebra", "window", "garden"]
    lines = [
        f"{i + 3}::{words[i % 6]} of the {words[i % 5]} ({1950 + i})::Drama|Comedy\n"
        for i in range(30)
    ]
    (folder / "movies.dat").write_text("".join(lines))
    (folder / "ratings.dat").write_text("1::3::5::20\n1::32::4::10\n")
    return folder


@pytest.mark.parametrize("source", ["movielens", "movielens-100k"])
def test_movielens_gives_genres_beside_titles(movies, source):
    items = sources.load_items(source=source, path=movies, text_width=8)
    assert items.blocks == (Block("genres", 2, "multi_hot"), Block("text", 8, "dense"))
    assert items.ids == tuple(str(i + 3) for i in range(30))
    assert items.titles is not None
    assert items.titles[0] == "mill of the mill (1950)"
    inter = sources.load_interactions(source=source, path=movies)
    assert inter.history(0).tolist() == [29, 0]
    assert inter.item_ids == items.ids


def test_movielens_100k_is_found_in_the_environment(movies, monkeypatch):
    monkeypatch.setenv("RFREC_DATA", str(movies.parent))
    found = sources.load_items(source="movielens-100k", features=("genres",))
    assert found.values.shape == (30, 2)


def test_movielens_vectors_follow_the_seed(movies):
    def digest(seed):
        return sources.load_items(
            source="movielens", path=movies, features=("text",), text_width=8, seed=seed
        ).fingerprint

    assert digest(3) == digest(3)


def test_synthetic_items_follow_the_seed():
    def digest(seed):
        return sources.load_items(
            source="synthetic", num_items=50, text_width=6, seed=seed
        ).fingerprint

    assert digest(0) == digest(0) != digest(1)


def test_synthetic_features_can_be_chosen():
    items = sources.load_items(
        source="synthetic", num_items=50, features=("image",), text_width=6
    )
    assert items.blocks == (Block("image", 6, "dense"),)
    inter = sources.load_interactions(source="synthetic", num_items=60, num_users=7)
    assert (inter.num_items, inter.num_users) == (60, 7)


def real(name):
    """Skips unless the data set lies in $RFREC_DATA or one folder below."""
    root = Path(os.environ["RFREC_DATA"])
    if not any([*root.glob(f"{name}.*"), *root.glob(f"*/{name}.*")]):
        pytest.skip(f"needs {name} in RFREC_DATA")


@pytest.mark.realdata
def test_real_ml1m_catalogue_has_its_published_size():
    real("ml1m_catalog")
    items = load(None, "text", names=("ml1m_catalog",), scale="mean_square")
    assert items.values.shape == (3883, 384)
    assert np.square(items.values, dtype=np.float64).mean() == pytest.approx(
        1, abs=1e-6
    )
    (line,) = items.warnings
    assert line.endswith("3 columns are constant (127, 223, 319)")


@pytest.mark.realdata
def test_real_ml1m_joins_text_and_posters():
    real("ml1m")
    items = load(None, "text", "image", names=("ml1m",))
    assert items.values.shape == (3706, 384 + 1280)
    assert any("76 of 3706 items have no vector" in line for line in items.warnings)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("source", "name", "users", "items", "events"),
    [
        ("folder", "ml1m", 6040, 3706, 1_000_209),
        ("folder", "Beauty", 22_363, 12_101, 198_502),
        ("folder", "Instruments", 17_112, 6250, 136_226),
        ("mmrec", "ml100k", 943, 1682, 100_000),
    ],
)
def test_real_histories_have_their_published_size(source, name, users, items, events):
    real(name)
    inter = sources.load_interactions(source=source, name=name)
    assert (inter.num_users, inter.num_items, len(inter.items)) == (
        users,
        items,
        events,
    )
