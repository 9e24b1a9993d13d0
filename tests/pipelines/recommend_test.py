# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The main that recommends: lists, metrics, histories, filters, ensembles, restarts."""

import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfrec.codes import table, trie
from rfrec.config import UserError
from rfrec.data import sequences
from rfrec.data.interactions import write_inter_json
from rfrec.data.synthetic import histories
from rfrec.evaluation import metrics, predictions, report, significance
from rfrec.launch import recommend as command
from rfrec.pipelines import (
    coded_histories,
    recommend,
    retriever,
    saved_lists,
    systems,
)
from rfrec.retrieval import batches, beam, constraint, corpus, ensemble, search, tasks
from tests.support.commands import load_module
from tests.support.runs import write_t5_run

ROOT = Path(__file__).parents[2]
ITEMS, USERS = 50, 60
# Wide enough for every item: no list depends on what the search drops.
WIDE = {
    "search.beams": 60,
    "search.top_k": 60,
    "search.batch_size": 32,
    "eval.resamples": 50,
}
RUN = {
    "data.source": "folder",
    "data.names": ("toy",),
    "task.names": ("seqrec", "seqimage", "item2image"),
    "model.d_model": 16,
    "model.d_ff": 16,
    "model.num_heads": 2,
    "train.buckets": (),
}


def unique_codes(seed):
    """So few codes that the tries of all seeds share one compiled program."""
    keys = np.random.default_rng(seed).choice(128, ITEMS, replace=False)
    return np.stack(np.unravel_index(keys, (4, 4, 8)), axis=1)


def with_twins(seed):
    """Two items share one code tuple."""
    codes = unique_codes(seed)
    codes[3] = codes[7]
    return codes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data: histories and the codes of two modalities."""
    root = tmp_path_factory.mktemp("data")
    inter = histories(USERS, num_items=ITEMS, num_clusters=2, seed=0)
    write_inter_json(inter, root / "toy.inter.json")
    table.write_index(root / "toy.index_lemb.json", with_twins(0))
    table.write_index(root / "toy.index_vitemb.json", with_twins(1), modality="image")
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """The folder of a run, as training leaves it but for its length.

    Its weights are fresh, and sharper than at the start, so that scores differ.
    """
    workdir = tmp_path_factory.mktemp("run") / "t5"
    config = load_module("t5").get_config("smoke")
    config.update_from_flattened_dict(RUN | {"data.path": str(folder)})
    write_t5_run(config, workdir, steps={4: 0.5, 8: 0.3})
    return workdir


def make_config(place, variant="", **overrides):
    config = load_module("recommend").get_config(variant)
    values = {"run": str(place), **WIDE, **overrides}
    config.update_from_flattened_dict(values)
    return config


@pytest.fixture(scope="module")
def evaluated(run, tmp_path_factory):
    """The folder of an ensemble's evaluation."""
    workdir = tmp_path_factory.mktemp("evaluated") / "out"
    command.main(make_config(run, "ensemble"), workdir)
    return workdir


def load_systems(config):
    return recommend.load_systems(recommend.check(config, evaluation=True))


def read_lists(workdir, name="predictions.jsonl"):
    return predictions.read(workdir / name)[1]


def read_report(workdir):
    return json.loads((workdir / "report.json").read_text())


def targets(inter, which="test"):
    return inter.items[inter.indptr[1:] - (1 if which == "test" else 2)]


def load_data(run):
    model = retriever.read_model(run, "last")
    data = coded_histories.load(model.options.data, ("text", "image"), seed=0)
    return model.options, data


@pytest.mark.parametrize("variant", load_module("recommend").VARIANTS)
def test_every_variant_passes_its_checks(variant):
    config = make_config("somewhere", variant)
    recommend.check(config, evaluation=True)
    assert config.is_locked
    config.rf.sampling_steps = 1
    assert (variant or "(default)") in str(load_module("recommend").__doc__)


