# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exported searches, written, read and asked, against the search in this process."""

import functools
import json

import numpy as np
import pytest

from rfrec.codes import catalogue, trie, trie_edit
from rfrec.config import UserError
from rfrec.data import sequences
from rfrec.retrieval import search as serving
from rfrec.retrieval import tasks
from rfrec.serving import artefact, capacity, requests
from rfrec.serving import export as serving_export
from rfrec.serving.recommender import Recommender
from rfrec.serving.requests import Query
from rfrec.train import partition
from tests.support.searches import INTER, ITEMS, MOST, SIZES, USERS, codes, make

pytest.importorskip("flatbuffers", reason="an export needs flatbuffers")

BEAMS = 20
OPTIONS = serving_export.ExportOptions(search=serving_export.SearchOptions(beams=BEAMS))
NONE = catalogue.T5Record("runs/toy", 8, "v" * 64, "w" * 64)


def trained(task, row=0, *, buckets=(6, MOST), tiger=False):
    """Returns the parts of a model for an export."""
    source, vocabulary = make(task, row, tiger=tiger)
    way = tasks.TASKS[task].directions[row]
    return serving_export.TrainedModel(
        source=source,
        vocabulary=vocabulary,
        task=tasks.ListTask(task, row, way.sources, way.target),
        item_ids=None,
        max_history=MOST,
        buckets=buckets,
        version=NONE,
    )


def export(folder, task, row=0, **changes):
    """Writes the artefact of a source."""
    model = trained(task, row, **changes)
    return serving_export.export(model, folder, OPTIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An artefact of text codes."""
    place = tmp_path_factory.mktemp("exported") / "seqrec"
    export(place, "seqrec")
    return place


def load(folder, sizes=(1, 4), **changes):
    return Recommender(folder, batch_sizes=sizes, max_items=32, **changes)


@functools.cache
def in_process(task, row=0, tiger=False, filter_seen=False):
    """Answers all users by `serving`."""
    source, vocabulary = make(task, row, tiger=tiger)
    return search(source, vocabulary, filter_seen)


def search(source, vocabulary, filter_seen=False):
    windows = sequences.heldout_windows(INTER, "test", most=MOST)
    users = None
    if source.tables.users.shape[0]:
        users = vocabulary.user_tokens(INTER.user_ids)
    queries = serving.Queries(INTER.items, INTER.indptr[:-1], windows, users)
    settings = serving.Settings(
        num_beams=BEAMS, top_k=BEAMS, batch_size=8, filter_seen=filter_seen
    )
    asked = serving.Searcher(source, settings, partition.make_engine("jit"))
    found = {}
    for batch, answers in asked.answers(queries, asked.plan(queries)):
        for row, items, scores in zip(
            batch.rows[batch.counted], answers.items, answers.scores, strict=True
        ):
            found[int(row)] = items[items >= 0].tolist(), scores[items >= 0].tolist()
    return [found[user] for user in range(USERS)]


def queries(filter_seen=False, top_k=BEAMS):
    """The histories before each user's last item."""
    return [
        Query(name, tuple(INTER.history(u)[:-1].tolist()), top_k, filter_seen)
        for u, name in enumerate(INTER.user_ids)
    ]


def assert_same(answer, wanted):
    """Scores are equal but for rounding; items whose scores are may change places."""
    items, scores = wanted
    assert len(answer.items) == len(items)
    np.testing.assert_allclose(answer.scores, scores, rtol=1e-5, atol=1e-6)
    known = dict(zip(items, scores, strict=True))
    for item, score in zip(answer.items, answer.scores, strict=True):
        np.testing.assert_allclose(score, known[item], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("task", "row", "tiger", "buckets"),
    [
        ("seqrec", 0, False, (6, 12)),
        ("fgfusionseqrec", 1, False, (24,)),
        ("seqrec", 0, True, (12,)),
    ],
)
def test_answers_are_those_of_the_search_in_process(
    tmp_path, task, row, tiger, buckets
):
    export(tmp_path / "a", task, row, buckets=buckets, tiger=tiger)
    asked = load(tmp_path / "a", (1, 4) if len(buckets) > 1 else (4,))
    assert asked.accepted.requires_user == tiger
    for filter_seen in (False, True):
        wanted = in_process(task, row, tiger, filter_seen)
        given = queries(filter_seen)
        if filter_seen:
            for query, (items, _) in zip(given, wanted, strict=True):
                assert not set(items) & set(query.items)
        assert {asked.bucket(query) for query in given} == set(buckets)
        for size in (1, 2, 3, 7, USERS):
            for first in range(0, USERS, size):
                part = asked.answer(given[first : first + size])
                for answer, one in zip(part, wanted[first:], strict=False):
                    assert_same(answer, one)


def test_options_of_one_query_do_not_touch_another(folder):
    plain, filtered = (in_process("seqrec", filter_seen=s) for s in (False, True))
    mixed = [
        query._replace(filter_seen=u % 2 == 0, top_k=1 + u % 7)
        for u, query in enumerate(queries())
    ]
    for user, answer in enumerate(load(folder).answer(mixed)):
        items, scores = (plain if user % 2 else filtered)[user]
        count = 1 + user % 7
        assert_same(
            answer._replace(items=answer.items), (items[:count], scores[:count])
        )


def test_no_code_of_the_model_is_imported(folder, run_python):
    code = f"""
import sys
import rfrec
from rfrec.serving.requests import Query
asked = rfrec.Recommender({str(folder)!r}, batch_sizes=(1,), max_items=8)
print(asked.answer([Query("u", (1, 2), 3, False)])[0].items)
used = {{"flax", "optax", "orbax", "rfrec.retrieval.t5", "rfrec.retrieval.beam"}}
print(sorted(used & sys.modules.keys()))
"""
    items, modules = run_python(code, devices=1).stdout.splitlines()
    wanted = load(folder).answer([Query("u", (1, 2), 3, False)])[0].items
    assert items == str(wanted)
    assert modules == "[]"


def grown_catalogue(removed, added, seed=5):
    """The text catalogue with rows removed and added."""
    old = codes(0)
    free = {tuple(c) for c in np.ndindex(*SIZES)} - {tuple(c) for c in old.tolist()}
    drawn = np.random.default_rng(seed).permutation(sorted(free))[:added]
    table = np.concatenate([old, drawn]).astype(np.int32)
    alive = np.delete(np.arange(len(table)), removed)
    built = trie.build(table[alive], SIZES, items=alive, num_items=len(table))
    stored = catalogue.Stored("x.npz", "0" * 64)
    manifest = catalogue.Manifest(
        version=2,
        name="toy",
        modality="text",
        items=len(table),
        removed=len(removed),
        sizes=SIZES,
        encoder=catalogue.EncoderRecord(None, ("text",), (4,), (1.0,), "0" * 64),
        tokenizer=catalogue.TokenizerRecord("runs/rqvae", 3, "0" * 64),
        codes=stored,
        trie=stored,
        t5=NONE,
    )
    return catalogue.Catalogue(manifest, table, np.asarray(removed, np.int32), built)


def test_a_grown_catalogue_takes_the_place_of_the_exported(folder):
    grown = grown_catalogue([3, 8], 5)
    asked = load(folder, catalogue=grown)
    source, vocabulary = make("seqrec")
    tables = tasks.tables(
        vocabulary, ("seqrec",), {"text": grown.codes, "image": codes(1)}, INTER
    )
    fresh = serving.Source(
        source.arch, source.params, grown.trie, source.tokens, tables, 0
    )
    wanted, listed = search(fresh, vocabulary), set()
    for answer, one in zip(asked.answer(queries()), wanted, strict=True):
        assert_same(answer, one)
        listed |= set(answer.items)
    assert listed & set(range(ITEMS, ITEMS + 5))
    assert not listed & {3, 8}
    # Histories name new and removed items.
    assert {"3", "44"} <= asked.accepted.rows.keys()
    assert len(asked.answer([Query("u", (3, 44), 5, False)])[0].items) == 5


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"t5": None}, "is not bound to a T5 yet"),
        ({"t5": NONE._replace(weights="x" * 64)}, "weights wwwwwwwwwwww"),
        ({"modality": "image"}, "catalogue has image codes"),
    ],
)
def test_a_catalogue_of_another_model_is_refused(folder, change, told):
    grown = grown_catalogue([], 2)
    grown = grown._replace(manifest=grown.manifest._replace(**change))
    with pytest.raises(UserError, match=told):
        load(folder, catalogue=grown)


