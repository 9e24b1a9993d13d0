# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists of a retriever and of a graph recommender on one data set, against loops."""

import json

import jax
import numpy as np
import pytest

from rfrec.config import UserError
from rfrec.evaluation import metrics, predictions
from rfrec.evaluation.ranking import Lists
from rfrec.graph import training
from rfrec.launch import gume
from rfrec.pipelines import finished_graph, hybrid, saved_lists
from tests.support.commands import load_config

ITEMS, USERS = 60, 70


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The folder of a LightGCN."""
    made = {
        "data.num_items": ITEMS,
        "data.num_users": USERS,
        "model.name": "lightgcn",
        "model.width": 8,
        "train.epochs": 4,
        "train.eval_every": 2,
        "eval.resamples": 20,
    }
    workdir = tmp_path_factory.mktemp("fuse") / "lightgcn"
    gume.main(load_config("gume", "smoke", **made), workdir)
    return workdir


@pytest.fixture(scope="module")
def given(graph, tmp_path_factory):
    """Files of a retriever that lists 15 items, the target among them for a third."""
    folder, rng = tmp_path_factory.mktemp("lists"), np.random.default_rng(0)
    split = finished_graph.open_run(graph).data.split
    for part in ("valid", "test"):
        targets = getattr(split, part).items
        items = np.stack([rng.permutation(split.num_items)[:15] for _ in targets])
        for user in range(0, len(targets), 3):
            rest = items[user][items[user] != targets[user]][:14]
            items[user] = np.insert(rest, rng.integers(0, 6), targets[user])
        scores = -np.sort(rng.random(items.shape), axis=1)
        lists = Lists(items.astype(np.int32), scores.astype(np.float32))
        order = rng.permutation(len(items))
        predictions.write(
            folder / f"{part}.jsonl",
            [split.user_ids[i] for i in order],
            Lists(lists.items[order], lists.scores[order]),
            split.item_ids,
        )
    return folder


def make_config(graph, given, **overrides):
    made = {
        "graph": str(graph),
        "lists.valid": str(given / "valid.jsonl"),
        "lists.test": str(given / "test.jsonl"),
        "candidates": 20,
        "top_k": 12,
        "eval.resamples": 20,
    }
    return load_config("fuse", **(made | overrides))


@pytest.fixture(scope="module")
def fused(graph, given, tmp_path_factory):
    """The folder of a run, the graph recommender's own test lists beside it."""
    workdir = tmp_path_factory.mktemp("fused") / "run"
    hybrid.run(make_config(graph, given, beside=(str(graph),)), workdir)
    return workdir


@pytest.fixture(scope="module")
def oracle(graph):
    """All scores of the graph recommender, and the split."""
    found = finished_graph.open_run(graph)
    run = training.Run(found.trainer)
    encoded = jax.device_get(run.encode(found.state, {}))
    return encoded.users @ encoded.items.T, found.data.split


def read(folder, name, split):
    users, lists = predictions.read(
        folder / f"predictions.{name}.jsonl", split.item_ids
    )
    assert users == split.user_ids
    return lists


def rows_of(positives):
    return [
        set(positives.items[a:b].tolist())
        for a, b in zip(positives.indptr[:-1], positives.indptr[1:], strict=True)
    ]


def test_the_graph_ranks_all_that_came_not_before(fused, oracle):
    scores, split = oracle
    lists = read(fused, "graph", split)
    train, valid = rows_of(split.train), rows_of(split.valid)
    for user, row in enumerate(lists.items):
        seen = train[user] | valid[user]
        order = [i for i in np.argsort(-scores[user], kind="stable") if i not in seen]
        np.testing.assert_allclose(
            scores[user, row], scores[user, order[:12]], rtol=1e-5, atol=1e-6
        )
        assert not seen & set(row.tolist())


def test_two_stages_sort_the_candidates_by_the_graph(fused, given, oracle):
    scores, split = oracle
    lists = read(fused, "rescored", split)
    candidates = saved_lists.read_lists(str(given / "test.jsonl"), split, "key")
    for user, row in enumerate(lists.items):
        own = candidates.items[user]
        assert set(row.tolist()) <= set(own.tolist())
        best = np.sort(scores[user, own])[::-1][:12]
        np.testing.assert_allclose(scores[user, row], best, rtol=1e-5, atol=1e-6)