def test_lists_are_those_of_a_search_by_hand(run, evaluated):
    name, task = "text", "seqrec"
    options, data = load_data(run)
    model = retriever.read_model(run, "ndcg@10")
    built = trie.build(data.codes[name], model.vocabulary.sizes(name))
    index = constraint.make_index(built, model.vocabulary.code_tokens(name))
    windows = sequences.heldout_windows(data.inter, "test", most=20)
    tables = tasks.tables(model.vocabulary, (task,), data.codes, data.inter)
    batch = batches.batch(tables, tasks.window_examples(windows), 20)
    found = jax.jit(beam.search, static_argnums=3)(
        model.params,
        batch.tokens,
        jax.tree.map(jnp.asarray, index),
        beam.settings(model.arch, built, num_beams=60),
    )
    lists = read_lists(evaluated, f"predictions.{name}.jsonl")
    wanted = [[i for i in row.ravel() if i >= 0] for row in np.asarray(found.items)]
    assert options.data.max_history == 20
    assert [len(row) for row in wanted] == [ITEMS] * USERS
    scores = np.asarray(found.scores)
    for user in range(USERS):
        # Scores that are equal but for rounding may change places.
        pairs = zip(scores[user], np.asarray(found.items)[user], strict=True)
        known = {item: s for s, items in pairs for item in items if item >= 0}
        listed = [known[item] for item in lists.items[user]]
        np.testing.assert_allclose(lists.scores[user], listed, atol=1e-5)
        assert (np.diff(lists.scores[user]) <= 0).all()


@pytest.mark.parametrize("name", ["text", "image", "ensemble"])
def test_metrics_are_those_of_the_predictions(run, evaluated, name):
    _, data = load_data(run)
    file = "predictions.jsonl" if name == "ensemble" else f"predictions.{name}.jsonl"
    lists, truth = read_lists(evaluated, file), targets(data.inter)
    told = read_report(evaluated)["lists"][name]
    means = report.means(metrics.match(lists.items, truth))
    for metric, value in means.items():
        cell = told["by_item"]["metrics"]["all"][metric]
        np.testing.assert_allclose(cell["mean"], value)
        assert cell["low"] <= cell["mean"] <= cell["high"]
    row = told["by_item"]["metrics"]["all"]
    assert row["recall@10"] == row["hr@10"]
    assert told["by_item"]["coverage@10"] > 0.1
    assert told["by_item"]["diversity@10"]["distance"] == "codes"
    # By code, an item counts as any other with its codes: the first is written.
    codes = data.codes["image" if name == "image" else "text"]
    numbers = np.unique(codes, axis=0, return_inverse=True)[1].ravel()
    for user, items in enumerate(lists.items):
        ranked = list(dict.fromkeys(numbers[items].tolist()))
        assert len(ranked) == len(np.unique(numbers))
        lists.items[user, : len(ranked)] = ranked
        lists.items[user, len(ranked) :] = -1
    means = report.means(metrics.match(lists.items, numbers[truth]))
    for metric, value in means.items():
        cell = told["by_code"]["metrics"]["all"][metric]
        np.testing.assert_allclose(cell["mean"], value)
    groups = told["by_code"]["metrics"]
    assert groups["cold"]["users"] + groups["popular"]["users"] <= USERS


def test_a_report_tells_where_it_comes_from(run, evaluated):
    told = read_report(evaluated)
    assert (told["main"], told["which"]) == ("recommend", "test")
    assert (told["users"], told["items"], told["seed"]) == (USERS, ITEMS, 0)
    assert told["data"] == {"names": ["toy"], "sha256": load_data(run)[1].fingerprint}
    assert told["config"] == json.loads((evaluated / "config.json").read_text())
    assert "text codes are not unique" in told["warnings"][0]
    for name, task in (("text", "seqrec"), ("image", "seqimage")):
        one = told["lists"][name]
        assert (one["task"], one["target"]) == (task, name)
        assert one["step"] == 4
        assert one["trained_on_these_data"] is True
        assert one["users_per_second"] == pytest.approx(USERS / one["seconds"])