def test_a_catalogue_that_exceeds_the_capacity_is_refused(folder):
    with pytest.raises(UserError, match="catalogue: 64 rows.* capacity for 56"):
        load(folder, catalogue=grown_catalogue([], 24))
    twins = grown_catalogue([], 2)
    built = trie_edit.add(twins.trie, twins.codes[:1], np.array([42]))
    with pytest.raises(UserError, match="2 items of one code tuple"):
        capacity.check_fits(artefact.read_manifest(folder).capacity, built, "cat")
    other = trie.build(codes(0), (4, 4, 8))
    with pytest.raises(UserError, match=r"sizes \(4, 4, 8\)"):
        capacity.check_fits(artefact.read_manifest(folder).capacity, other, "cat")


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("items", [1, 17, 300])
def test_the_planned_capacity_fits_the_trie_and_more_items(share, items):
    sizes = (3, 300, 40)
    keys = np.random.default_rng(items).choice(np.prod(sizes), items, replace=False)
    built = trie.build(np.stack(np.unravel_index(keys, sizes), 1), sizes)
    made = capacity.plan_capacity(built, share)
    capacity.check_fits(made, built, "x")
    assert made.items >= items * (1 + share)
    assert all(a <= b for a, b in zip(built.num_nodes, made.nodes[1:], strict=True))


def test_another_platform_is_refused(folder, tmp_path):
    read = artefact.read(folder)
    read = read._replace(manifest=read.manifest._replace(platforms=("rocm",)))
    with pytest.raises(UserError, match="was exported for rocm"):
        Recommender(read)