def test_weights_are_the_best_on_validation_lists(fused, graph, given, oracle):
    _, split = oracle
    choices = json.loads((fused / "report.json").read_text())["choices"]
    options = hybrid.check(make_config(graph, given))
    opened = hybrid.open_graph(str(graph))
    lists = saved_lists.read_lists(options.lists.valid, split, "key")
    sources = hybrid.rank(options, opened, lists, "valid")
    for name in ("blended", "fused"):
        values = []
        for alpha in choices[name]["alphas"]:
            made = hybrid.merge(sources, {"blended": alpha, "fused": alpha}, 12)[name]
            found = metrics.match(made.items, split.valid.items)
            values.append(metrics.per_user(found, ("ndcg@10",))["ndcg@10"].mean())
        np.testing.assert_allclose(choices[name]["values"], values)
        assert choices[name]["value"] == max(choices[name]["values"])


def test_the_report_holds_every_list_and_what_it_gains(fused, oracle):
    _, split = oracle
    told = json.loads((fused / "report.json").read_text())["lists"]
    assert list(told) == [*hybrid.NAMES, "lightgcn"]
    for name in hybrid.NAMES:
        lists = read(fused, name, split)
        found = metrics.match(lists.items, split.test.items)
        value = metrics.per_user(found, ("ndcg@10",))["ndcg@10"].mean()
        row = told[name]["metrics"]["all"]["ndcg@10"]
        np.testing.assert_allclose(row["mean"], value)
    gain = told["fused"]["minus"]["retriever"]["ndcg@10"]["mean"]
    a, b = (
        told[n]["metrics"]["all"]["ndcg@10"]["mean"] for n in ("fused", "retriever")
    )
    np.testing.assert_allclose(gain, a - b, atol=1e-12)
    assert set(told["retriever"]["minus"]) == {"graph"}


def test_a_list_beside_is_of_the_candidates_of_all_others(fused, graph):
    """The graph recommender's own lists, which had the validation items among them."""
    told = json.loads((fused / "report.json").read_text())["lists"]
    assert told["lightgcn"]["metrics"] == told["graph"]["metrics"]
    opened = hybrid.open_graph(str(graph))
    whole = saved_lists.read_lists(str(graph), opened.split, "key")
    unseen = opened.unseen(whole, "test")
    train, valid = rows_of(opened.split.train), rows_of(opened.split.valid)
    shorter = 0
    for user, row in enumerate(whole.items):
        seen = train[user] | valid[user]
        kept = [
            (i, s)
            for i, s in zip(row, whole.scores[user], strict=True)
            if i >= 0 and i not in seen
        ]
        shorter += len(kept) < (row >= 0).sum()
        count = unseen.valid[user].sum()
        assert not unseen.valid[user, count:].any()
        found = zip(unseen.items[user], unseen.scores[user], strict=True)
        assert list(found)[:count] == kept
    assert shorter > 0


def test_lists_of_other_users_are_refused(graph, given, tmp_path):
    lines = (given / "test.jsonl").read_text().splitlines()
    (tmp_path / "few.jsonl").write_text("\n".join(lines[1:]) + "\n")
    config = make_config(graph, given, **{"lists.test": str(tmp_path / "few.jsonl")})
    with pytest.raises(UserError, match=r"config.lists.test=.* has lists for 69 users"):
        hybrid.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph": None}, "config.graph is required"),
        ({"lists.valid": None}, "config.lists.valid is required"),
        ({"top_k": 5}, "config.top_k"),
        ({"beside": ("runs/fused",)}, "two lists would be named 'fused'"),
        ({"beside": ("a/test", "b/test")}, "two lists would be named 'test'"),
    ],
)
def test_what_is_missing_or_wrong_is_named(graph, given, tmp_path, changes, message):
    config = make_config(graph, given)
    with config.unlocked():
        for key, value in changes.items():
            config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        hybrid.run(config, tmp_path / "run")


def test_a_split_with_many_test_items_is_refused(tmp_path, given):
    made = {
        "data.num_items": ITEMS,
        "data.num_users": USERS,
        "data.split": "random",
        "data.shares": (0.4, 0.3, 0.3),
        "model.name": "lightgcn",
        "model.width": 8,
        "train.epochs": 1,
        "train.eval_every": 1,
        "eval.resamples": 20,
    }
    gume.main(load_config("gume", "smoke", **made), tmp_path / "random")
    config = make_config(tmp_path / "random", given)
    with pytest.raises(UserError, match="does not hold out one item of each user"):
        hybrid.run(config, tmp_path / "run")