def test_an_ensemble_is_merged_and_compared_with_its_parts(run, evaluated):
    parts = {
        name: read_lists(evaluated, f"predictions.{name}.jsonl")
        for name in ("text", "image")
    }
    merged = ensemble.mql4grec(parts["text"], parts["image"], keep=60)
    lists = read_lists(evaluated)
    np.testing.assert_array_equal(lists.items, merged.items[:, :ITEMS])
    np.testing.assert_allclose(lists.scores, merged.scores[:, :ITEMS], rtol=1e-5)
    told = read_report(evaluated)["lists"]["ensemble"]
    assert (told["method"], told["alpha"], told["choice"]) == ("mql4grec", None, None)
    truth = targets(load_data(run)[1].inter)
    for name, part in parts.items():
        values = [
            metrics.per_user(metrics.match(one.items, truth), ("ndcg@10",))["ndcg@10"]
            for one in (lists, part)
        ]
        wanted = significance.difference(*values, resamples=50)._asdict()
        assert told["minus"][name]["ndcg@10"] == wanted


def test_a_weight_is_chosen_on_validation_lists(run, tmp_path):
    changes = {"ensemble.method": "weighted", "ensemble.users": 0}
    command.main(make_config(run, **changes), tmp_path / "test")
    command.main(make_config(run, "ensemble", which="valid"), tmp_path / "valid")
    text, image = (
        read_lists(tmp_path / "valid", f"predictions.{name}.jsonl")
        for name in ("text", "image")
    )
    inter = load_data(run)[1].inter
    choice = ensemble.choose_alpha(text, image, targets(inter, "valid"), keep=60)
    told = read_report(tmp_path / "test")["lists"]["ensemble"]
    assert told["alpha"] == choice.alpha == told["choice"]["alpha"]
    np.testing.assert_allclose(told["choice"]["values"], choice.values)
    assert read_report(tmp_path / "valid")["which"] == "valid"
    fixed = changes | {"ensemble.alpha": choice.alpha}
    command.main(make_config(run, "", **fixed), tmp_path / "fixed")
    np.testing.assert_array_equal(
        read_lists(tmp_path / "fixed").items, read_lists(tmp_path / "test").items
    )
    assert not list((tmp_path / "fixed" / "lists").glob("alpha*"))


def test_two_runs_make_the_ensemble_of_one(run, evaluated, tmp_path):
    shutil.copytree(run, tmp_path / "other")
    config = make_config(
        run,
        "ensemble",
        **{"ensemble.run": str(tmp_path / "other"), "ensemble.task": "seqimage"},
    )
    command.main(config, tmp_path / "out")
    both = [folder / "predictions.jsonl" for folder in (tmp_path / "out", evaluated)]
    assert both[0].read_bytes() == both[1].read_bytes()


def jsonl(inter, end=1):
    """Histories without their last item, one a line."""
    rows = [inter.history(user)[:-end].tolist() for user in range(inter.num_users)]
    pairs = zip(inter.user_ids, rows, strict=True)
    return [json.dumps({"user": user, "items": row}) for user, row in pairs]