def test_what_is_read_is_what_was_written(folder):
    read, (source, vocabulary) = artefact.read(folder), make("seqrec")
    assert read.parts.vocabulary == vocabulary
    for name, value in serving_export.flat_weights(source.params).items():
        np.testing.assert_array_equal(read.parts.weights[name], value)
    assert not [path for path in folder.parent.iterdir() if path != folder]
    names = {path.name for path in folder.iterdir()}
    assert names == {*read.manifest.files, "manifest.json"}


def copied(folder, place):
    place.mkdir()
    for path in folder.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    return place


@pytest.mark.parametrize(
    "name",
    [
        *("weights.safetensors", "trie.npz", "task.npz", "vocab.json"),
        *("search_6.hlo", "items.json"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_by_name(folder, tmp_path, name):
    place = copied(folder, tmp_path / "a")
    whole = (place / name).read_bytes()
    (place / name).write_bytes(whole[:-1])
    with pytest.raises(
        UserError, match=rf"{name} has \d+ bytes, but manifest.json states"
    ):
        artefact.read(place)
    (place / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=rf"{name} \(sha256 .* it was replaced"):
        artefact.read(place)
    (place / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: cannot be read: No such file"):
        artefact.read(place)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m | {"format": "rfrec search 9"}, "its format is 'rfrec search 9'"),
        (lambda m: {"format": m["format"]}, "is damaged: it lacks"),
        (lambda m: m | {"beams": "20"}, "is damaged: beams holds '20'"),
        (lambda m: m | {"buckets": [[6, "x"]]}, "is damaged: buckets holds"),
        (lambda m: [m], "its format is None"),
    ],
)
def test_a_damaged_manifest_is_told(folder, tmp_path, change, told):
    place = copied(folder, tmp_path / "a")
    content = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps(change(content)))
    with pytest.raises(UserError, match=told):
        artefact.read(place)
    (place / "manifest.json").write_text(json.dumps(content)[:-9])
    with pytest.raises(UserError, match="is not valid JSON"):
        artefact.read(place)
    with pytest.raises(UserError, match="made by rfrec.launch.export"):
        artefact.read(tmp_path / "nothing")


def test_nothing_is_overwritten_and_nothing_left_half(folder, tmp_path, monkeypatch):
    read = artefact.read(folder)
    with pytest.raises(UserError, match="already exists"):
        artefact.write(folder, read.parts, read.manifest)
    assert artefact.read(folder).manifest == read.manifest

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artefact.trie_file, "save", full)
    with pytest.raises(UserError, match="No space left on device"):
        artefact.write(tmp_path / "new", read.parts, read.manifest)
    assert not list(tmp_path.iterdir())


def test_recommend_returns_arrays_of_item_ids(folder):
    loaded = load(folder)
    histories = [INTER.history(user)[:-1] for user in range(3)]
    items, scores = loaded.recommend(histories, k=7)
    assert items.shape == scores.shape == (3, 7)
    for row, (known, values) in enumerate(in_process("seqrec")[:3]):
        answer = requests.Answer(tuple(items[row].tolist()), tuple(scores[row]))
        assert_same(answer, (known[:7], values[:7]))
    named = load(artefact.read(folder))
    named.item_ids = tuple(f"i{row}" for row in range(ITEMS))
    ids, _ = named.recommend(histories, k=7)
    assert ids.tolist() == [[f"i{item}" for item in row] for row in items.tolist()]


def test_allow_and_deny_restrict_the_list_to_the_other_items(folder):
    loaded = load(folder)
    full, scores = loaded.recommend([[1, 2]], k=BEAMS)
    ranked = [item for item in full[0].tolist() if item not in (2, full[0, 0])]
    denied, _ = loaded.recommend([[1, 2]], k=BEAMS, deny=[int(full[0, 0]), 2])
    assert not {2, int(full[0, 0])} & set(denied[0].tolist())
    # Removing items lets others in; the order of the rest does not change.
    kept = [item for item in denied[0].tolist() if item in ranked]
    assert kept == ranked
    wanted = set(ranked[:3])
    allowed, scores = loaded.recommend(
        [[1, 2]], k=5, allow=sorted(wanted), deny=[ranked[1]]
    )
    assert allowed[0].tolist() == [ranked[0], ranked[2], -1, -1, -1]
    assert scores[0, 2] == np.float32(-1e9)
    # The next call is not affected.
    assert loaded.recommend([[1, 2]], k=BEAMS)[0].tolist() == full.tolist()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"histories": [[]]}, "items is empty"),
        ({"histories": [[999]]}, "item 999 is not one of"),
        ({"k": 21}, "k=21: must be from 1 to 20"),
        ({"deny": ["x"]}, "item 'x' is not in the catalogue"),
    ],
)
def test_invalid_arguments_are_refused(folder, changes, text):
    with pytest.raises(UserError, match=text):
        load(folder).recommend(**({"histories": [[1]]} | changes))


def test_the_repr_states_task_and_limits(folder):
    assert repr(Recommender.load(folder)) == (
        "Recommender(task='seqrec', items=40, max_history=12, max_k=20)"
    )