def test_given_histories_get_the_lists_of_the_same_users(
    run, evaluated, tmp_path, capsys, monkeypatch
):
    inter = load_data(run)[1].inter
    lines = jsonl(inter)
    place = tmp_path / "histories.jsonl"
    place.write_text("\n".join(lines))
    command.main(make_config(run), None, str(place))
    told = capsys.readouterr().out
    wanted = (evaluated / "predictions.text.jsonl").read_text()
    assert told == wanted
    monkeypatch.setattr(sys, "stdin", io.StringIO(place.read_text()))
    command.main(make_config(run), None, "-")
    assert capsys.readouterr().out == wanted
    whole = {json.loads(line)["user"]: json.loads(line)["items"] for line in lines}
    place.write_text(json.dumps(whole, indent=1))
    command.main(make_config(run, "ensemble"), tmp_path / "out", str(place))
    answers = tmp_path / "out" / "answers.jsonl"
    assert answers.read_bytes() == (evaluated / "predictions.jsonl").read_bytes()
    place.write_text(json.dumps(whole | {"0": [1]}))
    with pytest.raises(UserError, match="for other histories: use another --workdir"):
        command.main(make_config(run, "ensemble"), tmp_path / "out", str(place))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"user": "a", "items": [1]}\n{"user": "b", "items": [2, 77]}',
            "line 2: user 'b': item 77 is not one of the 50 items",
        ),
        ('\n{"user": "a", "items": []}', "line 2: user 'a': items is empty"),
        ('{"a": [1], "b": [true]}', "line 1: user 'b': item True: must be"),
        ('{"user": "a", "items": [1]}\n{"user": "a", "it', "line 2: is not .*Unterm"),
        ("[1, 2]", "line 1: is not .*no object"),
        ('{"user": "a", "items": 3}', "line 1: user 'a': items must be a list"),
        ("", "contains no history"),
    ],
)  # fmt: skip
def test_bad_histories_are_one_line(run, tmp_path, text, message):
    place = tmp_path / "h.jsonl"
    place.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        command.main(make_config(run), tmp_path / "out", str(place))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_filters_take_items_out_and_change_nothing_else(run, evaluated, tmp_path):
    inter = load_data(run)[1].inter
    base = read_lists(evaluated, "predictions.text.jsonl")
    denied, allowed = {3, 11, 40}, set(range(45))
    (tmp_path / "deny").write_text("3\n11\n\n40\n")
    (tmp_path / "allow").write_text("\n".join(map(str, allowed)))
    changes = {
        "filter.seen": True,
        "filter.deny": str(tmp_path / "deny"),
        "filter.allow": str(tmp_path / "allow"),
    }
    command.main(make_config(run, **changes), tmp_path / "out")
    found = read_lists(tmp_path / "out")
    for user in range(USERS):
        seen = set(inter.history(user)[:-1].tolist())
        order = base.items[user].tolist()
        wanted = [i for i in order if i in allowed - denied - seen]
        kept = found.items[user][found.items[user] >= 0].tolist()
        # Twins share a score, so their order says nothing; elsewhere rounding might.
        assert set(kept) == set(wanted)
        scores = dict(zip(order, base.scores[user], strict=True))
        np.testing.assert_allclose(
            found.scores[user][: len(kept)], [scores[i] for i in kept], atol=1e-5
        )


def test_drawn_lists_are_the_same_for_the_same_seed(run, tmp_path):
    changes = {"search.method": "sample", "search.temperature": 2.0}
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        command.main(make_config(run, **changes, seed=seed), tmp_path / name)
    a, b, c = ((tmp_path / n / "predictions.jsonl").read_bytes() for n in "abc")
    assert a == b != c
    for row in read_lists(tmp_path / "a").items:
        items = row[row >= 0]
        assert 1 < len(items) == len(set(items.tolist()))


def test_an_interrupted_evaluation_goes_on_where_it_stopped(
    run, evaluated, tmp_path, monkeypatch
):
    monkeypatch.setattr(saved_lists, "_PART", 8)
    write, written = saved_lists._write, []

    def once(path, key, part):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, key, part)

    monkeypatch.setattr(saved_lists, "_write", once)
    with pytest.raises(KeyboardInterrupt):
        command.main(make_config(run, "ensemble"), tmp_path)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"config.json", "test.text.00000.npz"}
    before = written[0].read_bytes()
    monkeypatch.setattr(saved_lists, "_write", write)
    command.main(make_config(run, "ensemble"), tmp_path)
    assert written[0].read_bytes() == before
    for name in ("predictions.jsonl", "predictions.text.jsonl"):
        assert (tmp_path / name).read_bytes() == (evaluated / name).read_bytes()
    told = read_report(tmp_path)
    assert told["lists"]["text"]["users_per_second"] > 0
    # Once more, everything is there: no search is made and the report is the same.
    monkeypatch.setattr(search.Searcher, "answers", None)
    command.main(make_config(run, "ensemble"), tmp_path)
    assert read_report(tmp_path) == told
    monkeypatch.setattr(saved_lists, "_PART", 99)
    with pytest.raises(UserError, match="made of other batches: remove it"):
        command.main(make_config(run, "ensemble"), tmp_path)
    written[0].write_bytes(before[:-40])
    with pytest.raises(UserError, match=r"text\.00000\.npz is damaged .*: remove it"):
        command.main(make_config(run, "ensemble"), tmp_path)


@pytest.mark.slow
def test_a_killed_evaluation_leaves_nothing_half_written(
    run, evaluated, tmp_path, monkeypatch
):
    code = (
        "from rfrec.launch import cli, recommend\n"
        "from rfrec.pipelines import saved_lists\n"
        "import time\n"
        "saved_lists._PART = 32\n"
        "write = saved_lists._write\n"
        "def slow(*args):\n    write(*args)\n    time.sleep(60)\n"
        "saved_lists._write = slow\n"
        "cli.config_main(recommend.main, 'recommend', variant='ensemble')\n"
    )
    flags = [f"--config.{key}={value}" for key, value in WIDE.items()]
    args = [sys.executable, "-c", code, f"--config.run={run}", *flags]
    process = subprocess.Popen(
        [*args, f"--workdir={tmp_path / 'out'}"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    part, until = tmp_path / "out/lists/test.text.00000.npz", time.monotonic() + 200
    while not part.exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out/report.json").exists()
    assert not (tmp_path / "out/predictions.jsonl").exists()
    monkeypatch.setattr(saved_lists, "_PART", 32)
    command.main(make_config(run, "ensemble"), tmp_path / "out")
    both = [folder / "predictions.jsonl" for folder in (tmp_path / "out", evaluated)]
    assert both[0].read_bytes() == both[1].read_bytes()


def test_another_config_in_the_same_folder_is_refused(run, evaluated):
    with pytest.raises(UserError, match=r"differs in which"):
        command.main(make_config(run, "ensemble", which="valid"), evaluated)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": None}, "config.run is required"),
        ({"run": "/nowhere"}, "/nowhere/config.json does not exist"),
        ({"search.top_k": 5}, "top_k=5: an evaluation needs at least 10"),
        ({"search.top_p": 0.0}, "search.top_p=0.0: must be above 0"),
        ({"search.top_p": 0.5}, "method=beam cannot be combined with search.top_p"),
        ({"ensemble.alpha": 0.5}, "ensemble.alpha cannot be combined with"),
        ({"ensemble.task": "seqimage"}, "ensemble.method=none cannot be combined with"),
        ({"task": "item2image"}, "not trained to continue histories by it; use one of"),
        ({"task": "seqitem2image"}, "use one of seqrec, seqimage"),
        ({"task": "seqrec:image"}, "seqrec generates no image codes"),
        (
            {"ensemble.method": "reciprocal", "ensemble.task": "seqrec"},
            "both lists are those of seqrec",
        ),
        ({"filter.deny": "/nowhere/x"}, "config.filter.deny=/nowhere/x cannot be"),
        ({"eval.vectors": "/nowhere/v.npy"}, "/nowhere/v.npy: no such file"),
        ({"data.name": "other"}, "no data set 'other'"),
        ({"search.buckets": (8, 4)}, "search.buckets=\\(8, 4\\): must ascend"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_leaves_no_folder(
    run, tmp_path, changes, message
):
    with pytest.raises(UserError, match=message) as error:
        command.main(make_config(run, **changes), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_list_of_unknown_items_is_refused(run, tmp_path):
    (tmp_path / "allow").write_text("1\n999\n")
    changes = {"filter.allow": str(tmp_path / "allow")}
    with pytest.raises(UserError, match="allow, line 2: item '999' is not in the"):
        command.main(make_config(run, **changes), tmp_path / "out")
    (tmp_path / "allow").write_text("\n")
    with pytest.raises(UserError, match="leave no item"):
        command.main(make_config(run, **changes), tmp_path / "out")


def test_an_ensemble_of_given_histories_needs_its_weight(run):
    config = make_config(run, **{"ensemble.method": "weighted"})
    with pytest.raises(UserError, match="config.ensemble.alpha is required"):
        command.main(config, None, "-")
    with pytest.raises(UserError, match="--workdir is required"):
        command.main(config, None)


def more_codes(folder, path):
    codes = unique_codes(0)
    codes[0] = 8
    table.write_index(path, codes)


def fewer_levels(folder, path):
    table.write_index(path, unique_codes(0)[:, :2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (more_codes, r"vocabulary has text codes of sizes \(4, 4, 8\).*\(9, 9, 9\)"),
        (fewer_levels, r"vocabulary has text codes of sizes .* needs \(4, 4\)"),
    ],
)
def test_codes_that_the_model_has_no_tokens_for(run, folder, tmp_path, change, message):
    change(folder, tmp_path / "codes.json")
    changes = {"data.text": str(tmp_path / "codes.json"), "task": "seqrec"}
    with pytest.raises(UserError, match=message) as error:
        command.main(make_config(run, **changes), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_codes_that_changed_under_a_run_are_refused(run, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "data")
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace(str(folder), str(tmp_path / "data")))
    codes = unique_codes(0)
    codes[[1, 2]] = codes[[2, 1]]
    table.write_index(tmp_path / "data" / "toy.index_lemb.json", codes)
    config = make_config(tmp_path / "run")
    with pytest.raises(UserError, match="trained on other histories or codes"):
        load_systems(config)
    # What is named is taken, and whether it is what the model knows is told.
    moved = make_config(tmp_path / "run", **{"data.path": str(folder)})
    (system,) = load_systems(moved)
    np.testing.assert_array_equal(
        system.data.codes["text"][3], system.data.codes["text"][7]
    )


def test_one_of_several_data_sets_is_cut_out():
    parts = [coded_histories.synthetic(20, n, seed=n) for n in (30, 40)]
    named = [part._replace(name=name) for part, name in zip(parts, "ab", strict=True)]
    data = corpus.stack(named)
    for number, part in enumerate(parts):
        found = data.select(number)
        np.testing.assert_array_equal(found.inter.items, part.inter.items)
        np.testing.assert_array_equal(found.inter.indptr, part.inter.indptr)
        assert found.inter.item_ids is None
        assert found.inter.num_items == part.inter.num_items
        assert found.inter.user_ids[0] == f"{'ab'[number]}/0"
        for modality, codes in part.codes.items():
            np.testing.assert_array_equal(found.codes[modality], codes)


@pytest.mark.parametrize(
    ("names", "first", "wanted"),
    [
        (("seqrec", "seqimage"), "seqimage", ("seqrec", "text")),
        (("fgfusionseqrec",), "fgfusionseqrec", ("fgfusionseqrec", "image")),
        (("fusionseqrec",), "fusionseqrec", ("fusionseqrec", "text")),
        (("seqitem2image", "seqimage2item"), None, ("seqimage2item", "text")),
    ],
)
def test_the_other_modality_is_found(names, first, wanted):
    run_config = load_module("t5").get_config()
    run_config.update_from_flattened_dict({"task.names": names})
    options = retriever.check(run_config)
    task = systems.find_task(first, options, "config.task")
    second = systems.find_second_task(None, task, options, "config.ensemble.task")
    assert (second.name, second.target) == wanted
    assert second.target != task.target
    with pytest.raises(UserError, match="config.ensemble.task is required"):
        run_config.task.names = ("seqrec", "item2image")
        options = retriever.check(run_config)
        task = systems.find_task("seqrec", options, "config.task")
        systems.find_second_task(None, task, options, "config.ensemble.task")


@pytest.mark.multidevice
def test_devices_share_the_users(run, evaluated, tmp_path, run_python):
    args = ["-m", "rfrec.launch.recommend", f"--workdir={tmp_path}"]
    args += [f"--config.{key}={value}" for key, value in WIDE.items()]
    run_python([*args, f"--config.run={run}"], devices=4)
    assert read_report(tmp_path)["device"].endswith("x 4")
    wanted = read_lists(evaluated, "predictions.text.jsonl")
    np.testing.assert_allclose(read_lists(tmp_path).scores, wanted.scores, atol=1e-5)


@pytest.mark.slow
def test_a_mistake_is_one_line_on_the_terminal(run, tmp_path):
    args = [sys.executable, "-m", "rfrec.launch.recommend", f"--config.run={run}"]
    args = [*args, "--histories=-"]
    ask = functools.partial(
        subprocess.run,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
    )
    done = ask(args, input='{"user": "x", "items": [4]}\n{"user": "y", "items": [50]}')
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("rfrec: standard input, line 2: user 'y': item 50 is not")
